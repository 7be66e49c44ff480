"""What one tile sees in its window, and what two tiles see where their windows overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import (
    Masks,
    Overlaps,
    fill_holes,
    find_masks,
    flow_quality,
    iou_of,
    overlap_pairs,
    relabel,
)
from cellseg_pipe.segmentation._seams_nodes import Nodes, nodes_of, seen_whole
from cellseg_pipe.segmentation.agreement import seen_over
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.predict import Answer
from cellseg_pipe.segmentation.tiled import rules_of
from cellseg_pipe.tiles import Tile

__all__ = ["SeamTable", "View", "see_cells", "seam_overlaps"]


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
    spread, seen_again : float64 array [n]
        Sums over the cell of how far windows differ, and of how far more than one sees a pixel.
    """

    tile: Tile
    labels: NDArray[np.uint32]
    nodes: Nodes
    area: NDArray[np.int64]
    flow_error: NDArray[np.float64]
    logit: NDArray[np.float64]
    class_logit: NDArray[np.float64]
    spread: NDArray[np.float64]
    seen_again: NDArray[np.float64]


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
    complete = seen_whole(masks.labels.reshape(window.shape), peak, plan=plan, window=window)
    strays = (masks.labels == 0) & (
        answer.logit.reshape(flow.shape[1:]) > rules["cellprob_threshold"]
    )
    masks = replace(masks, labels=_adopted(masks.labels, strays, complete))
    error = np.full(len(peak), np.nan)
    if limits["flow_threshold"]:
        error = _errors(masks, flow, complete, plan=plan, threads=threads)
    kept = masks.area <= (limits["max_size_px"] or np.iinfo(np.int64).max)
    kept &= ~complete | (masks.area >= limits["min_size_px"])
    kept &= ~(error > (limits["flow_threshold"] or np.inf))
    labels = _filled(masks.labels, kept, threads=threads) if plan.settings.fill else masks.labels
    labels = labels.reshape(window.shape)
    own, spread = masks.labels.reshape(window.shape), answer.spread.reshape(window.shape)
    differing = seen_over(own, spread, n=len(peak), plan=plan, box=window)
    return View(
        tile=tile,
        labels=labels,
        nodes=nodes_of(labels, peak, plan=plan, tile=tile, kept=kept),
        area=masks.area,
        flow_error=error,
        logit=masks.logit,
        class_logit=masks.class_logit,
        spread=differing[0],
        seen_again=differing[1],
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


def _adopted(
    labels: NDArray[np.uint32], strays: NDArray[np.bool_], complete: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Give pieces of foreground without a cell to the cut cell that they share most faces with.

    Particles that an edge holds up come to rest on single pixels. Two of these up to 2 px apart
    make one peak, and with nothing between them to grow over, half of a wide cell is lost.
    """
    if complete.all() or not strays.any():
        return labels
    from scipy import ndimage  # here: exact seams do without

    pieces = ndimage.label(strays)[0]
    touching = [np.zeros((0, 2), np.int64)]
    for axis in range(labels.ndim):
        for one, other in ((labels, pieces), (pieces, labels)):
            low, high = one.swapaxes(0, axis)[:-1], other.swapaxes(0, axis)[1:]
            cell, piece = (low, high) if one is labels else (high, low)
            faces = (cell > 0) & (piece > 0)
            touching.append(np.stack([piece[faces], cell[faces]], axis=1).astype(np.int64))
    pairs, n = np.unique(np.concatenate(touching), axis=0, return_counts=True)
    cut = ~complete[pairs[:, 1] - 1]
    pairs, n = pairs[cut], n[cut]
    pairs = pairs[np.lexsort((pairs[:, 1], -n, pairs[:, 0]))]
    best = pairs[np.unique(pairs[:, 0], return_index=True)[1]]
    owner = np.zeros(int(pieces.max()) + 1, np.uint32)
    owner[best[:, 0]] = best[:, 1]
    return np.where(strays, owner[pieces], labels)


def _filled(
    labels: NDArray[np.uint32], kept: NDArray[np.bool_], *, threads: int | None
) -> NDArray[np.uint32]:
    """Fill cells as if the rejected ones were background, which these keep where it is left."""
    ids = (np.flatnonzero(kept) + 1).astype(np.uint32)
    filled = fill_holes(relabel(labels, ids, ids, threads=threads), threads=threads)
    return np.where(filled > 0, filled, labels)


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
