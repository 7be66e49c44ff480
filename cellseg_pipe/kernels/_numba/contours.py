"""Numba loops over the corners of voxels: what lies round each, counted per object."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, loop, out
from cellseg_pipe.kernels._numba.shape import OBJECTS, over_objects


@loop((*OBJECTS, const(types.int64, 2), out(types.int64, 2)))
def count_corners(labels, shape, start, stop, ids, first_object, last_object, table, counts):
    """Add the row of `table` of every corner that an object touches to its row of `counts`.

    A corner has 2^ndim voxels round it; which of them are the object's is a number of that many
    bits, the voxels before it along the last axis in the lower half.
    """
    ndim = shape.size
    n_lines = 1 << (ndim - 1)  # along the last axis, round a row of corners
    step = np.ones(ndim, np.int64)
    for axis in range(ndim - 2, -1, -1):
        step[axis] = step[axis + 1] * shape[axis + 1]
    back = np.zeros(n_lines, np.int64)  # from the last of these lines to each of them
    for line in range(n_lines):
        for axis in range(ndim - 1):
            if not line >> (ndim - 2 - axis) & 1:
                back[line] -= step[axis]
    seen = np.zeros(table.shape[0], np.int64)
    low, high = np.empty(ndim, np.int64), np.empty(ndim, np.int64)
    for k in range(first_object, last_object):
        n_rows = 1
        for axis in range(ndim):
            low[axis] = max(start[k, axis], 1)
            high[axis] = min(stop[k, axis] + 1, shape[axis])
            if axis < ndim - 1:
                n_rows *= max(high[axis] - low[axis], 0)
        seen[:] = 0
        value = ids[k]
        for row in range(n_rows):
            rest, base = row, np.int64(0)
            for axis in range(ndim - 2, -1, -1):
                n = high[axis] - low[axis]
                base += (low[axis] + rest % n) * step[axis]
                rest //= n
            code = 0
            for x in range(low[ndim - 1] - 1, high[ndim - 1]):
                after = 0
                for line in range(n_lines):
                    after |= np.int64(labels[base + back[line] + x] == value) << line
                code = code >> n_lines | after << n_lines
                if x >= low[ndim - 1]:
                    seen[code] += 1
        for code in range(1, seen.size):
            if seen[code]:
                for column in range(table.shape[1]):
                    counts[k, column] += seen[code] * table[code, column]
    return 0


def object_contours(labels, objects, table, *, threads):
    """Return [n, columns of the table] sums over the corners of each object."""
    counts = np.zeros((objects.label.size, table.shape[1]), np.int64)
    over_objects(count_corners, labels, objects, threads=threads, rest=(table, counts))
    return counts
