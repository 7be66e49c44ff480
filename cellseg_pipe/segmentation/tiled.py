"""The cells that a tile owns, their numbers, and how any box is painted from its tiles' cells.

A whole image is one tile: it goes through the same functions, so that tiles can only agree with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import (
    HALO_BEYOND_REACH,
    Masks,
    boxes_and_areas,
    find_masks,
    hole_claims,
    relabel,
    resample_nearest,
)
from cellseg_pipe.segmentation.agreement import seen_over
from cellseg_pipe.segmentation.places import in_region
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.predict import Answer
from cellseg_pipe.tiles import Grid, block_ranks

__all__ = [
    "BLOCK_PX",
    "DROPPED",
    "Found",
    "find_cells",
    "halo_px",
    "ids_of",
    "no_cells",
    "paint",
    "painted_from",
    "spread_px",
]

# The units of numbering: ids depend on nothing else.
BLOCK_PX = {"2d": (2048, 2048), "planes": (1, 2048, 2048), "3d": (64, 128, 128)}
DROPPED = np.uint32(0xFFFFFFFF)  # stands for a cell without a number while a box is painted
GROWTH_PX = 6  # a cell's pixels end within the reach of its peak, and this


@dataclass(frozen=True)
class Found:
    """The cells whose peak lies in one tile's core, by block and then by place of the peak.

    Parameters
    ----------
    box : Box
        Where their pixels may lie, on the grid that particles walk on.
    labels : uint32 array [*box]
        The cells from 1, in the order of the rows below; holes are not filled.
    claim_index : int64 array [m]
        C-order places in the box of background that they enclose.
    claim_label : uint32 array [m]
        Which of them does.
    peak : int64 array [n, ndim]
        Of the whole grid.
    area : int64 array [n]
        Pixels before holes are filled.
    flow_error, logit : float64 array [n]
        Of each cell; nan for an error that was not asked for.
    class_logit : float64 array [n, n_classes]
        Mean of each class output.
    spread, seen_again : float64 array [n]
        Sums over the cell of how far windows differ, and of how far more than one sees a pixel.
    on_border : bool array [n]
        Whether it touches the border of the image.
    kept : bool array [n]
        Cells that get a number; the others only keep their pixels from being claimed.
    n_too_far, n_over_edge : int
        Particles of the tile's window that count for no cell.
    """

    box: Box
    labels: NDArray[np.uint32]
    claim_index: NDArray[np.int64]
    claim_label: NDArray[np.uint32]
    peak: NDArray[np.int64]
    area: NDArray[np.int64]
    flow_error: NDArray[np.float64]
    logit: NDArray[np.float64]
    class_logit: NDArray[np.float64]
    spread: NDArray[np.float64]
    seen_again: NDArray[np.float64]
    on_border: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    n_too_far: int
    n_over_edge: int


def halo_px(plan: Plan) -> tuple[int, ...]:
    """Return the margin that makes a tile find its cells as the whole does: see `find_masks`.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    tuple of int
        Per axis of the image, on the grid that particles walk on.
    """
    return _along(plan, [reach + HALO_BEYOND_REACH for reach in plan.reach_px])


def spread_px(plan: Plan) -> tuple[int, ...]:
    """Return how far from a core the pixels of its cells may lie.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    tuple of int
        Per axis of the image, on the grid that particles walk on.
    """
    return _along(plan, [reach + GROWTH_PX for reach in plan.reach_px])


def _along(plan: Plan, margins: Sequence[int]) -> tuple[int, ...]:
    """Return margins of the flow's axes for all axes: planes know nothing of each other."""
    return (0,) * (len(plan.shape) - len(margins)) + tuple(margins)


