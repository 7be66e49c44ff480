"""Measures the cells that the tiles of one batch own, each once and whole."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.wkb import Outlines
from cellseg_pipe.kernels import Corners, Sums, Tally
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.qc.rules import judged, limits_of
from cellseg_pipe.segmentation.cells import (
    Rows,
    add_rows,
    frame_rows,
    join_chains,
    renamed,
    with_time,
)
from cellseg_pipe.segmentation.measured import Measured, join_measured
from cellseg_pipe.segmentation.measuring import Measurer, View
from cellseg_pipe.segmentation.stored import tables_from_bytes, tables_to_bytes
from cellseg_pipe.segmentation.table import in_um, table_of
from cellseg_pipe.stages.chain import read_chain
from cellseg_pipe.stages.number import numbered_tiles
from cellseg_pipe.stages.outlines import outlined
from cellseg_pipe.stages.pixels import channels_of
from cellseg_pipe.stages.related import related_columns
from cellseg_pipe.stages.tiles import naming
from cellseg_pipe.stages.tiling import Tiling, read_frozen, read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.stages.views import counted, measurer_of, view_of

__all__ = ["completed", "measured_names", "run", "stored_parts", "tables"]

log = logging.getLogger(__name__)

PARTS = {
    "rows": Rows,
    "sums": Sums,
    "contours": Tally,
    "texture": Tally,
    "ring": Tally,
    "corners": Corners,
    "outlines": Outlines,
}


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
    measurer = measurer_of(unit, tiling.plan, threads=threads)
    with open_batch(unit.stage("measure"), batch, tiling.batch(batch)) as work:
        if work.done:
            return
        image = read_frozen(unit.stage("plan")).open_image()
        for number in work.missing:
            rows, core = tiles.rows(number), tiling.tiles.tile(number).core
            view = None
            if len(rows.id) or not measurer.sees_whole:
                with naming(f"{unit.name}: tile {number}, {core}"):
                    view = view_of(unit, tiling, core, image=image, measurer=measurer)
            if tiling.plan.series:
                rows = _at_time(tiling, rows, core.start[0], chain=chain)
            if view is None or not (len(rows.id) or view.labels.any()):
                work.add(number, b"", blank=True)
                continue
            ids, peaks = counted(tiling, rows, view, chain=chain)
            seen = view.frame if tiling.plan.series else view
            parts = vars(measurer.view(seen, ids, peaks))
            if unit.experiment.measure.outlines:
                parts = parts | {"outlines": outlined(view, ids)}
            work.add(number, tables_to_bytes(rows=rows, **parts))
        work.finish()


def _at_time(tiling: Tiling, rows: Rows, time: int, *, chain: NDArray[np.uint32]) -> Rows:
    """Return the rows of a tile of a series under the numbers of labels, as of an image y, x."""
    return frame_rows(renamed(rows, chain) if tiling.plan.chained else rows, time)


def stored_parts(unit: UnitRun, tiling: Tiling) -> Iterator[list[dict[str, Any]]]:
    """Yield what tiles measured, for one row of tiles along the first axis after the other.

    Parameters
    ----------
    unit : UnitRun
        The unit; its cells are measured.
    tiling : Tiling
        Its tiles.

    Yields
    ------
    list of dict
        `Rows` and the parts of `Measured` by name, of tiles that have cells.
    """
    measured = Records(unit.stage("measure"), tiling.n_masks)
    for tiles in np.split(np.arange(len(tiling.tiles)), tiling.tiles.cores.counts[0]):
        yield [
            tables_from_bytes(measured.read(int(number)), **PARTS)
            for number in tiles
            if not measured.is_blank(int(number))
        ]


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
        in µm and flags. One table at least, and one only where cells are joined from parts.
    """
    tiling = read_tiling(unit.stage("tiles"))
    measurer = measurer_of(unit, tiling.plan)
    groups = (
        (row, add_rows([p["rows"] for p in parts]), Measured.add([_measured(p) for p in parts]))
        for row, parts in enumerate(stored_parts(unit, tiling))
        if parts
    )
    related = related_columns(unit)
    empty = True
    # Cells are numbered by block in C order, so a row of tiles has a run of numbers for itself; of
    # a series it is a time.
    joined = groups if measurer.sees_whole else _joined(unit, measurer, groups)
    for row, rows, measured in joined:
        empty = False
        yield related(_table(unit, measurer, rows, measured=measured, time=row))
    if empty:
        rows, measured = _nothing(unit, measurer)
        yield related(_table(unit, measurer, rows, measured=measured, time=0))


def _measured(part: dict[str, Any]) -> Measured:
    return Measured(**{field.name: part[field.name] for field in dataclasses.fields(Measured)})


def _joined(
    unit: UnitRun, measurer: Measurer, groups: Iterator[tuple[int, Rows, Measured]]
) -> Iterator[tuple[int, Rows, Measured]]:
    """Yield all cells at once, joined from parts, if there are any."""
    known: list[Rows] = []

    def parts() -> Iterator[Measured]:
        for _, rows, measured in groups:
            known.append(rows)
            yield measured

    if (first := next(found := parts(), None)) is None:
        return
    found = itertools.chain([first], found)
    # Tiles are numbered plane by plane, so sums of floats are added in the order of planes.
    joined = measurer.measuring.seams == "iou"
    measured = Measured.add(list(found)) if joined else join_measured(found)
    rows = add_rows(known)
    if measurer.plan.mode == "planes":
        rows = join_chains(rows, read_chain(unit))
    yield 0, rows, measured


def _table(
    unit: UnitRun, measurer: Measurer, rows: Rows, *, measured: Measured, time: int
) -> dict[str, NDArray[Any]]:
    if unit.sources:  # of a cell there may be nothing left
        measured = measured.only(measured.sums.label[measured.sums.area > 0])
        rows = rows.take(np.isin(rows.id, measured.sums.label))
    columns = table_of(measured, rows, measurer, names=measured_names(unit))
    return completed(unit, with_time(columns, time) if unit.is_series else columns)


def measured_names(unit: UnitRun) -> tuple[str, ...]:
    """Return the names of the channels that are measured.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    tuple of str
        Their numbers where the image has no names.
    """
    names = unit.image.channel_names or tuple(map(str, range(unit.image.n_channels)))
    return tuple(names[i] for i in channels_of(unit))


def completed(unit: UnitRun, columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return a table with sizes in µm and what the rules of quality control say.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    columns : dict of str to array [n]
        From `table_of`.

    Returns
    -------
    dict of str to array [n]
        With further columns.
    """
    columns = columns | in_um(columns, unit.spacing_um)
    rules = unit.experiment.qc
    return columns | judged(columns, flag=limits_of(rules.flag), drop=limits_of(rules.drop))


def _nothing(unit: UnitRun, measurer: Measurer) -> tuple[Rows, Measured]:
    """Return what was measured of no cells."""
    plan = measurer.plan
    ndim, n_classes = len(plan.shape), plan.n_outputs - len(plan.views[0].axes) - 1
    none, floats = np.zeros(0, np.int64), np.zeros(0)
    classes = np.zeros((0, n_classes if n_classes > 1 else 0))
    said = (floats, floats, classes, floats, floats)
    rows = Rows(none.astype(np.uint32), none, *said, none.reshape(0, ndim))
    pixel = Box.of((1,) * ndim)
    image = np.zeros((len(channels_of(unit)), *pixel.shape), unit.image.dtype)
    view = View(pixel, np.zeros(pixel.shape, np.uint32), image, pixel, pixel)
    measured = measurer.view(view, rows.id)
    return rows, measured if measurer.sees_whole else join_measured([measured])
