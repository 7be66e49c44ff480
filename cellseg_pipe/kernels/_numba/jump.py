"""Numba loops that let pixels jump along the flow, so that few particles are walked to the end."""

from __future__ import annotations

import math

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._ranks import rank_of, ranked
from cellseg_pipe.kernels._numba._step import FRACTION_BITS, ONE, advance
from cellseg_pipe.kernels._numba._threads import spread
from cellseg_pipe.kernels._numba.follow import (
    COUNTED,
    OVER_EDGE,
    POOL,
    field_strides,
    follow_flows,
    lanes_of_shape,
    pack,
    parts_of,
    path_high,
    path_low,
    place_particle,
    places_of,
    shape_of,
    unit_of,
    verdict_on_axis,
    walk_points,
)

JUMP_STEPS = 8  # of a jump; with 5 twice as many pixels of noisy flows part from exact mode
# A pixel whose jump leads no farther has arrived and walks on from where it is. Were all the pixels
# round a sink to jump onto one, their ends would fall on few pixels, with gaps that stop the growth
# of peaks: 18 of 2,116 cells lost half their pixels.
ARRIVED = 2  # px
# Jumps and the walk of the roots make up to twice the steps, which matters before all has arrived.
WORTH_JUMPING = 3 * JUMP_STEPS
FAR = (1 << 15) - 1  # px; a path as long is dropped whatever the reach