def find_cells(
    answer: Answer, plan: Plan, *, window: Box, core: Box, threads: int | None = None
) -> Found:
    """Find the cells whose peak lies in a core.

    Parameters
    ----------
    answer : Answer
        The network's, for the window.
    plan : Plan
        Of the image.
    window : Box
        What is looked at, on the grid that particles walk on; the core and its halo, or cut by the
        border of the image. One plane, in mode planes.
    core : Box
        Which cells are meant.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    Found
        The same for any window that has the halo.
    """
    shape = plan.walk_shape
    n_flat = len(shape) - len(plan.flow_axes)  # axes that the flow does not know, one pixel thick
    edges = [
        (low > 0, high < n) for low, high, n in zip(window.start, window.stop, shape, strict=True)
    ]
    masks = find_masks(
        answer.flow.reshape(-1, *window.shape[n_flat:]),
        answer.logit.reshape(window.shape[n_flat:]),
        class_logits=_classes(answer, window.shape[n_flat:]),
        open_edges=edges[n_flat:],
        fill=False,
        **rules_of(plan, threads),
    )
    peak = np.zeros((len(masks.peak), len(shape)), np.int64) + np.asarray(window.start)
    peak[:, n_flat:] += masks.peak
    return _owned(masks, peak, answer.spread, plan=plan, core=core, window=window)


def no_cells(plan: Plan, core: Box) -> Found:
    """Return what stands for a tile that is not looked at.

    Parameters
    ----------
    plan : Plan
        Of the image.
    core : Box
        Of the tile.

    Returns
    -------
    Found
        Without cells.
    """
    none, floats = np.zeros(0, np.int64), np.zeros(0)
    n_classes = plan.n_outputs - len(plan.views[0].axes) - 1
    return Found(
        box=Box(core.start, core.start),
        labels=np.zeros((0,) * len(core.shape), np.uint32),
        claim_index=none,
        claim_label=none.astype(np.uint32),
        peak=none.reshape(0, len(core.shape)),
        area=none,
        flow_error=floats,
        logit=floats,
        class_logit=np.zeros((0, n_classes if n_classes > 1 else 0)),
        spread=floats,
        seen_again=floats,
        on_border=none.astype(bool),
        kept=none.astype(bool),
        n_too_far=0,
        n_over_edge=0,
    )


def rules_of(plan: Plan, threads: int | None) -> dict[str, Any]:
    """Return the settings of `find_masks`.

    Parameters
    ----------
    plan : Plan
        Of the image.
    threads : int or None
        Threads to use.

    Returns
    -------
    dict
        By keyword.
    """
    settings = plan.settings
    share = 1.0 if plan.walks_level_0 else float(np.prod(plan.scale.factors))
    # In mode planes the size of the whole chain counts, not that of its planes.
    least = 0 if plan.stacked else settings.min_size_px
    most = None if plan.stacked else settings.max_size_px
    return {
        "cellprob_threshold": settings.cellprob_threshold,
        "flow_threshold": plan.flow_threshold,
        "min_size_px": int(np.ceil(least * share)),
        "max_size_px": None if most is None else max(1, int(most * share)),
        "niter": plan.niter,
        "mode": settings.following,
        "sampling": settings.sampling,
        "reach_px": plan.reach_px,
        "spacing": plan.spacing,
        "threads": threads,
    }


