"""Joins the nodes of tiles along links, never two of one tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import union_find
from cellseg_pipe.kernels.link import _exact_iou

__all__ = ["Edges", "join_nodes", "mutual_links"]


@dataclass(frozen=True)
class Edges:
    """Pairs of nodes of two tiles that share pixels, by row; the tile of the left one comes first.

    Parameters
    ----------
    left, right : int64 array [n]
        Rows of the nodes.
    shared, union : int64 array [n]
        Pixels with both, and with one or both, where both windows are.
    in_left, in_right : int64 array [n]
        Those of the shared pixels that lie in the core of the left tile, and of the right one.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    shared: NDArray[np.int64]
    union: NDArray[np.int64]
    in_left: NDArray[np.int64]
    in_right: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Edges:
        """Return some of the pairs."""
        return Edges(**{name: values[rows] for name, values in vars(self).items()})


def mutual_links(edges: Edges, tile: NDArray[np.int64], *, seam_iou: float) -> Edges:
    """Return the pairs in which each is the other's best in its tile, the best pair first.

    Parameters
    ----------
    edges : Edges
        All pairs.
    tile : int64 array [n_nodes]
        Tile of each row.
    seam_iou : float
        Pairs below it are not considered.

    Returns
    -------
    Edges
        By IoU as an exact fraction, then by shared pixels, then by rows.
    """
    # A quotient and a threshold are rounded alike, so that 1 of 2 pixels reaches .5.
    near = edges[edges.shared / edges.union >= seam_iou]
    worse = ~_exact_iou(near.shared, near.union)
    ranked = near[np.lexsort((near.right, near.left, -near.shared, worse))]
    n_tiles = int(tile.max(initial=-1)) + 1
    best = _is_first(ranked.left * n_tiles + tile[ranked.right])
    best &= _is_first(ranked.right * n_tiles + tile[ranked.left])
    return ranked[best]


def _is_first(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return where a value occurs for the first time."""
    first = np.zeros(values.size, bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def join_nodes(
    links: Edges, tile: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """Return the component of each node, and which links were refused.

    Where all nodes that hang together are of different tiles nothing is ever refused. Only the
    links of other components are made one after the other.

    Parameters
    ----------
    links : Edges
        The best first.
    tile : int64 array [n_nodes]
        Tile of each row.

    Returns
    -------
    component : uint32 array [n_nodes]
        The lowest row of each component.
    refused : int array [m]
        Which links would have put two rows of one tile into one component.
    """
    component = union_find(tile.size, links.left, links.right)
    twice = component.astype(np.int64) * (int(tile.max(initial=0)) + 1) + tile
    doubtful = np.zeros(tile.size, bool)
    doubtful[component[~_is_first(twice)]] = True
    slow = np.flatnonzero(doubtful[component[links.left]])
    members = {node: [node] for node in np.flatnonzero(doubtful[component]).tolist()}
    tiles = {node: {int(tile[node])} for node in members}
    root = {node: node for node in members}
    refused = []
    for row, a, b in zip(
        slow.tolist(), links.left[slow].tolist(), links.right[slow].tolist(), strict=True
    ):
        few, many = sorted((root[a], root[b]), key=lambda node: (len(members[node]), node))
        if few == many:
            continue
        if not tiles[few].isdisjoint(tiles[many]):
            refused.append(row)
            continue
        root.update(dict.fromkeys(members[few], many))
        members[many] += members.pop(few)
        tiles[many] |= tiles.pop(few)
    for nodes in (members[node] for node in set(root.values())):
        component[nodes] = min(nodes)
    return component, np.asarray(refused, np.intp)
