"""What is known of the cells in one tile's window without their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import border_objects, boxes_and_areas, relabel, resample_nearest
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.tiles import Tile

__all__ = ["Nodes", "nodes_of", "seen_whole"]

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


def seen_whole(
    labels: NDArray[np.uint32], peak: NDArray[np.int64], *, plan: Plan, window: Box
) -> NDArray[np.bool_]:
    """Return which cells no edge within the image cuts.

    Parameters
    ----------
    labels : uint32 array [*window]
        Cells from 1.
    peak : int64 array [n, ndim]
        Of the whole grid.
    plan : Plan
        Of the image.
    window : Box
        Where the labels lie.

    Returns
    -------
    bool array [n]
        False for those that touch such an edge, or whose particles it holds up.
    """
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
    if not plan.settings.keep_border and not plan.stacked:
        kept &= ~on_border
    return Nodes(
        number=tile.number,
        peak=peak,
        anchor=anchor,
        size=objects.area,
        core_size=boxes_and_areas(np.ascontiguousarray(labels[inner]), ids=ids).area,
        complete=seen_whole(labels, peak, plan=plan, window=window),
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
