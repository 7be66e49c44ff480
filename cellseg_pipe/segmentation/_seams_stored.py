"""What tiles see of cells, and what was decided about it, as bytes; and how it is read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.kernels import Overlaps
from cellseg_pipe.segmentation._seams_link import Conflicts, Linked, Part
from cellseg_pipe.segmentation._seams_nodes import Nodes
from cellseg_pipe.segmentation._seams_view import SeamTable, View
from cellseg_pipe.tiles import Tile

__all__ = [
    "linked_from_bytes",
    "linked_to_bytes",
    "seams_from_bytes",
    "seams_to_bytes",
    "view_from_bytes",
    "view_to_bytes",
]

SEEN = ("labels", "area", "flow_error", "logit", "class_logit")
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


def linked_to_bytes(linked: Linked) -> bytes:
    """Return the bytes of what the cells of all tiles are called.

    Parameters
    ----------
    linked : Linked
        For all tiles.

    Returns
    -------
    bytes
        Compressed.
    """
    own = {k: v for k, v in vars(linked).items() if isinstance(v, np.ndarray)}
    tables = _prefixed("parts", linked.parts) | _prefixed("conflicts", linked.conflicts)
    return pack(own | tables)


def linked_from_bytes(blob: bytes) -> Linked:
    """Return what the cells of all tiles are called.

    Parameters
    ----------
    blob : bytes
        From `linked_to_bytes`.

    Returns
    -------
    Linked
        Equal to what was stored.
    """
    arrays, _ = unpack(blob)
    fields: dict[str, Any] = {name: values for name, values in arrays.items() if "." not in name}
    fields["parts"] = Part(**_cut(arrays, "parts"))
    fields["conflicts"] = Conflicts(**_cut(arrays, "conflicts"))
    return Linked(**fields)
