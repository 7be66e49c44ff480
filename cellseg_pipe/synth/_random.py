"""Random numbers, fields and lattices that hang on position and seed alone: arithmetic only."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from cellseg_pipe.geometry import Box

if TYPE_CHECKING:
    from cellseg_pipe.synth._spec import Spec

__all__ = ["SPREAD", "Lattice", "Salt", "reach_px", "tissue_depth", "uniform", "waves"]

SPREAD = 1.6  # normal draws are cut here, so that the reach of a cell is bounded
N_WAVES = 6  # fewer look like stripes, each costs a few ms per Mpx
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Salt(enum.IntEnum):
    """Which of the independent random fields of a seed."""

    SITE = 0
    TEXTURE = 1
    NOISE = 2
    CLUSTER = 3
    BLANK = 4
    LAMP = 5
    GROUND = 6
    FOLD = 7
    CREASE = 8
    ALIGN = 9  # and the next ones, one per axis


def _mix(keys: np.ndarray) -> np.ndarray:
    """Scramble 64-bit keys (the finaliser of splitmix64)."""
    keys = keys ^ (keys >> np.uint64(30))
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    keys ^= keys >> np.uint64(27)
    keys *= np.uint64(0x94D049BB133111EB)
    keys ^= keys >> np.uint64(31)
    return keys


def uniform(seed: int, salt: int, coordinates: Sequence[np.ndarray]) -> np.ndarray:
    """Return a number in [0, 1) for each point, from nothing but seed, salt and coordinates.

    Parameters
    ----------
    seed, salt : int
        Which of many independent random fields.
    coordinates : sequence of int arrays
        One per axis; they broadcast together.

    Returns
    -------
    float64 array
        Of the broadcast shape.
    """
    keys = _mix(np.array([seed], np.uint64) + np.array([salt + 1], np.uint64) * GOLDEN)
    for values in coordinates:
        keys = _mix(keys + values.astype(np.uint64) * GOLDEN)
    return (keys >> np.uint64(11)) * 2.0**-53


def waves(
    spec: Spec, coordinates: Sequence | np.ndarray, *, salt: int, wavelength_px: float
) -> np.ndarray:
    """Return a smooth random field of zero mean and unit variance, with the image's period.

    Parameters
    ----------
    spec : Spec
        The image: its seed, voxel step and period.
    coordinates : sequence of arrays
        Voxel positions, one per axis; they broadcast together.
    salt : int
        Which of many independent fields.
    wavelength_px : float
        Typical distance of two crests, in in-plane px.

    Returns
    -------
    float64 array
        Of the broadcast shape.
    """
    random = np.random.default_rng((spec.seed, salt))
    total: np.ndarray | float = 0.0
    for _ in range(N_WAVES):
        direction = random.normal(size=spec.ndim)
        direction /= np.linalg.norm(direction) * wavelength_px * random.uniform(0.7, 1.4)
        wave = np.exp(2j * math.pi * random.random())
        per_voxel = _with_period(direction * spec.step_px, spec.period_px)
        for turns, position in zip(per_voxel, coordinates, strict=True):
            wave = wave * np.exp(2j * math.pi * turns * position)
        total = total + wave.imag
    return np.asarray(total) * math.sqrt(2 / N_WAVES)


def _with_period(turns: np.ndarray, period_px: tuple[int, ...] | None) -> np.ndarray:
    """Round frequencies (turns per voxel) to whole turns per period, never to none."""
    if period_px is None:
        return turns
    whole = np.rint(turns * period_px)
    return np.where(whole == 0, np.sign(turns), whole) / period_px


def tissue_depth(spec: Spec, coordinates: Sequence | np.ndarray) -> np.ndarray:
    """Return how deep positions lie in tissue: negative on blank glass, without unit.

    Parameters
    ----------
    spec : Spec
        The image.
    coordinates : sequence of arrays
        Voxel positions, one per axis; they broadcast together.

    Returns
    -------
    float64 array
        Of the broadcast shape.
    """
    if not spec.blank_fraction:
        return np.full((1,) * np.ndim(coordinates[0]), math.inf)
    height = waves(spec, coordinates, salt=Salt.BLANK, wavelength_px=20 * spec.diameter_px)
    return height - ndtri(spec.blank_fraction)


def reach_px(spec: Spec) -> float:
    """Return the longest half axis a cell can have, in in-plane px."""
    ratio = max(1.0, spec.mix_ratio if spec.mix_share else 1.0)
    radius = spec.diameter_px / 2 * ratio * math.exp(SPREAD * spec.size_cv)
    stretch = spec.elongation ** ((1 + 0.4 * SPREAD) * (spec.ndim - 1) / spec.ndim)
    return radius * stretch * (1 + spec.roughness * math.sqrt(spec.ndim))


@dataclass(frozen=True)
class Lattice:
    """Where cells can be: one per site, each site with an id.

    Parameters
    ----------
    pitch_px : tuple of float
        Distance of sites per axis, in voxels.
    first, count : tuple of int
        Sites that have ids: first index and number, per axis.
    period : tuple of int or None
        Sites per period.
    copies : tuple of int
        Copies of the period with ids of their own, one margin copy on both sides included.
    """

    pitch_px: tuple[float, ...]
    first: tuple[int, ...]
    count: tuple[int, ...]
    period: tuple[int, ...] | None
    copies: tuple[int, ...]

    @classmethod
    def of(cls, spec: Spec) -> Lattice:
        """Return the lattice of an image; with a period, its pitch is fitted to that."""
        pitch = tuple(spec.diameter_px / spec.crowding / step for step in spec.step_px)
        if spec.period_px is not None:
            counts = tuple(max(1, round(n / p)) for n, p in zip(spec.period_px, pitch, strict=True))
            fitted = tuple(n / c for n, c in zip(spec.period_px, counts, strict=True))
            copies = tuple(-(-n // p) + 2 for n, p in zip(spec.shape, spec.period_px, strict=True))
            return cls(fitted, (0,) * spec.ndim, counts, counts, copies)
        margin = math.ceil(reach_px(spec) * spec.crowding / spec.diameter_px) + 1
        counts = tuple(
            math.ceil(n / p) + 2 * margin for n, p in zip(spec.shape, pitch, strict=True)
        )
        return cls(pitch, (-margin,) * spec.ndim, counts, None, (1,) * spec.ndim)

    @property
    def n_ids(self) -> int:
        """Number of ids, background included."""
        return math.prod(self.count) * math.prod(self.copies) + 1

    def offset(self, copy: Sequence[int]) -> int:
        """Return what to add to the ids of copy 0 to have those of this copy of the period."""
        rank = 0
        for index, extent in zip(copy, self.copies, strict=True):
            rank = rank * extent + index
        return rank * math.prod(self.count)

    def sites(self, box: Box, margin_px: Sequence[float]) -> np.ndarray:
        """Return the sites [n, ndim] whose cells may have their centre near the box."""
        ranges = [
            np.arange(math.floor((a - m) / p), math.ceil((b + m) / p))
            for a, b, m, p in zip(box.start, box.stop, margin_px, self.pitch_px, strict=True)
        ]
        return np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, box.ndim)

    def ids(self, sites: np.ndarray, copy: np.ndarray) -> np.ndarray:
        """Return the id of each site [n, ndim] in its copy [n, ndim] of the period."""
        inside = np.moveaxis(sites - self.first, -1, 0)
        margin = 0 if self.period is None else 1
        ids = np.zeros(len(sites), np.int64)
        for index, extent in zip(np.moveaxis(copy + margin, -1, 0), self.copies, strict=True):
            ids = ids * extent + index
        for index, extent in zip(inside, self.count, strict=True):
            ids = ids * extent + index
        return ids + 1
