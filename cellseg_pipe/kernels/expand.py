"""Grows labels into the background by a distance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_labels, loops

__all__ = ["expand_labels", "expand_margin_px"]

UNIT = 1 << 16  # parts of the smallest step in which distances are counted
FARTHEST = 1 << 14  # smallest steps: their parts, squared, stay in the range of int64


def expand_labels(
    labels: ArrayLike,
    distance_px: float,
    *,
    spacing: Sequence[float] | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.uint32]:
    """Give each background voxel the nearest label within a distance, of equally near the lowest.

    What a voxel becomes depends only on labels within the distance: crops with a margin of
    `expand_margin_px` give what the whole gives.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values, 0 for background.
    distance_px : float
        From the centre of a labelled voxel to that of a background voxel, at most.
    spacing : sequence of float, optional
        Length of a step along each axis, in the unit of the distance; 1 by default. Labels do not
        grow along an axis whose step is infinite. Ratios of steps count to
        1/65,536 of the smallest.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    uint32 array [*spatial]
        A new array; labelled voxels keep their label.
    """
    labels = as_labels(labels, "labels")
    steps, limit = _in_parts(distance_px, spacing, labels.ndim)
    run = loops(backend, threads)
    if labels.size == 0:
        return labels.copy()
    return np.asarray(run.expand_labels(labels, steps, limit, threads=threads))


def expand_margin_px(
    distance_px: float, *, spacing: Sequence[float] | None = None, ndim: int = 2
) -> tuple[int, ...]:
    """Return how many voxels labels grow along each axis at most.

    Parameters
    ----------
    distance_px : float
        As for `expand_labels`.
    spacing : sequence of float, optional
        Length of a step along each axis; 1 by default.
    ndim : int
        Axes, where there is no spacing.

    Returns
    -------
    tuple of int
        What a crop needs beyond its own voxels.
    """
    steps, limit = _in_parts(distance_px, spacing, ndim if spacing is None else len(spacing))
    return tuple(math.isqrt(limit) // step if step else 0 for step in steps)


def _in_parts(
    distance_px: float, spacing: Sequence[float] | None, ndim: int
) -> tuple[tuple[int, ...], int]:
    """Return steps and the square of the distance as whole numbers; 0 for axes without growth."""
    lengths = (1.0,) * ndim if spacing is None else tuple(float(step) for step in spacing)
    if len(lengths) != ndim or not all(step > 0 for step in lengths):
        raise ValueError(
            f"expand_labels needs a spacing above 0 for each of {ndim} axes, got {lengths}."
        )
    if not 0 <= distance_px < math.inf:
        raise ValueError(f"expand_labels needs a distance of 0 or more px, got {distance_px}.")
    smallest = min(lengths)
    if smallest == math.inf:
        return (0,) * ndim, 0
    if distance_px > FARTHEST * smallest:
        raise ValueError(
            f"expand_labels needs a distance of at most {FARTHEST} of the smallest steps"
            f" ({smallest:g}), got {distance_px:g}. Work on a coarser level."
        )
    limit = math.floor((distance_px / smallest * UNIT) ** 2)
    # A step beyond the distance leads nowhere, however long.
    far = math.isqrt(limit) + 1
    steps = [0 if s == math.inf else min(round(s / smallest * UNIT), far) for s in lengths]
    return tuple(steps), limit
