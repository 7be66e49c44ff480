"""Joins cells that were found at several diameters: which of them stay, and whose pixels are whose.

Each class of diameters has cells of its own, numbered from 1. Along the border of fields a cell may
be seen by two classes, or cells of one overlap those of another. All that is decided here follows
from the pixels that pairs of cells share and from their areas: whole numbers, which tiles add up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import overlap_pairs, relabel
from cellseg_pipe.segmentation.cells import Cells, Rows, join_rows
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.tiled import (
    BLOCK_PX,
    DROPPED,
    Found,
    counts_of,
    ids_of,
    paint,
)
from cellseg_pipe.tiles import Grid, block_ranks, first_ids

__all__ = [
    "Numbered",
    "Settled",
    "Shared",
    "add_shared",
    "blocks_of",
    "cells_in",
    "joined_cells",
    "joined_ids",
    "joined_labels",
    "misfit",
    "settle",
    "settle_rows",
    "shared_pixels",
    "standing",
]

CLASS_BITS = 32  # a cell's key: its class, then its number in that class

Numbered = tuple[Found, NDArray[np.uint32]]


@dataclass(frozen=True)
class Shared:
    """Pixels that cells of different classes share.

    Parameters
    ----------
    left, right : int64 array [n]
        Keys of two cells, the first of the lower class; ascending.
    count : int64 array [n]
        Pixels, never 0.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    count: NDArray[np.int64]


@dataclass(frozen=True)
class Settled:
    """What becomes of cells that share pixels.

    Parameters
    ----------
    gone : int64 array [m]
        Keys of those that go, ascending.
    key : int64 array [n]
        Of all that share pixels, ascending.
    rank : int64 array [n]
        Of each, from 0 for the best: which of two has the pixels that both claim.
    """

    gone: NDArray[np.int64]
    key: NDArray[np.int64]
    rank: NDArray[np.int64]

    def rank_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rank of cells.

        Parameters
        ----------
        keys : int64 array [k]
            Cells that share pixels.

        Returns
        -------
        int64 array [k]
            No two cells have the same.
        """
        return self.rank[np.searchsorted(self.key, keys)]


def keys_of(number: int, labels: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the keys of cells of a class.

    Parameters
    ----------
    number : int
        Of the class.
    labels : uint32 array [n]
        Numbers of cells.

    Returns
    -------
    int64 array [n]
        Ascending where the numbers are.
    """
    return labels.astype(np.int64) + (number << CLASS_BITS)


def cells_in(keys: NDArray[np.int64], number: int) -> NDArray[np.uint32]:
    """Return the cells of a class among others.

    Parameters
    ----------
    keys : int64 array [n]
        Cells of any class.
    number : int
        Of the class.

    Returns
    -------
    uint32 array [k]
        Their numbers in it.
    """
    return keys[keys >> CLASS_BITS == number].astype(np.uint32)


def shared_pixels(labels: Sequence[NDArray[np.uint32]], *, threads: int | None = None) -> Shared:
    """Count the pixels that cells of different classes share.

    Parameters
    ----------
    labels : sequence of uint32 array [*box]
        Of the same box, one for each class.
    threads : int, optional
        Threads to use.

    Returns
    -------
    Shared
        In this box.
    """
    parts = []
    for (i, left), (j, right) in itertools.combinations(enumerate(labels), 2):
        pairs = overlap_pairs(left, right, threads=threads)
        both = (pairs.left > 0) & (pairs.right > 0)
        cells = keys_of(i, pairs.left[both]), keys_of(j, pairs.right[both])
        parts.append(Shared(*cells, pairs.count[both]))
    return add_shared(parts)


