"""What tiles see of cells, and what was decided about it, as bytes; and how it is read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.kernels import Overlaps
from cellseg_pipe.segmentation._seams_link import Conflicts, Part
from cellseg_pipe.segmentation._seams_nodes import Nodes
from cellseg_pipe.segmentation._seams_view import SeamTable, View
from cellseg_pipe.tiles import Tile

__all__ = [
    "part_from_bytes",
    "part_to_bytes",
    "refused_from_bytes",
    "refused_to_bytes",
    "seams_from_bytes",
    "seams_to_bytes",
    "view_from_bytes",
    "view_to_bytes",
]

SEEN = ("labels", "area", "flow_error", "logit", "class_logit", "spread", "seen_again")
NODES = tuple(field.name for field in dataclasses.fields(Nodes) if field.name != "number")


def _prefixed(name: str, table: Any) -> dict[str, Any]:
    return {f"{name}.{column}": values for column, values in vars(table).items()}


def _cut(arrays: dict[str, Any], name: str) -> dict[str, Any]:
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def view_to_bytes(view: View) -> bytes:
    """Return the bytes of what a tile sees.

    Parameters
    ----------
    view : View
        The view.

    Returns
    -------
    bytes
        Compressed.
    """
    nodes = {f"nodes.{name}": getattr(view.nodes, name) for name in NODES}
    return pack({name: getattr(view, name) for name in SEEN} | nodes)


def view_from_bytes(blob: bytes, tile: Tile) -> View:
    """Return what a tile sees.

    Parameters
    ----------
    blob : bytes
        From `view_to_bytes`.
    tile : Tile
        Which one it is.

    Returns
    -------
    View
        Equal to what was stored.
    """
    arrays, _ = unpack(blob)
    nodes = Nodes(number=tile.number, **_cut(arrays, "nodes"))
    return View(tile=tile, nodes=nodes, **{name: arrays[name] for name in SEEN})


def seams_to_bytes(nodes: Nodes, tables: Sequence[SeamTable]) -> bytes:
    """Return the bytes of a tile's nodes, and of what it shares with tiles of higher numbers.

    Parameters
    ----------
    nodes : Nodes
        Of the tile.
    tables : sequence of SeamTable
        The tile is the left one of each.

    Returns
    -------
    bytes
        Compressed.
    """
    arrays = {f"nodes.{name}": getattr(nodes, name) for name in NODES}
    for number, table in enumerate(tables):
        arrays |= _prefixed(f"{number}", table.overlaps)
        arrays |= {f"{number}.in_left": table.in_left, f"{number}.in_right": table.in_right}
    return pack(arrays, right=[table.right_number for table in tables])


def seams_from_bytes(blob: bytes, number: int) -> tuple[Nodes, list[SeamTable]]:
    """Return a tile's nodes, and what it shares with tiles of higher numbers.

    Parameters
    ----------
    blob : bytes
        From `seams_to_bytes`.
    number : int
        Of the tile.

    Returns
    -------
    nodes : Nodes
        Of the tile.
    tables : list of SeamTable
        The tile is the left one of each.
    """
    arrays, numbers = unpack(blob)
    tables = []
    for place, right in enumerate(numbers["right"]):
        columns = _cut(arrays, f"{place}")
        in_cores = columns.pop("in_left"), columns.pop("in_right")
        tables.append(SeamTable(number, right, Overlaps(**columns), *in_cores))
    return Nodes(number=number, **_cut(arrays, "nodes")), tables


def part_to_bytes(part: Part) -> bytes:
    """Return the bytes of what a tile's cells are called.

    Parameters
    ----------
    part : Part
        Of the tile.

    Returns
    -------
    bytes
        Compressed.
    """
    return pack(vars(part))


def part_from_bytes(blob: bytes) -> Part:
    """Return what a tile's cells are called.

    Parameters
    ----------
    blob : bytes
        From `part_to_bytes`.

    Returns
    -------
    Part
        Equal to what was stored.
    """
    return Part(**unpack(blob)[0])


def refused_to_bytes(conflicts: Conflicts, *, n_hidden: int) -> bytes:
    """Return the bytes of what could not be settled.

    Parameters
    ----------
    conflicts : Conflicts
        Links that were refused.
    n_hidden : int
        Cells that others left too little of.

    Returns
    -------
    bytes
        Compressed.
    """
    return pack(vars(conflicts), n_hidden=n_hidden)


def refused_from_bytes(blob: bytes) -> tuple[Conflicts, int]:
    """Return what could not be settled.

    Parameters
    ----------
    blob : bytes
        From `refused_to_bytes`.

    Returns
    -------
    conflicts : Conflicts
        Links that were refused.
    n_hidden : int
        Cells that others left too little of.
    """
    arrays, numbers = unpack(blob)
    return Conflicts(**arrays), numbers["n_hidden"]
