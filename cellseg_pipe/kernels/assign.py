"""Matches the nodes of sparse bipartite graphs; knows nothing of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, loops

__all__ = ["heaviest_edges"]


def heaviest_edges(
    left: ArrayLike, right: ArrayLike, weight: ArrayLike, *, backend: Backend = "numba"
) -> NDArray[np.int64]:
    """Choose edges that share no node and have the greatest sum of weights.

    Parameters
    ----------
    left, right : integer array [n]
        The two nodes of each edge, counted from 0 on either side; no edge twice.
    weight : float array [n]
        Weight of each edge, above 0 and finite.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    int64 array [m]
        Chosen edges, ascending. Sums are float64: of matchings that differ by rounding errors only,
        any may be chosen, but equal input gives equal edges.
    """
    left, right = np.asarray(left), np.asarray(right)
    weight = np.asarray(weight, np.float64)
    if left.dtype.kind not in "iu" or right.dtype.kind not in "iu":
        raise TypeError(
            f"heaviest_edges needs integers for nodes, got {left.dtype} and {right.dtype}."
        )
    if left.ndim != 1 or left.shape != right.shape or left.shape != weight.shape:
        raise ValueError(
            "heaviest_edges needs two nodes and one weight per edge, got shapes"
            f" {left.shape}, {right.shape} and {weight.shape}."
        )
    if left.size == 0:
        return np.empty(0, np.int64)
    if not (np.isfinite(weight).all() and (weight > 0).all()):
        raise ValueError("heaviest_edges needs weights above 0 and finite. Leave out the others.")
    # Nodes without gaps keep the arrays of the search as small as the graph.
    _, left = np.unique(left, return_inverse=True)
    _, right = np.unique(right, return_inverse=True)
    order = np.lexsort((right, left))
    chosen = loops(backend).heaviest_edges(
        left[order].astype(np.int64), right[order].astype(np.int64), weight[order]
    )
    return np.sort(order[chosen])
