"""What one tile sees in its window, and what two tiles see where their windows overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import (
    Masks,
    Overlaps,
    border_objects,
    boxes_and_areas,
    fill_holes,
    find_masks,
    flow_quality,
    iou_of,
    overlap_pairs,
    relabel,
    resample_nearest,
)
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.predict import Answer
from cellseg_pipe.segmentation.tiled import rules_of
from cellseg_pipe.tiles import Tile

__all__ = ["Nodes", "SeamTable", "View", "nodes_of", "see_cells", "seam_overlaps"]

NEAR_EDGE_PX = 2  # where particles come to rest that a window's edge holds up


@dataclass(frozen=True)
class Nodes:
    """What is known of the cells in one tile's window without their pixels, ascending by label.

    Parameters
    ----------
    number : int
        Of the tile.
    peak : int64 array [n, ndim]
        Of the whole grid, in C order.
    anchor : int64 array [n, ndim]
        A pixel of each cell that nothing else may take, in the core if the cell has any there.
    size, core_size : int64 array [n]
        Pixels with holes filled, in the window and in the tile's own core.
    complete : bool array [n]
        Whether the window shows all of it: it does not touch an edge within the image.
    kept : bool array [n]
        Whether it is a cell; one that the window cuts cannot be judged, and is.
    on_border : bool array [n]
        Whether it touches the border of the image.
    """

    number: int
    peak: NDArray[np.int64]
    anchor: NDArray[np.int64]
    size: NDArray[np.int64]
    core_size: NDArray[np.int64]
    complete: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    on_border: NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """All cells that one tile sees in its window, those of other tiles too.

    Parameters
    ----------
    tile : Tile
        What it answers for and what it looks at, on the grid that particles walk on.
    labels : uint32 array [*outer]
        From 1 in C order of the peaks, rejected ones too; holes are filled.
    nodes : Nodes
        One row per label.
    area : int64 array [n]
        Pixels before holes are filled.
    flow_error, logit : float64 array [n]
        Of each cell; nan for an error that was not asked for, or of a cell that the window cuts.
    class_logit : float64 array [n, n_classes]
        Mean of each class output.
    """

    tile: Tile
    labels: NDArray[np.uint32]
    nodes: Nodes
    area: NDArray[np.int64]
    flow_error: NDArray[np.float64]
    logit: NDArray[np.float64]
    class_logit: NDArray[np.float64]


@dataclass(frozen=True)
class SeamTable:
    """Which cells of two tiles share pixels, ascending by left and then right label.

    Parameters
    ----------
    left_number, right_number : int
        The two tiles, the lower number on the left.
    overlaps : Overlaps
        Where both windows are.
    in_left, in_right : int64 array [n]
        Those of the shared pixels that lie in the left tile's core, and in the right one's.
    """

    left_number: int
    right_number: int
    overlaps: Overlaps
    in_left: NDArray[np.int64]
    in_right: NDArray[np.int64]


def see_cells(
    answer: Answer,
    plan: Plan,
    *,
    tile: Tile,
    threads: int | None = None,
) -> View:
    """Find all cells of a window as if there were nothing beyond it.

    A cell that an edge within the image cuts is kept as far as it is seen: neither its size nor its
    flow, which leads out of the window, says anything of the cell. No reach limits the others.

    Parameters
    ----------
    answer : Answer
        The network's, for the window.
    plan : Plan
        Of the image.
    tile : Tile
        What is looked at, on the grid that particles walk on. One plane, in mode planes.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    View
        Cells of the window, with those that were rejected.
    """
    window = tile.outer
    n_flat = window.ndim - len(plan.flow_axes)  # axes that the flow does not know, one pixel thick
    flow = answer.flow.reshape(-1, *window.shape[n_flat:])
    few = len(answer.classes) < 2
    rules = rules_of(plan, threads)
    limits = {name: rules.pop(name) for name in ("min_size_px", "max_size_px", "flow_threshold")}
    masks = find_masks(
        flow,
        answer.logit.reshape(flow.shape[1:]),
        class_logits=None if few else answer.classes.reshape(-1, *flow.shape[1:]),
        fill=False,
        **{**rules, "reach_px": None, "flow_threshold": None, "min_size_px": 0},
    )
    peak = np.zeros((len(masks.peak), window.ndim), np.int64) + np.asarray(window.start)
    peak[:, n_flat:] += masks.peak
    complete = _complete(masks.labels.reshape(window.shape), peak, plan=plan, window=window)
    error = np.full(len(peak), np.nan)
    if limits["flow_threshold"]:
        error = _errors(masks, flow, complete, plan=plan, threads=threads)
    kept = masks.area <= (limits["max_size_px"] or np.iinfo(np.int64).max)
    kept &= ~complete | (masks.area >= limits["min_size_px"])
    kept &= ~(error > (limits["flow_threshold"] or np.inf))
    labels = _filled(masks.labels, kept, threads=threads) if plan.settings.fill else masks.labels
    labels = labels.reshape(window.shape)
    return View(
        tile=tile,
        labels=labels,
        nodes=nodes_of(labels, peak, plan=plan, tile=tile, kept=kept),
        area=masks.area,
        flow_error=error,
        logit=masks.logit,
        class_logit=masks.class_logit,
    )


def _errors(
    masks: Masks,
    flow: NDArray[np.float32],
    complete: NDArray[np.bool_],
    *,
    plan: Plan,
    threads: int | None,
) -> NDArray[np.float64]:
    """Return the flow error of cells that are seen whole; nan for others."""
    error = np.full(complete.size, np.nan)
    ids = (np.flatnonzero(complete) + 1).astype(np.uint32)
    quality = flow_quality(masks.labels, flow, ids=ids, spacing=plan.spacing, threads=threads)
    error[quality.label - 1] = quality.error
    return error


def _complete(
    labels: NDArray[np.uint32], peak: NDArray[np.int64], *, plan: Plan, window: Box
) -> NDArray[np.bool_]:
    """Return which cells no edge within the image cuts."""
    edges = [
        (axis in plan.flow_axes and low > 0, axis in plan.flow_axes and high < n)
        for axis, (low, high, n) in enumerate(
            zip(window.start, window.stop, plan.walk_shape, strict=True)
        )
    ]
    first, last = np.asarray(edges).T
    complete = np.ones(len(peak), bool)
    complete[border_objects(labels, faces=edges) - 1] = False
    complete &= ~((peak < np.asarray(window.start) + NEAR_EDGE_PX) & first).any(axis=1)
    complete &= ~((peak >= np.asarray(window.stop) - NEAR_EDGE_PX) & last).any(axis=1)
    return complete


def _filled(
    labels: NDArray[np.uint32], kept: NDArray[np.bool_], *, threads: int | None
) -> NDArray[np.uint32]:
    """Fill cells as if the rejected ones were background, which these keep where it is left."""
    ids = (np.flatnonzero(kept) + 1).astype(np.uint32)
    filled = fill_holes(relabel(labels, ids, ids, threads=threads), threads=threads)
    return np.where(filled > 0, filled, labels)


def nodes_of(
    labels: NDArray[np.uint32],
    peak: NDArray[np.int64],
    *,
    plan: Plan,
    tile: Tile,
    kept: NDArray[np.bool_],
) -> Nodes:
    """Describe the cells of a window without their pixels.

    Parameters
    ----------
    labels : uint32 array [*outer]
        Cells from 1 in C order of the peaks.
    peak : int64 array [n, ndim]
        Of the whole grid.
    plan : Plan
        Of the image.
    tile : Tile
        What it looks at and what it answers for.
    kept : bool array [n]
        Which ones are cells, by what is known so far.

    Returns
    -------
    Nodes
        One row per cell.
    """
    ids = np.arange(1, len(peak) + 1, dtype=np.uint32)
    objects = boxes_and_areas(labels, ids=ids)
    window = tile.outer
    inner = tile.core.relative_to(window.start).slices
    low, high = objects.start + window.start, objects.stop + window.start
    on_border = ((low <= 0) | (high >= plan.walk_shape)).any(axis=1) & (objects.area > 0)
    anchor, seen = _anchors(labels, peak, plan=plan, tile=tile)
    kept = kept & seen
    if not plan.settings.keep_border and plan.mode != "planes":
        kept &= ~on_border
    return Nodes(
        number=tile.number,
        peak=peak,
        anchor=anchor,
        size=objects.area,
        core_size=boxes_and_areas(np.ascontiguousarray(labels[inner]), ids=ids).area,
        complete=_complete(labels, peak, plan=plan, window=window),
        kept=kept,
        on_border=on_border,
    )


def _anchors(
    labels: NDArray[np.uint32],
    peak: NDArray[np.int64],
    *,
    plan: Plan,
    tile: Tile,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return for each cell its pixel nearest to the peak, in the core if it has any there.

    Where level 0 is coarser than the grid that was walked on, only pixels count that it is painted
    from; a cell without any is not seen.
    """
    window, core = tile.outer, tile.core
    taken = _taken(plan, window)
    inside = [
        (np.arange(a, b) >= low) & (np.arange(a, b) < high)
        for a, b, low, high in zip(window.start, window.stop, core.start, core.stop, strict=True)
    ]
    place = peak - np.asarray(window.start)
    own = np.arange(1, len(peak) + 1, dtype=np.uint32)
    good = labels[tuple(place.T)] == own
    for axis in range(window.ndim):
        good &= (taken[axis] & inside[axis])[place[:, axis]]
    seen = good.copy()
    rest = own[~good]
    pixels = np.argwhere(relabel(labels, rest, rest) > 0) if rest.size else place[:0]
    for axis, where in enumerate(taken):
        pixels = pixels[where[pixels[:, axis]]]
    row = labels[tuple(pixels.T)].astype(np.int64) - 1
    outside = np.zeros(len(pixels), bool)
    for axis, where in enumerate(inside):
        outside |= ~where[pixels[:, axis]]
    far = ((pixels - place[row]) ** 2).sum(axis=1)
    order = np.lexsort((far, outside, row))  # stable: of equally near pixels the first
    first = np.unique(row[order], return_index=True)[1]
    chosen = order[first]
    anchor = place.copy()
    anchor[row[chosen]] = pixels[chosen]
    seen[row[chosen]] = True
    return anchor + np.asarray(window.start), seen


