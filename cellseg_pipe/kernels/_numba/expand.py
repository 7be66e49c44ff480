"""Numba loops that grow labels along one axis; all axes after each other give the distance."""

from __future__ import annotations

import math

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, loop, out
from cellseg_pipe.kernels._numba._threads import ranges, spread
from cellseg_pipe.machine import available_threads

FAR = np.iinfo(np.int64).max


@loop(
    (
        const(types.uint32, 2),
        types.int64,
        types.int64,
        types.int64,
        types.int64,
        out(types.uint32, 2),
        out(types.int64, 2),
    )
)
def grow_lines(labels, weight, reach, first, last, grown, nearest):
    """Find in lines first to last the nearest label of each pixel; of two the lower one."""
    n = labels.shape[1]
    for i in range(first, last):
        label, at = np.uint32(0), 0
        for x in range(n):
            if labels[i, x] != 0:
                label, at = labels[i, x], x
            here = label != 0 and x - at <= reach
            grown[i, x] = label if here else np.uint32(0)
            nearest[i, x] = (x - at) * (x - at) * weight if here else FAR
        label = np.uint32(0)
        for x in range(n - 1, -1, -1):
            if labels[i, x] != 0:
                label, at = labels[i, x], x
            if label != 0 and at - x <= reach:
                away = (at - x) * (at - x) * weight
                best = nearest[i, x]
                if away < best or (away == best and label < grown[i, x]):
                    grown[i, x], nearest[i, x] = label, away
    return 0


@loop(
    (
        const(types.uint32, 3),
        const(types.int64, 3),
        types.int64,
        types.int64,
        types.int64,
        types.int64,
        types.int64,
        out(types.uint32, 3),
        out(types.int64, 3),
    )
)
def grow_rows(labels, square, weight, reach, limit, first, last, grown, nearest):
    """Do the same along the middle axis, for labels that lie a squared distance beside the line.

    A pixel looks outwards, and stops where even a label on the line would be farther than its best.
    """
    n, width = labels.shape[1], labels.shape[2]
    for row in range(first, last):
        i, j = row // n, row % n
        for x in range(width):
            label, best = labels[i, j, x], square[i, j, x]
            step = 1
            while step < n and step <= reach:
                away = step * step * weight
                if away > best:
                    break
                for k in (j - step, j + step):
                    if 0 <= k < n and labels[i, k, x] != 0:
                        total = square[i, k, x] + away
                        if total <= limit and (
                            total < best or (total == best and labels[i, k, x] < label)
                        ):
                            label, best = labels[i, k, x], total
                step += 1
            grown[i, j, x], nearest[i, j, x] = label, best
    return 0


def expand_labels(labels, steps, limit, *, threads):
    """Return labels grown up to a squared distance; a step along each axis has a length, or 0.

    The nearest label of a line, and of equal ones the lowest, is the only one of that line that can
    be the nearest of all: so axes may be taken after each other, which whole numbers keep exact.
    """
    reach = [math.isqrt(limit) // step if step else 0 for step in steps]
    lines = labels.reshape(-1, labels.shape[-1])
    grown, nearest = np.empty(lines.shape, np.uint32), np.empty(lines.shape, np.int64)
    spread(
        lambda a, b: grow_lines(lines, steps[-1] ** 2, reach[-1], a, b, grown, nearest),
        split(len(lines), threads),
        threads=threads,
    )
    for axis, step in enumerate(steps[:-1]):
        if reach[axis]:
            n, outer = labels.shape[axis], math.prod(labels.shape[:axis])
            source, square = grown.reshape(outer, n, -1), nearest.reshape(outer, n, -1)
            grown, nearest = np.empty_like(source), np.empty_like(square)
            numbers = (step * step, reach[axis], limit)
            spread(
                lambda a, b, come=(source, square, *numbers), go=(grown, nearest): grow_rows(
                    *come, a, b, *go
                ),
                split(outer * n, threads),
                threads=threads,
            )
    return grown.reshape(labels.shape)


def split(total, threads):
    """Return several ranges per thread: rows with little to do take less time."""
    return ranges(total, -(-total // (4 * (threads or available_threads()))) or 1)
