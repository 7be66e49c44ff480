"""Decides, once per unit, all that its windows depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cellseg_pipe import __version__
from cellseg_pipe.config import UnitSettings
from cellseg_pipe.cost import Cost, check_fits, predict_bytes
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.opening import OpenImage
from cellseg_pipe.nets._info import SAM_PREFIX
from cellseg_pipe.nets.windows import predict
from cellseg_pipe.segmentation.frozen import plan_to_json
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.scope import windows_needed
from cellseg_pipe.stages._digests import CELL_SETTINGS, WINDOW_SETTINGS
from cellseg_pipe.stages.decide import decide
from cellseg_pipe.stages.opened import NotThisMachine
from cellseg_pipe.stages.pixels import channels_of, source_of_image
from cellseg_pipe.stages.region import freeze_region, region_facts
from cellseg_pipe.stages.tiling import Frozen, memory_limit, write_plan
from cellseg_pipe.stages.unit import UnitRun

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import AnyEngine

__all__ = ["checked_engines", "engines_of", "numerics_of", "plan_network"]

log = logging.getLogger(__name__)


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
    region = freeze_region(unit, paths) if unit.is_confined else None
    engines = engines_of(unit.chosen, unit.experiment.resources)
    network = {k: v for k, v in unit.chosen.settings.items() if k not in CELL_SETTINGS}
    decided = decide(unit, engines, source_of_image(unit.pixels), settings=network)
    plan = decided.plan
    if region is not None:
        near = {name: unit.chosen.settings[name] for name in WINDOW_SETTINGS}
        settings = dataclasses.replace(plan.settings, **near)
        plan = dataclasses.replace(plan, region=region, settings=settings)
    needed = predict_bytes(plan, [engine.footprint for engine in engines])
    check_fits(Cost(needed), memory_limit(unit), what=f"{unit.name}: one window of the network")
    facts = {
        "version": __version__,
        "unit": unit.name,
        "image": _image_facts(unit, unit.pixels),
        **decided.facts,
        **numerics_of(unit, engines, plan),
        "window_s": window_s(engines[0], plan),
        "predict_bytes": needed,
        "region": region_facts(region),
        "n_windows": sum(int(windows_needed(plan, view).sum()) for view in plan.views),
        "n_batches": unit.batches["predict"],
    }
    for warning in decided.warnings:
        log.warning("%s: %s", unit.name, warning)
    write_plan(paths.plan, {**facts, "plan": plan_to_json(plan)})
    return paths.plan


def numerics_of(unit: UnitRun, engines: tuple[AnyEngine, ...], plan: Plan) -> dict[str, Any]:
    """Return what tells whether another machine computes as this one.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    engines : tuple of AnyEngine
        Its networks.
    plan : Plan
        Gives the size of a window.

    Returns
    -------
    dict
        For `checked_engines`.
    """
    return {
        "models": [
            {"name": e.name, "sha256": e.sha256, "path": str(m)}
            for e, m in zip(engines, _model_names(unit.chosen), strict=True)
        ],
        "device": unit.experiment.resources.device,
        "numerics": [engine.numerics for engine in engines],
        "canary": [canary(engine, plan) for engine in engines],
    }


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
    from cellseg_pipe.nets.engine import engine_for  # here: most jobs do without torch

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
    n_views = (2**engine.architecture.ndim) ** bool(plan.settings.augment)
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
        path = about["path"]
        form = Form(facts["device"], planned.split()[1], threads)
        engine = _loaded(path, _written(path), form=form)
        if engine.sha256 != about["sha256"]:
            raise NotThisMachine(
                f"model {about['path']} was changed since it was planned. Start the run again."
            )
        if canary(engine, unit.plan) != expected:
            other = engine.numerics
            _check_allowed(f"{facts['unit']}: this machine computes as {other}", planned, numerics)
        engines.append(engine)
    return tuple(engines), other


def _written(model: str) -> int:
    from cellseg_pipe.nets.catalog import resolve

    return os.stat(resolve(model.removeprefix(SAM_PREFIX))).st_mtime_ns


class Form(NamedTuple):
    """How a network is to run."""

    device: str
    precision: str
    threads: int | None


@lru_cache(maxsize=2)  # the network, and that of the side views: later jobs of a process have them
def _loaded(path: str, _written: int, *, form: Form) -> AnyEngine:
    from cellseg_pipe.nets.engine import engine_for

    device, precision, threads = form
    return engine_for(path, device=device, precision=precision, threads=threads)


def _check_allowed(here: str, planned: str, numerics: str) -> None:
    text = f"{here} and gives other bits than the plan, which was made with {planned}"
    if numerics == "relaxed":
        log.warning("%s; numerics: relaxed lets it go on", text)
        return
    raise NotThisMachine(
        f"{text}. Give the jobs machines of one kind (a constraint of the cluster), or set"
        " resources.precision to fp32, or resources.numerics to relaxed."
    )
