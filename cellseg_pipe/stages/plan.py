"""Decides, once per unit, all that its windows depend on; then how its cells are cut into tiles."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe import __version__
from cellseg_pipe.config import UnitSettings
from cellseg_pipe.cost import Cost, Size, check_fits, masks_bytes, predict_bytes, stage_costs
from cellseg_pipe.geometry import Box, per_axis
from cellseg_pipe.io.levels import count_files
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.nets.engine import AnyEngine, engine_for
from cellseg_pipe.nets.windows import predict
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.segmentation.frozen import plan_from_json, plan_to_json
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.tiled import BLOCK_PX, halo_px
from cellseg_pipe.segmentation.whole import Run, flat_inputs, settings_for
from cellseg_pipe.stages.unit import CELL_SETTINGS, PAINT_PX, UnitRun, channels_of, source_of_image
from cellseg_pipe.tiles import TilePlan, equal_batches, morton_order

__all__ = [
    "Frozen",
    "Tiling",
    "checked_engines",
    "engines_of",
    "plan_network",
    "plan_tiles",
    "read_frozen",
    "read_tiling",
]

log = logging.getLogger(__name__)


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

    def open_image(self) -> OpenImage:
        """Open the image, and refuse one that was changed since it was planned."""
        about = self.facts["image"]
        image = open_image(about["path"], axes=about["axes"], series=about["series"])
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
    """

    plan: Plan
    tiles: TilePlan
    n_predict: int
    n_masks: int
    seams: str

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
        return batch_of(morton_order(self.tiles.cores.counts), number, self.n_masks)


def batch_of(keys: NDArray[np.int64], number: int, n_batches: int) -> list[int]:
    """Return the keys of one of several batches of equal size.

    Parameters
    ----------
    keys : int64 array [n]
        All keys, in the order of the work.
    number, n_batches : int
        Which batch, of how many.

    Returns
    -------
    list of int
        Its keys; none if there are fewer keys than batches.
    """
    return [int(k) for k in keys[equal_batches(np.ones(len(keys), int), n_batches) == number]]


def window_batch(plan: Plan, number: int, n_batches: int) -> list[int]:
    """Return the keys of the windows of a batch.

    Parameters
    ----------
    plan : Plan
        Of the image.
    number, n_batches : int
        Which batch, of how many.

    Returns
    -------
    list of int
        Keys, see `window_keys`; neighbours after each other.
    """
    parts, first = [], 0
    for view in plan.views:
        parts.append(first + morton_order(view.lattice.counts))
        first += len(view.lattice)
    return batch_of(np.concatenate(parts), number, n_batches)


def plan_network(unit: UnitRun) -> Path:
    """Measure what has to be measured and write down what all windows depend on.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    path
        The plan; what is there already is left as it is.
    """
    paths = unit.stage("plan")
    if paths.plan.exists():
        return paths.plan
    channels_of(unit)  # refuses a name that is wrong now, not when all is segmented
    engines = engines_of(unit.chosen, unit.experiment.resources)
    image, source = unit.pixels, source_of_image(unit.pixels)
    network = {k: v for k, v in unit.chosen.settings.items() if k not in CELL_SETTINGS}
    settings = settings_for(
        engines[0],
        network,
        source.shape,
        spacing_um=unit.spacing_um,
        diameter_um=unit.chosen.diameter_um,
    )
    run = Run(source, settings, engines, None)
    measured = None if settings.diameter_px else run.measured_diameter()
    px = settings.diameter_px or (measured.px if measured else engines[0].diameter_px)
    plan = run.plan(px)
    if plan.mode != unit.mode:
        raise ValueError(
            f"{unit.name}: mode auto was taken as {unit.mode}, the network wants {plan.mode}. Set"
            f" segment.mode to {plan.mode}."
        )
    limit = memory_limit(unit)
    check_fits(Cost(predict_bytes(plan)), limit, what=f"{unit.name}: one window of the network")
    warnings = [*flat_inputs(plan)]
    if measured is not None and measured.n_cells == 0:
        warnings.append(
            f"no cells were found to measure the diameter on: the model's own, {px:g} px, is taken"
        )
    facts = {
        "version": __version__,
        "unit": unit.name,
        "image": _image_facts(unit, image),
        "models": [
            {"name": e.name, "sha256": e.sha256, "path": str(m)}
            for e, m in zip(engines, _model_names(unit.chosen), strict=True)
        ],
        "device": unit.experiment.resources.device,
        "numerics": [engine.numerics for engine in engines],
        "canary": [canary(engine, plan) for engine in engines],
        "window_s": window_s(engines[0], plan),
        "diameter_px": px,
        "diameter": None if measured is None else dataclasses.asdict(measured),
        "warnings": warnings,
        "n_windows": sum(len(view.lattice) for view in plan.views),
        "n_batches": unit.batches["predict"],
    }
    for warning in warnings:
        log.warning("%s: %s", unit.name, warning)
    _write(paths.plan, {**facts, "plan": plan_to_json(plan)})
    return paths.plan


