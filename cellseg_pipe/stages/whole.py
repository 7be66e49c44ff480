"""Segments one small image in memory and publishes it, as the stages do tile by tile."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.cost import Cost, check_fits, whole_bytes
from cellseg_pipe.geometry import Box, ceil_div
from cellseg_pipe.io.pyramid import downsample_shard
from cellseg_pipe.io.shards import ShardWriter
from cellseg_pipe.io.wkb import Outlines
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.ledger._files import explained
from cellseg_pipe.restoration import RestorePlan, restore_plan_to_json
from cellseg_pipe.segmentation.cells import Cells
from cellseg_pipe.segmentation.frozen import plan_to_json
from cellseg_pipe.segmentation.measuring import View
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.table import table_of_image
from cellseg_pipe.segmentation.tiled import BLOCK_PX, halo_px
from cellseg_pipe.segmentation.whole import left_out
from cellseg_pipe.stages.audit import Results, described, publish_results, withdraw_unit
from cellseg_pipe.stages.conflicts import no_conflicts
from cellseg_pipe.stages.decide import Decided, decide
from cellseg_pipe.stages.measure import completed, measured_names
from cellseg_pipe.stages.networks import Networks, named, restorer_facts
from cellseg_pipe.stages.outlines import outlined
from cellseg_pipe.stages.paint import create_store, level_keys
from cellseg_pipe.stages.pixels import channels_of, source_of_image
from cellseg_pipe.stages.qc import look_whole
from cellseg_pipe.stages.restored import plan_restoring, restored_facts, restored_whole
from cellseg_pipe.stages.restoring_costs import RESTORING_MEND, whole_restored_bytes
from cellseg_pipe.stages.tiling import Tiling, memory_limit
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.stages.views import measurer_of
from cellseg_pipe.tiles import TilePlan

__all__ = ["Whole", "publish_whole", "segment_whole"]

WHOLE_MEND = "Cut small images into tiles, too (tiles.bundle_px: 0), or raise resources.memory_gb."


@dataclass(frozen=True)
class Whole:
    """The cells of an image that was segmented as one tile.

    Parameters
    ----------
    decided : Decided
        What they depend on.
    cells : Cells
        With their labels.
    columns : dict of str to array [n]
        Their table.
    networks : Networks
        What they were found with.
    restoring : RestorePlan or None
        What was done to the image before.
    memory_bytes : int
        What that took.
    pixels : array [C, *spatial]
        Of the image as it is.
    tiling : Tiling
        One tile.
    warnings : tuple of str
        What the user should know.
    """

    decided: Decided
    cells: Cells
    columns: dict[str, NDArray[Any]]
    networks: Networks
    restoring: RestorePlan | None
    memory_bytes: int
    pixels: NDArray[Any]
    tiling: Tiling
    warnings: tuple[str, ...]


def segment_whole(unit: UnitRun, networks: Networks, *, threads: int | None = None) -> Whole:
    """Segment the image of a unit; all of it is in memory.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    networks : Networks
        Its networks.
    threads : int, optional
        Threads to use.

    Returns
    -------
    Whole
        Labels and table are those of the stages, to the last bit.
    """
    channels = channels_of(unit)
    box = Box.of(unit.image.shape)
    pixels = unit.image.read(box)
    raw = dataclasses.replace(
        source_of_image(unit.image), read=lambda part: pixels[(slice(None), *part.slices)]
    )
    engines, restorer = networks.engines, networks.restorer
    restoring = plan_restoring(unit, raw, networks)
    more = whole_restored_bytes(restoring, restorer)
    if restoring is not None:
        least = Cost(more + 2 * pixels.nbytes)
        what = f"{unit.name}: restoring it"
        check_fits(least, memory_limit(unit), what=what, mend=RESTORING_MEND)
    source = restored_whole(raw, restoring, restorer, threads=threads)
    decided = decide(unit, engines, source, settings=unit.chosen.settings, threads=threads)
    plan, footprints = decided.plan, [engine.footprint for engine in engines]
    needed = whole_bytes(plan, footprints, pixels_bytes=pixels.nbytes) + more
    if plan.fields is not None and plan.fields.differ:  # two answers at once
        needed *= 2
    check_fits(Cost(needed), memory_limit(unit), what=unit.name, mend=WHOLE_MEND)
    answer, cells = decided.run.cells(plan)
    measurer = measurer_of(unit, plan, threads=threads)
    table = table_of_image(cells, pixels[channels], measurer, names=measured_names(unit))
    return Whole(
        decided=decided,
        cells=cells,
        columns=completed(unit, table),
        networks=networks,
        restoring=restoring,
        memory_bytes=needed,
        pixels=pixels,
        tiling=Tiling(plan, _one_tile(plan), 1, 1, "exact"),
        warnings=(*decided.warnings, *left_out(plan, answer, cells)),
    )


def publish_whole(
    unit: UnitRun, found: Whole, *, numerics_of_job: str = "", threads: int | None = None
) -> dict[str, Any]:
    """Write the results of an image to where users look for them.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    found : Whole
        Its cells.
    numerics_of_job : str
        How this machine computes, if that is not as the plan's did.
    threads : int, optional
        Threads to use.

    Returns
    -------
    dict
        What `summary.json` says of the unit.
    """
    plan, (engines, restorer, _), restoring = found.decided.plan, found.networks, found.restoring
    restores = restorer_facts(unit, restorer)
    told = [f"it ran as {numerics_of_job}"] if numerics_of_job else []
    tiles = found.tiling.tiles
    facts = {
        **described(unit, plan, tiles={"n": 1, "core": tiles.core, "halo": tiles.halo}),
        "labels_bytes": _store(unit, found.cells.labels, threads=threads),
        "exact": not told,
        "seams": {"checked": 0, "cells": 0},
        "dropped_particles": {"n_too_far": found.cells.n_too_far, "n_over_edge": 0},
        **found.decided.facts,
        "models": [named(engine) for engine in engines],
        "numerics": [engine.numerics for engine in engines],
        "warnings": [*found.warnings, *told],
        **restored_facts(restoring, restores, unit.image.channel_names),
        **_depends_on(plan, restoring, restores),
    }
    withdraw_unit(unit)
    results = Results(
        tiling=found.tiling,
        tables=lambda: [found.columns],
        outlines=lambda: _outlines(found.cells.labels, plan),
        looked=lambda: look_whole(unit, found.tiling, found.pixels, threads=threads),
        conflicts=no_conflicts(unit.image.spatial),
    )
    facts |= publish_results(unit, results)
    paths = unit.stage("audit")
    write_whole(paths.plan, json.dumps(facts, indent=1, default=list).encode())
    with contextlib.suppress(OSError):  # it is not empty where the stages have been at work
        unit.stage("paint").root.rmdir()
    return facts


def _depends_on(
    plan: Plan, restoring: RestorePlan | None, restorer: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what the cells of an image depend on: `plan.json` has it, not its summary."""
    known = {
        "plan": plan_to_json(plan),
        "restoring": None if restoring is None else restore_plan_to_json(restoring),
        "restorer": restorer,
    }
    return {name: value for name, value in known.items() if value is not None}