def add_shared(parts: Sequence[Shared]) -> Shared:
    """Add what was counted in several boxes.

    Parameters
    ----------
    parts : sequence of Shared
        Of boxes that do not overlap, in any order.

    Returns
    -------
    Shared
        Together.
    """
    none = np.zeros(0, np.int64)
    left, right, count = (
        np.concatenate([none, *(getattr(part, name) for part in parts)])
        for name in ("left", "right", "count")
    )
    order = np.lexsort((right, left))
    left, right, count = left[order], right[order], count[order]
    new = np.ones(len(left), bool)
    new[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    first = np.flatnonzero(new)
    return Shared(left[first], right[first], np.add.reduceat(count, first) if len(first) else none)


def misfit(area: NDArray[np.int64], plan: Plan) -> NDArray[np.float64]:
    """Return how far cells are from being as large as the cells that they were looked for as.

    Parameters
    ----------
    area : int64 array [n]
        Pixels of each.
    plan : Plan
        Of their class.

    Returns
    -------
    float64 array [n]
        From 1: the larger over the smaller of both. Products and quotients only, the same on every
        machine.
    """
    px = plan.diameter_px
    disc = math.pi / 4 * px * px
    typical = disc if len(plan.shape) == 2 else disc * px / 1.5 / plan.settings.anisotropy
    return np.maximum(area / typical, typical / np.maximum(area, 1))


def settle(shared: Shared, *, area: NDArray[np.int64], misfit: NDArray[np.float64]) -> Settled:
    """Decide which of the cells that share pixels stay.

    A cell that is as large as its class says ranks before one that is not: halves of a large cell
    and clumps of small ones have any size. A cell goes if a better one has half of it, or half of
    itself in it, or if better ones together have half of it. So of those that stay each keeps more
    than half of its pixels. Whether the better one stays itself does not matter: what becomes of a
    cell depends on its neighbours alone.

    Parameters
    ----------
    shared : Shared
        Of the image.
    area : int64 array [n]
        Pixels of each cell that shares some, ascending by its key.
    misfit : float64 array [n]
        Of the same cells.

    Returns
    -------
    Settled
        The same in any order of cells and classes, but for cells that fit alike: of these the one
        of the lower class, then of the lower number is better.
    """
    key = np.union1d(shared.left, shared.right)
    rank = np.empty(len(key), np.int64)
    rank[np.lexsort((key, misfit))] = np.arange(len(key))
    left, right = np.searchsorted(key, shared.left), np.searchsorted(key, shared.right)
    worse = np.where(rank[left] > rank[right], left, right)
    twice, covered = 2 * shared.count, np.zeros(len(key), np.int64)
    np.add.at(covered, worse, twice)
    goes = (covered > 0) & (covered >= area)
    goes[worse[twice >= np.minimum(area[left], area[right])]] = True
    return Settled(key[goes], key, rank)


def settle_rows(shared: Shared, rows: Sequence[Rows], plans: Sequence[Plan]) -> Settled:
    """Decide which of the cells that share pixels stay, from what is known of them.

    Parameters
    ----------
    shared : Shared
        Of the image.
    rows : sequence of Rows
        Of each class the cells that share pixels, ascending.
    plans : sequence of Plan
        Of each class.

    Returns
    -------
    Settled
        See `settle`.
    """
    fits = [misfit(part.area, plan) for part, plan in zip(rows, plans, strict=True)]
    area = np.concatenate([part.area for part in rows])
    return settle(shared, area=area, misfit=np.concatenate(fits))


def standing(ids: NDArray[np.uint32], number: int, settled: Settled) -> NDArray[np.uint32]:
    """Return the numbers of cells with those that go taken out.

    Parameters
    ----------
    ids : uint32 array [n]
        Numbers in their class.
    number : int
        Of the class.
    settled : Settled
        Which go.

    Returns
    -------
    uint32 array [n]
        `DROPPED` for those.
    """
    return np.where(np.isin(keys_of(number, ids), settled.gone), DROPPED, ids)


def joined_ids(
    parts: Sequence[Numbered], first: NDArray[np.int64], plan: Plan
) -> list[NDArray[np.uint32]]:
    """Return the numbers of a tile's cells among those of all classes.

    Parameters
    ----------
    parts : sequence of (Found, uint32 array [n])
        Of each class its cells in the tile with what is `standing` of their numbers.
    first : int64 array [n_blocks]
        Number of the first cell of each block.
    plan : Plan
        Of the image.

    Returns
    -------
    list of uint32 array [n]
        By block and place of the peak, whatever the class; `DROPPED` where there was no number.
    """
    blocks = Grid(plan.walk_shape, BLOCK_PX[plan.mode])
    stays = [ids != DROPPED for _, ids in parts]
    peaks = [found.peak[kept] for (found, _), kept in zip(parts, stays, strict=True)]
    block, rank = block_ranks(np.concatenate(peaks), blocks)
    numbers = np.split((first[block] + rank).astype(np.uint32), np.cumsum([*map(len, peaks)])[:-1])
    found_ids = []
    for (_, ids), kept, own in zip(parts, stays, numbers, strict=True):
        joined = np.full(len(ids), DROPPED)
        joined[kept] = own
        found_ids.append(joined)
    return found_ids


def blocks_of(peaks: NDArray[np.int64], plan: Plan) -> NDArray[np.int64]:
    """Count the cells of each block.

    Parameters
    ----------
    peaks : int64 array [n, ndim]
        Of the cells.
    plan : Plan
        Of the image.

    Returns
    -------
    int64 array [n_blocks]
        How many.
    """
    blocks = Grid(plan.walk_shape, BLOCK_PX[plan.mode])
    return np.bincount(blocks.owners(peaks), minlength=len(blocks)).astype(np.int64)


def joined_labels(
    labels: Sequence[NDArray[np.uint32]],
    settled: Settled,
    numbers: Sequence[tuple[NDArray[np.uint32], NDArray[np.uint32]]],
) -> NDArray[np.uint32]:
    """Put the labels of all classes together.

    Parameters
    ----------
    labels : sequence of uint32 array [*box]
        Of each class, without cells that go.
    settled : Settled
        Who has the pixels that two cells claim: the better one.
    numbers : sequence of (uint32 array [n], uint32 array [n])
        Of each class the numbers in it, and those that they become.

    Returns
    -------
    uint32 array [*box]
        Each pixel once.
    """
    own = [part.copy() for part in labels]
    for (i, left), (j, right) in itertools.combinations(enumerate(own), 2):
        both = np.nonzero((left > 0) & (right > 0))
        ranks = (settled.rank_of(keys_of(k, part[both])) for k, part in ((i, left), (j, right)))
        yields = np.greater(*ranks)
        left[both] = np.where(yields, 0, left[both])
        right[both] = np.where(yields, right[both], 0)
    joined = np.zeros(own[0].shape, np.uint32)
    for part, (old, new) in zip(own, numbers, strict=True):
        known = old != DROPPED
        np.maximum(joined, relabel(part, old[known], new[known]), out=joined)
    return joined


def joined_cells(found: Sequence[Found], plans: Sequence[Plan], plan: Plan) -> Cells:
    """Join the cells of a whole image.

    Parameters
    ----------
    found : sequence of Found
        Of each class all of its cells, as one tile.
    plans : sequence of Plan
        Of each class.
    plan : Plan
        Of the image.

    Returns
    -------
    Cells
        As tiles give them.
    """
    tiles = []
    for part, of_class in zip(found, plans, strict=True):
        block, count = counts_of(part, of_class)
        counts = np.zeros(len(Grid(plan.walk_shape, BLOCK_PX[plan.mode])), np.int64)
        counts[block] = count
        tiles.append((part, ids_of(part, first_ids(counts), of_class)))
    shared = shared_pixels([paint(part.box, [(part, ids)]) for part, ids in tiles])
    contested = np.union1d(shared.left, shared.right)
    rows = [
        rows.take(np.isin(rows.id, cells_in(contested, number)))
        for number, rows in enumerate(join_rows([tile]) for tile in tiles)
    ]
    settled = settle_rows(shared, rows, plans)
    kept = [(part, standing(ids, n, settled)) for n, (part, ids) in enumerate(tiles)]
    peaks = np.concatenate([part.peak[ids != DROPPED] for part, ids in kept])
    numbers = joined_ids(kept, first_ids(blocks_of(peaks, plan)), plan)
    labels = joined_labels(
        [paint(part.box, [(part, ids)]) for part, ids in kept],
        settled,
        [(ids, new) for (_, ids), new in zip(kept, numbers, strict=True)],
    )
    known = join_rows([(part, new) for (part, _), new in zip(kept, numbers, strict=True)])
    return Cells(labels, known, sum(part.n_too_far for part in found))
