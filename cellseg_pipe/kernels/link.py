"""Decides which labels of two views, or of neighbouring planes, are one cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import LABEL_MAX, Backend, as_labels, loops
from cellseg_pipe.kernels.overlap import Pairs, overlap_pairs

__all__ = [
    "Chained",
    "Overlaps",
    "chain_planes",
    "iou_of",
    "mutual_best",
    "pick_links",
    "stitch_planes",
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


@dataclass(frozen=True)
class Chained:
    """The labels of one plane and the cells of the volume that they belong to.

    Parameters
    ----------
    label : uint32 array [n]
        Labels of the plane, ascending, without background.
    chain : uint32 array [n]
        The id of each in the volume; no two are equal.
    """

    label: NDArray[np.uint32]
    chain: NDArray[np.uint32]


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


def chain_planes(
    labels: Iterable[ArrayLike], tables: Iterable[Pairs], *, iou_threshold: float = 0.25
) -> Iterator[Chained]:
    """Decide which labels of a stack of planes are one cell, from counts alone.

    A cell goes on in the next plane as `pick_links` says; it never jumps over a plane. Tables may
    be sums over tiles (`sum_pairs`), so tiling cannot change the answer. Both arguments are read
    one plane at a time.

    Parameters
    ----------
    labels : iterable of integer array [n]
        For each plane its labels, ascending, without background.
    tables : iterable of Pairs
        For each plane but the last its table with the next one, which is on the right; pairs with
        background included.
    iou_threshold : float
        Least IoU of two labels of one cell, 0 to 1. A pair that reaches it exactly is linked.

    Returns
    -------
    iterator of Chained
        One per plane. Cells are numbered from 1 without gaps, by the plane where they begin and
        then by their label in it.
    """
    _check_threshold(iou_threshold)
    return _chained_planes(iter(labels), tables, iou_threshold)


def stitch_planes(
    masks: ArrayLike,
    iou_threshold: float = 0.25,
    *,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.uint32]:
    """Join the labels of separately segmented planes into cells of a volume.

    Parameters
    ----------
    masks : integer array [z, y, x]
        Labels of each plane, 0 for background; of any values, with gaps or not.
    iou_threshold : float
        Least IoU of two labels of one cell, 0 to 1. A pair that reaches it exactly is linked.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    uint32 array [z, y, x]
        A new array; ids as in `chain_planes`.
    """
    planes = np.asarray(masks)
    if planes.ndim != 3:
        raise ValueError(f"stitch_planes needs masks [z, y, x], got shape {planes.shape}.")
    stitched = np.empty(planes.shape, np.uint32)
    nothing = np.zeros(planes.shape[1:], np.uint32)
    # Each plane is converted once; the copies of an iterator keep no more than two of them.
    counted, painted = itertools.tee(as_labels(_unsigned(plane), "masks") for plane in planes)
    tables = (
        overlap_pairs(old, new, threads=threads, backend=backend)
        for old, new in itertools.pairwise(itertools.chain([nothing], counted))
    )
    named, linked = itertools.tee(tables)
    labels = (_cells(table.right) for table in named)
    chains = chain_planes(labels, itertools.islice(linked, 1, None), iou_threshold=iou_threshold)
    paint = loops(backend).paint_labels
    for target, plane, names in zip(stitched, painted, chains, strict=True):
        paint(plane, names.label, names.chain, target, threads=threads)
    return stitched


def _unsigned(plane: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return an int32 plane of labels as the uint32 that it already is, saving a copy."""
    same_bytes = plane.dtype == np.int32 and plane.flags.c_contiguous and plane.size > 0
    return plane.view(np.uint32) if same_bytes and plane.min() >= 0 else plane


def _chained_planes(
    labels: Iterator[ArrayLike], tables: Iterable[Pairs], iou_threshold: float
) -> Iterator[Chained]:
    first = next(labels, None)
    if first is None:
        return
    ids = as_labels(first, "labels")
    chained, n_chains = _named(ids, np.zeros(ids.size, np.uint32), 0)
    yield chained
    for plane, (new_labels, table) in enumerate(
        itertools.zip_longest(labels, tables, fillvalue=None), start=1
    ):
        if new_labels is None or table is None:
            raise ValueError(
                "chain_planes needs one table for each plane but the last, got a different number"
                f" at plane {plane}. Give an empty plane an empty list of labels."
            )
        ids = as_labels(new_labels, "labels")
        old, new = pick_links(iou_of(table), iou_threshold=iou_threshold)
        chain = np.zeros(ids.size, np.uint32)
        chain[_places(ids, new)] = chained.chain[_places(chained.label, old)]
        chained, n_chains = _named(ids, chain, n_chains)
        yield chained


def _named(
    ids: NDArray[np.uint32], chain: NDArray[np.uint32], n_chains: int
) -> tuple[Chained, int]:
    """Give the labels without a chain the next free ids; return them with the number of ids."""
    fresh = chain == 0
    total = n_chains + int(np.count_nonzero(fresh))
    if total > LABEL_MAX:
        raise ValueError(
            f"chain_planes needs at most {LABEL_MAX} cells, got {total}. Stitch parts of the stack,"
            " or remove small cells first."
        )
    chain[fresh] = np.arange(n_chains + 1, total + 1, dtype=np.uint32)
    return Chained(ids, chain), total


def _places(ids: NDArray[np.uint32], values: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Return where values stand among ascending ids, refusing those that do not."""
    places = np.searchsorted(ids, values)
    found = places < ids.size
    found[found] = ids[places[found]] == values[found]
    if not found.all():
        raise ValueError(
            "chain_planes needs the ascending list of all labels of each plane, got one without"
            f" label {values[~found][0]} of the table."
        )
    return places


def _cells(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    ids = np.unique(labels)
    return ids[ids > 0]


def _totals(label: NDArray[np.uint32], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row the sum of the counts of all rows with its label."""
    ids, row = np.unique(label, return_inverse=True)
    totals = np.zeros(ids.size, np.int64)
    np.add.at(totals, row, count)
    return totals[row]


def _check_threshold(iou_threshold: float) -> None:
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold needs to be from 0 to 1, got {iou_threshold}.")


def _ranked(overlaps: Overlaps, iou_threshold: float) -> Overlaps:
    """Return the pairs that reach the threshold, the best first."""
    _check_threshold(iou_threshold)
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
