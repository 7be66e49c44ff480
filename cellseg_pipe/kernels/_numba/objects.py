"""Numba loops that gather what is known of each object."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, loop, out
from cellseg_pipe.kernels._numba._threads import ranges, spread
from cellseg_pipe.kernels._numba.relabel import place
from cellseg_pipe.machine import available_threads


@loop(
    *(
        (
            const(types.uint32),
            types.UniTuple(types.int64, ndim),
            types.int64,
            types.int64,
            const(types.uint32),
            out(types.int64, 2),
            out(types.int64, 2),
            out(types.int64),
        )
        for ndim in (1, 2, 3, 4)
    )
)
def gather_boxes(labels, shape, first_row, last_row, ids, start, stop, area):
    """Add rows first_row to last_row of a C-ordered array to the boxes and areas of `ids`.

    A row is a line along the last axis, so that an object is looked up once per run of voxels.
    """
    ndim = len(shape)
    width = shape[ndim - 1]
    for row in range(first_row, last_row):
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
            area[k] += x - begin
            start[k, ndim - 1] = min(start[k, ndim - 1], begin)
            stop[k, ndim - 1] = max(stop[k, ndim - 1], x)
            rest = row
            for back in range(1, ndim):
                axis = ndim - 1 - back
                position = rest % shape[axis]
                rest //= shape[axis]
                start[k, axis] = min(start[k, axis], position)
                stop[k, axis] = max(stop[k, axis], position + 1)
    return 0


def boxes_and_areas(labels, ids, *, threads):
    """Return (start, stop, area) of the ascending `ids`; other labels are left out."""
    workers = threads or available_threads()
    rows = labels.size // max(labels.shape[-1], 1)
    flat = labels.ravel()

    def part(first, last):
        start = np.full((ids.size, labels.ndim), np.iinfo(np.int64).max)
        stop = np.zeros((ids.size, labels.ndim), np.int64)
        area = np.zeros(ids.size, np.int64)
        gather_boxes(flat, labels.shape, first, last, ids, start, stop, area)
        return start, stop, area

    parts = spread(part, ranges(rows, -(-rows // workers) or 1), threads=threads) or [part(0, 0)]
    starts, stops, areas = zip(*parts, strict=True)
    return np.minimum.reduce(starts), np.maximum.reduce(stops), np.add.reduce(areas)