@loop(
    *(
        (
            const(types.float32),
            shape_of(ndim),
            shape_of(ndim),
            types.float32,
            const(types.int64),
            types.int64,
            const(types.uint64),
            const(types.int64),
            types.int64,
            out(types.int32),
            out(types.int16, 2),
        )
        for ndim in (2, 3)
    )
)
def jump_points(field, shape, strides, unit, starts, n_steps, words, before, first, nexts, hops):
    """Walk n_steps from each pixel and name the foreground pixel nearest to where that leads.

    A pixel that has arrived, or is led out of the foreground, names itself. `hops`, if there are
    any, get per axis and relative to the pixel the one reached and the lowest and highest of the
    path. The foreground is a bit per pixel, with the number of those before each word.
    """
    ndim = len(shape)
    lanes = lanes_of_shape(shape)
    size = 3 * lanes
    state = np.zeros(POOL * size, np.int32)
    upper = np.zeros(lanes, np.int32)
    for axis in range(ndim):
        upper[axis] = (shape[axis] - 1) << FRACTION_BITS
    homes = np.zeros((POOL, ndim), np.int64)
    for begin in range(0, starts.size, POOL):
        n_in_pool = min(POOL, starts.size - begin)
        for j in range(n_in_pool):
            place_particle(state, j * size, lanes, shape, starts[begin + j])
            for axis in range(ndim):
                homes[j, axis] = state[j * size + axis] >> FRACTION_BITS
        for _ in range(n_steps):
            for j in range(n_in_pool):
                advance(field, state, j * size, upper, strides, unit)
        for j in range(n_in_pool):
            at, k = j * size, begin + j
            flat, farthest = np.int64(0), np.int64(0)
            for axis in range(ndim):
                there = np.int64((state[at + axis] + ONE // 2) >> FRACTION_BITS)
                flat = flat * shape[axis] + there
                farthest = max(farthest, abs(there - homes[j, axis]))
            found = rank_of(words, before, flat)
            stays = found < 0 or farthest <= ARRIVED
            nexts[k] = first + k if stays else found
            if hops.size:
                for axis in range(ndim):
                    home = homes[j, axis]
                    there = (state[at + axis] + ONE // 2) >> FRACTION_BITS
                    hops[k, 3 * axis] = 0 if stays else bounded(there - home)
                    hops[k, 3 * axis + 1] = bounded(path_low(state, at, lanes, axis) - home)
                    hops[k, 3 * axis + 2] = bounded(path_high(state, at, lanes, axis) - home)
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


@loop((const(types.int32), out(types.uint8)))
def mark_roots(nexts, is_root):
    """Mark the pixels that others were led to."""
    for i in range(nexts.size):
        is_root[nexts[i]] = 1
    return 0


@loop(
    *(
        (
            shape_of(ndim),
            const(types.int64),
            const(types.int32),
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
def end_jumps(
    shape, starts, nexts, numbers, hops, root_ends, root_boxes, reach, edges, ends, verdicts
):
    """Give each pixel the end of its root, and judge the box of both paths where it is known."""
    ndim = len(shape)
    for i in range(starts.size):
        root = numbers[nexts[i]] - 1
        for axis in range(ndim):
            ends[i, axis] = root_ends[root, axis]
        verdicts[i] = COUNTED
        rest = starts[i]
        for back in range(ndim if hops.size else 0):
            axis = ndim - 1 - back
            home = rest % shape[axis]
            rest //= shape[axis]
            low = min(home + hops[i, 3 * axis + 1], np.int64(root_boxes[root, 2 * axis]))
            high = max(home + hops[i, 3 * axis + 2], np.int64(root_boxes[root, 2 * axis + 1]))
            if verdicts[i] != OVER_EDGE:
                end = root_ends[root, axis] >> FRACTION_BITS
                verdict = verdict_on_axis(
                    end, low, high, shape[axis], reach[axis], edges[2 * axis], edges[2 * axis + 1]
                )
                verdicts[i] = max(verdicts[i], verdict)
    return 0


def jump_flows(flow, foreground, *, n_steps, linear, reach, edges, threads):
    """Return (starts, ends, verdicts): particles jump to pixels, and only their roots walk on."""
    if n_steps < WORTH_JUMPING:
        rules = {"linear": linear, "reach": reach, "edges": edges, "threads": threads}
        return follow_flows(flow, foreground, n_steps=n_steps, **rules)
    shape = foreground.shape
    field = pack(flow, foreground, threads=threads)
    starts = places_of(foreground, threads)
    # Paths matter only where one can stray too far or leave: else there is nothing to keep of them.
    boxed = bool(edges.any()) or bool((reach < FAR).any())
    run = {"linear": linear, "threads": threads}
    nexts, hops = _jumps(field, foreground, starts, n_steps=n_steps, boxed=boxed, **run)
    # A fixed number, from the settings alone, so that a crop jumps as far as the whole. Where all
    # have arrived the rest is left out: it would only repeat the same arrays.
    led_on = 1
    for _ in range(max(0, math.ceil(math.log2(max(n_steps, 1) / JUMP_STEPS)))):
        if led_on:
            nexts, hops, led_on = _doubled(nexts, hops, threads=threads)
    is_root = np.zeros(starts.size, np.uint8)
    mark_roots(nexts, is_root)
    rules = {"shape": shape, "reach": reach, "edges": edges, "threads": threads}
    at = starts[np.flatnonzero(is_root)]
    root_ends, root_boxes, _ = walk_points(
        field, at, n_steps=n_steps, linear=linear, boxed=boxed, **rules
    )
    del field
    numbers = np.cumsum(is_root, dtype=np.int32)
    del is_root
    return starts, *_ends_of_roots(starts, nexts, numbers, hops, root_ends, root_boxes, **rules)


def _jumps(field, foreground, starts, *, n_steps, linear, boxed, threads):
    """Return, of each pixel, the one it leads to and, if boxed, the box of the way there."""
    shape = foreground.shape
    words, before = ranked(foreground)
    nexts = np.empty(starts.size, np.int32)
    hops = np.empty((starts.size, 3 * len(shape) if boxed else 0), np.int16)
    strides = field_strides(shape)
    n = min(JUMP_STEPS, n_steps)

    def part(a, b):
        these = slice(a, b)
        jump_points(
            field,
            shape,
            strides,
            unit_of(linear),
            starts[these],
            n,
            words,
            before,
            a,
            nexts[these],
            hops[these],
        )

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


def _ends_of_roots(
    starts, nexts, numbers, hops, root_ends, root_boxes, *, shape, reach, edges, threads
):
    """Return (ends, verdicts) of the pixels, from those of their roots."""
    ends = np.empty((starts.size, len(shape)), np.int32)
    verdicts = np.empty(starts.size, np.uint8)

    def part(first, last):
        these = slice(first, last)
        end_jumps(
            shape,
            starts[these],
            nexts[these],
            numbers,
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
