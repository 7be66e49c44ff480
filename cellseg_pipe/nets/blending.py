"""Adds up what a network said of windows, alike for any box. Arithmetic only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.windows import LOGIT_MAX, Record, View
from cellseg_pipe.tiles import Lattice

__all__ = ["blend", "blend_answers", "ramps"]

HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)  # all that a record can hold
# Of each of them: a table has the same bits wherever a pixel lies, and is faster than exp.
PROBABILITIES = (
    1 / (1 + np.exp(-np.clip(np.nan_to_num(HALVES.astype(np.float64)), -LOGIT_MAX, LOGIT_MAX)))
).astype(np.float32)


def blend(
    records: Iterable[Record], view: View, box: Box, *, n_outputs: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Add up windows, each weighted by a ramp where it overlaps its neighbours.

    Parameters
    ----------
    records : iterable of Record
        All the windows that meet the box, ascending: the order of a sum decides its last bits.
    view : View
        The windows.
    box : Box
        What to cover, on the network's grid.
    n_outputs : int
        Channels of a record.

    Returns
    -------
    outputs : float32 array [n_outputs, *box]
        Whatever the records hold.
    style : float32 array [n]
        Mean style of the windows, of length one; zero if none has any.
    """
    return _blended(records, view, box, n=n_outputs, part_of=_as_float32)


def blend_answers(
    records: Iterable[Record], view: View, box: Box, *, n_outputs: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Add up windows of a network that segments, and how far they say the same.

    Parameters
    ----------
    records : iterable of Record
        All the windows that meet the box, ascending.
    view : View
        The windows.
    box : Box
        What to cover, on the network's grid.
    n_outputs : int
        Channels of a record.

    Returns
    -------
    outputs : float32 array [n_outputs + 2, *box]
        Flow along the network's axes, logit, classes; then the mean of the windows' probabilities
        and that of their squares, which is the square of the mean where all say the same.
    style : float32 array [n]
        Mean style of the windows, of length one; zero if none has any.
    """
    part_of = functools.partial(_with_probability, n_axes=len(view.axes))
    return _blended(records, view, box, n=n_outputs + 2, part_of=part_of)


def _as_float32(values: NDArray[np.float16]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _with_probability(values: NDArray[np.float16], *, n_axes: int) -> NDArray[np.float32]:
    part = np.empty((len(values) + 2, *values.shape[1:]), np.float32)
    part[:-2] = values
    part[-2] = PROBABILITIES[values[n_axes].view(np.uint16)]
    np.multiply(part[-2], part[-2], out=part[-1])
    return part


def _blended(
    records: Iterable[Record],
    view: View,
    box: Box,
    *,
    n: int,
    part_of: Callable[[NDArray[np.float16]], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the weighted sum of what is made of each record, and the mean style."""
    total = np.zeros((n, *box.shape), np.float32)
    styles = []
    for record in records:
        window = view.box(record.index)
        shared = window.clip(box)
        part = part_of(record.values[(slice(None), *shared.relative_to(window.start).slices)])
        for axis, ramp in enumerate(ramps(view.lattice, record.index)):
            here = ramp[shared.start[axis] - window.start[axis] :][: shared.shape[axis]]
            weigh(part, here, axis=axis - box.ndim)
        total[(slice(None), *shared.relative_to(box.start).slices)] += part
        if record.style.any():
            styles.append(record.style.astype(np.float64))
    style = np.sum(styles, axis=0) if styles else np.zeros(1)
    length = float(np.sqrt(np.sum(style**2)))
    return total, (style / (length or 1.0)).astype(np.float32)


def ramps(lattice: Lattice, index: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """Return the weight of a window along each axis: the weights of two neighbours add up to one.

    Parameters
    ----------
    lattice : Lattice
        The windows.
    index : tuple of int
        The window's place.

    Returns
    -------
    list of float32 array [edge]
        Rising and falling smoothly where there is a neighbour, 1 elsewhere.
    """
    weights = []
    for axis, at in enumerate(index):
        edge, overlap = lattice.box(index).shape[axis], lattice.overlap[axis]
        t = (np.arange(overlap) + 0.5) / max(overlap, 1)
        rise = (t * t * (3 - 2 * t)).astype(np.float32)
        ramp = np.ones(edge, np.float32)
        if at > 0:
            ramp[:overlap] = rise
        if at + 1 < lattice.counts[axis]:
            ramp[edge - overlap :] = np.float32(1) - rise
        weights.append(ramp)
    return weights


def weigh(part: NDArray[np.float32], ramp: NDArray[np.float32], *, axis: int) -> None:
    """Multiply by a ramp along an axis, in place, where it is not one: at most at both ends.

    Parameters
    ----------
    part : float32 array [n, *box]
        What is multiplied.
    ramp : float32 array [edge]
        From `ramps`, or a part of it.
    axis : int
        Along which axis, counted from the last, which is -1.
    """
    ones = np.flatnonzero(ramp == 1)
    low, high = (ones[0], ones[-1] + 1) if ones.size else (len(ramp), len(ramp))
    for end in (slice(0, low), slice(high, len(ramp))):
        along = (Ellipsis, end, *(slice(None),) * (-1 - axis))
        part[along] *= ramp[end].reshape(-1, *(1,) * (-1 - axis))
