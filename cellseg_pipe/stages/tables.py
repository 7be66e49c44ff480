"""Writes what was measured of a unit's cells: tables and outlines, a part at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, csv, parquet

from cellseg_pipe.io._moving import remove
from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.io.wkb import Outlines, sort_outlines
from cellseg_pipe.stages.measure import stored_parts, tables
from cellseg_pipe.stages.tiling import read_tiling
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["write_csv", "write_outlines", "write_tables"]

ROWS_AT_ONCE = 1 << 20  # of a table: one file each
SHAPES_AT_ONCE = 1 << 16  # of outlines, of some 300 bytes each: one group of rows
# As GeoParquet 1.1 asks for; coordinates are px, which no map projection describes.
GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["MultiPolygon", "Polygon"],
            "crs": None,
            "orientation": "counterclockwise",
        }
    },
}


def write_tables(folder: Path, unit: UnitRun) -> dict[str, int]:
    """Write the table of a unit as parts of rows that do not depend on its tiles.

    Parameters
    ----------
    folder : path
        Of the parts; what an attempt that was cut short left there goes.
    unit : UnitRun
        The unit; its cells are measured.

    Returns
    -------
    dict of str to int
        Cells, and those that are flagged.
    """
    remove(folder)
    folder.mkdir(parents=True)
    counts = {"n_cells": 0, "n_flagged": 0}
    for number, table in enumerate(_cut(_tables(unit), ROWS_AT_ONCE)):
        with binary_whole(folder / f"part-{number:05d}.parquet") as file:
            parquet.write_table(table, file, compression="zstd")
        counts["n_cells"] += table.num_rows
        counts["n_flagged"] += compute.sum(table["flagged"]).as_py() or 0
    return counts


def write_csv(path: Path, unit: UnitRun) -> None:
    """Write the table of a unit as one file of text.

    Parameters
    ----------
    path : path
        It appears when it is whole.
    unit : UnitRun
        The unit; its cells are measured.
    """
    rows = _tables(unit)
    first = next(rows)
    with binary_whole(path) as file, csv.CSVWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in rows:
            writer.write_table(table)


def write_outlines(path: Path, unit: UnitRun) -> None:
    """Write the outlines of a unit's cells as GeoParquet.

    Parameters
    ----------
    path : path
        It appears when it is whole.
    unit : UnitRun
        The unit; its cells are measured, and their outlines cut out.
    """
    shapes = _cut(_shapes(unit), SHAPES_AT_ONCE)
    first = next(shapes)
    schema = first.schema.with_metadata({"geo": json.dumps(GEO)})
    with (
        binary_whole(path) as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        writer.write_table(first.cast(schema))
        for table in shapes:
            writer.write_table(table.cast(schema))


def _tables(unit: UnitRun) -> Iterator[pa.Table]:
    for columns in tables(unit):
        yield pa.table({name: pa.array(column) for name, column in columns.items()})


def _shapes(unit: UnitRun) -> Iterator[pa.Table]:
    """Yield outlines ascending by label, then plane; in mode planes by plane, then label."""
    volume = len(unit.image.shape) == 3
    none = np.zeros(0, np.uint8)
    yield _shape_table(Outlines(none.astype("u4"), *(none.astype("i8"),) * 2, none), volume=volume)
    for parts in stored_parts(unit, read_tiling(unit.stage("tiles"))):
        if parts:
            yield _shape_table(sort_outlines([p["outlines"] for p in parts]), volume=volume)


def _shape_table(outlines: Outlines, *, volume: bool) -> pa.Table:
    ends = np.concatenate([[0], np.cumsum(outlines.size)]).astype(np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(outlines.data))]
    geometry = pa.Array.from_buffers(pa.large_binary(), len(outlines.label), buffers)
    plane = {"z": pa.array(outlines.plane, pa.int32())} if volume else {}
    return pa.table({"label": pa.array(outlines.label), **plane, "geometry": geometry})


def _cut(parts: Iterator[pa.Table], n_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of tables in groups of one size; one group at least, the last may be less."""
    held: Any = None
    for part in parts:
        held = part if held is None else pa.concat_tables([held, part])
        while held.num_rows > n_rows:
            yield held.slice(0, n_rows).combine_chunks()
            held = held.slice(n_rows)
    yield held.combine_chunks()
