"""What was planned of a unit; and how its cells are cut into tiles. Needs no network."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg_pipe.cost import (
    Cost,
    Rates,
    Size,
    check_fits,
    kept_tiles_bytes,
    masks_bytes,
    measure_bytes,
    stage_costs,
)
from cellseg_pipe.geometry import per_axis
from cellseg_pipe.io.levels import count_files
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.machine import available_bytes
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.restoration import RestorePlan, restore_plan_from_json
from cellseg_pipe.segmentation.frozen import plan_from_json, plan_to_json
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.scope import cores_needed
from cellseg_pipe.segmentation.settings import CELL_SETTINGS
from cellseg_pipe.segmentation.tiled import BLOCK_PX, halo_px
from cellseg_pipe.stages._blocks import cores_said, look_grid
from cellseg_pipe.stages._digests import OF_CLASSES
from cellseg_pipe.stages.batches import batch_of
from cellseg_pipe.stages.region import freeze_region, frozen_region, region_facts
from cellseg_pipe.stages.restoring_costs import saving_costs
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.tiles import TilePlan, morton_order

__all__ = [
    "Frozen",
    "Tiling",
    "frozen_of",
    "memory_limit",
    "plan_tiles",
    "predicted",
    "read_frozen",
    "read_tiling",
    "write_plan",
]

CORE_BLOCKS = {"2d": 1, "planes": 1, "3d": 2}  # along an edge of a tile's core, at most


@dataclass(frozen=True)
class Frozen:
    """All that the windows of a unit depend on.

    Parameters
    ----------
    plan : Plan
        With the usual settings for cells: those of the unit are in its tiling.
    facts : dict
        Image, models, numeric form, diameter, warnings: JSON.
    """

    plan: Plan
    facts: dict[str, Any]

    @property
    def restoring(self) -> RestorePlan | None:
        """What is done to the image before a network sees it."""
        stored = self.facts.get("restoring")
        return None if stored is None else restore_plan_from_json(stored)

    def open_image(self) -> OpenImage:
        """Open the image, and refuse one that was changed since it was planned."""
        about = self.facts["image"]
        image = open_image(about["path"], axes=about["axes"], series=about["series"]).as_series()
        found = json.loads(json.dumps(image.identity, default=str))
        if found != about["identity"]:
            raise ValueError(
                f"{about['path']} was changed since it was planned. Start the run again: it plans"
                " anew."
            )
        return image


@dataclass(frozen=True)
class Tiling:
    """How the cells of a unit are found, tile by tile.

    Parameters
    ----------
    plan : Plan
        With the unit's own settings.
    tiles : TilePlan
        Cores and halos, on the grid that particles walk on.
    n_predict, n_masks : int
        Batches of windows and of tiles.
    seams : {"exact", "iou"}
        How tiles are joined.
    grown_px : tuple of int, optional
        How far labels reach beyond those that they are made from; None where a network makes them.
    """

    plan: Plan
    tiles: TilePlan
    n_predict: int
    n_masks: int
    seams: str
    grown_px: tuple[int, ...] | None = None

    def batch(self, number: int) -> list[int]:
        """Return the tiles of a batch, neighbours after each other.

        Parameters
        ----------
        number : int
            Of the batch.

        Returns
        -------
        list of int
            Numbers of tiles.
        """
        order = morton_order(self.tiles.cores.counts)
        costs = cores_needed(self.plan, self.tiles.cores)[order]
        if self.seams == "iou":  # who owns what depends on all tiles
            costs[:] = True
        return batch_of(order, number, self.n_masks, costs=costs)


def read_frozen(paths: StagePaths) -> Frozen:
    """Read the plan of a unit's windows.

    Parameters
    ----------
    paths : StagePaths
        Of the stage `plan`.

    Returns
    -------
    Frozen
        The plan.
    """
    frozen = frozen_of(json.loads(paths.plan.read_text()))
    if frozen.facts["region"] is None:
        return frozen
    plan = dataclasses.replace(frozen.plan, region=frozen_region(paths))
    return dataclasses.replace(frozen, plan=plan)


def frozen_of(stored: Mapping[str, Any]) -> Frozen:
    """Return what was stored of a unit's windows.

    Parameters
    ----------
    stored : mapping
        As `write_plan` wrote it.

    Returns
    -------
    Frozen
        Without the region.
    """
    facts = dict(stored)
    return Frozen(plan_from_json(facts.pop("plan")), facts)


def read_tiling(paths: StagePaths) -> Tiling:
    """Read how a unit is cut into tiles.

    Parameters
    ----------
    paths : StagePaths
        Of the stage `tiles`.

    Returns
    -------
    Tiling
        The tiling.
    """
    stored = json.loads(paths.plan.read_text())
    plan = plan_from_json(stored["plan"])
    if stored["region"] is not None:
        plan = dataclasses.replace(plan, region=frozen_region(paths))
    cut = (tuple(stored[name]) for name in ("block", "core", "halo"))
    tiles = TilePlan(plan.walk_shape, *cut)
    grown = stored.get("grown_px")
    found = Tiling(plan, tiles, stored["n_predict"], stored["n_masks"], stored["seams"])
    return found if grown is None else dataclasses.replace(found, grown_px=tuple(grown))


def plan_tiles(unit: UnitRun) -> Path:
    """Decide how the cells of a unit are cut into tiles, and whether that fits.

    Parameters
    ----------
    unit : UnitRun
        The unit; its windows are planned.

    Returns
    -------
    path
        The tiling; what is there already is left as it is.
    """
    paths = unit.stage("tiles")
    if paths.plan.exists():
        known = read_tiling(paths)
        _check_fits(unit, known.plan, known.tiles)
        return paths.plan
    frozen = read_frozen(unit.stage("plan"))
    own = {k: v for k, v in unit.chosen.settings.items() if k in CELL_SETTINGS}
    if unit.parts:  # as far as cells of any class reach
        reaches = [read_tiling(part.stage("tiles")).plan.reach_px for part in unit.parts]
        own["reach_px"] = tuple(max(along) for along in zip(*reaches, strict=True))
    settings = dataclasses.replace(frozen.plan.settings, **own)
    region = freeze_region(unit, paths, known=frozen.plan.region)
    plan = dataclasses.replace(frozen.plan, settings=settings, region=region)
    tiles = tile_plan(plan, unit)
    _check_fits(unit, plan, tiles)
    facts = {
        "block": tiles.block,
        "core": tiles.core,
        "halo": tiles.halo,
        "n_tiles": len(tiles),
        "n_predict": frozen.facts["n_batches"],
        "n_masks": unit.batches["masks"],
        "seams": unit.experiment.stitch.seams,
        "region": region_facts(region),
        "predicted": predicted(unit, plan, tiles, facts=frozen.facts),
    }
    write_plan(paths.plan, {**facts, "plan": plan_to_json(plan)})
    return paths.plan


def predicted(
    unit: UnitRun, plan: Plan, tiles: TilePlan, *, facts: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return what each stage will take, for those who schedule its jobs.

    Parameters
    ----------
    unit : UnitRun
        The unit; what was measured of it counts.
    plan : Plan
        With the unit's own settings.
    tiles : TilePlan
        Its tiles.
    facts : dict
        Of the plan: what one window of the network took, in time and memory.

    Returns
    -------
    list of dict
        `StageCost` of each, as JSON.
    """
    known = unit.run.unit(unit.name).rates
    measured = json.loads(known.read_text()) if known.exists() else {}
    window_s = measured.pop("window_s", facts["window_s"])
    size = Size(
        paint_px=unit.paint_px,
        n_channels=unit.image.n_channels,
        voxel_bytes=unit.image.voxel_bytes,
        n_files=count_files(unit.image.shape, unit.n_space, version=unit.version),
        look_px=look_grid(unit.image.shape, unit.look_mode).pitch,
        n_jobs=unit.batches
        | {"measure": unit.batches["masks"], "qc": unit.batches["paint"]}
        | ({"sift": unit.batches["paint"]} if unit.experiment.qc.labels else {}),
        window_s=window_s,
        predict_bytes=facts["predict_bytes"],
        seams=unit.experiment.stitch.seams,
        rates=Rates(**measured),
    )
    costs = [dataclasses.asdict(cost) for cost in stage_costs(plan, tiles, size)]
    if "restoring" in facts and unit.part is None:  # it may be saved later
        restoring, grid = restore_plan_from_json(facts["restoring"]), unit.restored_grid
        n_files = count_files(
            unit.image.shape, unit.n_space, unit.image.n_channels, version=unit.restored_version
        )
        more = dataclasses.replace(size, n_files=n_files)
        saving = saving_costs(restoring, plan, more, facts=facts, grid=grid)
        costs += [dataclasses.asdict(cost) for cost in saving]
    if not unit.parts:
        return costs
    costs = [cost for cost in costs if cost["stage"] not in OF_CLASSES]
    n_classes = len(unit.parts)
    for cost in costs:
        if cost["stage"] == "paint":  # labels of each class
            cost["memory_bytes"] *= n_classes
        if cost["stage"] in ("paint", "measure"):
            cost["memory_bytes"] += (n_classes - 1) * kept_tiles_bytes(tiles)
    return [cost for part in unit.parts for cost in _of_class(part)] + costs


