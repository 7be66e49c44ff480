"""Numba loops that turn end points into cells: histogram, peaks, growth."""

from __future__ import annotations

import itertools

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._step import FRACTION_BITS
from cellseg_pipe.kernels._numba._threads import ranges, spread

PEAK_REACH = 2  # px: a peak is the fullest pixel this far round
GROWTH = 5  # px that a peak grows over
GROWTH_COUNT = 2  # ends that a pixel must have more of to be grown over
PIXELS = 1 << 20
BEYOND = (
    "inside the array of shape {}, got some beyond it. Take them from follow_flows over the same"
    " array."
)


@helper
def end_pixel(ends, i, shape):
    """Return the flat index of the pixel that a particle rests on."""
    flat = np.int64(0)
    for axis in range(len(shape)):
        flat = flat * shape[axis] + (ends[i, axis] >> FRACTION_BITS)
    return flat


@loop(
    *(
        (
            const(types.int32, 2),
            const(types.uint8),
            types.UniTuple(types.int64, ndim),
            out(types.int32),
        )
        for ndim in (2, 3)
    )
)
def count_ends(ends, verdicts, shape, counts):
    """Count on each pixel the ends of paths that count; return how many lie beyond the array."""
    beyond = 0
    for i in range(verdicts.size):
        inside = True
        for axis in range(len(shape)):
            inside = inside and 0 <= ends[i, axis] >> FRACTION_BITS < shape[axis]
        beyond += not inside
        if inside and verdicts[i] == 0:
            counts[end_pixel(ends, i, shape)] += 1
    return beyond


@loop(
    *(
        (
            const(types.int32),
            types.UniTuple(types.int64, ndim),
            const(types.int64, 2),
            types.int64,
            types.int64,
            types.int64,
            out(types.int64),
        )
        for ndim in (2, 3)
    )
)
def list_peaks(counts, shape, window, min_count, first, last, peaks):
    """Write the pixels first to last that have more ends than all others in their window.

    Of pixels with equal counts the first in C order is the peak, so that a cell has one.
    """
    ndim = len(shape)
    at = np.zeros(ndim, np.int64)
    found = 0
    for flat in range(first, last):
        count = counts[flat]
        if count <= min_count:
            continue
        rest = flat
        for back in range(ndim):
            axis = ndim - 1 - back
            at[axis] = rest % shape[axis]
            rest //= shape[axis]
        is_peak = True
        for k in range(window.shape[0]):
            other = np.int64(0)
            inside = True
            for axis in range(ndim):
                position = at[axis] + window[k, axis]
                inside = inside and 0 <= position < shape[axis]
                other = other * shape[axis] + position
            if inside and (counts[other] > count or (counts[other] == count and other < flat)):
                is_peak = False
                break
        if is_peak:
            peaks[found] = flat
            found += 1
    return found


@loop(
    *(
        (
            const(types.int32),
            types.UniTuple(types.int64, ndim),
            const(types.int64, 2),
            const(types.int64),
            const(types.uint32),
            out(types.uint32),
        )
        for ndim in (2, 3)
    )
)
def grow_peaks(counts, shape, ring, peaks, ids, owner):
    """Let each peak in turn take the pixels that it reaches in GROWTH moves over well-hit pixels.

    A later peak takes pixels from an earlier one: the order decides.
    """
    ndim = len(shape)
    edge = 2 * GROWTH + 1
    cells = edge**ndim
    seen = np.zeros(cells, np.int64)
    queue = np.empty(cells, np.int64)
    depth = np.empty(cells, np.int64)
    at = np.zeros(ndim, np.int64)
    here = np.zeros(ndim, np.int64)
    for n in range(peaks.size):
        rest = peaks[n]
        middle = np.int64(0)
        for back in range(ndim):
            axis = ndim - 1 - back
            at[axis] = rest % shape[axis]
            rest //= shape[axis]
            middle = middle * edge + GROWTH
        queue[0], depth[0], seen[middle] = middle, 0, n + 1
        owner[peaks[n]] = ids[n]
        head, tail = 0, 1
        while head < tail:
            local, level = queue[head], depth[head]
            head += 1
            if level == GROWTH:
                continue
            for back in range(ndim):
                axis = ndim - 1 - back
                here[axis] = local % edge
                local //= edge
            for k in range(ring.shape[0]):
                flat, spot = np.int64(0), np.int64(0)
                inside = True
                for axis in range(ndim):
                    step = here[axis] + ring[k, axis]
                    position = at[axis] + step - GROWTH
                    inside = inside and 0 <= position < shape[axis]
                    flat = flat * shape[axis] + position
                    spot = spot * edge + step
                if inside and seen[spot] != n + 1 and counts[flat] > GROWTH_COUNT:
                    seen[spot] = n + 1
                    owner[flat] = ids[n]
                    queue[tail], depth[tail] = spot, level + 1
                    tail += 1
    return 0


