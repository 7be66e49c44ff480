"""The part of an image in which a tile measures its cells, and what it counts there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.opening import OpenImage
from cellseg_pipe.io.shards import read_box
from cellseg_pipe.kernels import boxes_and_areas
from cellseg_pipe.segmentation.cells import Rows, frame_rows, renamed
from cellseg_pipe.segmentation.measuring import Measurer, Measuring, View, measurer_for
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.tiled import painted_from, spread_px
from cellseg_pipe.stages.paint import stored_labels
from cellseg_pipe.stages.pixels import channels_of
from cellseg_pipe.stages.tiling import Tiling
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["counted", "measurer_of", "named_rows", "on_level_0", "seen_of", "view_of"]


def measurer_of(unit: UnitRun, plan: Plan, *, threads: int | None = None) -> Measurer:
    """Return what measures the cells of a unit.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    plan : Plan
        With the unit's own settings.
    threads : int, optional
        Threads to use.

    Returns
    -------
    Measurer
        As the experiment says; of a series it takes each time for an image.
    """
    said = unit.experiment.measure
    return measurer_for(
        plan,
        Measuring(
            shape=said.shape,
            intensity=said.intensity,
            quantiles=said.quantiles,
            ring_px=said.ring_px,
            texture=said.texture,
            spacing=unit.spacing_um,
            seams=unit.experiment.stitch.seams,
        ),
        threads,
    )


def view_of(
    unit: UnitRun, tiling: Tiling, core: Box, *, image: OpenImage, measurer: Measurer
) -> View:
    """Read the part of level 0 in which a tile measures.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    tiling : Tiling
        Its tiles.
    core : Box
        Of the tile.
    image : OpenImage
        The image.
    measurer : Measurer
        Which says what else must be seen.

    Returns
    -------
    View
        All that the core's cells may have pixels in. Where tiles are joined by IoU, cells may have
        any width and their parts are added up: then the core.
    """
    plan, inner = tiling.plan, seen_of(tiling, core)
    margin = (0,) * int(plan.series) + measurer.margin_px
    box = inner.grow(margin).clip(Box.of(plan.shape))
    labels = read_box(stored_labels(unit) / "0", box, threads=measurer.threads)
    pixels = image.read(box)[channels_of(unit)]
    return View(box, labels, pixels, inner, on_level_0(plan, core))


def seen_of(tiling: Tiling, core: Box) -> Box:
    """Return the part of level 0 whose pixels count for the cells of a core.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    core : Box
        On the grid that particles walk on.

    Returns
    -------
    Box
        All that the core's cells may have pixels in. Where tiles are joined by IoU, cells may have
        any width and their parts are added up: then the core.
    """
    plan = tiling.plan
    if tiling.seams == "iou":
        return on_level_0(plan, core)
    wide = on_level_0(plan, core.grow(spread_px(plan)).clip(Box.of(plan.walk_shape)))
    return wide if tiling.grown_px is None else wide.grow(tiling.grown_px).clip(Box.of(plan.shape))


def named_rows(tiling: Tiling, rows: Rows, core: Box, *, chain: NDArray[np.uint32]) -> Rows:
    """Return the cells of a tile under the numbers of labels.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    rows : Rows
        Of the tile.
    core : Box
        Of the tile; of a series it tells the time.
    chain : uint32 array [n]
        Of the unit, where its planes or times are joined.

    Returns
    -------
    Rows
        Without those that are dropped; of a series as of an image y, x.
    """
    rows = renamed(rows, chain) if tiling.plan.chained else rows
    return frame_rows(rows, core.start[0]) if tiling.plan.series else rows.take(rows.id > 0)


def counted(
    tiling: Tiling, rows: Rows, view: View
) -> tuple[NDArray[np.uint32], NDArray[np.int64] | None]:
    """Return the labels that a tile measures: its cells', or all it sees; and their peaks.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    rows : Rows
        The cells that the tile stands for, under the numbers of labels.
    view : View
        Where it measures.

    Returns
    -------
    ids : uint32 array [n]
        Ascending.
    peaks : int64 array [n, ndim] or None
        From which their moments count; None for the image's corner.
    """
    if tiling.seams == "iou":
        numbers = np.unique(view.labels)
    elif tiling.plan.stacked:  # a chain has one cell in a plane at most
        numbers = np.sort(rows.id)
    else:
        if tiling.grown_px is not None:  # of a cell there may be nothing left
            rows = rows.take(boxes_and_areas(view.labels, ids=rows.id).area > 0)
        peaks = rows.peak if tiling.plan.walks_level_0 else np.zeros_like(rows.peak)
        return rows.id, peaks
    # Parts of a cell are added up, so their moments count from one place: the image's corner.
    return numbers[numbers > 0], None


def on_level_0(plan: Plan, box: Box) -> Box:
    """Return the part of level 0 that is painted from a box.

    Parameters
    ----------
    plan : Plan
        Of the image.
    box : Box
        On the grid that particles walk on.

    Returns
    -------
    Box
        On level 0; boxes that cover the one grid once do so with the other.
    """
    if plan.walks_level_0:
        return box
    lines = [painted_from(plan, axis) for axis in range(len(plan.shape))]
    start = [np.searchsorted(line, low) for line, low in zip(lines, box.start, strict=True)]
    stop = [np.searchsorted(line, high) for line, high in zip(lines, box.stop, strict=True)]
    return Box(tuple(map(int, start)), tuple(map(int, stop)))
