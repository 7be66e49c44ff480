"""What must be computed for the cells of a region: which windows, and which part of a tile.

A region's cells are those of the whole image, so more is looked at than the region itself. Two
spreads beyond it lie the cells that may own or fill a pixel of one of its cells; these are right if
the windows a halo further are there. What else may matter to a cell does not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box, ceil_div
from cellseg_pipe.nets.windows import View
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.predict import smoothing_halo
from cellseg_pipe.segmentation.tiled import halo_px, spread_px
from cellseg_pipe.tiles import Grid

__all__ = ["core_needed", "cores_needed", "is_confined", "only_needed", "windows_needed"]

Source = Callable[[Box], NDArray[np.float32] | None]
# Windows are asked for by places rounded to this: thin ones of the side views have few answers.
STEP_PX = 32
# Beyond a pixel's own place: interpolation reads the next one, and places are rounded.
SLACK_PX = 3


def is_confined(plan: Plan) -> bool:
    """Return whether the region limits what is computed.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    bool
        Not in mode planes: where a cell begins depends on all the planes it goes through, and each
        may shift it.
    """
    return plan.region is not None and plan.mode != "planes"


def windows_needed(plan: Plan, view: View) -> NDArray[np.bool_]:
    """Return which windows the cells of the region depend on.

    Parameters
    ----------
    plan : Plan
        Of the image.
    view : View
        One of its views.

    Returns
    -------
    bool array [windows along each axis]
        All of them without a region.
    """
    counts = view.lattice.counts
    if plan.region is None or not is_confined(plan):
        return np.ones(counts, bool)
    ends = []
    for axis, count in enumerate(counts):
        low, high = np.empty(count, np.int64), np.empty(count, np.int64)
        for place in range(count):
            index = tuple(place if a == axis else 0 for a in range(len(counts)))
            box = view.box(index).clip(Box.of(view.shape))
            low[place], high[place] = _on_level_0(plan, axis, (box.start[axis], box.stop[axis]))
        ends.append((low, high))
    return plan.region.touched(ends)


def only_needed(make: Source, plan: Plan) -> Source:
    """Return a source that has nothing where no window is needed.

    Parameters
    ----------
    make : callable
        Gives the network's input of a box of its grid.
    plan : Plan
        Of the image.

    Returns
    -------
    callable
        Of the same kind; what is left out counts as background.
    """
    region = plan.region
    if region is None or not is_confined(plan):
        return make

    def made(box: Box) -> NDArray[np.float32] | None:
        ends = [
            _on_level_0(plan, axis, ends)
            for axis, ends in enumerate(zip(box.start, box.stop, strict=True))
        ]
        asked = [(np.array([low]), np.array([high])) for low, high in ends]
        return make(box) if region.touched(asked).all() else None

    return made


def _on_level_0(plan: Plan, axis: int, ends: tuple[int, int]) -> tuple[int, int]:
    """Return between which places of level 0 pixels of the region ask for a window's."""
    num, den = plan.scale.num[axis], plan.scale.den[axis]
    smooth = smoothing_halo(plan)[axis]
    beyond = halo_px(plan)[axis] + 2 * spread_px(plan)[axis]
    if plan.walks_level_0:
        low, high = _widened(_stretched(_widened(ends, smooth), den, num), beyond)
    else:
        low, high = _stretched(_widened(ends, smooth + beyond), den, num)
    return low // STEP_PX * STEP_PX, ceil_div(high, STEP_PX) * STEP_PX


def _widened(ends: tuple[int, int], margin: int) -> tuple[int, int]:
    return ends[0] - margin, ends[1] + margin


def _stretched(ends: tuple[int, int], num: int, den: int) -> tuple[int, int]:
    """Return what an interval is on a grid num/den times as fine, and a little more."""
    if num == den:
        return ends
    wide = SLACK_PX * (1 + ceil_div(num, den))
    return ends[0] * num // den - wide, ceil_div(ends[1] * num, den) + wide


def core_needed(plan: Plan, core: Box) -> Box | None:
    """Return the part of a tile's core whose cells are needed.

    Parameters
    ----------
    plan : Plan
        Of the image.
    core : Box
        On the grid that particles walk on.

    Returns
    -------
    Box or None
        None if they are not; all of it without a region.
    """
    if plan.region is None or not is_confined(plan):
        return core
    spread = tuple(2 * margin for margin in spread_px(plan))
    wide = core.grow(spread)
    if plan.walks_level_0:
        found = plan.region.bounds(wide)
    else:
        found = plan.region.bounds(_scaled(wide, plan.scale.den, plan.scale.num))
        found = None if found is None else _scaled(found, plan.scale.num, plan.scale.den)
    needed = None if found is None else found.grow(spread).clip(core)
    return needed if needed is not None and needed.size else None


def cores_needed(plan: Plan, cores: Grid) -> NDArray[np.bool_]:
    """Return which tiles have cells that are needed, or nearly so.

    Parameters
    ----------
    plan : Plan
        Of the image.
    cores : Grid
        Of the tiles, on the grid that particles walk on.

    Returns
    -------
    bool array [n_tiles]
        False only where `core_needed` finds nothing.
    """
    if plan.region is None or not is_confined(plan):
        return np.ones(len(cores), bool)
    ends = []
    for axis, (n, pitch) in enumerate(zip(cores.shape, cores.pitch, strict=True)):
        beyond = 2 * spread_px(plan)[axis]
        both = [_widened((low, min(low + pitch, n)), beyond) for low in range(0, n, pitch)]
        if not plan.walks_level_0:
            num, den = plan.scale.num[axis], plan.scale.den[axis]
            both = [_stretched(pair, den, num) for pair in both]
        low, high = np.array(both, np.int64).reshape(-1, 2).T
        ends.append((low, high))
    return plan.region.touched(ends).ravel()


def _scaled(box: Box, num: tuple[int, ...], den: tuple[int, ...]) -> Box:
    ends = zip(box.start, box.stop, strict=True)
    both = [_stretched(pair, p, q) for pair, p, q in zip(ends, num, den, strict=True)]
    starts, stops = zip(*both, strict=True)
    return Box(starts, stops)
