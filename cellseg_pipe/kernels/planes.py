"""Decides which labels of neighbouring planes are one cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import LABEL_MAX, Backend, as_labels, loops
from cellseg_pipe.kernels.link import check_threshold, iou_of, pick_links
from cellseg_pipe.kernels.overlap import Pairs, overlap_pairs

__all__ = ["Chained", "chain_planes", "stitch_planes"]


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
    check_threshold(iou_threshold)
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
    paint = loops(backend, threads).paint_labels
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