def _image_facts(unit: UnitRun, image: OpenImage) -> dict[str, Any]:
    return {
        "path": image.path,
        "axes": None if unit.needs_copy else unit.unit.image.axes,
        "series": 0 if unit.needs_copy else unit.unit.image.series,
        "identity": json.loads(json.dumps(image.identity, default=str)),
        "shape": image.shape,
        "n_channels": image.n_channels,
        "channel_names": image.channel_names,
        "dtype": str(image.dtype),
        "spacing_um": unit.spacing_um,
        "format": image.format,
    }


def _model_names(chosen: UnitSettings) -> list[str]:
    return [model for model in (chosen.model, chosen.side_model) if model is not None]


def engines_of(chosen: UnitSettings, resources: Any) -> tuple[AnyEngine, ...]:
    """Load the networks of a unit.

    Parameters
    ----------
    chosen : UnitSettings
        Which ones.
    resources : Resources
        Device, precision and threads.

    Returns
    -------
    tuple of AnyEngine
        The network, and that of the side views if there is one.
    """
    threads = None if resources.threads == "auto" else resources.threads
    return tuple(
        engine_for(model, device=resources.device, precision=resources.precision, threads=threads)
        for model in _model_names(chosen)
    )


def canary(engine: AnyEngine, plan: Plan) -> str:
    """Return a checksum of what a network says of noise: it tells machines apart that differ.

    Parameters
    ----------
    engine : AnyEngine
        The network.
    plan : Plan
        Gives the size of a window.

    Returns
    -------
    str
        The same where windows come out the same to the last bit.
    """
    view = plan.views[0]
    index = (0,) * len(view.shape)
    edge = view.box(index).clip(Box.of(view.shape)).shape
    noise = np.random.default_rng(0).random((engine.architecture.n_inputs, *edge), np.float32)
    (record,) = predict(engine, lambda _box: noise, view, indices=[index])
    return hashlib.sha256(record.values.tobytes()).hexdigest()[:16]


def window_s(engine: AnyEngine, plan: Plan) -> float:
    """Return what one window takes, the first one aside, which waits for what is compiled.

    Parameters
    ----------
    engine : AnyEngine
        The network; it has run before.
    plan : Plan
        Gives the size of a window.

    Returns
    -------
    float
        Seconds.
    """
    began = time.monotonic()
    canary(engine, plan)
    n_views = 4 ** bool(plan.settings.augment)
    return (time.monotonic() - began) * n_views


