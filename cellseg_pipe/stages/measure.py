"""Measures the cells that the tiles of one batch own, each once and whole."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.io.shards import read_box
from cellseg_pipe.kernels import Sums, boxes_and_areas
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.segmentation.cells import (
    Rows,
    add_rows,
    join_chains,
    sums_of,
    table_of,
)
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.stored import tables_from_bytes, tables_to_bytes
from cellseg_pipe.segmentation.tiled import painted_from, spread_px
from cellseg_pipe.stages.chain import read_chain
from cellseg_pipe.stages.number import numbered_tiles
from cellseg_pipe.stages.paint import stored_labels
from cellseg_pipe.stages.related import related_columns
from cellseg_pipe.stages.tiles import naming
from cellseg_pipe.stages.tiling import Tiling, read_frozen, read_tiling
from cellseg_pipe.stages.unit import UnitRun, channels_of

__all__ = ["run", "tables", "write_tables"]

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 1 << 20  # of a table


def run(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Measure the cells of those tiles of one batch that are not done yet.

    Parameters
    ----------
    unit : UnitRun
        The unit; its labels are painted.
    batch : int
        Which batch; there are as many as of tiles.
    threads : int, optional
        Threads to use.
    """
    tiling = read_tiling(unit.stage("tiles"))
    tiles = numbered_tiles(unit, tiling)
    chain = read_chain(unit)
    with open_batch(unit.stage("measure"), batch, tiling.batch(batch)) as work:
        if work.done:
            return
        image = read_frozen(unit.stage("plan")).open_image()
        for number in work.missing:
            rows = tiles.rows(number)
            if tiling.seams == "exact" and not len(rows.id):
                work.add(number, b"", blank=True)
                continue
            core = tiling.tiles.tile(number).core
            box = on_level_0(tiling, core)
            with naming(f"{unit.name}: tile {number}, {core}"):
                labels = read_box(stored_labels(unit) / "0", box, threads=threads)
                pixels = image.read(box)[channels_of(unit)]
            sums = sums_of(
                labels,
                pixels,
                summed(tiling, rows, labels, chain=chain),
                plan=tiling.plan,
                origin=box.start,
            )
            work.add(number, tables_to_bytes(rows=rows, sums=sums))
        work.finish()


def summed(
    tiling: Tiling, rows: Rows, labels: NDArray[np.uint32], *, chain: NDArray[np.uint32]
) -> Rows:
    """Return the labels whose pixels a tile sums up: its cells', or all those in its core.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    rows : Rows
        Cells that the tile stands for.
    labels : uint32 array [*box]
        On level 0.
    chain : uint32 array [n]
        In mode planes, the number of each cell's chain; else empty.

    Returns
    -------
    Rows
        With the labels as ids.
    """
    if tiling.seams == "iou":
        numbers = np.unique(labels)
    elif tiling.plan.mode == "planes":  # a chain has one cell in a plane at most
        numbers = np.sort(chain[rows.id.astype(np.int64) - 1])
    elif tiling.grown_px is None:
        return rows
    else:  # of a cell there may be nothing left
        return rows.take(boxes_and_areas(labels, ids=rows.id).area > 0)
    numbers = numbers[numbers > 0]
    # Parts of a cell are added up, so their moments count from one place: the image's corner.
    peak = np.zeros((len(numbers), labels.ndim), np.int64)
    return dataclasses.replace(rows, id=numbers, peak=peak)


def on_level_0(tiling: Tiling, core: Box) -> Box:
    """Return the part of level 0 that may hold pixels of a core's cells.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    core : Box
        On the grid that particles walk on.

    Returns
    -------
    Box
        On level 0. Where tiles are joined by IoU, cells may have any width and their parts are
        summed up: then the core alone.
    """
    plan = tiling.plan
    wide = core
    if tiling.seams == "exact":
        wide = core.grow(spread_px(plan)).clip(Box.of(plan.walk_shape))
    if not plan.walks_level_0:
        lines = [painted_from(plan, axis) for axis in range(len(plan.shape))]
        start = [np.searchsorted(line, low) for line, low in zip(lines, wide.start, strict=True)]
        stop = [np.searchsorted(line, high) for line, high in zip(lines, wide.stop, strict=True)]
        wide = Box(tuple(map(int, start)), tuple(map(int, stop)))
    if tiling.grown_px is None or tiling.seams == "iou":
        return wide
    return wide.grow(tiling.grown_px).clip(Box.of(plan.shape))


def tables(unit: UnitRun) -> Iterator[dict[str, NDArray[Any]]]:
    """Put the measures of all tiles together, as many at a time as memory allows for.

    Parameters
    ----------
    unit : UnitRun
        The unit; its cells are measured.

    Yields
    ------
    dict of str to array [n]
        One row per cell, ascending by label through all of them, as `segment` gives it, with sizes
        in µm and flags. One table at least, and one only in mode planes.
    """
    tiling = read_tiling(unit.stage("tiles"))
    measured = Records(unit.stage("measure"), tiling.n_masks)
    # Cells are numbered by block in C order, so a row of tiles has a run of numbers for itself.
    in_rows = tiling.plan.mode != "planes" and tiling.seams == "exact"
    n_rows = tiling.tiles.cores.counts[0] if in_rows else 1
    related = related_columns(unit)
    empty = True
    for tiles in np.split(np.arange(len(tiling.tiles)), n_rows):
        parts = [
            tables_from_bytes(measured.read(int(number)), rows=Rows, sums=Sums)
            for number in tiles
            if not measured.is_blank(int(number))
        ]
        if parts:
            empty = False
            yield related(_table(unit, tiling.plan, parts), tiles)
    if empty:
        yield related(_table(unit, tiling.plan, [_nothing(unit, tiling.plan)]), np.arange(0))