@loop(
    *(
        (
            const(types.int64),
            const(types.int32, 2),
            const(types.uint8),
            types.UniTuple(types.int64, ndim),
            const(types.uint32),
            out(types.uint32),
        )
        for ndim in (2, 3)
    )
)
def label_starts(starts, ends, verdicts, shape, owner, labels):
    """Give each start the id that owns its end; return how many starts lie beyond the array."""
    beyond = 0
    for i in range(starts.size):
        inside = 0 <= starts[i] < labels.size
        beyond += not inside
        if inside and verdicts[i] == 0:
            labels[starts[i]] = owner[end_pixel(ends, i, shape)]
    return beyond


def neighbours(ndim, reach):
    """Return the offsets [k, ndim] of all pixels up to `reach` away along each axis, but itself."""
    steps = itertools.product(range(-reach, reach + 1), repeat=ndim)
    return np.array([step for step in steps if any(step)], np.int64)


def cells_from_ends(starts, ends, verdicts, *, shape, min_count, threads):
    """Return (labels, peaks, counts): cells in C order of their peaks, ids from 1."""
    owner, peaks, heights = _owned_pixels(
        ends, verdicts, shape=shape, min_count=min_count, threads=threads
    )
    labels = np.zeros(owner.size, np.uint32)

    def part(first, last):
        these = slice(first, last)
        return label_starts(starts[these], ends[these], verdicts[these], shape, owner, labels)

    if any(spread(part, ranges(starts.size, PIXELS), threads=threads)):
        raise ValueError(f"cells_from_ends needs starts {BEYOND.format(shape)}")
    return labels.reshape(shape), peaks, heights.astype(np.int64)


def _owned_pixels(ends, verdicts, *, shape, min_count, threads):
    """Return (owner, peaks, counts): the id of the cell that each pixel's ends belong to."""
    counts = np.zeros(int(np.prod(shape, dtype=np.int64)), np.int32)
    if count_ends(ends, verdicts, shape, counts):
        raise ValueError(f"cells_from_ends needs ends {BEYOND.format(shape)}")
    window = neighbours(len(shape), PEAK_REACH)

    def part(first, last):
        # Two peaks are more than PEAK_REACH apart, but a range may be one line: allow for all.
        peaks = np.empty(int(np.count_nonzero(counts[first:last] > min_count)), np.int64)
        return peaks[: list_peaks(counts, shape, window, min_count, first, last, peaks)]

    parts = spread(part, ranges(counts.size, PIXELS), threads=threads)
    peaks = np.concatenate([np.empty(0, np.int64), *parts])
    heights = counts[peaks]
    # The fullest peak grows last and wins; of equal ones the first in C order does.
    order = np.lexsort((-peaks, heights))
    owner = np.zeros(counts.size, np.uint32)
    ids = (order + 1).astype(np.uint32)
    grow_peaks(counts, shape, neighbours(len(shape), 1), peaks[order], ids, owner)
    return owner, peaks, heights
