"""Exact matching of maximum weight in sparse bipartite graphs; knows nothing of images."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

__all__ = ["heaviest_matching"]

# The solver's time grows with the square of the nodes it gets at once, its overhead with the
# number of calls: a few hundred nodes a call is where the two meet.
NODES_PER_CALL = 512
# Measured on one core: a full square lattice of this many rows takes 4 s.
SLOW_ROWS, SLOW_S = 32_000, 4.0

log = logging.getLogger(__name__)


def heaviest_matching(
    left: NDArray[np.int64], right: NDArray[np.int64], weight: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Choose edges that share no node and have the greatest sum of weights.

    Parameters
    ----------
    left, right : int64 array [n]
        The two nodes of each edge, counted from 0 on either side; no edge twice.
    weight : float64 array [n]
        Weight of each edge, above 0.

    Returns
    -------
    int64 array [m]
        Chosen edges, ascending.
    """
    chosen, open_edges = _settle_dominant(left, right, weight)
    groups = _split_components(left[open_edges], right[open_edges])
    solved = [
        open_edges[group][
            _solve(left[open_edges[group]], right[open_edges[group]], weight[open_edges[group]])
        ]
        for group in groups
    ]
    return np.sort(np.concatenate([chosen, *solved]))


def _settle_dominant(
    left: NDArray[np.int64], right: NDArray[np.int64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose edges that weigh at least as much as the best rivals at both ends together.

    Such an edge belongs to some heaviest matching: whatever it pushes out weighs no more. In a
    fair segmentation this settles nearly all objects, and the solver sees only the rest. Rounds
    end when one settles less than a hundredth: chains may settle at their ends only, one by one.
    """
    chosen = [np.empty(0, np.int64)]
    edges = np.arange(weight.size)
    settling = True
    while edges.size and settling:
        ends_left, ends_right, weights = left[edges], right[edges], weight[edges]
        rivals = _best_rival(ends_left, weights) + _best_rival(ends_right, weights)
        picked = np.flatnonzero(weights >= rivals)
        # Only ties can meet in a node; either edge is right, so the first stays.
        picked = picked[np.unique(ends_left[picked], return_index=True)[1]]
        picked = picked[np.unique(ends_right[picked], return_index=True)[1]]
        settling = picked.size > edges.size // 100
        chosen.append(edges[picked])
        edges = edges[_untouched(ends_left, picked) & _untouched(ends_right, picked)]
    return np.concatenate(chosen), edges


def _best_rival(node: NDArray[np.int64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each edge the greatest weight among the other edges of its node, or 0."""
    best = np.zeros(int(node.max()) + 1)
    np.maximum.at(best, node, weight)
    is_best = weight == best[node]
    second = np.zeros_like(best)
    np.maximum.at(second, node[~is_best], weight[~is_best])
    tied = np.bincount(node[is_best], minlength=best.size) > 1
    return np.where(is_best & ~tied[node], second[node], best[node])


def _untouched(node: NDArray[np.int64], picked: NDArray[np.int64]) -> NDArray[np.bool_]:
    used = np.zeros(int(node.max()) + 1, bool)
    used[node[picked]] = True
    return ~used[node]


def _split_components(left: NDArray[np.int64], right: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Group edges so that no component is cut and small components share a call."""
    if left.size == 0:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left_ids, left = np.unique(left, return_inverse=True)
    right_ids, right = np.unique(right, return_inverse=True)
    n_nodes = left_ids.size + right_ids.size
    graph = coo_array(
        (np.ones(left.size, np.int8), (left, left_ids.size + right)), shape=(n_nodes, n_nodes)
    )
    _, component = connected_components(graph, directed=False)
    nodes = np.bincount(component)
    group = (np.cumsum(nodes) // NODES_PER_CALL)[component[left]]
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _solve(
    left: NDArray[np.int64], right: NDArray[np.int64], weight: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the edges of a heaviest matching of a small graph."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    left_ids, left = np.unique(left, return_inverse=True)
    right_ids, right = np.unique(right, return_inverse=True)
    n_left, n_right = left_ids.size, right_ids.size
    if n_left > SLOW_ROWS:
        log.warning(
            "%d objects overlap in one undecided chain: matching them takes about %.0f s",
            n_left,
            SLOW_S * (n_left / SLOW_ROWS) ** 2,
        )
    # Each left node gets a partner of its own that means "unmatched", so that a full matching
    # exists. Adding the same cost to all edges changes no choice and keeps costs above 0.
    alone = np.arange(n_left)
    ceiling = 1.0 + weight.max()
    cost = np.concatenate([ceiling - weight, np.full(n_left, ceiling)])
    ends = np.concatenate([left, alone]), np.concatenate([right, n_right + alone])
    graph = csr_array((cost, ends), shape=(n_left, n_right + n_left))
    rows, columns = min_weight_full_bipartite_matching(graph)
    keys = left * n_right + right
    real = columns < n_right
    return np.flatnonzero(np.isin(keys, rows[real].astype(np.int64) * n_right + columns[real]))
