"""Outlines of label arrays, with how well two sets of them agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import as_labels, same_shape

__all__ = ["OutlineCounts", "count_outlines", "near", "outlines"]

# A slab of this many voxels needs about 150 MB of working memory.
SLAB_VOXELS = 1 << 24


@dataclass(frozen=True)
class OutlineCounts:
    """Outline voxels of two label arrays, that add over images.

    Parameters
    ----------
    pred, pred_near : int
        Predicted outline voxels, and those of them within tolerance of a true one.
    true, true_near : int
        True outline voxels, and those of them within tolerance of a predicted one.
    """

    pred: int = 0
    pred_near: int = 0
    true: int = 0
    true_near: int = 0

    def __add__(self, other: OutlineCounts) -> OutlineCounts:
        """Return the counts of both together."""
        return OutlineCounts(
            self.pred + other.pred,
            self.pred_near + other.pred_near,
            self.true + other.true,
            self.true_near + other.true_near,
        )


def outlines(labels: ArrayLike) -> NDArray[np.bool_]:
    """Mark the voxels of objects that have a face neighbour of another label.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels, 0 for background.

    Returns
    -------
    bool array [*spatial]
        Outlines. The border of the array is none: it cuts objects, it does not end them.
    """
    label = as_labels(labels, "labels")
    outline = np.zeros(label.shape, bool)
    for axis in range(label.ndim):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        differs = label[low] != label[high]
        outline[low] |= differs
        outline[high] |= differs
    outline &= label > 0
    return outline


def near(
    mask: NDArray[np.bool_], *, tolerance_px: float, spacing_px: Sequence[float] | None = None
) -> NDArray[np.bool_]:
    """Mark the voxels within a distance of a mask: dilation by a disc or ball.

    Parameters
    ----------
    mask : bool array [*spatial]
        Where the distance is 0.
    tolerance_px : float
        Greatest Euclidean distance.
    spacing_px : sequence of float, optional
        Edge of a voxel per axis; 1 on each by default.

    Returns
    -------
    bool array [*spatial]
        The mask and what is near it.
    """
    spacing = _spacing(spacing_px, mask.ndim)
    reach = [math.floor(tolerance_px / edge) for edge in spacing]
    # Runs along the last axis grow step by step, so a disc takes about 4 shifts per px of
    # radius instead of one per voxel.
    runs: dict[int, list[tuple[int, ...]]] = {}
    for offset in itertools.product(*(range(-r, r + 1) for r in reach[:-1])):
        left = tolerance_px**2 - sum((o * e) ** 2 for o, e in zip(offset, spacing, strict=False))
        if left >= 0:
            runs.setdefault(math.floor(math.sqrt(left) / spacing[-1]), []).append(offset)
    grown, result = mask.copy(), np.zeros_like(mask)
    steady = (0,) * (mask.ndim - 1)
    for half_length in range(reach[-1] + 1):
        for step in {-half_length, half_length}:
            _add_shifted(grown, mask, (*steady, step))
        for offset in runs.get(half_length, []):
            _add_shifted(result, grown, (*offset, 0))
    return result


def _spacing(spacing_px: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    spacing = (1.0,) * ndim if spacing_px is None else tuple(spacing_px)
    if len(spacing) != ndim or min(spacing) <= 0:
        raise ValueError(
            f"spacing_px needs {ndim} positive numbers (one per axis), got {spacing_px}."
        )
    return spacing


def _add_shifted(result: NDArray[np.bool_], mask: NDArray[np.bool_], offset: Sequence[int]) -> None:
    """Set in place what a mask moved by `offset` covers; nothing enters from outside."""
    to, of = [], []
    for step, length in zip(offset, mask.shape, strict=True):
        kept = max(length - abs(step), 0)
        to.append(slice(max(step, 0), max(step, 0) + kept))
        of.append(slice(max(-step, 0), max(-step, 0) + kept))
    result[tuple(to)] |= mask[tuple(of)]


def count_outlines(
    pred: ArrayLike,
    truth: ArrayLike,
    *,
    tolerance_px: float,
    ignore: NDArray[np.bool_] | None = None,
    spacing_px: Sequence[float] | None = None,
) -> OutlineCounts:
    """Count outline voxels with a counterpart within tolerance, slab by slab.

    Precision is `pred_near / pred` and recall `true_near / true`: the boundary F-measure of
    Csurka et al. (2013). Cellpose compares two dilated outlines instead, which rises with the
    tolerance even for outlines that never meet.

    Parameters
    ----------
    pred, truth : integer array [*spatial]
        Two label arrays of one region, 0 for background.
    tolerance_px : float
        Greatest distance of two outlines that agree; 0 asks for the same voxels.
    ignore : bool array [*spatial], optional
        Voxels whose outlines do not count, though others may still be near them.
    spacing_px : sequence of float, optional
        Edge of a voxel per axis, where voxels are not cubes; 1 on each by default.

    Returns
    -------
    OutlineCounts
        Counts of the whole image; they do not depend on the slabs.
    """
    pred, truth = as_labels(pred, "pred"), as_labels(truth, "truth")
    same_shape(pred, truth, "count_outlines")
    if tolerance_px < 0:
        raise ValueError(f"tolerance_px needs to be 0 or above, got {tolerance_px}.")
    halo = math.floor(tolerance_px / _spacing(spacing_px, pred.ndim)[0])
    rows = max(1, SLAB_VOXELS // max(1, math.prod(pred.shape[1:])))
    counts = OutlineCounts()
    for start in range(0, pred.shape[0], rows):
        stop = min(start + rows, pred.shape[0])
        # One row beyond the halo, because an outline depends on its neighbours.
        window = slice(max(0, start - halo - 1), stop + halo + 1)
        core = slice(start - window.start, stop - window.start)
        pred_edge, true_edge = outlines(pred[window]), outlines(truth[window])
        near_pred = near(pred_edge, tolerance_px=tolerance_px, spacing_px=spacing_px)[core]
        near_true = near(true_edge, tolerance_px=tolerance_px, spacing_px=spacing_px)[core]
        seen = True if ignore is None else ~ignore[start:stop]
        pred_edge, true_edge = pred_edge[core] & seen, true_edge[core] & seen
        counts += OutlineCounts(
            pred=int(np.count_nonzero(pred_edge)),
            pred_near=int(np.count_nonzero(pred_edge & near_true)),
            true=int(np.count_nonzero(true_edge)),
            true_near=int(np.count_nonzero(true_edge & near_pred)),
        )
    return counts
