"""Numba loops that read an array at other places: interpolation, nearest, symmetric filters."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._threads import ranges, spread

PIXELS = 1 << 18  # results that a thread makes at a time
SPAN = 1 << 11  # pixels filtered at a time: their sums and what they read stay in the L1 cache


@helper
def upright(plane, y, weight, buffer):
    """Write the blend of rows y and y + 1 of a plane, row y itself where the weight is 0."""
    here = plane[y]
    if weight == 0:
        for x in range(here.size):
            buffer[x] = here[x]
    else:
        below = plane[y + 1]
        for x in range(here.size):
            buffer[x] = here[x] + weight * (below[x] - here[x])


@helper
def across(line, index, weight, row):
    """Write a row from the pixels at `index` of a line and those behind them."""
    for x in range(row.size):
        i = index[x]
        row[x] = line[i] + weight[x] * (line[i + 1] - line[i])


@loop(
    (
        const(types.float32, 4),
        const(types.uint32),
        const(types.float32),
        const(types.uint32),
        const(types.float32),
        const(types.uint32),
        const(types.float32),
        types.boolean,
        out(types.float32, 4),
        types.int64,
        types.int64,
    )
)
def blend_rows(
    source, z_index, z_weight, y_index, y_weight, x_index, x_weight, straight, result, first, last
):
    """Write rows first to last - 1 of all rows [C, z, y]: along y, then z, then x.

    The order is fixed and no step depends on which pixels are asked for together.
    """
    n_z, n_y, n_x = result.shape[1:]
    width = source.shape[3]
    line = np.empty(width + 1, np.float32)
    behind = np.empty(width, np.float32)
    for row in range(first, last):
        c, z, y = row // (n_z * n_y), row // n_y % n_z, row % n_y
        plane = z_index[z]
        upright(source[c, plane], y_index[y], y_weight[y], line[:width])
        if z_weight[z] != 0:
            upright(source[c, plane + 1], y_index[y], y_weight[y], behind)
            for x in range(width):
                line[x] += z_weight[z] * (behind[x] - line[x])
        line[width] = line[width - 1]
        if straight:
            begin = x_index[0]
            for x in range(n_x):
                result[c, z, y, x] = line[begin + x]
        else:
            across(line, x_index, x_weight, result[c, z, y])


@loop(
    (
        const(types.uint32, 3),
        const(types.uint32),
        const(types.uint32),
        const(types.uint32),
        out(types.uint32, 3),
        types.int64,
        types.int64,
    )
)
def pick_rows(source, z_index, y_index, x_index, result, first, last):
    """Write rows first to last - 1 of all rows [z, y] with the labels at the given places."""
    n_y, n_x = result.shape[1:]
    for row in range(first, last):
        line = source[z_index[row // n_y], y_index[row % n_y]]
        for x in range(n_x):
            result[row // n_y, row % n_y, x] = line[x_index[x]]


@loop(
    (
        const(types.float32, 3),
        const(types.float32),
        const(types.uint32),
        out(types.float32, 3),
        types.int64,
        types.int64,
    )
)
def filter_upright(source, taps, index, result, first, last):
    """Filter the middle axis: rows first to last - 1 of all rows [before, n], each [behind]."""
    n, width = result.shape[1:]
    reach = taps.size - 1
    for row in range(first, last):
        block, target = source[row // n], result[row // n, row % n]
        middle = row % n + reach
        for begin in range(0, width, SPAN):
            end = min(begin + SPAN, width)
            total, here = target[begin:end], block[index[middle], begin:end]
            for x in range(total.size):
                total[x] = taps[0] * here[x]
            for k in range(1, reach + 1):
                above = block[index[middle - k], begin:end]
                below = block[index[middle + k], begin:end]
                for x in range(total.size):
                    total[x] += taps[k] * (above[x] + below[x])


@loop(
    (
        const(types.float32, 2),
        const(types.float32),
        const(types.uint32),
        out(types.float32, 2),
        types.int64,
        types.int64,
    )
)
def filter_across(source, taps, index, result, first, last):
    """Filter the last axis of rows first to last - 1."""
    width = result.shape[1]
    reach = taps.size - 1
    line = np.empty(index.size, np.float32)
    for row in range(first, last):
        for x in range(index.size):
            line[x] = source[row, index[x]]
        for begin in range(0, width, SPAN):
            end = min(begin + SPAN, width)
            total, here = result[row, begin:end], line[begin + reach : end + reach]
            for x in range(total.size):
                total[x] = taps[0] * here[x]
            for k in range(1, reach + 1):
                before = line[begin + reach - k : end + reach - k]
                after = line[begin + reach + k : end + reach + k]
                for x in range(total.size):
                    total[x] += taps[k] * (before[x] + after[x])


def resample(array, *, index, weight, straight, threads):
    """Return float32 [C, *n] from float32 [C, *m], places and weights given per axis."""
    shape = tuple(part.size for part in index)
    result = np.empty((len(array), *shape), np.float32)
    if result.size == 0:
        return result
    filled = 3 - len(shape)
    source = array.reshape(len(array), *(1,) * filled, *array.shape[1:])
    target = result.reshape(len(array), *(1,) * filled, *shape)
    places = []
    for part, share in [(np.zeros(1), np.zeros(1))] * filled + [*zip(index, weight, strict=True)]:
        places += [part.astype(np.uint32), share.astype(np.float32)]

    def part(first, last):
        blend_rows(source, *places, straight, target, first, last)

    rows = result.size // shape[-1]
    spread(part, ranges(rows, max(1, PIXELS // shape[-1])), threads=threads)
    return result


def resample_nearest(array, *, index, threads):
    """Return uint32 [*n] from uint32 [*m], places given per axis."""
    shape = tuple(part.size for part in index)
    result = np.empty(shape, np.uint32)
    if result.size == 0:
        return result
    filled = 3 - len(shape)
    source, target = (a.reshape((1,) * filled + a.shape) for a in (array, result))
    places = [part.astype(np.uint32) for part in [np.zeros(1)] * filled + list(index)]

    def part(first, last):
        pick_rows(source, *places, target, first, last)

    rows = result.size // shape[-1]
    spread(part, ranges(rows, max(1, PIXELS // shape[-1])), threads=threads)
    return result


def filter_axis(array, taps, *, index, axis, threads):
    """Return the array with one axis filtered by symmetric taps, the middle one first."""
    n = index.size - 2 * (taps.size - 1)
    shape = (*array.shape[:axis], n, *array.shape[axis + 1 :])
    result = np.empty(shape, np.float32)
    if result.size == 0:
        return result
    taps, index = taps.astype(np.float32), index.astype(np.uint32)
    before, behind = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    source = array.reshape(before, array.shape[axis], behind)
    target = result.reshape(before, n, behind)
    if axis == array.ndim - 1:
        run, source, target, rows, width = filter_across, source[..., 0], target[..., 0], before, n
    else:
        run, rows, width = filter_upright, before * n, behind

    def part(first, last):
        run(source, taps, index, target, first, last)

    spread(part, ranges(rows, max(1, PIXELS // width)), threads=threads)
    return result