def checked_engines(
    unit: Frozen, *, numerics: str = "strict", threads: int | None = None
) -> tuple[tuple[AnyEngine, ...], str]:
    """Load the networks of a plan, and refuse other files and another arithmetic.

    Parameters
    ----------
    unit : Frozen
        The plan.
    numerics : {"strict", "relaxed"}
        Whether another arithmetic is refused.
    threads : int, optional
        Threads of this job.

    Returns
    -------
    engines : tuple of AnyEngine
        As in the plan.
    other : str
        How this machine computes, if that is not as the plan's did; else nothing.
    """
    engines, other = [], ""
    facts = unit.facts
    for about, planned, expected in zip(
        facts["models"], facts["numerics"], facts["canary"], strict=True
    ):
        precision = planned.split()[1]
        engine = engine_for(
            about["path"], device=facts["device"], precision=precision, threads=threads
        )
        if engine.sha256 != about["sha256"]:
            raise ValueError(
                f"model {about['path']} was changed since it was planned. Start the run again."
            )
        if canary(engine, unit.plan) != expected:
            other = engine.numerics
            _check_allowed(f"{facts['unit']}: this machine computes as {other}", planned, numerics)
        engines.append(engine)
    return tuple(engines), other


def _check_allowed(here: str, planned: str, numerics: str) -> None:
    text = f"{here} and gives other bits than the plan, which was made with {planned}"
    if numerics == "relaxed":
        log.warning("%s; numerics: relaxed lets it go on", text)
        return
    raise ValueError(
        f"{text}. Give the jobs machines of one kind (a constraint of the cluster), or set"
        " resources.precision to fp32, or resources.numerics to relaxed."
    )


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
    stored = json.loads(paths.plan.read_text())
    return Frozen(plan_from_json(stored.pop("plan")), stored)


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
        return paths.plan
    frozen = read_frozen(unit.stage("plan"))
    own = {k: v for k, v in unit.chosen.settings.items() if k in CELL_SETTINGS}
    settings = dataclasses.replace(frozen.plan.settings, **own)
    plan = dataclasses.replace(frozen.plan, settings=settings)
    tiles = tile_plan(plan, unit)
    needed = masks_bytes(plan, tiles)
    check_fits(Cost(needed), memory_limit(unit), what=f"{unit.name}: one tile")
    facts = {
        "core": tiles.core,
        "halo": tiles.halo,
        "n_tiles": len(tiles),
        "n_predict": frozen.facts["n_batches"],
        "n_masks": unit.batches["masks"],
        "seams": unit.experiment.stitch.seams,
        "predicted": predicted(unit, plan, tiles, window_s=frozen.facts["window_s"]),
    }
    _write(paths.plan, {**facts, "plan": plan_to_json(plan)})
    return paths.plan


def predicted(
    unit: UnitRun, plan: Plan, tiles: TilePlan, *, window_s: float
) -> list[dict[str, Any]]:
    """Return what each stage will take, for those who schedule its jobs.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    plan : Plan
        With the unit's own settings.
    tiles : TilePlan
        Its tiles.
    window_s : float
        What one window of the network took.

    Returns
    -------
    list of dict
        `StageCost` of each, as JSON.
    """
    ndim = len(unit.image.shape)
    size = Size(
        paint_px=PAINT_PX[plan.mode],
        n_channels=unit.image.n_channels,
        n_files=count_files(unit.image.shape, ndim, version=unit.version),
        n_jobs=unit.batches | {"measure": unit.batches["masks"]},
        window_s=window_s,
    )
    return [dataclasses.asdict(cost) for cost in stage_costs(plan, tiles, size)]


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
    core = block if said.core_px == "auto" else _whole_blocks(said.core_px, block)
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
    return TilePlan(plan.walk_shape, block, core, halo)


def _whole_blocks(core_px: Any, block: tuple[int, ...]) -> tuple[int, ...]:
    core = per_axis(core_px, len(block), "tiles.core_px")
    if block[0] == 1 and len(block) == 3:
        core = (1, *core[1:])
    if any(c % b for c, b in zip(core, block, strict=True)):
        raise ValueError(
            f"tiles.core_px needs multiples of {block}, the units in which cells are numbered, got"
            f" {core}."
        )
    return core


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
    tiles = TilePlan(
        plan.walk_shape, BLOCK_PX[plan.mode], tuple(stored["core"]), tuple(stored["halo"])
    )
    return Tiling(plan, tiles, stored["n_predict"], stored["n_masks"], stored["seams"])


def _write(path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(facts, indent=1, default=list).encode())
