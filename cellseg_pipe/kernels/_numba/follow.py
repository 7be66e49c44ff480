"""Numba loops that follow flows from each foreground pixel to where it comes to rest."""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._step import FRACTION_BITS, ONE, STEP_MAX, advance, lanes_of
from cellseg_pipe.kernels._numba._threads import ranges, spread
from cellseg_pipe.machine import available_threads

POOL = 32  # particles in flight: their steps overlap, which hides the latency of one
CYCLE = 12  # steps between looks: periods 1, 2, 3, 4, 6 and 12 come back to where they were
COUNTED, TOO_FAR, OVER_EDGE = 0, 1, 2
PIXELS = 1 << 20  # that a thread packs at a time


def shape_of(ndim):
    """Return the type of a shape."""
    return types.UniTuple(types.int64, ndim)


@loop(
    *(
        (
            const(types.float32, 2),
            const(types.uint8),
            shape_of(ndim),
            types.int64,
            types.int64,
            out(types.float32),
        )
        for ndim in (2, 3)
    )
)
def pack_rows(flow, foreground, shape, first, last, field):
    """Write rows first to last of the flow as a padded field of vectors, 0 where no foreground.

    Return the components that are not finite and in bounds everywhere, a bit for each.
    """
    ndim = len(shape)
    lanes = lanes_of_shape(shape)
    width = shape[ndim - 1]
    broken = 0
    for row in range(first, last):
        rest = row
        padded = np.int64(0)
        scale = np.int64(1)
        for back in range(1, ndim):
            axis = ndim - 1 - back
            padded += (rest % shape[axis]) * scale
            scale *= shape[axis] + 1
            rest //= shape[axis]
        target = padded * (width + 1) * lanes
        source = row * width
        for x in range(width):
            if foreground[source + x]:
                for axis in range(ndim):
                    value = flow[axis, source + x]
                    broken |= (not abs(value) <= STEP_MAX) << axis  # true of NaN too
                    field[target + x * lanes + axis] = value
    return broken


@helper
def lanes_of_shape(shape):
    """Return the length of a field's vectors."""
    return 2 if len(shape) == 2 else 4


@helper
def place_particle(state, at, lanes, shape, flat):
    """Put a particle onto a pixel, with a path of that one point."""
    rest = flat
    for back in range(len(shape)):
        axis = len(shape) - 1 - back
        start = np.int32((rest % shape[axis]) << FRACTION_BITS)
        rest //= shape[axis]
        for row in range(3):
            state[at + row * lanes + axis] = start


@helper
def path_low(state, at, lanes, axis):
    """Return the lowest whole pixel of a path; below 0 where it left the array."""
    return state[at + lanes + axis] >> FRACTION_BITS


@helper
def path_high(state, at, lanes, axis):
    """Return the highest whole pixel of a path, rounded up as sampling reads it."""
    return (state[at + 2 * lanes + axis] + (ONE - 1)) >> FRACTION_BITS


@helper
def verdict_on_axis(end, low, high, length, reach, low_edge, high_edge):
    """Say whether a path counts: it must not cross a window edge nor stray from its end."""
    if (low < 0 and low_edge) or (high >= length and high_edge):
        return np.uint8(OVER_EDGE)
    if end - max(low, 0) > reach or min(high, length - 1) - end > reach:
        return np.uint8(TOO_FAR)
    return np.uint8(COUNTED)


@loop(
    *(
        (
            const(types.float32),
            shape_of(ndim),
            shape_of(ndim),
            types.float32,
            const(types.int64),
            types.int64,
            const(types.int64),
            const(types.uint8),
            out(types.int32, 2),
            out(types.int32, 2),
            out(types.uint8),
        )
        for ndim in (2, 3)
    )
)
def follow_points(
    field, shape, strides, unit, starts, n_steps, reach, edges, ends, boxes, verdicts
):
    """Follow particles for n_steps each; a path that repeats itself is not walked to the end.

    A pool of particles moves CYCLE steps at a time. One that is back where it was before them will
    be there after every further CYCLE steps, so only the remainder is walked: the same end as
    without stopping, to the bit. Finished particles give their place to the next. Boxes of paths
    are written where there is room for them.
    """
    ndim = len(shape)
    lanes = lanes_of_shape(shape)
    size = 3 * lanes
    state = np.zeros(POOL * size, np.int32)
    before = np.zeros(POOL * lanes, np.int32)
    who = np.zeros(POOL, np.int64)
    walked = np.zeros(POOL, np.int64)
    upper = np.zeros(lanes, np.int32)
    for axis in range(ndim):
        upper[axis] = (shape[axis] - 1) << FRACTION_BITS
    n_in_pool = 0
    n_started = 0
    while n_in_pool or n_started < starts.size:
        while n_in_pool < POOL and n_started < starts.size:
            place_particle(state, n_in_pool * size, lanes, shape, starts[n_started])
            who[n_in_pool] = n_started
            walked[n_in_pool] = 0
            n_in_pool += 1
            n_started += 1
        j = 0
        while j < n_in_pool:
            at = j * size
            back = walked[j] > 0
            for axis in range(ndim):
                back = back and state[at + axis] == before[j * lanes + axis]
            left = n_steps - walked[j]
            if not back and left >= CYCLE:
                for axis in range(ndim):
                    before[j * lanes + axis] = state[at + axis]
                j += 1
                continue
            for _ in range(left % CYCLE):
                advance(field, state, at, upper, strides, unit)
            k = who[j]
            verdicts[k] = COUNTED
            for axis in range(ndim):
                low, high = path_low(state, at, lanes, axis), path_high(state, at, lanes, axis)
                ends[k, axis] = state[at + axis]
                if boxes.size:
                    boxes[k, 2 * axis] = low
                    boxes[k, 2 * axis + 1] = high
                if verdicts[k] != OVER_EDGE:
                    end = state[at + axis] >> FRACTION_BITS
                    verdict = verdict_on_axis(
                        end,
                        low,
                        high,
                        shape[axis],
                        reach[axis],
                        edges[2 * axis],
                        edges[2 * axis + 1],
                    )
                    verdicts[k] = max(verdicts[k], verdict)
            n_in_pool -= 1  # the last one takes its place, and is looked at next
            who[j] = who[n_in_pool]
            walked[j] = walked[n_in_pool]
            for i in range(size):
                state[at + i] = state[n_in_pool * size + i]
            for i in range(lanes):
                before[j * lanes + i] = before[n_in_pool * lanes + i]
        for _ in range(CYCLE):
            for j in range(n_in_pool):
                advance(field, state, j * size, upper, strides, unit)
        for j in range(n_in_pool):
            walked[j] += CYCLE
    return 0


