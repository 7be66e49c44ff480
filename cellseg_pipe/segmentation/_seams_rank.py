"""Decides who paints each linked cell, and which of two cells that want a pixel has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.segmentation._seams_join import Edges
from cellseg_pipe.segmentation._seams_nodes import Nodes

__all__ = ["PAINT_CORE", "PAINT_NOTHING", "PAINT_WHOLE", "Claims", "claims_of", "settle"]

PAINT_NOTHING, PAINT_CORE, PAINT_WHOLE = 0, 1, 2
LEAST_LEFT = 0.5  # of its pixels; a cell of which others leave less is not painted


@dataclass(frozen=True)
class Claims:
    """What the cells want to paint, before they are compared.

    Parameters
    ----------
    cell : int64 array [n]
        Cell of each node, from 0.
    paints : uint8 array [n]
        Which of its pixels a node paints.
    owner : int64 array [k]
        The node that stands for each cell.
    size : int64 array [k]
        Pixels that it wants; 0 if it is not to be painted.
    quarters : int64 array [k]
        How much of it lies in cores whose own tiles see it: 3 for three quarters or more.
    """

    cell: NDArray[np.int64]
    paints: NDArray[np.uint8]
    owner: NDArray[np.int64]
    size: NDArray[np.int64]
    quarters: NDArray[np.int64]


@dataclass(frozen=True)
class _Losses:
    """Pixels that worse ranks would lose to better ones, ascending by the worse one."""

    worse: NDArray[np.int64]
    better: NDArray[np.int64]
    count: NDArray[np.int64]


def claims_of(
    component: NDArray[np.uint32],
    nodes: Nodes,
    *,
    min_size_px: int,
    max_size_px: int | None,
) -> Claims:
    """Choose the owner of each cell and how it is painted.

    The owner is the member with the most pixels in its own core; one that sees the cell whole comes
    before those that do not. It paints the cell whole if it sees it so, else each member paints in
    its own core. A member that sees less than half of what all see in their cores does not see the
    whole, whatever it believes.

    Parameters
    ----------
    component : uint32 array [n]
        What hangs together.
    nodes : Nodes
        Of all tiles, by tile and then by label.
    min_size_px, max_size_px : int, optional
        Limits for cells that are not painted whole.

    Returns
    -------
    Claims
        Cells in the order of their first node.
    """
    _, cell = np.unique(component, return_inverse=True)
    whole_first = ~(nodes.complete & (nodes.core_size > 0))
    order = np.lexsort((-nodes.core_size, whole_first, cell))  # stable: then by tile
    owner = order[np.unique(cell[order], return_index=True)[1]]
    k = owner.size
    in_cores = np.zeros(k, np.int64)
    np.add.at(in_cores, cell, nodes.core_size)
    whole = nodes.complete[owner] & (2 * nodes.size[owner] >= in_cores)
    refused = np.zeros(k, bool)
    refused[cell[~nodes.kept & ~nodes.complete & (nodes.core_size > 0)]] = True
    most = np.iinfo(np.int64).max if max_size_px is None else max_size_px
    fits = ~refused & (in_cores >= max(min_size_px, 1)) & (in_cores <= most)
    stays = np.where(whole, nodes.kept[owner], fits)
    is_owner = np.zeros(cell.size, bool)
    is_owner[owner] = True
    alone = np.where(is_owner, PAINT_WHOLE, PAINT_NOTHING)
    parts = np.where(nodes.core_size > 0, PAINT_CORE, PAINT_NOTHING)
    paints = np.where(stays[cell], np.where(whole[cell], alone, parts), PAINT_NOTHING)
    size = np.where(whole, nodes.size[owner], in_cores)
    return Claims(
        cell=cell.astype(np.int64),
        paints=paints.astype(np.uint8),
        owner=owner.astype(np.int64),
        size=np.where(stays, size, 0),
        quarters=np.minimum(4 * in_cores // np.maximum(size, 1), 3),
    )


def settle(
    claims: Claims, edges: Edges, nodes: Nodes, *, min_size_px: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Rank the cells, and hide those of which better ones would leave too little.

    First come cells of which more, by quarters, lies in cores whose own tiles see them: of two
    tiles that disagree the one that a cell lies in is believed. Then larger cells, which leave the
    fewest pieces that are no cells; of equal ones that of the first node.

    Parameters
    ----------
    claims : Claims
        What cells want to paint.
    edges : Edges
        Of their nodes.
    nodes : Nodes
        Of all tiles.
    min_size_px : int
        Pixels that a cell has to keep.

    Returns
    -------
    rank : uint32 array [k]
        From 1, the best first; 0 for cells that are not painted.
    hidden : int64 array [m]
        Owners of cells that were hidden.
    """
    wanted = np.flatnonzero(claims.size)
    order = wanted[
        np.lexsort((claims.owner[wanted], -claims.size[wanted], -claims.quarters[wanted]))
    ]
    rank = np.zeros(claims.size.size, np.int64)
    rank[order] = np.arange(1, order.size + 1)
    losses = _losses(claims, edges, rank, same=_same_anchor(claims, rank, nodes))
    size = np.concatenate([[0], claims.size[order]])
    least = np.maximum((size * LEAST_LEFT).astype(np.int64), np.minimum(size, min_size_px))
    hidden = _hidden(losses, size - least)
    rank[order[hidden - 1]] = 0
    return rank.astype(np.uint32), np.sort(claims.owner[order[hidden - 1]])


