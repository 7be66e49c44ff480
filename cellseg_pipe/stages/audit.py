"""Checks that nothing is missing and seams are what they should be; then publishes the results."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from cellseg_pipe import __version__
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.embed import add_labels_to_image
from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.io.publish import publish
from cellseg_pipe.io.shards import ShardWriter
from cellseg_pipe.io.tables import write_table
from cellseg_pipe.kernels import iou_of, overlap_pairs
from cellseg_pipe.ledger import Records, write_whole
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.segmentation.predict import on_walked_grid
from cellseg_pipe.segmentation.stored import stored_records
from cellseg_pipe.segmentation.tiled import find_cells, halo_px, paint
from cellseg_pipe.stages.measure import table
from cellseg_pipe.stages.number import read_numbers
from cellseg_pipe.stages.paint import paint_grid, shards_of, stage_of_level
from cellseg_pipe.stages.plan import Tiling, read_frozen, read_tiling
from cellseg_pipe.stages.tiles import FoundTiles
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["Incomplete", "run", "summarise"]

log = logging.getLogger(__name__)

SEAMS_CHECKED = 6
SEAM_PX = {"2d": (256, 256), "planes": (1, 256, 256), "3d": (32, 64, 64)}
CONFLICTS = ("tile_a", "cell_a", "tile_b", "cell_b", "iou")


class Incomplete(RuntimeError):
    """A run has a hole in it."""


def run(unit: UnitRun) -> dict[str, Any]:
    """Check a unit, publish its labels and its table, and say what was made.

    Parameters
    ----------
    unit : UnitRun
        The unit; all its stages are done.

    Returns
    -------
    dict
        What `summary.json` says of it.
    """
    paths, published = unit.stage("audit"), unit.run.unit(unit.name)
    if paths.plan.exists():
        return json.loads(paths.plan.read_text())
    frozen, tiling = read_frozen(unit.stage("plan")), read_tiling(unit.stage("tiles"))
    if published.labels.exists() or unit.stage("paint").labels.exists():
        n_bytes = check_stored(unit)
    columns = table(unit)
    seams = list(check_seams(unit, tiling))
    dropped = _dropped(unit, tiling)
    paths.root.mkdir(parents=True, exist_ok=True)
    published.root.mkdir(parents=True, exist_ok=True)
    write_table(published.cells, columns)
    write_table(published.conflicts, {name: np.zeros(0, np.float64) for name in CONFLICTS})
    for kind in unit.experiment.output.export:
        _export(unit, kind, columns)
    stage_hash = unit.stage("paint").digest
    publish(unit.stage("paint").labels, published.labels, stage_hash=stage_hash)
    if unit.experiment.output.into_image:
        add_labels_to_image(
            published.labels, unit.image.path, unit.unit.target, keep="copy", stage_hash=stage_hash
        )
    facts = {
        "image": unit.image.path,
        "target": unit.unit.target,
        "labels": str(published.labels.relative_to(unit.run.root)),
        "table": str(published.cells.relative_to(unit.run.root)),
        "n_cells": len(columns["label"]),
        "n_flagged": int(np.count_nonzero(columns["flagged"])),
        "mode": tiling.plan.mode,
        "shape": unit.image.shape,
        "spacing_um": unit.spacing_um,
        "ngff": unit.version,
        "labels_bytes": n_bytes,
        "exact": is_exact(tiling) and all(seam["iou"] == 1 for seam in seams),
        "seams": {"checked": len(seams), "cells": sum(seam["cells"] for seam in seams)},
        "tiles": {"n": len(tiling.tiles), "core": tiling.tiles.core, "halo": tiling.tiles.halo},
        "dropped_particles": dropped,
        "diameter_px": frozen.facts["diameter_px"],
        "diameter": frozen.facts["diameter"],
        "models": frozen.facts["models"],
        "numerics": frozen.facts["numerics"],
        "warnings": frozen.facts["warnings"],
    }
    write_whole(paths.plan, json.dumps(facts, indent=1, default=list).encode())
    return json.loads(paths.plan.read_text())


def is_exact(tiling: Tiling) -> bool:
    """Return whether tiles must give the labels of the whole.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.

    Returns
    -------
    bool
        True with exact seams and a halo that suffices.
    """
    enough = zip(tiling.tiles.halo, halo_px(tiling.plan), strict=True)
    return tiling.seams == "exact" and all(halo >= needed for halo, needed in enough)


def check_stored(unit: UnitRun) -> int:
    """Compare every file of the labels with what its job wrote down.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    int
        Bytes of all levels.
    """
    store, total = unit.stage("paint").labels, 0
    if not store.exists():
        store = unit.run.unit(unit.name).labels  # published by an audit that was cut short
    for level in range(unit.n_levels):
        writer = ShardWriter(store / str(level))
        n_batches = unit.batches["paint"] if level == 0 else 1
        records = Records(stage_of_level(unit, level), n_batches)
        grid = paint_grid(unit) if level == 0 else writer.grid
        for number in range(len(grid)):
            expected = records.info(number)["shards"]
            parts = list(shards_of(writer, grid.box(number))) if level == 0 else [number]
            for part, wanted in zip(parts, expected, strict=True):
                found = writer.stored(part)
                total += found.n_bytes
                if [found.n_files, found.n_bytes, found.crc32] != wanted:
                    raise Incomplete(
                        f"{unit.name}: the labels of {part} at level {level} are not those that"
                        f" were written. Remove {stage_of_level(unit, level).root} and start again."
                    )
    return total


def check_seams(unit: UnitRun, tiling: Tiling) -> Iterator[dict[str, Any]]:
    """Find the cells at some seams once more in a window across it, and compare.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    tiling : Tiling
        Its tiles.

    Yields
    ------
    dict
        `cells` compared, and the lowest `iou` of a cell with itself.
    """
    if not is_exact(tiling):
        return
    plan = tiling.plan
    records = stored_records(Records(unit.stage("predict"), tiling.n_predict), plan)
    first, _ = read_numbers(unit.stage("number"))
    tiles = FoundTiles(tiling, Records(unit.stage("masks"), tiling.n_masks), first)
    for core in _across(tiling):
        window = core.grow(halo_px(plan)).clip(Box.of(plan.walk_shape))
        found = find_cells(on_walked_grid(records, plan, window), plan, window=window, core=core)
        none = {"claim_index": np.zeros(0, np.int64), "claim_label": np.zeros(0, np.uint32)}
        raw = ((dataclasses.replace(part, **none), ids) for part, ids in tiles.over(found.box))
        pairs = iou_of(overlap_pairs(found.labels, paint(found.box, raw)))
        best = np.zeros(len(found.peak) + 1)
        np.maximum.at(best, pairs.left, pairs.iou)
        kept = best[1:][found.kept]
        lowest = float(kept.min(initial=1.0))
        if lowest < 1:
            raise Incomplete(
                f"{unit.name}: cells at the seam {core} differ between tiles (IoU {lowest:.3f}),"
                " and must not. Remove the scratch of this unit and start again; if it stays,"
                " report it."
            )
        yield {"cells": len(kept), "iou": lowest}


def _across(tiling: Tiling) -> Iterator[Box]:
    """Yield boxes that lie across seams, spread over the image."""
    cores, edge = tiling.tiles.cores, SEAM_PX[tiling.plan.mode]
    axes = [axis for axis, n in enumerate(cores.counts) if n > 1 and edge[axis] > 1]
    rng = np.random.default_rng(0)
    for _ in range(SEAMS_CHECKED if axes else 0):
        axis = int(rng.choice(axes))
        middle = [int(rng.integers(0, n)) for n in cores.shape]
        middle[axis] = cores.pitch[axis] * int(rng.integers(1, cores.counts[axis]))
        start = tuple(m - e // 2 for m, e in zip(middle, edge, strict=True))
        stop = tuple(a + e for a, e in zip(start, edge, strict=True))
        yield Box(start, stop).clip(Box.of(cores.shape))


def _dropped(unit: UnitRun, tiling: Tiling) -> dict[str, int]:
    """Return particles that count for no cell, in all windows: those in halos more than once."""
    masks = Records(unit.stage("masks"), tiling.n_masks)
    infos = [info for _, info in masks.infos()]
    return {name: sum(info[name] for info in infos) for name in ("n_too_far", "n_over_edge")}


def _export(unit: UnitRun, kind: str, columns: dict[str, np.ndarray]) -> None:
    folder = unit.run.unit(unit.name).root
    if kind == "csv":
        write_table(folder / "cells.csv", columns)
        return
    from cellseg_pipe.io.rois import write_geojson
    from cellseg_pipe.io.shards import read_box

    store = unit.stage("paint").labels
    write_geojson(folder / "cells.geojson", read_box(store / "0", Box.of(unit.image.shape)))


def summarise(run: RunPaths, units: list[UnitRun], *, config: str) -> None:
    """Write what the whole run made, once all its units are audited.

    Parameters
    ----------
    run : RunPaths
        The run.
    units : list of UnitRun
        All its units.
    config : str
        The experiment in effect, as YAML.
    """
    found, plans = {}, {}
    for unit in units:
        audit = unit.stage("audit").plan
        if not audit.exists():
            raise Incomplete(
                f"{unit.name} is not finished: {audit} is missing. Start the run again."
            )
        found[unit.name] = json.loads(audit.read_text())
        plans[unit.name] = {
            stage: json.loads(unit.stage(stage).plan.read_text()) for stage in ("plan", "tiles")
        }
    summary = {
        "version": __version__,
        "complete": True,
        "exact": all(facts["exact"] for facts in found.values()),
        "n_cells": sum(facts["n_cells"] for facts in found.values()),
        "units": found,
    }
    with binary_whole(run.config) as file:
        file.write(config.encode())
    for path, facts in ((run.plan, plans), (run.summary, summary)):
        write_whole(path, json.dumps(facts, indent=1).encode())
    log.info("%d cells in %d units: %s", summary["n_cells"], len(found), run.summary)
