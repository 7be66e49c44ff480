"""What stages hand on, as bytes: windows, the cells of tiles, sums; and how they are read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.io.wkb import Outlines
from cellseg_pipe.kernels import Matches, Pairs, Sums
from cellseg_pipe.nets.windows import Record, View, nothing
from cellseg_pipe.segmentation.cells import Rows
from cellseg_pipe.segmentation.joining import Shared
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.predict import Records
from cellseg_pipe.segmentation.tiled import Found

__all__ = [
    "Stored",
    "found_from_bytes",
    "found_to_bytes",
    "record_to_bytes",
    "stored_records",
    "tables_from_bytes",
    "tables_to_bytes",
    "window_keys",
]


class Stored(Protocol):
    """Where blobs are read from."""

    def read(self, key: int) -> bytes:
        """Return the blob of a key.

        Parameters
        ----------
        key : int
            Which one.
        """

    def is_blank(self, key: int) -> bool:
        """Return whether there is nothing in it.

        Parameters
        ----------
        key : int
            Which one.
        """


def window_keys(plan: Plan) -> list[tuple[View, int]]:
    """Return for each view the key of its first window; keys go on through all views.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    list of (View, int)
        In the order of the views; the key of a window is this and its C-order place.
    """
    found, first = [], 0
    for view in plan.views:
        found.append((view, first))
        first += len(view.lattice)
    return found


def record_to_bytes(record: Record) -> bytes:
    """Return the bytes of a window that is not blank.

    Parameters
    ----------
    record : Record
        The window.

    Returns
    -------
    bytes
        Values, then style: flows do not compress.
    """
    return record.values.tobytes() + record.style.astype(np.float32).tobytes()


def stored_records(stored: Stored, plan: Plan) -> Records:
    """Return what gives windows that were computed before.

    Parameters
    ----------
    stored : Stored
        Holds them.
    plan : Plan
        Of the image.

    Returns
    -------
    callable
        From a view and a box to its records.
    """
    firsts = dict(window_keys(plan))

    def read(view: View, box: Box) -> Iterator[Record]:
        for index in view.over(box):
            place = int(np.ravel_multi_index(index, view.lattice.counts))
            yield _record(stored, firsts[view] + place, index, view=view, plan=plan)

    return read


def _record(stored: Stored, key: int, index: tuple[int, ...], *, view: View, plan: Plan) -> Record:
    shape = view.lattice.box(index).shape
    if stored.is_blank(key):
        values = nothing(shape, plan.n_outputs, n_axes=len(view.axes))
        return Record(index, values, np.zeros(0, np.float32))
    blob = stored.read(key)
    n = plan.n_outputs * int(np.prod(shape))
    values = np.frombuffer(blob, np.float16, n).reshape(plan.n_outputs, *shape)
    return Record(index, values, np.frombuffer(blob, np.float32, offset=2 * n))


def found_to_bytes(found: Found) -> bytes:
    """Return the bytes of a tile's cells.

    Parameters
    ----------
    found : Found
        The cells.

    Returns
    -------
    bytes
        Compressed.
    """
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    numbers = {name: fields[name] for name in ("n_too_far", "n_over_edge")}
    return pack(arrays, start=found.box.start, stop=found.box.stop, **numbers)


def found_from_bytes(blob: bytes) -> Found:
    """Return the cells of a tile.

    Parameters
    ----------
    blob : bytes
        From `found_to_bytes`.

    Returns
    -------
    Found
        Equal to what was stored.
    """
    arrays, numbers = unpack(blob)
    box = Box(tuple(numbers.pop("start")), tuple(numbers.pop("stop")))
    fields: dict[str, Any] = arrays | numbers
    return Found(box=box, **fields)


def tables_to_bytes(
    **tables: Rows | Sums | Pairs | Shared | Matches | Outlines | NDArray[Any],
) -> bytes:
    """Return the bytes of tables by name.

    Parameters
    ----------
    **tables
        Rows, sums, pairs, or single arrays.

    Returns
    -------
    bytes
        Compressed.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, table in tables.items():
        if isinstance(table, np.ndarray):
            arrays[name] = table
        else:
            arrays |= {f"{name}.{column}": values for column, values in vars(table).items()}
    return pack(arrays)


def tables_from_bytes(blob: bytes, **kinds: Callable[..., Any]) -> dict[str, Any]:
    """Return tables by name.

    Parameters
    ----------
    blob : bytes
        From `tables_to_bytes`.
    **kinds
        Class of each table that is wanted; arrays need none.

    Returns
    -------
    dict
        By name.
    """
    arrays, _ = unpack(blob, wanted=lambda name: "." not in name or name.split(".")[0] in kinds)
    columns: dict[str, dict[str, Any]] = {}
    found: dict[str, Any] = {}
    for name, values in arrays.items():
        table, _, column = name.partition(".")
        if column:
            columns.setdefault(table, {})[column] = values
        else:
            found[table] = values
    return found | {table: kinds[table](**values) for table, values in columns.items()}