def pack(flow, foreground, *, threads):
    """Return the flow as a padded field of vectors, 0 outside the foreground; refuse damage."""
    shape = foreground.shape
    lanes = lanes_of(len(shape))
    field = np.zeros(lanes * math.prod(n + 1 for n in shape), np.float32)
    flat = flow.reshape(len(shape), -1)
    mask = foreground.reshape(-1).view(np.uint8)
    rows = mask.size // max(shape[-1], 1)
    broken = spread(
        lambda first, last: pack_rows(flat, mask, shape, first, last, field),
        ranges(rows, max(1, PIXELS // max(shape[-1], 1))),
        threads=threads,
    )
    if bad := functools.reduce(operator.or_, broken, 0):
        raise ValueError(
            f"follow_flows needs a finite flow of at most {STEP_MAX:.0f} px per step in the"
            " foreground, got NaN, infinity or more in component"
            f" {(bad & -bad).bit_length() - 1}. The network's output is damaged, or was divided by"
            " 0."
        )
    return field


def field_strides(shape):
    """Return the distance of neighbours in a packed field, in floats."""
    strides = [lanes_of(len(shape))]
    for n in shape[:0:-1]:
        strides.insert(0, strides[0] * (n + 1))
    return tuple(strides)


def follow_flows(flow, foreground, *, n_steps, linear, reach, edges, threads):
    """Return (starts, ends, verdicts): every particle walked step by step."""
    shape = foreground.shape
    field = pack(flow, foreground, threads=threads)
    starts = places_of(foreground, threads)
    rules = {"linear": linear, "reach": reach, "edges": edges, "threads": threads}
    ends, _, verdicts = walk_points(field, starts, shape=shape, n_steps=n_steps, **rules)
    return starts, ends, verdicts


def walk_points(field, starts, *, shape, n_steps, linear, reach, edges, threads, boxed=False):
    ndim, strides = len(shape), field_strides(shape)
    ends = np.empty((starts.size, ndim), np.int32)
    boxes = np.empty((starts.size if boxed else 0, 2 * ndim), np.int32)
    verdicts = np.empty(starts.size, np.uint8)

    def part(first, last):
        these = slice(first, last)
        follow_points(
            field,
            shape,
            strides,
            unit_of(linear),
            starts[these],
            n_steps,
            reach,
            edges,
            ends[these],
            boxes[these],
            verdicts[these],
        )

    spread(part, parts_of(starts.size, threads), threads=threads)
    return ends, boxes, verdicts


def places_of(foreground, threads):
    """Return the flat indices of the foreground, ascending."""
    mask = foreground.reshape(-1)
    parts = ranges(mask.size, PIXELS)
    sizes = spread(lambda a, b: np.count_nonzero(mask[a:b]), parts, threads=threads)
    stops = np.cumsum([0, *sizes])
    places = np.empty(int(stops[-1]), np.int64)

    def part(k, a, b):
        np.add(np.flatnonzero(mask[a:b]), a, out=places[stops[k] : stops[k + 1]])

    spread(part, [(k, *these) for k, these in enumerate(parts)], threads=threads)
    return places


def unit_of(linear):
    """Return what a step takes the last bit of a fraction for."""
    return np.float32(1 / ONE if linear else 0)


def parts_of(n, threads):
    """Return ranges small enough to even out threads, and large against starting one."""
    return ranges(n, max(1 << 12, -(-n // (8 * (threads or available_threads())))))
