"""The description of a synthetic image, checked: no arrays, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cellseg_pipe.geometry import per_axis
from cellseg_pipe.synth._random import Lattice, reach_px

__all__ = ["Spec"]

KINDS = ("cells", "nuclei")
RANGES = {
    "seed": (0, 2**63 - 1),
    "diameter_px": (6, 2000),
    "anisotropy": (0.2, 20),
    "crowding": (0.05, 2),
    "clustering": (0, 1),
    "elongation": (1, 5),
    "alignment": (0, 10),
    "size_cv": (0, 0.6),
    "mix_share": (0, 1),
    "mix_ratio": (0.3, 4),
    "roughness": (0, 0.3),
    "texture": (0, 1),
    "nucleus_ratio": (0.2, 0.8),
    "membrane": (0, 1),
    "psf_px": (0.1, 20),
    "psf_axial": (0.1, 10),
    "haze": (0, 1),
    "background": (0, 10),
    "photons": (0.1, 1e12),
    "read_noise_photons": (0, 1000),
    "level": (1, 60000),
    "uneven_light": (0, 1),
    "blank_fraction": (0, 1),
    "folds": (0, 1),
}


@dataclass(frozen=True)
class Spec:
    """What a synthetic image shows; the same Spec always gives the same voxels.

    Parameters
    ----------
    shape : tuple of int
        Extent of the image, (y, x) or (z, y, x), in voxels.
    seed : int
        Another seed, another image.
    kind : {"nuclei", "cells"}
        One channel of nuclei, or two: nuclei, cytoplasm.
    diameter_px : float
        Median diameter of the cells (of the nuclei where only they are shown), before neighbours
        cut into them, in in-plane px.
    anisotropy : float
        Step between planes over step in the plane; 1 in 2D.
    crowding : float
        Diameter over distance of lattice sites: 0.3 sparse, 0.8 touching, 1.2 packed.
    clustering : float
        0 spreads cells evenly, 1 leaves islands of cells.
    elongation, alignment : float
        Median ratio of the long axis to the others; how strictly neighbours lie in parallel.
    size_cv, mix_share, mix_ratio : float
        Spread of log diameter; share of cells of a second population, this ratio as large.
    roughness, texture : float
        How far outlines depart from ellipses; contrast of chromatin and cytoplasm.
    nucleus_ratio, membrane : float
        Diameter of nucleus over cell; share of the cytoplasm's light that lies at the rim.
    psf_px, psf_axial : float
        Blur in the plane (Gaussian sigma, in px); blur along z over blur in the plane.
    haze, background : float
        Share of light out of focus; light where no cell is. A median nucleus has 1.
    photons, read_noise_photons : float
        Photons per voxel of a median nucleus, the fewer the noisier; noise of the camera.
    level : float
        Grey levels of a median nucleus above the offset of 100.
    uneven_light : float
        Spread of log illumination over the image.
    blank_fraction, folds : float
        Share of the image without tissue; strength of folds, which are brighter and blurred.
    period_px : tuple of int, optional
        The image repeats with this period without a seam: rendering costs one period only, and
        cells have new ids in each copy. Where the image ends, cells are cut and not sifted.
    block_px : tuple of int, optional
        Blocks rendered at once; boxes on this grid are cheapest. Noise depends on it.
    """

    shape: tuple[int, ...]
    seed: int = 0
    kind: Literal["nuclei", "cells"] = "nuclei"
    diameter_px: float = 24.0
    anisotropy: float = 1.0
    crowding: float = 0.8
    clustering: float = 0.3
    elongation: float = 1.35
    alignment: float = 0.0
    size_cv: float = 0.15
    mix_share: float = 0.0
    mix_ratio: float = 1.0
    roughness: float = 0.1
    texture: float = 0.25
    nucleus_ratio: float = 0.5
    membrane: float = 0.0
    psf_px: float = 1.0
    psf_axial: float = 2.5
    haze: float = 0.15
    background: float = 0.06
    photons: float = 150.0
    read_noise_photons: float = 1.5
    level: float = 2000.0
    uneven_light: float = 0.1
    blank_fraction: float = 0.0
    folds: float = 0.0
    period_px: tuple[int, ...] | None = None
    block_px: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered."""
        for name in ("shape", "period_px", "block_px"):
            _check_extent(self, name)
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"Spec.{name} must lie in {low} to {high}, got {getattr(self, name)}."
                    " Choose a value in that range."
                )
        _check_kind(self)
        _check_period(self)

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    @property
    def n_channels(self) -> int:
        """Number of channels of the image."""
        return 2 if self.kind == "cells" else 1

    @property
    def step_px(self) -> tuple[float, ...]:
        """Edge of a voxel per axis, in in-plane px."""
        return (self.anisotropy, 1.0, 1.0)[-self.ndim :]


def _check_extent(spec: Spec, name: str) -> None:
    given = getattr(spec, name)
    if given is None and name != "shape":
        return
    extent = per_axis(given, len(spec.shape), f"Spec.{name}")
    if len(extent) not in (2, 3) or min(extent) < 1:
        raise ValueError(
            f"Spec.{name} needs 2 or 3 positive numbers, (y, x) or (z, y, x), got {extent}."
            " Give one per axis of the image."
        )
    object.__setattr__(spec, name, extent)  # lists become tuples, so that a Spec can be hashed


def _check_kind(spec: Spec) -> None:
    if spec.kind not in KINDS:
        raise ValueError(
            f"Spec.kind must be one of {KINDS}, got {spec.kind!r}. Choose one of them."
        )
    if spec.ndim == 2 and spec.anisotropy != 1:
        raise ValueError(
            f"Spec.anisotropy must be 1 for a 2D shape, got {spec.anisotropy}."
            " Leave it out, or give a shape (z, y, x)."
        )


def _check_period(spec: Spec) -> None:
    least = tuple(math.ceil(4 * reach_px(spec) / step) for step in spec.step_px)
    if spec.period_px and any(p < n for p, n in zip(spec.period_px, least, strict=True)):
        raise ValueError(
            f"Spec.period_px must be at least {least} for cells of this size, got"
            f" {spec.period_px}. Take a longer period or smaller cells."
        )
    if (n_ids := Lattice.of(spec).n_ids) >= 2**32:
        raise ValueError(
            f"Spec needs fewer than 2**32 lattice sites, as ids are uint32, got {n_ids}."
            " Take a smaller shape, larger cells or less crowding."
        )