def _taken(plan: Plan, box: Box) -> list[NDArray[np.bool_]]:
    """Return per axis which positions of a box level 0 is painted from."""
    if plan.walks_level_0 or max(plan.scale.factors) <= 1:
        return [np.ones(n, bool) for n in box.shape]
    taken = []
    for axis, (low, high) in enumerate(zip(box.start, box.stop, strict=True)):
        line = np.arange(plan.walk_shape[axis], dtype=np.uint32)[:, None]
        used = resample_nearest(
            line,
            box=Box((0, 0), (plan.shape[axis], 1)),
            origin=(0, 0),
            source_shape=line.shape,
            num=(plan.scale.den[axis], 1),
            den=(plan.scale.num[axis], 1),
        ).ravel()
        taken.append(np.isin(np.arange(low, high), used))
    return taken


def seam_overlaps(left: View, right: View) -> SeamTable:
    """Count which cells of two tiles share pixels, where both windows are.

    Parameters
    ----------
    left, right : View
        Two tiles whose windows overlap, in any order.

    Returns
    -------
    SeamTable
        Small: pairs of cells, no pixels.
    """
    if left.tile.number > right.tile.number:
        left, right = right, left
    shared = left.tile.outer.clip(right.tile.outer)
    overlaps = iou_of(overlap_pairs(_cut(left, shared), _cut(right, shared)))
    counts = []
    for core in (left.tile.core, right.tile.core):
        part = core.clip(shared)
        pairs = overlap_pairs(_cut(left, part), _cut(right, part))
        wanted = _keys(overlaps.left, overlaps.right)
        found = _keys(pairs.left, pairs.right)
        place = np.searchsorted(wanted, found)
        cells = (pairs.left > 0) & (pairs.right > 0)
        count = np.zeros(wanted.size, np.int64)
        count[place[cells]] = pairs.count[cells]
        counts.append(count)
    return SeamTable(left.tile.number, right.tile.number, overlaps, *counts)


def _cut(view: View, box: Box) -> NDArray[np.uint32]:
    return np.ascontiguousarray(view.labels[box.relative_to(view.tile.outer.start).slices])


def _keys(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> NDArray[np.uint64]:
    return left.astype(np.uint64) << np.uint64(32) | right
