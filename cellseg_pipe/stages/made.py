"""Labels that are made from those of other units: grown by a distance, or cells without nuclei."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.cost import Cost, StageCost, check_fits, made_costs
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.shards import read_box
from cellseg_pipe.kernels import cytoplasm_of, expand_labels
from cellseg_pipe.stages import paint, tiling
from cellseg_pipe.stages.costs import planned_costs
from cellseg_pipe.stages.growth import Growth
from cellseg_pipe.stages.paint import stored_labels
from cellseg_pipe.stages.region import freeze_region
from cellseg_pipe.stages.tiling import memory_limit, write_plan
from cellseg_pipe.stages.unit import PAINT_PX, UnitRun

__all__ = ["plan_tiles", "run_paint"]


def plan_tiles(unit: UnitRun) -> Path:
    """Decide how a unit is cut into tiles: one without a network as the one that gives its ids.

    Parameters
    ----------
    unit : UnitRun
        The unit; those that it is made from have their tiles.

    Returns
    -------
    path
        The tiling; what is there already is left as it is.
    """
    path = unit.stage("tiles").plan
    if not unit.sources:
        return tiling.plan_tiles(unit)
    if path.exists():
        return path
    found = tiling.read_tiling(unit.origin.stage("tiles"))
    freeze_region(unit, unit.stage("tiles"), known=found.plan.region)
    facts = json.loads(unit.origin.stage("tiles").plan.read_text())
    grown = unit.growth.margin_px if unit.growth else (0,) * len(unit.image.shape)
    known = [StageCost(**cost) for cost in planned_costs(unit.origin.stage("tiles"))]
    costs = made_costs(
        known,
        found.plan,
        found.tiles,
        paint_px=PAINT_PX[unit.mode],
        grown_px=grown,
    )
    check_fits(
        Cost(max(cost.memory_bytes for cost in costs)),
        memory_limit(unit),
        what=f"{unit.name}: one box of labels",
        mend="Raise resources.memory_gb, or grow labels by less.",
    )
    predicted = [dataclasses.asdict(cost) for cost in costs]
    write_plan(path, {**facts, "grown_px": grown, "predicted": predicted})
    return path


def run_paint(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Write those labels of one batch of boxes that are not done yet.

    Parameters
    ----------
    unit : UnitRun
        The unit; those that it is made from are painted.
    batch : int
        Which batch.
    threads : int, optional
        Threads to use.
    """
    if not unit.sources:
        paint.run(unit, batch=batch, threads=threads)
        return

    def made(box: Box) -> NDArray[np.uint32]:
        if unit.growth is not None:
            return _grown(unit, unit.growth, box=box, threads=threads)
        cells, nuclei = (
            read_box(stored_labels(source) / "0", box, threads=threads) for source in unit.sources
        )
        return cytoplasm_of(nuclei, cells)

    paint.write_boxes(unit, made, batch=batch, threads=threads)


def _grown(unit: UnitRun, growth: Growth, *, box: Box, threads: int | None) -> NDArray[np.uint32]:
    """Return the labels of a box, grown from what lies around it as well."""
    wide = box.grow(growth.margin_px).clip(Box.of(unit.image.shape))
    labels = read_box(stored_labels(unit.sources[0]) / "0", wide, threads=threads)
    inner = box.relative_to(wide.start).slices
    distance, spacing = growth.distance_px, growth.spacing
    if box.ndim == 2 or growth.margin_px[0]:
        return expand_labels(labels, distance, spacing=spacing, threads=threads)[inner]
    # Nothing grows along the first axis: a part of it at a time needs less memory.
    found = np.empty(box.shape, np.uint32)
    for first in range(len(found)):
        part = expand_labels(labels[first : first + 1], distance, spacing=spacing, threads=threads)
        found[first] = part[0][inner[1:]]
    return found
