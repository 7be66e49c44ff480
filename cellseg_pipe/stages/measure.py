"""Measures the cells that the tiles of one batch own, each once and whole."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import Corners, Sums, Tally
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.qc.rules import judged, limits_of
from cellseg_pipe.segmentation.cells import (
    Rows,
    add_rows,
    join_chains,
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
from cellseg_pipe.stages.spans import Span, reach_of, spans_of
from cellseg_pipe.stages.tiles import naming
from cellseg_pipe.stages.tiling import Tiling, read_frozen, read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.stages.views import counted, measurer_of, named_rows, view_of

__all__ = ["completed", "measured_names", "run", "tables"]

log = logging.getLogger(__name__)

CELLS_AT_ONCE = 1 << 17  # cells of tiles: some kB each, and a few copies of that
PARTS = {
    "rows": Rows,
    "sums": Sums,
    "contours": Tally,
    "texture": Tally,
    "ring": Tally,
    "corners": Corners,
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
            named = named_rows(tiling, rows, core, chain=chain)
            if view is None or not (len(named.id) or view.labels.any()):
                work.add(number, b"", blank=True)
                continue
            ids, peaks = counted(tiling, named, view)
            seen = view.frame if tiling.plan.series else view
            measured = measurer.view(seen, ids, peaks)
            asked = unit.experiment.measure.outlines
            outlines = {"outlines": outlined(view, ids)} if asked else {}
            blob = tables_to_bytes(rows=named, **vars(measured), **outlines)
            work.add(number, blob, info=reach_of(named.id, measured.labels))
        work.finish()


def _stored(records: Records, span: Span) -> Iterator[tuple[Rows, Measured]]:
    """Yield what one tile after the other measured of a run of cells."""
    for number, whole in span.opened():
        found = tables_from_bytes(records.read(number), **PARTS)
        rows, measured = found.pop("rows"), Measured(**found)
        if not whole:
            rows = rows.take(span.holds(rows.id))
            label = measured.labels
            measured = measured.only(label[span.holds(label)])
        yield rows, measured


def tables(unit: UnitRun) -> Iterator[dict[str, NDArray[Any]]]:
    """Put the measures of all tiles together, some cells at a time.

    Parameters
    ----------
    unit : UnitRun
        The unit; its cells are measured.

    Yields
    ------
    dict of str to array [n]
        One row per cell, ascending by label through all of them (of a series through each time), as
        `segment` gives it, with sizes in µm and flags. One table at least.
    """
    tiling = read_tiling(unit.stage("tiles"))
    measurer = measurer_of(unit, tiling.plan)
    records = Records(unit.stage("measure"), tiling.n_masks)
    related = related_columns(unit)
    empty = True
    for span in spans_of(records, tiling, by_row=tiling.plan.series, at_once=CELLS_AT_ONCE):
        empty = False
        rows, measured = _joined(tiling, records, span)
        yield related(_table(unit, measurer, rows, measured=measured, time=span.row), span)
    if empty:
        rows, measured = _nothing(unit, measurer)
        yield related(_table(unit, measurer, rows, measured=measured, time=0), None)


def _joined(tiling: Tiling, records: Records, span: Span) -> tuple[Rows, Measured]:
    """Return a run of cells, joined from their parts in tiles and planes."""
    known: list[Rows] = []

    def seen(part: Span) -> Measured:
        rows, measured = zip(*_stored(records, part), strict=True)
        known.extend(rows)
        return Measured.add(measured)

    if not tiling.plan.stacked:
        measured = seen(span)
        return add_rows(known), measured
    # Tiles are numbered plane by plane, so sums of floats are added in the order of planes.
    planes = map(seen, span.of_rows(tiling))
    measured = join_measured(planes) if tiling.seams == "exact" else _folded(planes)
    return join_chains(add_rows(known), first=span.low), measured


def _folded(parts: Iterator[Measured]) -> Measured:
    """Add parts one by one, so that there is one row per cell in memory."""
    return functools.reduce(lambda held, part: Measured.add([held, part]), parts)


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
