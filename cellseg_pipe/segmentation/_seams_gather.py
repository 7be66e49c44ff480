"""Goes through tiles one by one and keeps what cannot be decided within one: cells on seams."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.segmentation._seams_join import Edges
from cellseg_pipe.segmentation._seams_nodes import Nodes
from cellseg_pipe.segmentation._seams_rank import claims_of
from cellseg_pipe.segmentation._seams_view import SeamTable
from cellseg_pipe.segmentation.places import in_region
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.tiled import BLOCK_PX, rules_of
from cellseg_pipe.tiles import ID_MAX, Grid

__all__ = ["Gathered", "Gatherer", "Lone", "is_meant", "key_of", "limits_of", "lone_cells"]

COLUMNS = tuple(field.name for field in dataclasses.fields(Nodes) if field.name != "number")
PAIR = ("left", "right_number", "right_label", "shared", "union", "in_left", "in_right")


@dataclass(frozen=True)
class Gathered:
    """What the whole image has to be looked at for.

    Parameters
    ----------
    number : int64 array [n_tiles]
        Tiles, ascending.
    first : int64 array [n_tiles + 1]
        Where the rows of each tile begin: one per cell that a tile sees.
    row : int64 array [m]
        Those that share pixels with cells of other tiles, ascending: the others are lone.
    nodes : Nodes
        Of these rows.
    edges : Edges
        Which of them share pixels, by place in `row`, ascending.
    keys : int64 array [k]
        Of the lone cells that get a number, in order of rows: see `key_of`.
    """

    number: NDArray[np.int64]
    first: NDArray[np.int64]
    row: NDArray[np.int64]
    nodes: Nodes
    edges: Edges
    keys: NDArray[np.int64]


def limits_of(plan: Plan) -> dict[str, Any]:
    """Return the limits of size for cells that no window shows whole.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    dict
        `min_size_px` and `max_size_px`.
    """
    rules = rules_of(plan, None)
    return {name: rules[name] for name in ("min_size_px", "max_size_px")}


def key_of(peak: NDArray[np.int64], plan: Plan) -> NDArray[np.int64]:
    """Return numbers that are ordered as ids are: by block, then by place of the peak.

    Parameters
    ----------
    peak : int64 array [n, ndim]
        Of the whole grid.
    plan : Plan
        Of the image.

    Returns
    -------
    int64 array [n]
        Equal for equal peaks alone.
    """
    blocks = Grid(plan.walk_shape, BLOCK_PX[plan.mode])
    place = np.ravel_multi_index(tuple((peak % np.asarray(blocks.pitch)).T), blocks.pitch)
    return blocks.owners(peak) * int(np.prod(blocks.pitch)) + place


def is_meant(peak: NDArray[np.int64], plan: Plan) -> NDArray[np.bool_]:
    """Return which cells get a number; in mode planes that is decided of chains.

    Parameters
    ----------
    peak : int64 array [n, ndim]
        Of the whole grid.
    plan : Plan
        Of the image.

    Returns
    -------
    bool array [n]
        All of them where there is no region.
    """
    return np.ones(len(peak), bool) if plan.mode == "planes" else in_region(peak, plan)


@dataclass(frozen=True)
class Lone:
    """The cells of a tile that share no pixel with another tile's cell, as far as painted.

    Parameters
    ----------
    row : int64 array [n]
        Rows of the tile.
    paints : uint8 array [n]
        Which of its pixels a cell has.
    meant : bool array [n]
        Whether it gets a number; else it keeps others from its pixels.
    """

    row: NDArray[np.int64]
    paints: NDArray[np.uint8]
    meant: NDArray[np.bool_]


def lone_cells(nodes: Nodes, shared: NDArray[np.int64], plan: Plan) -> Lone:
    """Return the cells of a tile that no other tile has to be asked for.

    Parameters
    ----------
    nodes : Nodes
        Of the tile.
    shared : int64 array [m]
        Rows of the others.
    plan : Plan
        Of the image.

    Returns
    -------
    Lone
        Each is a cell of its own.
    """
    alone = np.ones(len(nodes.peak), bool)
    alone[shared] = False
    lone = np.flatnonzero(alone)
    own = np.arange(lone.size, dtype=np.uint32)
    claims = claims_of(own, _some(nodes, lone), **limits_of(plan))
    row = lone[claims.size > 0]
    return Lone(row, claims.paints[claims.size > 0], is_meant(nodes.peak[row], plan))


def _some(nodes: Nodes, rows: NDArray[np.int64]) -> Nodes:
    return Nodes(nodes.number, **{name: getattr(nodes, name)[rows] for name in COLUMNS})


class Gatherer:
    """Takes tiles in ascending order, each with its tables, and forgets what is decided.

    Parameters
    ----------
    plan : Plan
        Of the image.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._numbers: list[int] = []
        self._first = [0]
        self._rows: list[NDArray[np.int64]] = []
        self._nodes: list[Nodes] = []
        self._keys: list[NDArray[np.int64]] = []
        self._pairs: list[NDArray[np.int64]] = []
        self._awaited: dict[int, list[NDArray[np.uint32]]] = {}

    def add(self, nodes: Nodes, tables: Iterable[SeamTable]) -> None:
        """Take a tile.

        Parameters
        ----------
        nodes : Nodes
            Of the tile; its number is above those before it.
        tables : iterable of SeamTable
            What it shares with tiles of higher numbers.
        """
        begin = self._first[-1]
        tables = sorted(tables, key=lambda table: table.right_number)
        others = [table.right_number for table in tables]
        if self._numbers and nodes.number <= self._numbers[-1]:
            raise ValueError(f"linking needs each tile once, got tile {nodes.number} twice.")
        if len(set(others)) < len(others):
            raise ValueError("linking needs one table for each two tiles, got some twice.")
        labels = [*self._awaited.pop(nodes.number, []), *(t.overlaps.left for t in tables)]
        for table in tables:
            known = self._awaited.setdefault(table.right_number, [])
            known.append(np.unique(table.overlaps.right))
        shared = np.unique(np.concatenate([np.zeros(0, np.uint32), *labels])).astype(np.int64) - 1
        lone = lone_cells(nodes, shared, self._plan)
        self._keys.append(key_of(nodes.peak[lone.row[lone.meant]], self._plan))
        self._rows.append(begin + shared)
        self._nodes.append(_some(nodes, shared))
        self._pairs.append(_pairs(tables, begin))
        self._numbers.append(nodes.number)
        self._first.append(begin + len(nodes.peak))

    def gathered(self) -> Gathered:
        """Return what has to be decided for all tiles together.

        Returns
        -------
        Gathered
            Once; what it was made from is let go.
        """
        if self._awaited:
            raise ValueError(
                "linking needs the nodes of all tiles in its tables, some are missing:"
                f" {sorted(self._awaited)[:5]}."
            )
        if self._first[-1] > ID_MAX:
            raise ValueError(
                f"linking needs at most {ID_MAX} cells, got {len(self._numbers)} tiles with"
                f" {self._first[-1]}. Cut the image into regions."
            )
        number, first = np.asarray(self._numbers, np.int64), np.asarray(self._first, np.int64)
        row = _joined(self._rows, np.zeros(0, np.int64))
        left, right_number, right_label, *counts = _joined(
            self._pairs, np.zeros((len(PAIR), 0), np.int64)
        )
        right = first[np.searchsorted(number, right_number)] + right_label - 1
        edges = Edges(np.searchsorted(row, left), np.searchsorted(row, right), *counts)
        keys = _joined(self._keys, np.zeros(0, np.int64))
        return Gathered(number, first, row, self._together(), edges, keys)

    def _together(self) -> Nodes:
        """Return the nodes of all tiles."""
        ndim = len(self._plan.walk_shape)
        empty: dict[str, NDArray[Any]] = {
            **dict.fromkeys(("peak", "anchor"), np.zeros((0, ndim), np.int64)),
            **dict.fromkeys(("size", "core_size"), np.zeros(0, np.int64)),
        }
        none = np.zeros(0, bool)
        columns = {
            name: np.concatenate([empty.get(name, none), *(getattr(t, name) for t in self._nodes)])
            for name in COLUMNS
        }
        self._nodes.clear()
        return Nodes(-1, **columns)


def _pairs(tables: list[SeamTable], begin: int) -> NDArray[np.int64]:
    """Return the pairs of a tile, a column each: see `PAIR`."""
    columns = [np.zeros((len(PAIR), 0), np.int64)]
    for table in tables:
        overlaps = table.overlaps
        others = np.full(overlaps.left.size, table.right_number, np.int64)
        left = begin - 1 + overlaps.left.astype(np.int64)
        counts = (overlaps.shared, overlaps.union, table.in_left, table.in_right)
        columns.append(np.stack([left, others, overlaps.right.astype(np.int64), *counts]))
    return np.concatenate(columns, axis=1)


def _joined(parts: list[NDArray[Any]], none: NDArray[Any]) -> NDArray[Any]:
    """Return parts as one array along the last axis, and let go of them."""
    whole = np.concatenate([none, *parts], axis=-1)
    parts.clear()
    return whole
