"""Numba loops that sum positions and intensities per object."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, loop, out
from cellseg_pipe.kernels._numba._threads import ranges, spread
from cellseg_pipe.kernels._numba.relabel import place
from cellseg_pipe.machine import available_threads

FAR = np.iinfo(np.int64).max


@loop(
    (
        const(types.uint32),
        const(types.int64),
        const(types.int64),
        types.int64,
        types.int64,
        const(types.uint32),
        const(types.int64, 2),
        out(types.int64),
        out(types.int64, 2),
        out(types.int64, 3),
        out(types.int64, 2),
        out(types.int64, 2),
    )
)
def gather_moments(
    labels, shape, origin, first_row, last_row, ids, reference, area, first, second, start, stop
):
    """Add rows first_row to last_row to areas, moments and boxes; a run of voxels at a time.

    Positions count from the reference point of their object, so that sums stay small.
    """
    ndim = shape.size
    width = shape[ndim - 1]
    at = np.empty(ndim, np.int64)
    for row in range(first_row, last_row):
        rest = row
        for back in range(2, ndim + 1):
            axis = ndim - back
            at[axis] = origin[axis] + rest % shape[axis]
            rest //= shape[axis]
        base = row * width
        x = 0
        while x < width:
            value = labels[base + x]
            begin = x
            x += 1
            while x < width and labels[base + x] == value:
                x += 1
            if value == 0:
                continue
            k = place(ids, value)
            if k == ids.size or ids[k] != value:
                continue
            n = x - begin
            at[ndim - 1] = origin[ndim - 1] + begin
            away = at[ndim - 1] - reference[k, ndim - 1]
            along = n * away + n * (n - 1) // 2  # sum of away, away + 1, ... over the run
            area[k] += n
            first[k, ndim - 1] += along
            second[k, ndim - 1, ndim - 1] += (
                n * away * away + away * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
            )
            for axis in range(ndim - 1):
                offset = at[axis] - reference[k, axis]
                first[k, axis] += n * offset
                second[k, axis, ndim - 1] += offset * along
                for other in range(axis, ndim - 1):
                    second[k, axis, other] += n * offset * (at[other] - reference[k, other])
            for axis in range(ndim):
                start[k, axis] = min(start[k, axis], at[axis])
                end = at[axis] + (n if axis == ndim - 1 else 1)
                stop[k, axis] = max(stop[k, axis], end)
    return 0


@loop(
    *(
        (
            const(types.uint32),
            const(pixel),
            const(types.uint32),
            out(number),
            out(number),
            out(number),
            out(number),
        )
        for pixel, number in (
            (types.uint8, types.int64),
            (types.uint16, types.int64),
            (types.float32, types.float64),
            (types.float64, types.float64),
        )
    )
)
def gather_intensities(labels, image, ids, total, square, low, high):
    """Add the pixels of objects to sums, sums of squares and extremes, one by one in order."""
    i = 0
    while i < labels.size:
        value = labels[i]
        begin = i
        i += 1
        while i < labels.size and labels[i] == value:
            i += 1
        if value == 0:
            continue
        k = place(ids, value)
        if k == ids.size or ids[k] != value:
            continue
        run_total, run_square, run_low, run_high = total[k], square[k], low[k], high[k]
        for j in range(begin, i):
            pixel = total.dtype.type(image[j])
            run_total += pixel
            run_square += pixel * pixel
            run_low = min(run_low, pixel)
            run_high = max(run_high, pixel)
        total[k], square[k], low[k], high[k] = run_total, run_square, run_low, run_high
    return 0


def object_moments(labels, ids, reference, origin, *, threads):
    """Return (area, first, second, start, stop) of the ascending `ids`."""
    n, ndim = reference.shape
    flat, shape = labels.ravel(), np.array(labels.shape, np.int64)
    rows = labels.size // max(labels.shape[-1], 1)

    def part(first_row, last_row):
        area, first = np.zeros(n, np.int64), np.zeros((n, ndim), np.int64)
        second = np.zeros((n, ndim, ndim), np.int64)
        start, stop = np.full((n, ndim), FAR), np.full((n, ndim), -FAR)
        sums = (area, first, second, start, stop)
        gather_moments(flat, shape, origin, first_row, last_row, ids, reference, *sums)
        return sums

    parts = spread(part, split(rows, threads), threads=threads) or [part(0, 0)]
    area, first, second, start, stop = zip(*parts, strict=True)
    second = np.add.reduce(second)
    for axis in range(ndim):
        second[:, axis + 1 :, axis] = second[:, axis, axis + 1 :]
    reduced = np.minimum.reduce(start), np.maximum.reduce(stop)
    return np.add.reduce(area), np.add.reduce(first), second, *reduced


def object_intensities(labels, image, ids, *, threads):
    """Return (total, square, low, high) [n, c] of the ascending `ids`.

    Integers are summed in any order; floats by one thread per channel, in C order.
    """
    exact = image.dtype.kind == "u"
    number, far = (np.int64, FAR) if exact else (np.float64, np.inf)
    flat, channels = labels.ravel(), image.reshape(image.shape[0], labels.size)

    def part(channel, first, last):
        total, square = np.zeros(ids.size, number), np.zeros(ids.size, number)
        low, high = np.full(ids.size, far, number), np.full(ids.size, -far, number)
        sums = (total, square, low, high)
        gather_intensities(flat[first:last], channels[channel, first:last], ids, *sums)
        return sums

    pieces = (split(flat.size, threads) if exact else []) or [(0, flat.size)]
    items = [(channel, *piece) for channel in range(image.shape[0]) for piece in pieces]
    parts = spread(part, items, threads=threads)
    shape = (image.shape[0], len(pieces), ids.size)
    total, square, low, high = (
        np.array([sums[i] for sums in parts], number).reshape(shape) for i in range(4)
    )
    reduced = total.sum(axis=1), square.sum(axis=1), low.min(axis=1), high.max(axis=1)
    return tuple(np.ascontiguousarray(sums.T) for sums in reduced)


def split(total, threads):
    """Return one range per thread."""
    return ranges(total, -(-total // (threads or available_threads())) or 1)
