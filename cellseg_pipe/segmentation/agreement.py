"""How far windows that overlap agree on cells: what is seen more than once, and the figure."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import resample
from cellseg_pipe.nets.blending import ramps
from cellseg_pipe.nets.windows import View
from cellseg_pipe.segmentation.plan import Plan

__all__ = ["agreement", "seen_again", "seen_over"]

LINES = 16  # that are kept: of a plan there are as many as axes and views


def agreement(spread: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far what sees a cell more than once agrees on it.

    Parameters
    ----------
    spread, seen : float64 array [n]
        Sums over each cell of `Answer.spread` and of `seen_again`.

    Returns
    -------
    float64 array [n]
        1 less the mean squared difference of two probabilities of a pixel, each pair by its
        weights, from 0 to 1; nan where each pixel is seen once.
    """
    found = np.full(len(seen), np.nan)
    again = seen > 0
    found[again] = np.clip(1 - 2 * spread[again] / seen[again], 0, 1)
    return found


def seen_over(
    labels: NDArray[np.uint32], spread: NDArray[np.float32], *, n: int, plan: Plan, box: Box
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum up what is seen more than once of each cell, in C order, alike in any box that holds it.

    Parameters
    ----------
    labels : uint32 array [*box]
        Cells from 1 to n; 0 for background.
    spread : float32 array [*box]
        Of the answer.
    n : int
        How many cells there are.
    plan : Plan
        Of the image.
    box : Box
        On the grid that particles walk on.

    Returns
    -------
    spread, seen : float64 array [n]
        What `agreement` takes.
    """
    again = seen_again(plan, box).ravel()
    flat = labels.ravel()
    places = np.flatnonzero((again > 0) & (flat > 0))  # a fifth of a large image
    cell = flat[places]

    def summed(what: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(cell, what.ravel()[places], n + 1)[1:], np.float64)

    return summed(spread), summed(again)


def seen_again(plan: Plan, box: Box) -> NDArray[np.float32]:
    """Return how far more than one window or view has a say in each pixel.

    Nothing has to be kept of this while windows are blended: their weights are products over axes.

    Parameters
    ----------
    plan : Plan
        Of the image.
    box : Box
        On the grid that particles walk on.

    Returns
    -------
    float32 array [*box]
        1 less the squared weights of all that see a pixel; 0 where one window alone sees it.
    """
    once = np.zeros(box.shape, np.float32)
    for view in plan.views:
        squares = np.full((1,) * box.ndim, 1 / len(plan.views) ** 2, np.float32)
        for axis, (low, high) in enumerate(zip(box.start, box.stop, strict=True)):
            again = _walked_line(plan, view, axis)[low:high]
            squares = squares * (1 - again).reshape(-1, *(1,) * (box.ndim - 1 - axis))
        once += squares
    return np.asarray(1 - once)


def _walked_line(plan: Plan, view: View, axis: int) -> NDArray[np.float32]:
    """Return 1 less the squared weights along an axis of the grid that particles walk on."""
    if not plan.walks_level_0:
        return _line(view, axis)
    return _line_on_level_0(
        view, axis, n=plan.shape[axis], num=plan.scale.num[axis], den=plan.scale.den[axis]
    )


@functools.lru_cache(maxsize=LINES)
def _line_on_level_0(view: View, axis: int, *, n: int, num: int, den: int) -> NDArray[np.float32]:
    return resample(
        _line(view, axis)[None, :, None],
        box=Box((0, 0), (n, 1)),
        origin=(0, 0),
        source_shape=(view.shape[axis], 1),
        num=(den, 1),
        den=(num, 1),
    ).ravel()


@functools.lru_cache(maxsize=LINES)
def _line(view: View, axis: int) -> NDArray[np.float32]:
    """Return 1 less the squared weights along an axis of the network's grid."""
    lattice, border = view.lattice, view.border_px[axis]
    squares = np.zeros(lattice.shape[axis], np.float32)
    index = [0] * len(lattice.shape)
    for at in range(lattice.counts[axis]):
        index[axis] = at
        box, weight = lattice.box(index), ramps(lattice, tuple(index))[axis]
        part = squares[box.start[axis] : box.stop[axis]]
        part += (weight * weight)[: len(part)]
    return 1 - squares[border : len(squares) - border]