def _table(unit: UnitRun, plan: Plan, parts: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    rows = add_rows([part["rows"] for part in parts])
    # Tiles are numbered plane by plane, so sums of floats are added in the order of planes.
    sums = Sums.add([part["sums"] for part in parts], in_order=True)
    if plan.mode == "planes":
        rows = join_chains(rows, read_chain(unit))
    if unit.sources:
        rows = rows.take(np.isin(rows.id, sums.label))
    names = unit.image.channel_names or tuple(map(str, range(unit.image.n_channels)))
    columns = table_of(sums, rows, plan, tuple(names[i] for i in channels_of(unit)))
    return columns | in_um(columns, unit.spacing_um) | {"flagged": flags(columns, unit)}


def _nothing(unit: UnitRun, plan: Plan) -> dict[str, Any]:
    """Return the tables of an image without cells."""
    ndim, n_classes = len(plan.shape), plan.n_outputs - len(plan.views[0].axes) - 1
    none, floats = np.zeros(0, np.int64), np.zeros(0)
    classes = np.zeros((0, n_classes if n_classes > 1 else 0))
    rows = Rows(none.astype(np.uint32), none, floats, floats, classes, none.reshape(0, ndim))
    pixel = np.zeros((1,) * ndim, np.uint32)
    image = np.zeros((len(channels_of(unit)), *pixel.shape), unit.image.dtype)
    return {"rows": rows, "sums": sums_of(pixel, image, rows, plan=plan, origin=(0,) * ndim)}


def in_um(
    columns: dict[str, NDArray[Any]], spacing_um: tuple[float, ...] | None
) -> dict[str, NDArray[Any]]:
    """Return places and sizes in µm, where the size of a voxel is known.

    Parameters
    ----------
    columns : dict of str to array
        In px.
    spacing_um : tuple of float or None
        Size of a voxel.

    Returns
    -------
    dict of str to array
        Further columns.
    """
    if spacing_um is None:
        return {}
    axes = "zyx"[-len(spacing_um) :]
    found = {
        f"{axis}_um": columns[f"{axis}_px"] * step
        for axis, step in zip(axes, spacing_um, strict=True)
    }
    size, unit = ("area_px", "area_um2") if len(axes) == 2 else ("volume_px", "volume_um3")
    found[unit] = columns[size] * float(np.prod(spacing_um))
    found["diameter_um"] = columns["diameter_px"] * float(np.prod(spacing_um)) ** (
        1 / len(spacing_um)
    )
    return found


def flags(columns: dict[str, NDArray[Any]], unit: UnitRun) -> NDArray[np.bool_]:
    """Return which cells the experiment's rules mark.

    Parameters
    ----------
    columns : dict of str to array
        The table.
    unit : UnitRun
        The unit.

    Returns
    -------
    bool array [n]
        Marked cells stay in labels and table.
    """
    rules = unit.experiment.qc.flag
    marked = columns["probability"] < rules.min_probability
    if rules.max_flow_error is not None:
        marked = marked | (columns["flow_error"] > rules.max_flow_error)
    if rules.border == "flag":
        marked = marked | columns["on_border"]
    return np.asarray(marked, bool)


def write_tables(path: Path, unit: UnitRun) -> dict[str, int]:
    """Write the table of a unit in groups of rows that do not depend on its tiles.

    Parameters
    ----------
    path : path
        Ends in .csv or .parquet; it appears when it is whole.
    unit : UnitRun
        The unit; its cells are measured.

    Returns
    -------
    dict of str to int
        Cells, and those that are flagged.
    """
    counts = {"n_cells": 0, "n_flagged": 0}
    writer: Any = None
    held: Any = None
    with binary_whole(path) as file, contextlib.ExitStack() as stack:
        for columns in tables(unit):
            counts["n_cells"] += len(columns["label"])
            counts["n_flagged"] += int(np.count_nonzero(columns["flagged"]))
            more = pa.table({name: pa.array(column) for name, column in columns.items()})
            held = more if held is None else pa.concat_tables([held, more])
            writer = writer or stack.enter_context(_writer(path, file, held.schema))
            while held.num_rows > ROWS_AT_ONCE:
                writer.write_table(held.slice(0, ROWS_AT_ONCE).combine_chunks())
                held = held.slice(ROWS_AT_ONCE)
        writer.write_table(held.combine_chunks())
    return counts


def _writer(path: Path, file: BinaryIO, schema: Any) -> Any:
    if path.suffix == ".csv":
        return csv.CSVWriter(file, schema)
    return parquet.ParquetWriter(file, schema, compression="zstd")
