"""Decides from small tables which cells of tiles are one, who paints it, and what it is called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels.link import check_threshold
from cellseg_pipe.segmentation._seams_join import Edges, join_nodes, mutual_links
from cellseg_pipe.segmentation._seams_nodes import Nodes
from cellseg_pipe.segmentation._seams_rank import Claims, claims_of, settle
from cellseg_pipe.segmentation._seams_view import SeamTable
from cellseg_pipe.segmentation.places import in_region
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.tiled import BLOCK_PX, rules_of
from cellseg_pipe.tiles import ID_MAX, Grid

__all__ = ["Conflicts", "Linked", "Part", "link_views"]


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


@dataclass(frozen=True)
class Linked:
    """What the cells of all tiles are called, tile by tile.

    Parameters
    ----------
    number : int64 array [n_tiles]
        Tiles, ascending.
    first : int64 array [n_tiles + 1]
        Where the rows of each tile begin.
    component : uint32 array [n]
        Row of the first member of the cell that each row belongs to.
    parts : Part
        One row per cell of a tile.
    conflicts : Conflicts
        Links that were refused.
    hidden : int64 array [m]
        Rows of the owners of cells that others left too little of.
    """

    number: NDArray[np.int64]
    first: NDArray[np.int64]
    component: NDArray[np.uint32]
    parts: Part
    conflicts: Conflicts
    hidden: NDArray[np.int64]

    @property
    def n_cells(self) -> int:
        """How many cells there are; their ids are 1 to this."""
        return int(self.parts.id.max(initial=0))

    def of(self, number: int) -> Part:
        """Return the part of one tile.

        Parameters
        ----------
        number : int
            Of the tile.

        Returns
        -------
        Part
            Its rows.
        """
        place = int(np.searchsorted(self.number, number))
        if place == len(self.number) or self.number[place] != number:
            raise ValueError(
                f"Linked.of needs one of the {len(self.number)} tiles that were linked, got"
                f" {number}. Link the nodes of all tiles."
            )
        rows = slice(int(self.first[place]), int(self.first[place + 1]))
        return Part(**{name: values[rows] for name, values in vars(self.parts).items()})


def link_views(
    nodes: Iterable[Nodes],
    tables: Iterable[SeamTable],
    *,
    plan: Plan,
    seam_iou: float = 0.5,
) -> Linked:
    """Decide which cells of tiles are one cell, and number the cells.

    Two cells of two tiles are linked if each is the other's best, by IoU where both windows are.
    Links are made over all pairs of tiles in order of IoU, then of shared pixels, then of tiles and
    peaks. Ids go by block of the owner's peak, then by place of the peak, as without seams. Nothing
    depends on the order of the arguments.

    Parameters
    ----------
    nodes : iterable of Nodes
        All tiles.
    tables : iterable of SeamTable
        All pairs of tiles whose windows overlap, each once; those without shared cells may be left
        out.
    plan : Plan
        Of the image. Its limits of size are those for cells that no window shows whole; for the
        others they were applied already.
    seam_iou : float
        Least IoU of two views of one cell, 0 to 1.

    Returns
    -------
    Linked
        Of each cell of each tile: its number and how it is painted.
    """
    check_threshold(seam_iou)
    tiles = sorted(nodes, key=lambda tile: tile.number)
    number = np.asarray([tile.number for tile in tiles], np.int64)
    first = np.cumsum([0, *(len(tile.peak) for tile in tiles)]).astype(np.int64)
    if (number[1:] == number[:-1]).any() or first[-1] > ID_MAX:
        raise ValueError(
            f"link_views needs each tile once and at most {ID_MAX} cells, got {len(number)} tiles"
            f" with {first[-1]}."
        )
    tile = np.repeat(np.arange(len(tiles)), np.diff(first))
    every = _together(tiles, ndim=len(plan.walk_shape))
    edges = _edges(tables, number, first)
    links = mutual_links(edges, tile, seam_iou=seam_iou)
    component, refused = join_nodes(links, tile)
    rules = rules_of(plan, None)
    limits = {name: rules[name] for name in ("min_size_px", "max_size_px")}
    claims = claims_of(component, every, **limits)
    rank, hidden = settle(claims, edges, every, min_size_px=limits["min_size_px"])
    blocks = Grid(plan.walk_shape, BLOCK_PX[plan.mode])
    owners = every.peak[claims.owner]
    meant = np.ones(len(owners), bool) if plan.mode == "planes" else in_region(owners, plan)
    parts = _numbered(claims, rank, every, blocks=blocks, meant=meant)
    conflicts = _conflicts(links[refused], every, number=number, first=first)
    return Linked(number, first, component, parts, conflicts, hidden)


def _together(tiles: list[Nodes], *, ndim: int) -> Nodes:
    """Return the nodes of all tiles."""
    flags, counts = np.zeros(0, bool), np.zeros(0, np.int64)
    places = np.zeros((0, ndim), np.int64)

    def column(name: str, empty: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([empty, *(getattr(tile, name) for tile in tiles)])

    return Nodes(
        number=-1,
        peak=column("peak", places),
        anchor=column("anchor", places),
        size=column("size", counts),
        core_size=column("core_size", counts),
        complete=column("complete", flags),
        kept=column("kept", flags),
        on_border=column("on_border", flags),
    )


def _edges(
    tables: Iterable[SeamTable], number: NDArray[np.int64], first: NDArray[np.int64]
) -> Edges:
    """Return the pairs of all tables, by row and ascending."""
    ordered = sorted(tables, key=lambda table: (table.left_number, table.right_number))
    pairs = [(table.left_number, table.right_number) for table in ordered]
    if len(set(pairs)) < len(pairs):
        raise ValueError("link_views needs one table for each two tiles, got some twice.")
    ends = np.searchsorted(number, np.asarray(pairs, np.int64).reshape(-1, 2))
    known = ends < number.size
    if not known.all() or (number[ends] != np.asarray(pairs).reshape(-1, 2)).any():
        raise ValueError("link_views needs the nodes of all tiles in its tables, some are missing.")
    columns: list[list[NDArray[np.int64]]] = [[np.zeros(0, np.int64)] for _ in range(6)]
    for table, (left, right) in zip(ordered, first[ends], strict=True):
        overlaps = table.overlaps
        rows = (
            left - 1 + overlaps.left.astype(np.int64),
            right - 1 + overlaps.right.astype(np.int64),
        )
        values = (*rows, overlaps.shared, overlaps.union, table.in_left, table.in_right)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return Edges(*(np.concatenate(column) for column in columns))


def _numbered(
    claims: Claims,
    rank: NDArray[np.uint32],
    nodes: Nodes,
    *,
    blocks: Grid,
    meant: NDArray[np.bool_],
) -> Part:
    """Name the painted cells by block of the owner's peak, then by its place, then by tile.

    Cells that are not meant keep others from their pixels, and have no number.
    """
    cells = np.flatnonzero((rank > 0) & meant)
    peak = nodes.peak[claims.owner[cells]]
    order = np.lexsort((claims.owner[cells], *reversed(peak.T), blocks.owners(peak)))
    numbers = np.zeros(rank.size, np.uint32)
    numbers[cells[order]] = np.arange(1, cells.size + 1, dtype=np.uint32)
    owner = np.zeros(claims.cell.size, bool)
    owner[claims.owner] = True
    painted = rank[claims.cell] > 0
    return Part(
        id=numbers[claims.cell],
        rank=rank[claims.cell],
        paints=np.where(painted, claims.paints, 0).astype(np.uint8),
        owner=owner,
    )


def _conflicts(
    links: Edges, nodes: Nodes, *, number: NDArray[np.int64], first: NDArray[np.int64]
) -> Conflicts:
    """Return links with what a reader needs to find their cells."""
    left, right = (np.searchsorted(first, rows, "right") - 1 for rows in (links.left, links.right))
    return Conflicts(
        left_tile=number[left],
        right_tile=number[right],
        left_label=(links.left - first[left] + 1).astype(np.uint32),
        right_label=(links.right - first[right] + 1).astype(np.uint32),
        left_peak=nodes.peak[links.left],
        right_peak=nodes.peak[links.right],
        iou=links.shared / links.union,
    )