def _of_class(part: UnitRun) -> list[dict[str, Any]]:
    """Return what the stages of a class of diameters take, under their names in the unit."""
    tiling, facts = read_tiling(part.stage("tiles")), read_frozen(part.stage("plan")).facts
    return [
        cost | {"stage": part.stage(cost["stage"]).stage}
        for cost in predicted(part, tiling.plan, tiling.tiles, facts=facts)
        if cost["stage"] in OF_CLASSES
    ]


def tile_plan(plan: Plan, unit: UnitRun) -> TilePlan:
    """Return cores and halos as the experiment says, or as they fit.

    Parameters
    ----------
    plan : Plan
        With the unit's own settings.
    unit : UnitRun
        The unit.

    Returns
    -------
    TilePlan
        On the grid that particles walk on.
    """
    block, needed, said = BLOCK_PX[plan.mode], halo_px(plan), unit.experiment.tiles
    cores = _cores(block, most=CORE_BLOCKS[plan.mode])
    if unit.parts or unit.part is not None:  # classes of diameters have the same cores
        cores = [(CORE_BLOCKS[plan.mode] * block[0], *block[1:])]
    if unit.experiment.stitch.seams == "iou":  # the labels depend on cores, numbers do not
        block, cores = (1,) * len(block), cores[:1]
    if said.core_px != "auto":
        cores = [cores_said(said.core_px, plan.mode, seams=unit.experiment.stitch.seams)]
    halo = needed
    if said.halo_px != "auto":
        halo = per_axis(said.halo_px, len(block), "tiles.halo_px")
        halo = tuple(h if n else 0 for h, n in zip(halo, needed, strict=True))
    if unit.experiment.stitch.seams == "exact" and any(
        h < n for h, n in zip(halo, needed, strict=True)
    ):
        raise ValueError(
            f"{unit.name}: exact seams need a halo of {needed} px (the reach of {plan.reach_px} and"
            f" 17), got {halo}. Raise tiles.halo_px, lower segment.reach_px, or set stitch.seams to"
            " iou."
        )
    tilings = [TilePlan(plan.walk_shape, block, core, halo) for core in cores]
    limit = memory_limit(unit) or available_bytes()
    fit = [t for t in tilings if limit is None or _tile_bytes(plan, unit, tiles=t) <= limit]
    return min(fit or tilings[-1:], key=_seen_times)


