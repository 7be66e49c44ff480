"""Counts which labels of one array lie on which labels of another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_labels, loops, same_shape

__all__ = ["Pairs", "overlap_pairs", "sum_pairs"]


@dataclass(frozen=True)
class Pairs:
    """A sparse contingency table, ascending by left and then right label.

    Parameters
    ----------
    left, right : uint32 array [n]
        The two labels of a pair, background 0 included.
    count : int64 array [n]
        Voxels that carry the pair, never 0.
    """

    left: NDArray[np.uint32]
    right: NDArray[np.uint32]
    count: NDArray[np.int64]


def overlap_pairs(
    left: ArrayLike, right: ArrayLike, *, threads: int | None = None, backend: Backend = "numba"
) -> Pairs:
    """Count the voxels of every pair of labels that occurs.

    Parameters
    ----------
    left, right : integer array [*spatial]
        Two label arrays of one region, 0 for background.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Pairs
        Counts of all pairs, those with background included.
    """
    left, right = as_labels(left, "left"), as_labels(right, "right")
    same_shape(left, right, "overlap_pairs")
    keys, counts = loops(backend, threads).overlap_pairs(left, right, threads=threads)
    return Pairs((keys >> np.uint64(32)).astype(np.uint32), keys.astype(np.uint32), counts)


def sum_pairs(tables: Iterable[Pairs]) -> Pairs:
    """Add the tables of several blocks.

    Parameters
    ----------
    tables : iterable of Pairs
        One per block; blocks must not overlap.

    Returns
    -------
    Pairs
        The table of all the blocks together.
    """
    parts = list(tables)
    left = np.concatenate([np.empty(0, np.uint32), *(part.left for part in parts)])
    right = np.concatenate([np.empty(0, np.uint32), *(part.right for part in parts)])
    count = np.concatenate([np.empty(0, np.int64), *(part.count for part in parts)])
    order = np.lexsort((right, left))
    left, right, count = left[order], right[order], count[order]
    if count.size == 0:
        return Pairs(left, right, count)
    changed = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    first = np.flatnonzero(np.r_[True, changed])
    return Pairs(left[first], right[first], np.add.reduceat(count, first))
