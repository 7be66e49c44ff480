"""Paints any box from what the tiles see of it, once it is known what their cells are called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import relabel, union_find
from cellseg_pipe.segmentation._seams_link import Part
from cellseg_pipe.segmentation._seams_rank import PAINT_CORE, PAINT_NOTHING, PAINT_WHOLE
from cellseg_pipe.segmentation._seams_view import View
from cellseg_pipe.segmentation.plan import Plan

__all__ = ["paint_margin_px", "paint_seams", "speck_px"]

NOBODY = np.uint32(0xFFFFFFFF)  # ranks are below it


@dataclass(frozen=True)
class _Wanted:
    """Where a tile sees which of the cells that it helps to paint: their ranks, else 0."""

    box: Box
    rank: NDArray[np.uint32]


def speck_px(plan: Plan) -> int:
    """Return the smallest piece of a cell that stays, in pixels of the grid that is walked on.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    int
        Also in mode planes, where chains have a smallest size and cells of planes have none.
    """
    share = 1.0 if plan.walks_level_0 else float(np.prod(plan.scale.factors))
    return int(np.ceil(plan.settings.min_size_px * share))


def paint_margin_px(plan: Plan) -> tuple[int, ...]:
    """Return how far beyond a box views need to be read for it.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    tuple of int
        Per axis of the image.
    """
    least = speck_px(plan)
    margin = least + 1 if least > 1 else 0
    return tuple(margin if axis in plan.flow_axes else 0 for axis in range(len(plan.shape)))


def paint_seams(box: Box, tiles: Iterable[tuple[View, Part]], *, plan: Plan) -> NDArray[np.uint32]:
    """Paint a box from the views of all tiles that may reach it.

    A pixel goes to the cell whose anchor it is, else to that of lowest rank among those that paint
    it. A piece that others have cut off a cell (it borders a pixel that the cell wanted and did not
    get) becomes background if it has fewer than `speck_px` pixels and not the anchor. Each pixel
    depends on what is within `paint_margin_px` of it, so boxes of any cut agree.

    Parameters
    ----------
    box : Box
        On the grid that particles walk on.
    tiles : iterable of (View, Part)
        All whose window meets the box and its margin, in any order.
    plan : Plan
        Of the image.

    Returns
    -------
    uint32 array [*box]
        Numbers; 0 for background.
    """
    grown = box.grow(paint_margin_px(plan))
    best = np.full(grown.shape, NOBODY)
    wanted, anchors, names = [], [], [np.zeros((2, 0), np.uint32)]
    for view, part in tiles:
        if not view.tile.outer.meets(grown) or not part.rank.any():
            continue
        wanted.append(_offer(best, view, part, box=grown))
        anchors.append(_anchors(view, part, grown))
        names.append(np.stack([part.rank, part.id]))
    best[best == NOBODY] = 0
    held = np.zeros(grown.shape, bool)
    for place, rank in anchors:
        best[place] = rank
        held[place] = True
    if speck_px(plan) > 1:
        _clean(best, wanted, held, least=speck_px(plan))
    ranks, ids = np.concatenate(names, axis=1)
    ranks, once = np.unique(ranks, return_index=True)
    inner = box.relative_to(grown.start).slices
    return relabel(np.ascontiguousarray(best[inner]), ranks, ids[once])


def _offer(best: NDArray[np.uint32], view: View, part: Part, *, box: Box) -> _Wanted:
    """Lower the ranks of a box to those of one tile, where it paints; return all that it wants."""
    shared = view.tile.outer.clip(box)
    inner = view.tile.core.clip(shared)
    for where, paints in ((shared, PAINT_WHOLE), (inner, PAINT_CORE)):
        ranks = np.concatenate([[NOBODY], np.where(part.paints == paints, part.rank, NOBODY)])
        offered = ranks[view.labels[where.relative_to(view.tile.outer.start).slices]]
        target = best[where.relative_to(box.start).slices]
        np.minimum(target, offered, out=target)
    ranks = np.concatenate([[np.uint32(0)], np.where(part.paints == PAINT_NOTHING, 0, part.rank)])
    seen = view.labels[shared.relative_to(view.tile.outer.start).slices]
    return _Wanted(shared.relative_to(box.start), ranks.astype(np.uint32)[seen])


def _anchors(
    view: View, part: Part, box: Box
) -> tuple[tuple[NDArray[np.int64], ...], NDArray[np.uint32]]:
    """Return the places in a box that belong to cells whatever others want, and their ranks."""
    anchor = view.nodes.anchor - np.asarray(box.start)
    rows = part.owner & (part.rank > 0) & ((anchor >= 0) & (anchor < box.shape)).all(axis=1)
    return tuple(anchor[rows].T), part.rank[rows]


def _clean(
    best: NDArray[np.uint32], wanted: list[_Wanted], held: NDArray[np.bool_], *, least: int
) -> None:
    """Remove small pieces that border a pixel that their cell wanted and did not get."""
    bordering = np.zeros(best.shape, bool)
    for layer in wanted:
        lost = np.where(layer.rank != best[layer.box.slices], layer.rank, 0)
        _mark_neighbours(bordering, best, lost, box=layer.box)
    ranks = np.unique(best[bordering])
    ranks = ranks[ranks > 0]
    pixels = np.flatnonzero(relabel(best, ranks, ranks)) if ranks.size else np.zeros(0, np.int64)
    piece = _pieces(best, pixels)
    n = np.bincount(piece, minlength=pixels.size)
    stays = np.bincount(piece, held.ravel()[pixels], pixels.size) > 0
    stays |= np.bincount(piece, bordering.ravel()[pixels], pixels.size) == 0
    best.reshape(-1)[pixels[((n < least) & ~stays)[piece]]] = 0


def _mark_neighbours(
    bordering: NDArray[np.bool_], best: NDArray[np.uint32], lost: NDArray[np.uint32], *, box: Box
) -> None:
    """Mark the face neighbours of lost pixels that the same cell got."""
    for axis in range(best.ndim):
        for step in (-1, 1):
            offset = tuple(step if a == axis else 0 for a in range(best.ndim))
            target = box.shift(offset).clip(Box.of(best.shape))
            source = target.shift(tuple(-o for o in offset)).relative_to(box.start)
            there = lost[source.slices]
            bordering[target.slices] |= (there > 0) & (best[target.slices] == there)


def _pieces(best: NDArray[np.uint32], pixels: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the piece of each pixel: pixels of one rank that faces join."""
    place = np.full(best.shape, -1, np.int64)
    place.reshape(-1)[pixels] = np.arange(pixels.size)
    left, right = [], []
    for axis in range(best.ndim):
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(best.ndim))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(best.ndim))
        same = (best[low] == best[high]) & (place[low] >= 0)
        left.append(place[low][same])
        right.append(place[high][same])
    return union_find(pixels.size, np.concatenate(left), np.concatenate(right))