def _tile_bytes(plan: Plan, unit: UnitRun, *, tiles: TilePlan) -> int:
    """Return what finding or measuring the cells of a tile takes, whichever is more."""
    measuring = measure_bytes(plan, tiles, voxel_bytes=unit.image.voxel_bytes)
    return max(masks_bytes(plan, tiles), measuring)


def _check_fits(unit: UnitRun, plan: Plan, tiles: TilePlan) -> None:
    needed = masks_bytes(plan, tiles)
    check_fits(Cost(needed), memory_limit(unit), what=f"{unit.name}: one tile")


def _cores(block: tuple[int, ...], *, most: int) -> list[tuple[int, ...]]:
    """Return edges of cores, the largest first: one to so many blocks along each axis."""
    sides = itertools.product(*(range(most, 0, -1) for _ in block))
    return [tuple(b * n for b, n in zip(block, side, strict=True)) for side in sides]


def _seen_times(tiles: TilePlan) -> float:
    """Return how often a tiling looks at a voxel."""
    return math.prod(1 + 2 * h / c for h, c in zip(tiles.halo, tiles.core, strict=True))


def memory_limit(unit: UnitRun) -> int | None:
    """Return the bytes that one job may take; None for all of the machine.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    int or None
        Bytes.
    """
    said = unit.experiment.resources.memory_gb
    return None if said == "auto" else math.floor(said * 1e9)


def write_plan(path: Path, facts: dict[str, Any]) -> None:
    """Write a plan down as a whole.

    Parameters
    ----------
    path : path
        Where.
    facts : dict
        What was decided.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(facts, indent=1, default=list).encode())
