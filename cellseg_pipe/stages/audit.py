"""Checks that nothing is missing and seams are what they should be; then publishes the results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._attributes import marker_of
from cellseg_pipe.io._moving import remove, replace
from cellseg_pipe.io.embed import add_labels_to_image
from cellseg_pipe.io.publish import publish
from cellseg_pipe.io.rois import write_geojson
from cellseg_pipe.io.tables import write_table
from cellseg_pipe.io.wkb import Outlines
from cellseg_pipe.kernels import iou_of, overlap_pairs
from cellseg_pipe.ledger import LedgerError, Records, write_whole
from cellseg_pipe.ledger._files import explained
from cellseg_pipe.paths import IMAGES, RunPaths, StagePaths
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.predict import on_walked_grid
from cellseg_pipe.segmentation.stored import stored_records
from cellseg_pipe.segmentation.tiled import Found, find_cells, halo_px, paint
from cellseg_pipe.stages._run_layout import BUNDLE, SMALL
from cellseg_pipe.stages.conflicts import conflicts_of
from cellseg_pipe.stages.measure import tables
from cellseg_pipe.stages.number import numbered_tiles
from cellseg_pipe.stages.paint import check_stored
from cellseg_pipe.stages.qc import Looked, looked_at
from cellseg_pipe.stages.region import region_facts
from cellseg_pipe.stages.related import related_facts
from cellseg_pipe.stages.restored import restored_facts
from cellseg_pipe.stages.restored_store import check_restored, publish_restored, withdraw_restored
from cellseg_pipe.stages.sift import publish_sifted, withdraw_sifted
from cellseg_pipe.stages.tables import (
    Columns,
    stored_outlines,
    stored_polygons,
    write_csv,
    write_outlines,
    write_tables,
)
from cellseg_pipe.stages.tiles import FoundTiles
from cellseg_pipe.stages.tiling import Tiling, read_frozen, read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.stages.verdicts import judge_run

__all__ = [
    "Incomplete",
    "Results",
    "described",
    "forget_bundles",
    "publish_results",
    "run",
    "withdraw",
    "withdraw_run",
    "withdraw_unit",
]

log = logging.getLogger(__name__)

PLANNED = ("diameter_px", "diameter", "diameter_classes", "models", "numerics")  # and told
SEAMS_CHECKED = 6
SEAM_PX = {"2d": (256, 256), "planes": (1, 256, 256), "3d": (32, 64, 64)}


class Incomplete(LedgerError):
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
    paths = unit.stage("audit")
    if paths.plan.exists():
        return json.loads(paths.plan.read_text())
    frozen, tiling = read_frozen(unit.stage("plan")), read_tiling(unit.stage("tiles"))
    n_bytes = check_stored(unit)
    check_restored(unit)
    tilings = [(part, read_tiling(part.stage("tiles"))) for part in _parts(unit)]
    seams = [seam for part, cut in tilings for seam in check_seams(part, cut)]
    others = _other_numerics(unit, tiling)
    tiles = {"n": len(tiling.tiles), "core": tiling.tiles.core, "halo": tiling.tiles.halo}
    found = {
        **described(unit, tiling.plan, tiles=tiles),
        "labels_bytes": n_bytes,
        "exact": is_exact(tiling) and all(seam["iou"] == 1 for seam in seams) and not others,
        "seams": {"checked": len(seams), "cells": sum(seam["cells"] for seam in seams)},
        **_counted(unit, tiling),
        **related_facts(unit),
        **{name: frozen.facts[name] for name in PLANNED if name in frozen.facts},
        **restored_facts(frozen.restoring, frozen.facts.get("restorer"), unit.image.channel_names),
        "warnings": frozen.facts["warnings"] + [f"some jobs ran as {other}" for other in others],
    }
    withdraw(unit)
    conflicts, joined = conflicts_of(unit, tiling)
    results = Results(
        tiling=tiling,
        tables=lambda: tables(unit),
        outlines=lambda: stored_outlines(unit),
        looked=lambda: looked_at(unit, tiling),
        conflicts=conflicts,
    )
    found |= publish_results(unit, results)
    found |= {} if joined is None else {"joined": joined}
    write_whole(paths.plan, json.dumps(found, indent=1, default=list).encode())
    return json.loads(paths.plan.read_text())


def described(unit: UnitRun, plan: Plan, *, tiles: dict[str, Any]) -> dict[str, Any]:
    """Return what a unit is.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    plan : Plan
        Of its image.
    tiles : dict
        Into what it is cut: `n`, `core`, `halo`.

    Returns
    -------
    dict
        For `summary.json`.
    """
    published, root = unit.run.unit(unit.name), unit.run.root
    return {
        "image": unit.image.path,
        "target": unit.unit.target,
        "labels": str(published.labels.relative_to(root)),
        "table": str(published.cells.relative_to(root)),
        **({"made_from": [source.name for source in unit.sources]} if unit.sources else {}),
        "mode": plan.mode,
        "axes": unit.image.spatial,
        "shape": unit.image.shape,
        "spacing_um": unit.spacing_um,
        "region": region_facts(plan.region),
        "ngff": unit.version,
        "tiles": tiles,
    }


def _other_numerics(unit: UnitRun, tiling: Tiling) -> list[str]:
    """Return how machines computed that were let in though they differ from that of the plan."""
    seen = [Records(part.stage("predict"), tiling.n_predict) for part in _parts(unit)]
    if unit.saves_restored:
        seen.append(Records(unit.stage("restore"), unit.batches["paint"]))
    infos = (info for records in seen for _, info in records.infos())
    return sorted({info["numerics"] for info in infos if "numerics" in info})


def _parts(unit: UnitRun) -> tuple[UnitRun, ...]:
    """Return what has windows and tiles of its own: the classes of diameters, or the unit."""
    return unit.origin.parts or (unit,)


def withdraw(unit: UnitRun) -> None:
    """Take back what says that other results of this unit are published: they will be replaced.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    """
    withdraw_run(unit.run)
    withdraw_unit(unit)


def withdraw_run(run: RunPaths) -> None:
    """Take back what says that a run is finished, and the table of all its units.

    Parameters
    ----------
    run : RunPaths
        The run.
    """
    for path in (run.summary, *run.runs.glob("finished-*.json")):
        path.unlink(missing_ok=True)
    aside = run.runs / f".old-cells-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):  # another job was faster
        os.rename(run.cells, aside)
        remove(aside)


def withdraw_unit(unit: UnitRun) -> None:
    """Take back what says that other results of a unit are published.

    Parameters
    ----------
    unit : UnitRun
        The unit; what is said of the run is gone.
    """
    forget_bundles(unit.run, {unit.name: unit.stage("audit").digest})
    published, digest = unit.run.unit(unit.name), unit.stage("paint").digest
    said = list(published.scratch.glob("audit-*/audit.json"))
    replaced = (marker_of(published.labels) or {}).get("stage_hash")
    if replaced and replaced != digest:
        # Their labels go, so their jobs are not done any more. What they found stays known.
        for stage in ("measure", "qc"):
            done, mine = published.scratch.glob(f"{stage}-*/done/*.json"), unit.stage(stage).root
            said += [path for path in done if mine not in path.parents]
    for path in said:
        path.unlink(missing_ok=True)
    for folder in published.scratch.glob(f"*-{replaced}"):
        if replaced != digest:
            remove(folder)
    withdraw_sifted(unit)
    withdraw_restored(unit)


def forget_bundles(
    run: RunPaths, digests: Mapping[str, str], *, but: StagePaths | None = None
) -> None:
    """Forget the jobs that gave images other results among those of many small ones.

    Parameters
    ----------
    run : RunPaths
        The run.
    digests : mapping
        By name of the unit, the hash of results that stay; those of every other hash will go.
    but : StagePaths, optional
        The job that does it. With it all other jobs are forgotten that name one of the units.
    """
    for file in run.unit(SMALL).scratch.glob(f"{BUNDLE}*-*/{IMAGES}"):
        with contextlib.suppress(FileNotFoundError):  # another job was faster
            known = _digests_in(file)
            changed = any(known.get(name, mine) != mine for name, mine in digests.items())
            named = (
                but is not None and file.parent != but.root and not known.keys().isdisjoint(digests)
            )
            if changed or named:
                aside = file.parent.with_name(f".old-{file.parent.name}-{os.getpid()}")
                os.rename(file.parent, aside)  # in one step: a part of it would be taken up
                remove(aside)


@functools.cache
def _digests_in(file: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(file.read_text())
    return found


@dataclass(frozen=True)
class Results:
    """What is published of a unit beside its labels.

    Parameters
    ----------
    tiling : Tiling
        Its tiles.
    tables : callable
        Gives its table in parts, each time it is called.
    outlines : callable
        Gives the outlines of its cells.
    looked : callable
        Gives what its blocks look like.
    conflicts : dict of str to array
        The table of what could not be settled.
    """

    tiling: Tiling
    tables: Callable[[], Iterable[Columns]]
    outlines: Callable[[], Iterable[Outlines]]
    looked: Callable[[], Looked]
    conflicts: Columns


def publish_results(unit: UnitRun, results: Results) -> dict[str, Any]:
    """Bring labels and tables to where users look for them; what is there is replaced.

    Parameters
    ----------
    unit : UnitRun
        The unit; its labels are whole.
    results : Results
        What else there is.

    Returns
    -------
    dict
        How many cells there are, and what quality control says.
    """
    published, stage_hash = unit.run.unit(unit.name), unit.stage("paint").digest
    published.root.mkdir(parents=True, exist_ok=True)
    with explained(published.root):
        publish(unit.stage("paint").labels, published.labels, stage_hash=stage_hash)
        made = unit.stage("audit").cells
        counts: dict[str, Any] = write_tables(made, results.tables())
        replace(made, published.cells)
        counts["qc"] = judge_run(unit, results.tiling, counts=counts, looked=results.looked)
        if unit.experiment.qc.labels:
            publish_sifted(unit)
        publish_restored(unit)
        write_table(published.conflicts, results.conflicts)
        published.outlines.unlink(missing_ok=True)  # of other settings
        if unit.experiment.measure.outlines:
            write_outlines(published.outlines, results.outlines(), axes=unit.image.spatial)
        if "csv" in unit.experiment.output.export:
            write_csv(published.cells.with_suffix(".csv"), results.tables())
        if "geojson" in unit.experiment.output.export:
            polygons = stored_polygons(published.labels / "0", published.cells, unit.image.shape)
            write_geojson(published.cells.with_suffix(".geojson"), polygons)
    if unit.experiment.output.into_image:
        add_labels_to_image(
            published.labels, unit.image.path, unit.unit.target, keep="copy", stage_hash=stage_hash
        )
    return dict(counts)


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
    tiles = numbered_tiles(unit, tiling)
    assert isinstance(tiles, FoundTiles)  # for these, exact means
    for core in _across(tiling):
        window = core.grow(halo_px(plan)).clip(Box.of(plan.walk_shape))
        found = find_cells(on_walked_grid(records, plan, window), plan, window=window, core=core)
        raw = ((_not_filled(part), ids) for part, ids in tiles.over(found.box))
        pairs = iou_of(overlap_pairs(found.labels, paint(found.box, raw)))
        best = np.zeros(len(found.peak) + 1)
        np.maximum.at(best, pairs.left, pairs.iou)
        kept = best[1:][found.kept]
        lowest = float(kept.min(initial=1.0))
        if lowest < 1:
            raise Incomplete(
                f"{unit.name}: cells at the seam {core} differ between tiles (IoU {lowest:.3f}),"
                f" and must not. Remove {unit.stage('masks').root} and start again; if it stays,"
                " report it."
            )
        yield {"cells": len(kept), "iou": lowest}


def _not_filled(found: Found) -> Found:
    """Return cells with their holes, which other cells may have filled."""
    claim_index, claim_label = np.zeros(0, np.int64), np.zeros(0, np.uint32)
    return dataclasses.replace(found, claim_index=claim_index, claim_label=claim_label)


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


def _counted(unit: UnitRun, tiling: Tiling) -> dict[str, Any]:
    """Return what windows did not see whole: those in halos count more than once.

    With exact seams particles that count for no cell, else cells that an edge cuts.
    """
    tiles = [Records(part.stage("masks"), tiling.n_masks) for part in _parts(unit)]
    infos = [info for part in tiles for _, info in part.infos()]
    if tiling.seams == "iou":
        return {"cut_views": sum(info["n_cut"] for info in infos)}
    names = ("n_too_far", "n_over_edge")
    return {"dropped_particles": {n: sum(info[n] for info in infos) for n in names}}
