"""Numba loops that join the nodes of a graph, and the painting of what was joined."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._threads import ranges, spread
from cellseg_pipe.kernels._numba.relabel import CHUNK, exchange


@helper
def root_of(parent, node):
    """Return the lowest node known to hang together with `node`, halving the way to it."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@loop((const(types.uint32), const(types.uint32), out(types.uint32)))
def join(left, right, parent):
    """Join the ends of every edge, then let every node point to the lowest of its component.

    A root is hung below the lower of the two, so names need no second pass over the edges, and
    parents stand before their children: one ascending pass makes all the ways one step long.
    """
    for k in range(left.size):
        a = root_of(parent, left[k])
        b = root_of(parent, right[k])
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b
    for node in range(parent.size):
        parent[node] = parent[parent[node]]
    return 0


def union_find(n, left, right):
    """Return the lowest node of the component of each node."""
    parent = np.arange(n, dtype=np.uint32)
    join(left, right, parent)
    return parent


def paint_labels(labels, old, new, target, *, threads):
    """Write new[k] into target where labels are old[k], ascending; 0 elsewhere."""
    source, result = labels.ravel(), target.reshape(-1)
    spread(
        lambda start, stop: exchange(source[start:stop], old, new, result[start:stop]),
        ranges(source.size, CHUNK),
        threads=threads,
    )