def _classes(answer: Answer, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    few = len(answer.classes) < 2
    return None if few else answer.classes.reshape(len(answer.classes), *shape)


def _owned(
    masks: Masks,
    peak: NDArray[np.int64],
    spread: NDArray[np.float32],
    *,
    plan: Plan,
    core: Box,
    window: Box,
) -> Found:
    """Return those of a window's cells that the core owns, in the order of their numbers."""
    blocks = Grid(plan.walk_shape, BLOCK_PX[plan.mode])
    box = core.grow(spread_px(plan)).clip(window)
    rows = np.flatnonzero(((peak >= core.start) & (peak < core.stop)).all(axis=1))
    places = np.ravel_multi_index(tuple(peak[rows].T), plan.walk_shape).reshape(-1)
    by_block = np.lexsort((places, blocks.owners(peak[rows])))
    rows, places = rows[by_block], places[by_block]
    new = np.arange(1, rows.size + 1, dtype=np.uint32)
    inner = box.relative_to(window.start).slices
    cut = masks.labels.reshape(window.shape)[inner]
    old = (rows + 1).astype(np.uint32)
    same = rows.size == len(masks.peak) and (old == new).all()
    labels = np.ascontiguousarray(cut) if same else _relabelled(cut, old, new)
    claim_index, claim_label = _claims(labels, plan, order=np.argsort(np.argsort(places)))
    on_border = _on_border(labels, new, box=box, plan=plan)
    differing = seen_over(labels, spread[inner], n=rows.size, plan=plan, box=box)
    kept = _seen(labels, rows.size, plan=plan, box=box)
    if not plan.stacked:  # there chains are judged, not the cells of planes
        kept &= in_region(peak[rows], plan)
        kept &= ~on_border | plan.settings.keep_border
    return Found(
        box=box,
        labels=labels,
        claim_index=claim_index,
        claim_label=claim_label,
        peak=peak[rows],
        area=masks.area[rows],
        flow_error=masks.flow_error[rows],
        logit=masks.logit[rows],
        class_logit=masks.class_logit[rows],
        spread=differing[0],
        seen_again=differing[1],
        on_border=on_border,
        kept=kept,
        n_too_far=masks.n_too_far,
        n_over_edge=masks.n_over_edge,
    )


def _relabelled(
    labels: NDArray[np.uint32], old: NDArray[np.uint32], new: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    order = np.argsort(old)
    return relabel(labels, old[order], new[order])


def _claims(
    labels: NDArray[np.uint32], plan: Plan, *, order: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Return the places that cells enclose; of equal areas the first peak of the image has them."""
    if not plan.settings.fill:
        return np.zeros(0, np.int64), np.zeros(0, np.uint32)
    return hole_claims(labels[0] if plan.mode == "planes" else labels, order=order)


def _on_border(
    labels: NDArray[np.uint32], ids: NDArray[np.uint32], *, box: Box, plan: Plan
) -> NDArray[np.bool_]:
    """Return which cells touch the border of the image; the first time is none."""
    objects = boxes_and_areas(labels, ids=ids)
    low = np.asarray(objects.start) + box.start
    high = np.asarray(objects.stop) + box.start
    touches = ((low <= 0) | (high >= plan.walk_shape))[:, int(plan.series) :]
    return np.asarray(touches.any(axis=1) & (objects.area > 0))


def _seen(labels: NDArray[np.uint32], n: int, *, plan: Plan, box: Box) -> NDArray[np.bool_]:
    """Return which cells have a pixel that level 0 is painted from; all of them as a rule."""
    if plan.walks_level_0 or max(plan.scale.factors) <= 1:
        return np.ones(n, bool)
    taken = []
    for axis, (low, high) in enumerate(zip(box.start, box.stop, strict=True)):
        used = painted_from(plan, axis)
        taken.append(used[(used >= low) & (used < high)] - low)
    found = np.zeros(n + 1, bool)
    found[np.unique(labels[np.ix_(*taken)])] = True
    return found[1:]


def painted_from(plan: Plan, axis: int) -> NDArray[np.int64]:
    """Return from which pixel of the grid that was walked on each pixel of level 0 is painted.

    Parameters
    ----------
    plan : Plan
        Of the image.
    axis : int
        Along which axis.

    Returns
    -------
    int64 array [n]
        Ascending; places along the axis.
    """
    line = np.arange(plan.walk_shape[axis], dtype=np.uint32)[:, None]
    if plan.walks_level_0:
        return line.ravel().astype(np.int64)
    used = resample_nearest(
        line,
        box=Box((0, 0), (plan.shape[axis], 1)),
        origin=(0, 0),
        source_shape=line.shape,
        num=(plan.scale.den[axis], 1),
        den=(plan.scale.num[axis], 1),
    )
    return used.ravel().astype(np.int64)


def ids_of(found: Found, first: NDArray[np.int64], plan: Plan) -> NDArray[np.uint32]:
    """Return the number of each cell of a tile.

    Parameters
    ----------
    found : Found
        The tile's cells.
    first : int64 array [n_blocks]
        Number of the first cell of each block, see `first_ids`.
    plan : Plan
        Of the image.

    Returns
    -------
    uint32 array [n]
        `DROPPED` for those without a number.
    """
    ids = np.full(len(found.peak), DROPPED)
    blocks = Grid(plan.walk_shape, BLOCK_PX[plan.mode])
    block, rank = block_ranks(found.peak[found.kept], blocks)
    ids[found.kept] = (first[block] + rank).astype(np.uint32)
    return ids


def counts_of(found: Found, plan: Plan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many numbered cells the blocks of a tile have.

    Parameters
    ----------
    found : Found
        The tile's cells.
    plan : Plan
        Of the image.

    Returns
    -------
    block, count : int64 array [k]
        Blocks with cells, ascending.
    """
    blocks = Grid(plan.walk_shape, BLOCK_PX[plan.mode])
    block, count = np.unique(blocks.owners(found.peak[found.kept]), return_counts=True)
    return block.astype(np.int64), count.astype(np.int64)


def paint(box: Box, tiles: Iterable[tuple[Found, NDArray[np.uint32]]]) -> NDArray[np.uint32]:
    """Paint a box from the cells of all tiles that may reach it.

    A hole goes to the claimant with the smallest area, of equal ones to that with the first peak.

    Parameters
    ----------
    box : Box
        On the grid that particles walk on.
    tiles : iterable of (Found, uint32 array [n])
        Cells and their numbers, in any order.

    Returns
    -------
    uint32 array [*box]
        Numbers; 0 for background.
    """
    labels = np.zeros(box.shape, np.uint32)
    claims = []
    for found, ids in tiles:
        shared = found.box.clip(box)
        if not shared.size or not len(ids):
            continue
        part = found.labels[shared.relative_to(found.box.start).slices]
        own = np.arange(1, len(ids) + 1, dtype=np.uint32)
        numbers = relabel(np.ascontiguousarray(part), own, ids)
        target = labels[shared.relative_to(box.start).slices]
        np.copyto(target, numbers, where=numbers > 0)
        claims.append(_claimed(found, ids, box))
    _fill(labels, claims)
    labels[labels == DROPPED] = 0
    return labels


def _claimed(
    found: Found, ids: NDArray[np.uint32], box: Box
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
    """Return places in a box that a tile's cells claim, their numbers and what ranks them."""
    places = np.stack(np.unravel_index(found.claim_index, found.box.shape), axis=1)
    places = places + np.asarray(found.box.start) - np.asarray(box.start)
    here = ((places >= 0) & (places < box.shape)).all(axis=1)
    row = found.claim_label[here].astype(np.int64) - 1
    index = np.ravel_multi_index(tuple(places[here].T), box.shape) if here.any() else row[:0]
    rank = np.column_stack([found.area[row], found.peak[row]])
    return np.asarray(index, np.int64), ids[row], rank


def _fill(
    labels: NDArray[np.uint32],
    claims: list[tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]],
) -> None:
    """Give each claimed place that is still background to its best claimant."""
    if not claims:
        return
    index, ids, rank = (np.concatenate(part) for part in zip(*claims, strict=True))
    order = np.lexsort((*reversed(rank.T), index))
    index, ids = index[order], ids[order]
    best = np.ones(index.size, bool)
    best[1:] = index[1:] != index[:-1]
    flat = labels.reshape(-1)
    free = best & (flat[index] == 0)
    flat[index[free]] = ids[free]
