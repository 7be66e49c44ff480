"""Numba loops that exchange label values."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._threads import ranges, spread

CHUNK = 1 << 20


@helper
def place(ids, value):
    """Return where `value` stands, or would stand, among ascending ids."""
    guess = np.int64(value) - np.int64(ids[0]) if ids.size else -1
    if 0 <= guess < ids.size and ids[guess] == value:
        return guess  # ids without gaps are the rule, and need no search
    return np.searchsorted(ids, value)


@loop((const(types.uint32), const(types.uint32), const(types.uint32), out(types.uint32)))
def exchange(labels, old, new, result):
    """Write new[k] where labels are old[k], ascending; 0 elsewhere.

    The last answer is kept, so that the search runs once per run of equal labels, not per voxel.
    """
    seen = np.uint32(0)
    answer = np.uint32(0)
    for i in range(labels.size):
        value = labels[i]
        if value != seen:
            seen = value
            answer = np.uint32(0)
            if value:
                k = place(old, value)
                if k < old.size and old[k] == value:
                    answer = new[k]
        result[i] = answer
    return 0


def relabel(labels, old, new, *, threads):
    """Return labels with every old value exchanged for the new one, others 0."""
    result = np.empty(labels.shape, np.uint32)
    source, target = labels.ravel(), result.ravel()
    spread(
        lambda start, stop: exchange(source[start:stop], old, new, target[start:stop]),
        ranges(source.size, CHUNK),
        threads=threads,
    )
    return result