def _one_tile(plan: Plan) -> TilePlan:
    block = BLOCK_PX[plan.mode]
    core = tuple(ceil_div(n, b) * b for n, b in zip(plan.walk_shape, block, strict=True))
    return TilePlan(plan.walk_shape, block, core, halo_px(plan))


def _outlines(labels: NDArray[np.uint32], plan: Plan) -> Iterator[Outlines]:
    """Yield the outlines of all cells, where planes know nothing of each other plane by plane."""
    whole = Box.of(labels.shape)
    n_parts = labels.shape[0] if plan.mode == "planes" else 1
    for number in range(n_parts):
        first = (number, 0, 0) if n_parts > 1 else whole.start
        last = (number + 1, *whole.stop[1:]) if n_parts > 1 else whole.stop
        box = Box(first, last)
        part = labels[box.slices]
        ids = np.unique(part)
        yield outlined(View(box, part, part[None], box, box), ids[ids > 0])


def _store(unit: UnitRun, labels: NDArray[np.uint32], *, threads: int | None) -> int:
    """Write all levels of the labels; return their bytes."""
    create_store(unit)
    store = unit.stage("paint").labels
    with explained(store):
        writer = ShardWriter(store / "0", threads=threads)
        boxes = map(writer.grid.box, range(len(writer.grid)))
        n_bytes = sum(writer.write_shard(box, labels[box.slices]).n_bytes for box in boxes)
        for level in range(1, unit.n_levels):
            for number in level_keys(unit, level):
                n_bytes += downsample_shard(store, level, number, threads=threads).n_bytes
    return n_bytes
