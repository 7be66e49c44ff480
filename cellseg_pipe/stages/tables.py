"""Writes what was measured of a unit's cells: tables and outlines, a part at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, csv, dataset, parquet

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._moving import remove
from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.io.rois import polygons_of
from cellseg_pipe.io.shards import read_box
from cellseg_pipe.io.wkb import Outlines, sort_outlines
from cellseg_pipe.ledger import Records
from cellseg_pipe.segmentation.stored import tables_from_bytes
from cellseg_pipe.stages.spans import spans_of
from cellseg_pipe.stages.tiling import read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.tiles import Grid

__all__ = [
    "Columns",
    "stored_outlines",
    "stored_polygons",
    "write_csv",
    "write_outlines",
    "write_tables",
]

Columns = dict[str, NDArray[Any]]

ROWS_AT_ONCE, GROUPS_IN_FILE = 1 << 17, 8  # of a table: one group of rows each; one file
OUTLINED_AT_ONCE = 1 << 14  # cells of tiles, each with an outline for every plane that it is in
POLYGONS_PX = 4096  # edge of the parts in which cells are traced
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


def write_tables(folder: Path, tables: Iterable[Columns]) -> dict[str, int]:
    """Write the table of a unit as parts of rows that do not depend on its tiles.

    Parameters
    ----------
    folder : path
        Of the parts; what an attempt that was cut short left there goes.
    tables : iterable of dict
        Columns, of some rows at a time; one at least.

    Returns
    -------
    dict of str to int
        Cells, and those that are flagged and dropped.
    """
    remove(folder)
    folder.mkdir(parents=True)
    counts = {"n_cells": 0, "n_flagged": 0, "n_dropped": 0}
    groups = _cut(_tables(tables), ROWS_AT_ONCE)
    for number, first in enumerate(groups):
        with (
            binary_whole(folder / f"part-{number:05d}.parquet") as file,
            parquet.ParquetWriter(file, first.schema, compression="zstd") as writer,
        ):
            for table in itertools.chain([first], itertools.islice(groups, GROUPS_IN_FILE - 1)):
                writer.write_table(table)
                counts["n_cells"] += table.num_rows
                for what in ("flagged", "dropped"):
                    counts[f"n_{what}"] += compute.sum(table[what]).as_py() or 0
    return counts


def write_csv(path: Path, tables: Iterable[Columns]) -> None:
    """Write the table of a unit as one file of text.

    Parameters
    ----------
    path : path
        It appears when it is whole.
    tables : iterable of dict
        As for `write_tables`.
    """
    rows = _tables(tables)
    first = next(rows)
    with binary_whole(path) as file, csv.CSVWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in rows:
            writer.write_table(table)


def write_outlines(path: Path, parts: Iterable[Outlines], *, axes: str) -> None:
    """Write the outlines of a unit's cells as GeoParquet.

    Parameters
    ----------
    path : path
        It appears when it is whole.
    parts : iterable of Outlines
        From `stored_outlines`.
    axes : str
        A letter per axis of the image; the first of three tells what a plane is.
    """
    shapes = _cut(_shapes(parts, axes[:-2]), SHAPES_AT_ONCE)
    first = next(shapes)
    schema = first.schema.with_metadata({"geo": json.dumps(GEO)})
    with (
        binary_whole(path) as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        writer.write_table(first.cast(schema))
        for table in shapes:
            writer.write_table(table.cast(schema))


def stored_outlines(unit: UnitRun) -> Iterator[Outlines]:
    """Yield the outlines of a unit's cells, some cells at a time.

    Parameters
    ----------
    unit : UnitRun
        The unit; its cells are measured, and their outlines cut out.

    Yields
    ------
    Outlines
        Ascending by label, then plane; in mode planes and of series by plane, then label.
    """
    tiling = read_tiling(unit.stage("tiles"))
    records = Records(unit.stage("measure"), tiling.n_masks)
    by_plane = tiling.plan.mode == "planes"
    for span in spans_of(records, tiling, by_row=by_plane, at_once=OUTLINED_AT_ONCE):
        parts = [
            tables_from_bytes(records.read(number), outlines=Outlines)["outlines"]
            for number, _ in span.opened()
        ]
        yield sort_outlines([part.take(span.holds(part.label)) for part in parts])


def stored_polygons(
    labels: Path, cells: Path, shape: tuple[int, ...]
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield the outer border of each cell of a plane, reading a part of the labels at a time.

    Parameters
    ----------
    labels : path
        Level 0.
    cells : path
        The table, which tells where each cell lies.
    shape : tuple of int
        Of the image.

    Yields
    ------
    (int, float64 array [n, 2])
        Label and corners y, x; by the part in which a cell begins, then by label.
    """
    names = [f"{axis}_{end}_px" for end in ("start", "stop") for axis in "yx"]
    table, grid = dataset.dataset(cells, format="parquet"), Grid(shape, (POLYGONS_PX,) * 2)
    for top in range(0, shape[0], POLYGONS_PX):
        place = dataset.field("y_start_px")
        strip = (place >= top) & (place < top + POLYGONS_PX)
        rows = table.to_table(columns=["label", *names], filter=strip)
        label, *ends = (rows[name].to_numpy() for name in ("label", *names))
        begin, end = np.split(np.stack(ends, axis=1), 2, axis=1)
        part = grid.owners(begin)
        for number in np.unique(part).tolist():
            here = part == number
            first, last = begin[here].min(axis=0).tolist(), end[here].max(axis=0).tolist()
            seen = read_box(labels, Box(tuple(first), tuple(last)))
            own = set(label[here].tolist())
            found = polygons_of(seen, origin=(first[0], first[1]))
            yield from (polygon for polygon in found if polygon[0] in own)


def _tables(tables: Iterable[Columns]) -> Iterator[pa.Table]:
    for columns in tables:
        yield pa.table({name: pa.array(column) for name, column in columns.items()})


def _shapes(parts: Iterable[Outlines], axis: str) -> Iterator[pa.Table]:
    none = np.zeros(0, np.uint8)
    nothing = Outlines(none.astype("u4"), *(none.astype("i8"),) * 2, none)
    for outlines in itertools.chain([nothing], parts):
        yield _shape_table(outlines, axis)


def _shape_table(outlines: Outlines, axis: str) -> pa.Table:
    ends = np.concatenate([[0], np.cumsum(outlines.size)]).astype(np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(outlines.data))]
    geometry = pa.Array.from_buffers(pa.large_binary(), len(outlines.label), buffers)
    plane = {axis: pa.array(outlines.plane, pa.int32())} if axis else {}
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
