"""Finds cells where many particles come to rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels._checks import Backend, loops
from cellseg_pipe.kernels.follow import ONE, Ends

__all__ = ["HALO_BEYOND_REACH", "Cells", "cells_from_ends"]

MIN_COUNT = 10  # a peak has more ends than this
# Margin of a crop, beyond the reach, that makes every cell whose peak lies in its core the same as
# in the whole. A pixel of the cell ends within 5 px of the peak (growth); a rival peak that could
# take it lies within 5 px of that end; whether the rival reaches it is decided within 5 px of the
# rival; whether it is a peak, within 2. Ends must be right this far out, so starts and paths must
# be inside one reach further; sampling reads the next pixel, and one is for the cut border.
HALO_BEYOND_REACH = 5 + 5 + 5 + 2


@dataclass(frozen=True)
class Cells:
    """Cells as they come out of the end points, before anything is sorted out.

    Parameters
    ----------
    labels : uint32 array [*spatial]
        Ids from 1 in C order of the peaks, 0 for background.
    peak : int64 array [n, ndim]
        Pixel of each cell where most of its particles rest; it names the cell.
    count : int64 array [n]
        Particles that rest on the peak.
    """

    labels: NDArray[np.uint32]
    peak: NDArray[np.int64]
    count: NDArray[np.int64]


def cells_from_ends(ends: Ends, *, threads: int | None = None, backend: Backend = "numba") -> Cells:
    """Find the pixels where many particles rest and give each its cell.

    A peak is a pixel on which more than 10 particles rest, more than on any other up to 2 px away;
    of equal ones the first in C order. It takes the pixels that it reaches in 5 moves over pixels
    with more than 2 ends. Where two peaks reach a pixel the fuller one has it, of equal ones the
    first in C order.

    Parameters
    ----------
    ends : Ends
        Where particles rest.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Cells
        Labels with their peaks.
    """
    _check(ends)
    labels, peaks, counts = loops(backend, threads).cells_from_ends(
        np.ascontiguousarray(ends.start, np.int64),
        np.ascontiguousarray(ends.end, np.int32),
        np.ascontiguousarray(ends.verdict, np.uint8),
        shape=ends.shape,
        min_count=MIN_COUNT,
        threads=threads,
    )
    where = np.stack(np.unravel_index(peaks, ends.shape), axis=-1).astype(np.int64)
    return Cells(labels, where, counts)


def _check(ends: Ends) -> None:
    """Refuse ends of other shapes and types; the loops refuse those beyond their array."""
    start, end = np.asarray(ends.start), np.asarray(ends.end)
    ndim, n = len(ends.shape), np.size(ends.verdict)
    if ndim not in (2, 3) or (start.shape, end.shape) != ((n,), (n, ndim)):
        raise ValueError(
            "cells_from_ends needs a start, an end and a verdict per particle over 2 or 3 axes, got"
            f" shapes {start.shape}, {end.shape} and {np.shape(ends.verdict)} for an array of shape"
            f" {ends.shape}."
        )
    if start.dtype.kind not in "iu" or end.dtype.kind not in "iu":
        raise TypeError(
            f"cells_from_ends needs integers, got {start.dtype} starts and {end.dtype} ends in"
            f" 1/{ONE} px."
        )
