"""Numba loops that match the nodes of bipartite graphs."""

from __future__ import annotations

import heapq

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, loop, out


@loop(
    (
        const(types.int64),
        const(types.int64),
        const(types.int64),
        const(types.float64),
        out(types.int64),
        out(types.int64),
    )
)
def match(first_edge, left, right, weight, edge_of_left, left_of_right):
    """Match left nodes one after the other along the cheapest way to a free node.

    The Hungarian method: prices `u`, `v` with u + v >= weight on every edge, equal on chosen ones,
    0 at free nodes of finished searches. A search visits only nodes nearer than its end and only
    those are reset, so that its time does not grow with the graph. A way may end at a free right
    node, or at a left node that becomes free.
    """
    n_left, n_right = edge_of_left.size, left_of_right.size
    u, v = np.zeros(n_left), np.zeros(n_right)
    for e in range(left.size):
        u[left[e]] = max(u[left[e]], weight[e])
    distance = np.full(n_right, np.inf)
    came_by = np.empty(n_right, np.int64)
    touched = np.empty(n_right, np.int64)
    passed = np.empty(n_right, np.int64)
    for source in range(n_left):
        heap = [(0.0, -1)]
        heap.pop()
        n_touched, n_passed = 0, 0
        here, at = source, 0.0
        nearest, end_left, end_right = u[source], source, -1
        while True:
            for e in range(first_edge[here], first_edge[here + 1]):
                r = right[e]
                there = at + max(u[here] + v[r] - weight[e], 0.0)
                if there >= nearest or there >= distance[r]:
                    continue
                if distance[r] == np.inf:
                    touched[n_touched] = r
                    n_touched += 1
                distance[r] = there
                came_by[r] = e
                if left_of_right[r] < 0:
                    nearest, end_left, end_right = there, -1, r
                else:
                    heapq.heappush(heap, (there, r))
            r = -1
            while len(heap) and r < 0:
                at, r = heapq.heappop(heap)
                if at > distance[r]:
                    r = -1  # a nearer way was found after this entry
            if r < 0 or at >= nearest:
                break
            passed[n_passed] = r
            n_passed += 1
            here = left_of_right[r]
            if at + u[here] < nearest:
                nearest, end_left, end_right = at + u[here], here, -1
        u[source] -= nearest
        for k in range(n_passed):
            r = passed[k]
            v[r] += nearest - distance[r]
            u[left_of_right[r]] -= nearest - distance[r]
        for k in range(n_touched):
            distance[touched[k]] = np.inf
        if end_left == source:
            continue
        r = end_right
        if end_left >= 0:
            r = right[edge_of_left[end_left]]
            edge_of_left[end_left] = -1
        while True:
            here = left[came_by[r]]
            before = edge_of_left[here]
            edge_of_left[here] = came_by[r]
            left_of_right[r] = here
            if here == source:
                break
            r = right[before]
    return 0


def heaviest_edges(left, right, weight):
    """Return the chosen edges, ascending; edges ascend by left node."""
    n_left, n_right = int(left[-1]) + 1, int(right.max()) + 1
    first_edge = np.searchsorted(left, np.arange(n_left + 1))
    edge_of_left, left_of_right = np.full(n_left, -1), np.full(n_right, -1)
    match(first_edge, left, right, weight, edge_of_left, left_of_right)
    return edge_of_left[edge_of_left >= 0]
