"""Synthetic cells drawn from seed and lattice site alone: arithmetic only, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth._random import (
    SPREAD,
    Lattice,
    Salt,
    reach_px,
    tissue_depth,
    uniform,
    waves,
)

if TYPE_CHECKING:
    from cellseg_pipe.synth._spec import Spec

__all__ = ["Cells", "draw_cells"]

JITTER = 0.42  # of a pitch; half a pitch would let two sites coincide
OCCUPIED = 0.94  # of the sites, so that the lattice does not show
CONDENSED = 0.03  # of the cells are dividing or dying: smaller and brighter


@dataclass(frozen=True)
class Cells:
    """Parameters of n cells, one row each; lengths in in-plane px unless they say voxels.

    Parameters
    ----------
    ids : int64 array [n]
        Ids in copy 0 of the period; of use only inside the image.
    anchor, fraction : arrays [n, ndim]
        Centre in voxels, whole and fractional part: periodic copies then agree bit for bit.
    radius_px, brightness : float64 arrays [n]
        Geometric mean of the half axes; light, median 1.
    forms : float32 array [n, 2 ndim, ndim]
        Takes an offset from the centre to coordinates where the cell is the unit ball, and to
        the phases of waves that bend that ball.
    start, stop : int64 arrays [n, ndim]
        Bounding box, in voxels.
    phase : float32 array [n, ndim]
        Of the waves, at the centre.
    nucleus, roundness : float32 arrays [n, ndim]
        Centre of the nucleus in unit coordinates; what makes it rounder than its cell.
    """

    ids: np.ndarray
    anchor: np.ndarray
    fraction: np.ndarray
    radius_px: np.ndarray
    brightness: np.ndarray
    forms: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    phase: np.ndarray
    nucleus: np.ndarray
    roundness: np.ndarray

    def take(self, keep: np.ndarray | int) -> Cells:
        """Return the cells at these rows."""
        return Cells(*(getattr(self, item.name)[keep] for item in fields(self)))


def _occupied(spec: Spec, luck: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Tell which sites have a cell: none in blanks, few between clusters."""
    crests = waves(spec, centres.T, salt=Salt.CLUSTER, wavelength_px=8 * spec.diameter_px)
    share = np.clip(1 + spec.clustering * (1.5 * crests - 0.5), 0.0, 1.0)
    return (luck < OCCUPIED * share) & (tissue_depth(spec, centres.T) >= 0)


def _normal(luck: np.ndarray) -> np.ndarray:
    """Turn uniform numbers into normal ones within the spread."""
    low = ndtr(-SPREAD)
    return ndtri(low + (1 - 2 * low) * luck)


def draw_cells(spec: Spec, box: Box) -> Cells:
    """Draw all cells whose centre lies within four reaches of a box, in order of sites.

    One reach from the box to a cell in it, two to its rival, one to what drops that rival.

    Parameters
    ----------
    spec : Spec
        The image.
    box : Box
        Where, in voxels of the full image; may reach over its borders.

    Returns
    -------
    Cells
        Before any is dropped.
    """
    lattice = Lattice.of(spec)
    sites = lattice.sites(box, [4 * reach_px(spec) / step for step in spec.step_px])
    copy = sites // lattice.period if lattice.period else np.zeros_like(sites)
    home = sites - copy * (lattice.period or 0)
    n_draws = spec.ndim * (2 * spec.ndim + 3) + 6
    luck = uniform(spec.seed, Salt.SITE, [*home.T[..., None], np.arange(n_draws)[None]])
    jitter, luck = np.split(luck, [spec.ndim], axis=1)
    centres = (home + 0.5 + JITTER * (2 * jitter - 1)) * lattice.pitch_px
    here = _occupied(spec, luck[:, 0], centres)
    anchor = np.floor(centres[here]).astype(np.int64)
    return _shape(
        spec,
        luck[here, 1:],
        ids=lattice.ids(home, copy)[here],
        anchor=anchor + copy[here] * (spec.period_px or 0),
        fraction=centres[here] - anchor,
    )


def _shape(
    spec: Spec, luck: np.ndarray, *, ids: np.ndarray, anchor: np.ndarray, fraction: np.ndarray
) -> Cells:
    """Give cells their sizes and forms from their draws [n, many]."""
    n, ndim = fraction.shape
    ends = np.cumsum([5, ndim * ndim, ndim * ndim, ndim, ndim])
    scalars, frame, bend, phase, nucleus = np.split(luck, ends, axis=1)[:5]
    radius = _radius_px(spec, scalars)
    stretch = np.log(spec.elongation) * (1 + 0.4 * _normal(scalars[:, 2]))
    share = np.array([ndim - 1, *[-1] * (ndim - 1)]) / ndim
    axes_px = radius[:, None] * np.exp(stretch[:, None] * share)
    normals = _normal(frame).reshape(n, ndim, ndim)
    position = (anchor % spec.period_px if spec.period_px else anchor) + fraction
    turn = _turned(spec, normals, position)
    to_unit = np.swapaxes(turn, 1, 2) / axes_px[:, :, None]
    waves_per_unit = 2.2 * _normal(bend).reshape(n, ndim, ndim)
    half_px = np.linalg.norm(turn * axes_px[:, None], axis=2) * (1 + spec.roughness * ndim**0.5)
    half = half_px / spec.step_px
    return Cells(
        ids=ids,
        anchor=anchor,
        fraction=fraction,
        radius_px=radius,
        brightness=_brightness(scalars),
        forms=np.concatenate([to_unit, waves_per_unit @ to_unit], axis=1).astype(np.float32),
        start=anchor + np.ceil(fraction - half).astype(np.int64),
        stop=anchor + np.floor(fraction + half).astype(np.int64) + 1,
        phase=(2 * math.pi * phase).astype(np.float32),
        nucleus=(0.3 * (nucleus - 0.5)).astype(np.float32),
        roundness=((axes_px / radius[:, None]) ** 0.6).astype(np.float32),
    )


def _radius_px(spec: Spec, scalars: np.ndarray) -> np.ndarray:
    """Geometric mean of the half axes; never equal for two cells, as ranks hang on it."""
    second = scalars[:, 1] < spec.mix_share
    ratio = np.where(second, spec.mix_ratio, 1.0) * np.where(scalars[:, 3] < CONDENSED, 0.8, 1.0)
    spread = np.exp(spec.size_cv * _normal(scalars[:, 0]) + 1e-6 * scalars[:, 3])
    return spec.diameter_px / 2 * ratio * spread


def _brightness(scalars: np.ndarray) -> np.ndarray:
    """Light of each cell, spread as staining is."""
    return np.exp(0.3 * _normal(scalars[:, 4])) * np.where(scalars[:, 3] < CONDENSED, 1.9, 1.0)


def _turned(spec: Spec, normals: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return rotations [n, ndim, ndim] whose first column is the long axis."""
    for axis in range(spec.ndim if spec.alignment else 0):
        along = waves(spec, centres.T, salt=Salt.ALIGN + axis, wavelength_px=25 * spec.diameter_px)
        normals[:, axis, 0] += spec.alignment * along
    return np.linalg.qr(normals)[0]
