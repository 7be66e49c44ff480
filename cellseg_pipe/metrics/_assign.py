"""Exact matching of maximum weight in sparse bipartite graphs; knows nothing of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels.assign import heaviest_edges

__all__ = ["heaviest_matching"]


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
    rest = heaviest_edges(left[open_edges], right[open_edges], weight[open_edges])
    return np.sort(np.concatenate([chosen, open_edges[rest]]))


def _settle_dominant(
    left: NDArray[np.int64], right: NDArray[np.int64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose edges that weigh at least as much as the best rivals at both ends together.

    Such an edge belongs to some heaviest matching: whatever it pushes out weighs no more. In a
    fair segmentation this settles nearly all objects, and the search sees only the rest. Rounds
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
