"""Decides from small tables which cells of tiles are one, who paints it, and what it is called."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels.link import check_threshold
from cellseg_pipe.segmentation._seams_gather import (
    Gathered,
    is_meant,
    key_of,
    limits_of,
    lone_cells,
)
from cellseg_pipe.segmentation._seams_join import Edges, join_nodes, mutual_links
from cellseg_pipe.segmentation._seams_nodes import Nodes
from cellseg_pipe.segmentation._seams_rank import claims_of, settle
from cellseg_pipe.segmentation.plan import Plan

__all__ = ["Conflicts", "Part", "Settled", "settle_seams"]

RANGE_KEYS, RANGE_STEP = 1 << 22, 1 << 8  # sorted at once, about; every how many tell the ranges


@dataclass(frozen=True)
class Conflicts:
    """Links that would have put two cells of one tile into one, the best first.

    Parameters
    ----------
    left_tile, right_tile : int64 array [n]
        Numbers of the tiles.
    left_label, right_label : uint32 array [n]
        Their cells.
    left_peak, right_peak : int64 array [n, ndim]
        Where these are.
    iou : float64 array [n]
        How well they cover each other where both windows are.
    """

    left_tile: NDArray[np.int64]
    right_tile: NDArray[np.int64]
    left_label: NDArray[np.uint32]
    right_label: NDArray[np.uint32]
    left_peak: NDArray[np.int64]
    right_peak: NDArray[np.int64]
    iou: NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """What one tile's cells are called and how they are painted, ascending by label.

    Parameters
    ----------
    id : uint32 array [n]
        Number of the cell that each belongs to; 0 if that is not painted, or lies outside the
        region.
    rank : uint32 array [n]
        Of two cells that want a pixel the lower one has it; from 1, and 0 if it is not painted.
    paints : uint8 array [n]
        `PAINT_NOTHING`, `PAINT_CORE` or `PAINT_WHOLE`: which of its pixels the cell has.
    owner : bool array [n]
        Whether it stands for the cell, which then has its anchor.
    """

    id: NDArray[np.uint32]
    rank: NDArray[np.uint32]
    paints: NDArray[np.uint8]
    owner: NDArray[np.bool_]

    def __getitem__(self, rows: slice) -> Part:
        """Return some of the rows."""
        return Part(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Settled:
    """What was decided of all tiles together; `parts` gives what it means for each.

    Parameters
    ----------
    plan : Plan
        Of the image.
    number, first : int64 array
        Tiles, and where the rows of each begin.
    row : int64 array [m]
        Rows that share pixels with other tiles' cells.
    component : int64 array [m]
        Row of the first member of the cell that each belongs to.
    shared : Part
        Of these rows.
    lone_id : uint32 array [k]
        Numbers of the other cells that get one, in order of rows.
    lone_rank : int
        Ranks up to this one are taken.
    conflicts : Conflicts
        Links that were refused.
    hidden : int64 array [h]
        Rows of the owners of cells that others left too little of.
    """

    plan: Plan
    number: NDArray[np.int64]
    first: NDArray[np.int64]
    row: NDArray[np.int64]
    component: NDArray[np.int64]
    shared: Part
    lone_id: NDArray[np.uint32]
    lone_rank: int
    conflicts: Conflicts
    hidden: NDArray[np.int64]

    @property
    def n_cells(self) -> int:
        """How many cells there are."""
        return max(int(self.lone_id.max(initial=0)), int(self.shared.id.max(initial=0)))

    def parts(self, tiles: Iterable[Nodes]) -> Iterator[Part]:
        """Yield what the cells of each tile are called.

        Parameters
        ----------
        tiles : iterable of Nodes
            All that were linked, ascending.

        Yields
        ------
        Part
            Of each.
        """
        n_lone = n_named = 0
        for nodes, begin, end in zip(tiles, self.first[:-1], self.first[1:], strict=True):
            low, high = np.searchsorted(self.row, (begin, end))
            shared, n = self.row[low:high] - begin, len(nodes.peak)
            part = Part(
                id=np.zeros(n, np.uint32),
                rank=np.zeros(n, np.uint32),
                paints=np.zeros(n, np.uint8),
                owner=np.ones(n, bool),
            )
            for name, values in vars(self.shared).items():
                getattr(part, name)[shared] = values[low:high]
            lone = lone_cells(nodes, shared, self.plan)
            named = lone.row[lone.meant]
            part.id[named] = self.lone_id[n_named : n_named + named.size]
            part.paints[lone.row] = lone.paints
            # These share no pixel with another tile's cell: any rank of their own serves.
            part.rank[lone.row] = self.lone_rank + n_lone + 1 + np.arange(lone.row.size)
            n_lone, n_named = n_lone + lone.row.size, n_named + named.size
            yield part


def settle_seams(gathered: Gathered, *, plan: Plan, seam_iou: float) -> Settled:
    """Decide which cells of tiles are one cell, and number the cells.

    Two cells of two tiles are linked if each is the other's best, by IoU where both windows are.
    Links are made over all pairs of tiles in order of IoU, then of shared pixels, then of tiles and
    peaks. Ids go by block of the owner's peak, then by place of the peak, as without seams; of
    cells with one peak those that one tile alone sees come first.

    Parameters
    ----------
    gathered : Gathered
        From all tiles.
    plan : Plan
        Of the image. Its limits of size are those for cells that no window shows whole; for the
        others they were applied already.
    seam_iou : float
        Least IoU of two views of one cell, 0 to 1.

    Returns
    -------
    Settled
        For all tiles.
    """
    check_threshold(seam_iou)
    first, row, nodes, edges = gathered.first, gathered.row, gathered.nodes, gathered.edges
    tile = np.searchsorted(first, row, "right") - 1
    links = mutual_links(edges, tile, seam_iou=seam_iou)
    component, refused = join_nodes(links, tile)
    limits = limits_of(plan)
    claims = claims_of(component, nodes, **limits)
    rank, hidden = settle(claims, edges, nodes, min_size_px=limits["min_size_px"])
    owners = nodes.peak[claims.owner]
    # Cells that are not meant keep others from their pixels, and have no number.
    cells = np.flatnonzero((rank > 0) & is_meant(owners, plan))
    lone_id, numbers = _numbers(gathered.keys, key_of(owners[cells], plan))
    ids = np.zeros(rank.size, np.uint32)
    ids[cells] = numbers
    owner = np.zeros(claims.cell.size, bool)
    owner[claims.owner] = True
    painted = rank[claims.cell] > 0
    shared = Part(
        id=ids[claims.cell],
        rank=rank[claims.cell],
        paints=np.where(painted, claims.paints, 0).astype(np.uint8),
        owner=owner,
    )
    return Settled(
        plan=plan,
        number=gathered.number,
        first=first,
        row=row,
        component=row[component],
        shared=shared,
        lone_id=lone_id,
        lone_rank=int(rank.max(initial=0)),
        conflicts=_conflicts(links[refused], gathered),
        hidden=row[hidden],
    )


def _numbers(
    lone: NDArray[np.int64], shared: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the ids of cells from their keys; of equal ones those of lone cells come first.

    One range of keys is sorted after the other: all at once take several times their memory.
    """
    lone_id, shared_id = np.empty(lone.size, np.uint32), np.empty(shared.size, np.uint32)
    some = np.sort(np.concatenate([lone[::RANGE_STEP], shared[::RANGE_STEP]]))
    cuts = np.unique(some[RANGE_KEYS // RANGE_STEP :: RANGE_KEYS // RANGE_STEP])
    n = 0
    for low, high in itertools.pairwise([0, *cuts.tolist(), np.iinfo(np.int64).max]):
        ours, theirs = (np.flatnonzero((keys >= low) & (keys < high)) for keys in (lone, shared))
        order = np.argsort(np.concatenate([lone[ours], shared[theirs]]), kind="stable")
        ids = np.empty(order.size, np.uint32)
        ids[order] = np.arange(n + 1, n + order.size + 1, dtype=np.uint32)
        lone_id[ours], shared_id[theirs] = np.split(ids, [ours.size])
        n += order.size
    return lone_id, shared_id


def _conflicts(links: Edges, gathered: Gathered) -> Conflicts:
    """Return links with what a reader needs to find their cells."""
    number, first, nodes = gathered.number, gathered.first, gathered.nodes
    rows = gathered.row[links.left], gathered.row[links.right]
    left, right = (np.searchsorted(first, row, "right") - 1 for row in rows)
    return Conflicts(
        left_tile=number[left],
        right_tile=number[right],
        left_label=(rows[0] - first[left] + 1).astype(np.uint32),
        right_label=(rows[1] - first[right] + 1).astype(np.uint32),
        left_peak=nodes.peak[links.left],
        right_peak=nodes.peak[links.right],
        iou=links.shared / links.union,
    )
