"""Decides which labels of two views are one cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import LABEL_MAX, Backend, as_labels, loops
from cellseg_pipe.kernels.overlap import Pairs

__all__ = [
    "Overlaps",
    "check_threshold",
    "iou_of",
    "mutual_best",
    "pick_links",
    "union_find",
]

UNION_MAX = 1 << 32  # up to here 64 bits tell any two fractions apart: see _exact_iou


@dataclass(frozen=True)
class Overlaps:
    """Pairs of labels that share voxels, ascending by left and then right label.

    Parameters
    ----------
    left, right : uint32 array [n]
        The two labels of a pair, never background.
    shared : int64 array [n]
        Voxels that carry both, never 0.
    union : int64 array [n]
        Voxels that carry one or both.
    """

    left: NDArray[np.uint32]
    right: NDArray[np.uint32]
    shared: NDArray[np.int64]
    union: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Shared voxels over union, rounded to the nearest float64."""
        return self.shared / self.union

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Overlaps:
        """Return some of the pairs."""
        return Overlaps(self.left[rows], self.right[rows], self.shared[rows], self.union[rows])


def iou_of(pairs: Pairs) -> Overlaps:
    """Measure how well the labels of two views cover each other.

    Parameters
    ----------
    pairs : Pairs
        The whole table of the two views, pairs with background included: areas are its sums.

    Returns
    -------
    Overlaps
        The pairs without background.
    """
    union = _totals(pairs.left, pairs.count) + _totals(pairs.right, pairs.count) - pairs.count
    cells = (pairs.left > 0) & (pairs.right > 0)
    return Overlaps(pairs.left, pairs.right, pairs.count, union)[cells]


def mutual_best(
    overlaps: Overlaps, *, iou_threshold: float
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Choose the pairs in which either label is the other's best.

    The best has the greatest IoU; of exactly equal ones that with more shared voxels; of those the
    lower label.

    Parameters
    ----------
    overlaps : Overlaps
        The labels of two views.
    iou_threshold : float
        Pairs below it are not considered; a pair that reaches it exactly is. 0 to 1.

    Returns
    -------
    left, right : uint32 array [m]
        The chosen pairs, the best first; no label occurs twice on its side.
    """
    ranked = _ranked(overlaps, iou_threshold)
    both = _is_first(ranked.left) & _is_first(ranked.right)
    return ranked.left[both], ranked.right[both]


def pick_links(
    overlaps: Overlaps, *, iou_threshold: float
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Choose links from one plane to the next: old labels pick, then new ones pick among them.

    Every left label picks its best right one. Every right label that was picked picks the best of
    those that did. So a right label whose best partner has gone elsewhere can still be linked,
    which `mutual_best` does not allow. What is best is decided as there.

    Parameters
    ----------
    overlaps : Overlaps
        Labels of a plane, on the left, and of the next one.
    iou_threshold : float
        Pairs below it are not considered; a pair that reaches it exactly is. 0 to 1.

    Returns
    -------
    left, right : uint32 array [m]
        The chosen pairs, the best first; no label occurs twice on its side.
    """
    ranked = _ranked(overlaps, iou_threshold)
    picked = ranked[_is_first(ranked.left)]
    links = picked[_is_first(picked.right)]
    return links.left, links.right


def union_find(
    n: int, left: ArrayLike, right: ArrayLike, *, backend: Backend = "numba"
) -> NDArray[np.uint32]:
    """Name the connected component of every node of a graph.

    Parameters
    ----------
    n : int
        Number of nodes, at most 2^32.
    left, right : integer array [m]
        The two nodes of each edge, from 0 to n - 1, in any order, edges more than once or not.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    uint32 array [n]
        The lowest node of the component that each node belongs to.
    """
    left, right = as_labels(left, "left"), as_labels(right, "right")
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(
            f"union_find needs two nodes per edge, got shapes {left.shape} and {right.shape}."
        )
    if not 0 <= n <= LABEL_MAX + 1:
        raise ValueError(f"union_find needs 0 to {LABEL_MAX + 1} nodes, got {n}.")
    highest = max(int(left.max()), int(right.max())) if left.size else -1
    if highest >= n:
        raise ValueError(
            f"union_find needs nodes below n = {n}, got node {highest}. Count the nodes first."
        )
    return loops(backend).union_find(n, left, right)


def _totals(label: NDArray[np.uint32], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row the sum of the counts of all rows with its label."""
    ids, row = np.unique(label, return_inverse=True)
    totals = np.zeros(ids.size, np.int64)
    np.add.at(totals, row, count)
    return totals[row]


def check_threshold(iou_threshold: float) -> None:
    """Refuse a threshold that no IoU can be compared with.

    Parameters
    ----------
    iou_threshold : float
        Needs to be from 0 to 1.
    """
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold needs to be from 0 to 1, got {iou_threshold}.")


def _ranked(overlaps: Overlaps, iou_threshold: float) -> Overlaps:
    """Return the pairs that reach the threshold, the best first."""
    check_threshold(iou_threshold)
    # A quotient and a threshold are rounded alike, so that 1 of 10 voxels reaches .1.
    kept = overlaps[overlaps.iou >= iou_threshold]
    worse = ~_exact_iou(kept.shared, kept.union)
    return kept[np.lexsort((kept.right, kept.left, -kept.shared, worse))]


def _exact_iou(shared: NDArray[np.int64], union: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return numbers that are equal, or smaller, exactly where the fractions are.

    They are floor(2^64 * shared / union) by long division. Different fractions with terms up to
    2^32 differ by 2^-64 or more, and so do not fall on one number; float64 quotients tell apart
    only terms up to 2^26.
    """
    if union.size and int(union.max()) > UNION_MAX:
        raise ValueError(
            f"labels to be linked need a union of at most {UNION_MAX} voxels, got"
            f" {int(union.max())}. Is the background labelled?"
        )
    whole = shared == union
    divisor, shift = union.astype(np.uint64), np.uint64(32)
    high, rest = np.divmod(np.where(whole, 0, shared).astype(np.uint64) << shift, divisor)
    # 2^64 - 1 stands for all of the union; no other fraction comes above 2^64 - 2^32.
    return np.where(whole, np.iinfo(np.uint64).max, high << shift | (rest << shift) // divisor)


def _is_first(values: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return where a value occurs for the first time."""
    first = np.zeros(values.size, bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first