def _losses(
    claims: Claims, edges: Edges, rank: NDArray[np.int64], *, same: NDArray[np.int64]
) -> _Losses:
    """Return how many pixels each rank loses to each better one.

    Pixels that three tiles see are counted for each pair, so that a loss may be overstated. Two
    cells with one anchor cannot both be painted: the worse one loses all.
    """
    left, right = claims.paints[edges.left], claims.paints[edges.right]
    count = np.where(left == PAINT_CORE, edges.in_left, edges.shared)
    count = np.where(right == PAINT_CORE, edges.in_right, count)
    count[(left == PAINT_NOTHING) | (right == PAINT_NOTHING)] = 0
    count[(left == PAINT_CORE) & (right == PAINT_CORE)] = 0
    a, b = rank[claims.cell[edges.left]], rank[claims.cell[edges.right]]
    meets = (a != b) & (count > 0)
    worse = np.concatenate([np.maximum(a, b)[meets], same[:, 1]])
    better = np.concatenate([np.minimum(a, b)[meets], same[:, 0]])
    all_of_it = np.zeros(rank.max(initial=0) + 1, np.int64)
    all_of_it[rank] = claims.size
    lost = np.concatenate([count[meets], all_of_it[same[:, 1]]])
    order = np.lexsort((better, worse))
    return _Losses(worse[order], better[order], lost[order])


def _same_anchor(claims: Claims, rank: NDArray[np.int64], nodes: Nodes) -> NDArray[np.int64]:
    """Return pairs of ranks [n, 2], the better one first, whose anchors are one pixel."""
    cells = np.flatnonzero(rank)
    cells = cells[np.argsort(rank[cells])]
    anchor = nodes.anchor[claims.owner[cells]]
    order = np.lexsort(anchor.T)  # stable: by rank where anchors are equal
    anchor, ordered = anchor[order], rank[cells[order]]
    pairs = [np.zeros((0, 2), np.int64)]
    for step in range(1, len(ordered)):
        equal = (anchor[step:] == anchor[:-step]).all(axis=1)
        if not equal.any():
            break
        pairs.append(np.stack([ordered[:-step][equal], ordered[step:][equal]], axis=1))
    return np.concatenate(pairs)


def _hidden(losses: _Losses, allowed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ranks that lose more than allowed; what is hidden itself takes nothing."""
    total = np.zeros(allowed.size, np.int64)
    np.add.at(total, losses.worse, losses.count)
    # Few cells could lose that much at all; only these need to be looked at one after the other.
    doubtful = np.flatnonzero(total > allowed)
    starts, stops = (np.searchsorted(losses.worse, doubtful, side) for side in ("left", "right"))
    gone: set[int] = set()
    for rank, start, stop in zip(doubtful.tolist(), starts.tolist(), stops.tolist(), strict=True):
        rivals = zip(
            losses.better[start:stop].tolist(), losses.count[start:stop].tolist(), strict=True
        )
        if sum(count for rival, count in rivals if rival not in gone) > allowed[rank]:
            gone.add(rank)
    return np.asarray(sorted(gone), np.int64)
