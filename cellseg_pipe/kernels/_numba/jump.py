"""Numba loops that let pixels jump along the flow, so that few particles are walked to the end."""

from __future__ import annotations

import math

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._step import FRACTION_BITS, ONE, advance
from cellseg_pipe.kernels._numba._threads import spread
from cellseg_pipe.kernels._numba.follow import (
    COUNTED,
    OVER_EDGE,
    POOL,
    field_strides,
    lanes_of_shape,
    pack,
    parts_of,
    path_high,
    path_low,
    place_particle,
    shape_of,
    verdict_on_axis,
    walk_points,
)

JUMP_STEPS = 8  # of a jump; with 5 twice as many pixels of noisy flows part from exact mode
# A pixel whose jump leads no farther has arrived and walks on from where it is. Were all the pixels
# round a sink to jump onto one, their ends would fall on few pixels, with gaps that stop the growth
# of peaks: 18 of 2,116 cells lost half their pixels.
ARRIVED = 2  # px
FAR = (1 << 15) - 1  # px; a path as long is dropped whatever the reach


@loop(
    *(
        (
            const(types.float32),
            shape_of(ndim),
            shape_of(ndim),
            const(types.int64),
            types.int64,
            const(types.int32),
            types.int64,
            out(types.int32),
            out(types.int16, 2),
        )
        for ndim in (2, 3)
    )
)
def jump_points(field, shape, strides, starts, n_steps, rank, first, nexts, hops):
    """Walk n_steps from each pixel and name the foreground pixel nearest to where that leads.

    A pixel that has arrived, or is led out of the foreground, names itself. `hops` gets,
    per axis and relative to the pixel, the pixel reached and the lowest and highest of the path.
    """
    ndim = len(shape)
    lanes = lanes_of_shape(shape)
    size = 3 * lanes
    state = np.zeros(POOL * size, np.int32)
    upper = np.zeros(lanes, np.int32)
    for axis in range(ndim):
        upper[axis] = (shape[axis] - 1) << FRACTION_BITS
    for begin in range(0, starts.size, POOL):
        n_in_pool = min(POOL, starts.size - begin)
        for j in range(n_in_pool):
            place_particle(state, j * size, lanes, shape, starts[begin + j])
        for _ in range(n_steps):
            for j in range(n_in_pool):
                advance(field, state, j * size, upper, strides)
        for j in range(n_in_pool):
            at = j * size
            flat = np.int64(0)
            for axis in range(ndim):
                flat = flat * shape[axis] + ((state[at + axis] + ONE // 2) >> FRACTION_BITS)
            k = begin + j
            found = rank[flat]
            rest = starts[k]
            farthest = np.int64(0)
            for back in range(ndim):
                axis = ndim - 1 - back
                home = rest % shape[axis]
                rest //= shape[axis]
                there = (state[at + axis] + ONE // 2) >> FRACTION_BITS
                farthest = max(farthest, abs(there - home))
                hops[k, 3 * axis] = bounded(there - home)
                hops[k, 3 * axis + 1] = bounded(path_low(state, at, lanes, axis) - home)
                hops[k, 3 * axis + 2] = bounded(path_high(state, at, lanes, axis) - home)
            nexts[k] = found
            if found < 0 or farthest <= ARRIVED:
                nexts[k] = first + k
                for axis in range(ndim):
                    hops[k, 3 * axis] = 0
    return 0


@helper
def bounded(value):
    """Return a distance that fits 16 bits; one at the bound is beyond any reach."""
    return np.int16(min(max(value, -FAR), FAR))


@loop(
    (
        const(types.int32),
        const(types.int16, 2),
        types.int64,
        types.int64,
        out(types.int32),
        out(types.int16, 2),
    )
)
def double_jumps(nexts, hops, first, last, farther, unions):
    """Let pixels first to last jump twice as far, with the box of both paths.

    Return how many were led on: none, and doubling again would change nothing.
    """
    led_on = 0
    for i in range(first, last):
        j = nexts[i]
        farther[i] = nexts[j]
        led_on += farther[i] != j
        for axis in range(hops.shape[1] // 3):
            moved = np.int64(hops[i, 3 * axis])
            low = min(np.int64(hops[i, 3 * axis + 1]), moved + hops[j, 3 * axis + 1])
            high = max(np.int64(hops[i, 3 * axis + 2]), moved + hops[j, 3 * axis + 2])
            unions[i, 3 * axis] = bounded(moved + hops[j, 3 * axis])
            unions[i, 3 * axis + 1] = bounded(low)
            unions[i, 3 * axis + 2] = bounded(high)
    return led_on


@loop(
    *(
        (
            shape_of(ndim),
            const(types.int64),
            const(types.int32),
            const(types.int16, 2),
            const(types.int32, 2),
            const(types.int32, 2),
            const(types.int64),
            const(types.uint8),
            out(types.int32, 2),
            out(types.uint8),
        )
        for ndim in (2, 3)
    )
)
def end_jumps(shape, starts, roots, hops, root_ends, root_boxes, reach, edges, ends, verdicts):
    """Give each pixel the end of its root, and judge the box of both paths."""
    ndim = len(shape)
    for i in range(starts.size):
        root = roots[i]
        verdicts[i] = COUNTED
        rest = starts[i]
        for back in range(ndim):
            axis = ndim - 1 - back
            home = rest % shape[axis]
            rest //= shape[axis]
            ends[i, axis] = root_ends[root, axis]
            low = min(home + hops[i, 3 * axis + 1], np.int64(root_boxes[root, 2 * axis]))
            high = max(home + hops[i, 3 * axis + 2], np.int64(root_boxes[root, 2 * axis + 1]))
            if verdicts[i] != OVER_EDGE:
                end = root_ends[root, axis] >> FRACTION_BITS
                verdict = verdict_on_axis(
                    end, low, high, shape[axis], reach[axis], edges[2 * axis], edges[2 * axis + 1]
                )
                verdicts[i] = max(verdicts[i], verdict)
    return 0


def jump_flows(flow, foreground, *, n_steps, reach, edges, threads):
    """Return (starts, ends, verdicts): particles jump to pixels, and only their roots walk on."""
    shape = foreground.shape
    starts = np.flatnonzero(foreground)
    nexts, hops = _jumps(flow, foreground, starts, n_steps=n_steps, threads=threads)
    # A fixed number, from the settings alone, so that a crop jumps as far as the whole. Where all
    # have arrived the rest is left out: it would only repeat the same arrays.
    led_on = 1
    for _ in range(max(0, math.ceil(math.log2(max(n_steps, 1) / JUMP_STEPS)))):
        if led_on:
            nexts, hops, led_on = _doubled(nexts, hops, threads=threads)
    is_root = np.zeros(starts.size, np.uint8)
    is_root[nexts] = 1
    rules = {"shape": shape, "reach": reach, "edges": edges, "threads": threads}
    at = starts[np.flatnonzero(is_root)]
    field = pack(flow, foreground, threads=threads)  # again: it is large, and quickly made
    root_ends, root_boxes, _ = walk_points(field, at, n_steps=n_steps, boxed=True, **rules)
    del field
    roots = (np.cumsum(is_root, dtype=np.int32) - 1)[nexts]
    return starts, *_ends_of_roots(starts, roots, hops, root_ends, root_boxes, **rules)


def _jumps(flow, foreground, starts, *, n_steps, threads):
    """Return, of each pixel, the one it leads to and the box of the way there."""
    shape = foreground.shape
    field = pack(flow, foreground, threads=threads)
    rank = np.full(math.prod(shape), -1, np.int32)
    rank[starts] = np.arange(starts.size, dtype=np.int32)
    nexts = np.empty(starts.size, np.int32)
    hops = np.empty((starts.size, 3 * len(shape)), np.int16)
    strides = field_strides(shape)
    n = min(JUMP_STEPS, n_steps)

    def part(a, b):
        jump_points(field, shape, strides, starts[a:b], n, rank, a, nexts[a:b], hops[a:b])

    spread(part, parts_of(starts.size, threads), threads=threads)
    return nexts, hops


def _doubled(nexts, hops, *, threads):
    """Return where two jumps in a row lead, the box of both, and how many pixels were led on."""
    farther, unions = np.empty_like(nexts), np.empty_like(hops)
    led_on = spread(
        lambda a, b: double_jumps(nexts, hops, a, b, farther, unions),
        parts_of(nexts.size, threads),
        threads=threads,
    )
    return farther, unions, sum(led_on)


def _ends_of_roots(starts, roots, hops, root_ends, root_boxes, *, shape, reach, edges, threads):
    """Return (ends, verdicts) of the pixels, from those of their roots."""
    ends = np.empty((starts.size, len(shape)), np.int32)
    verdicts = np.empty(starts.size, np.uint8)

    def part(first, last):
        these = slice(first, last)
        end_jumps(
            shape,
            starts[these],
            roots[these],
            hops[these],
            root_ends,
            root_boxes,
            reach,
            edges,
            ends[these],
            verdicts[these],
        )

    spread(part, parts_of(starts.size, threads), threads=threads)
    return ends, verdicts
