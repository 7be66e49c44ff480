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
        self._row, self._key = _Column(), _Column()
        self._pairs = {name: _Column() for name in PAIR}
        flags, places = ("complete", "kept", "on_border"), ("peak", "anchor")
        width = dict.fromkeys(places, len(plan.walk_shape))
        self._nodes = {
            name: _Column(np.bool_ if name in flags else np.int64, width.get(name))
            for name in COLUMNS
        }
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
        self._key.add(key_of(nodes.peak[lone.row[lone.meant]], self._plan))
        self._row.add(begin + shared)
        for name, column in self._nodes.items():
            column.add(getattr(nodes, name)[shared])
        for table in tables:
            self._add_pairs(table, begin)
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
        row = self._row.whole()
        return Gathered(
            number,
            first,
            row,
            Nodes(-1, **{name: column.whole() for name, column in self._nodes.items()}),
            self._edges(number, first, row),
            self._key.whole(),
        )

    def _add_pairs(self, table: SeamTable, begin: int) -> None:
        overlaps = table.overlaps
        self._pairs["left"].add(begin - 1 + overlaps.left.astype(np.int64))
        self._pairs["right_number"].add(np.full(overlaps.left.size, table.right_number))
        self._pairs["right_label"].add(overlaps.right)
        self._pairs["shared"].add(overlaps.shared)
        self._pairs["union"].add(overlaps.union)
        self._pairs["in_left"].add(table.in_left)
        self._pairs["in_right"].add(table.in_right)

    def _edges(
        self, number: NDArray[np.int64], first: NDArray[np.int64], row: NDArray[np.int64]
    ) -> Edges:
        pairs = self._pairs
        right = first[np.searchsorted(number, pairs.pop("right_number").whole())]
        right += pairs.pop("right_label").whole() - 1
        ends = (np.searchsorted(row, end) for end in (pairs.pop("left").whole(), right))
        return Edges(*ends, **{name: column.whole() for name, column in pairs.items()})


class _Column:
    """Rows that come a few at a time and never lie in memory twice, as parts of a list do.

    Parameters
    ----------
    dtype : data type
        Of the values.
    width : int, optional
        Values in a row; without it the column is a vector.
    """

    def __init__(self, dtype: type[np.generic] = np.int64, width: int | None = None) -> None:
        self._dtype, self._width = dtype, width
        self._bytes = bytearray()

    def add(self, rows: NDArray[Any]) -> None:
        """Take some more."""
        self._bytes += rows.astype(self._dtype).tobytes()

    def whole(self) -> NDArray[Any]:
        """Return all of them, which are let go of here."""
        values, self._bytes = np.frombuffer(self._bytes, self._dtype), bytearray()
        return values if self._width is None else values.reshape(-1, self._width)
