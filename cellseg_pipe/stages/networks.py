"""The networks of a unit: loaded, timed, and checked against those that it was planned with."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cellseg_pipe.config import UnitSettings
from cellseg_pipe.geometry import Box
from cellseg_pipe.nets._info import SAM_PREFIX
from cellseg_pipe.nets.restore import restored_windows, restorer_for
from cellseg_pipe.nets.windows import Record, View, predict
from cellseg_pipe.restoration import RestorePlan
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.stages.opened import NotThisMachine
from cellseg_pipe.stages.tiling import Frozen
from cellseg_pipe.stages.unit import UnitRun

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import AnyEngine, Engine

__all__ = [
    "Networks",
    "checked_networks",
    "named",
    "networks_of",
    "numerics_of",
    "restoring_window_s",
    "window_s",
]

log = logging.getLogger(__name__)


class Networks(NamedTuple):
    """The networks of a unit, ready to run.

    Parameters
    ----------
    engines : tuple of AnyEngine
        The network, and that of the side views if there is one.
    restorer : Engine, optional
        What restores the image before, if a network does.
    other : str
        How this machine computes, if that is not as the plan's did; else nothing.
    """

    engines: tuple[AnyEngine, ...]
    restorer: Engine | None = None
    other: str = ""


def networks_of(chosen: UnitSettings, resources: Any) -> Networks:
    """Load the networks of a unit.

    Parameters
    ----------
    chosen : UnitSettings
        Which ones.
    resources : Resources
        Device, precision and threads.

    Returns
    -------
    Networks
        As this machine computes.
    """
    from cellseg_pipe.nets.engine import engine_for  # here: most jobs do without torch

    threads = None if resources.threads == "auto" else resources.threads
    how = {"device": resources.device, "precision": resources.precision, "threads": threads}
    engines = tuple(engine_for(model, **how) for model in _model_names(chosen))
    restores = chosen.restore.model if chosen.restore else None
    return Networks(engines, None if restores is None else restorer_for(restores, **how))


def _model_names(chosen: UnitSettings) -> list[str]:
    return [model for model in (chosen.model, chosen.side_model) if model is not None]


def numerics_of(
    unit: UnitRun, networks: Networks, *, plan: Plan, restoring: RestorePlan | None
) -> dict[str, Any]:
    """Return what tells whether another machine computes as this one.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    networks : Networks
        Its networks.
    plan : Plan
        Gives the size of a window.
    restoring : RestorePlan or None
        What restores the image.

    Returns
    -------
    dict
        For `checked_networks`.
    """
    facts: dict[str, Any] = {
        "models": [
            _about(engine, model)
            for engine, model in zip(networks.engines, _model_names(unit.chosen), strict=True)
        ],
        "device": unit.experiment.resources.device,
        "numerics": [engine.numerics for engine in networks.engines],
        "canary": [canary(engine, plan) for engine in networks.engines],
    }
    if restoring is not None and networks.restorer is not None:
        assert unit.chosen.restore is not None  # of which the network is
        facts["restorer"] = {
            "model": _about(networks.restorer, str(unit.chosen.restore.model)),
            "numerics": networks.restorer.numerics,
            "canary": restoring_canary(networks.restorer, restoring),
        }
    return facts


def _about(engine: AnyEngine, model: str) -> dict[str, str]:
    return {**named(engine), "path": model}


def named(engine: AnyEngine) -> dict[str, str]:
    """Return what tells a network from others.

    Parameters
    ----------
    engine : AnyEngine
        The network.

    Returns
    -------
    dict of str
        Its name, and the checksum of its file.
    """
    return {"name": engine.name, "sha256": engine.sha256}


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
    noise, index = _noise(view, engine.architecture.n_inputs)
    return _hash(predict(engine, lambda _box: noise, view, indices=[index]))


def restoring_canary(engine: Engine, plan: RestorePlan) -> str:
    """Return the same checksum of a network that restores.

    Parameters
    ----------
    engine : Engine
        The network.
    plan : RestorePlan
        Gives the size of a window.

    Returns
    -------
    str
        The same where windows come out the same to the last bit.
    """
    view = plan.views[0]
    noise, index = _noise(view, engine.architecture.n_inputs)
    return _hash(restored_windows(engine, lambda _box: noise, view, indices=[index]))


def _noise(view: View, n_inputs: int) -> tuple[Any, tuple[int, ...]]:
    """Return the pixels of the first window, and its index."""
    index = (0,) * len(view.shape)
    edge = view.box(index).clip(Box.of(view.shape)).shape
    return np.random.default_rng(0).random((n_inputs, *edge), np.float32), index


def _hash(records: Iterable[Record]) -> str:
    (record,) = records
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


def restoring_window_s(engine: Engine, plan: RestorePlan) -> float:
    """Return what restoring one window takes, all channels, as `window_s`.

    Parameters
    ----------
    engine : Engine
        The network; it has run before.
    plan : RestorePlan
        Gives the size of a window.

    Returns
    -------
    float
        Seconds.
    """
    began = time.monotonic()
    restoring_canary(engine, plan)
    return (time.monotonic() - began) * len(plan.channels)


def checked_networks(
    unit: Frozen, *, numerics: str = "strict", threads: int | None = None
) -> Networks:
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
    Networks
        As in the plan.
    """
    engines, others, facts = [], [], unit.facts
    for about, planned, expected in zip(
        facts["models"], facts["numerics"], facts["canary"], strict=True
    ):
        form = Form(facts["device"], planned.split()[1], threads)
        engine = _loaded(about["path"], _written(about["path"]), form=form)
        _check_file(about, engine)
        if canary(engine, unit.plan) != expected:
            others.append(engine.numerics)
            _check_allowed(facts["unit"], engine.numerics, planned=planned, numerics=numerics)
        engines.append(engine)
    restorer, restoring = None, facts.get("restorer")
    if restoring is not None and unit.restoring is not None:
        path, planned = restoring["model"]["path"], restoring["numerics"]
        form = Form(facts["device"], planned.split()[1], threads)
        restorer = _loaded_restorer(path, _written(path), form=form)
        _check_file(restoring["model"], restorer)
        if restoring_canary(restorer, unit.restoring) != restoring["canary"]:
            others.append(restorer.numerics)
            _check_allowed(facts["unit"], restorer.numerics, planned=planned, numerics=numerics)
    return Networks(tuple(engines), restorer, others[-1] if others else "")


def _check_file(about: dict[str, str], engine: AnyEngine) -> None:
    if engine.sha256 != about["sha256"]:
        raise NotThisMachine(
            f"model {about['path']} was changed since it was planned. Start the run again."
        )


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


@lru_cache(maxsize=1)
def _loaded_restorer(path: str, _written: int, *, form: Form) -> Engine:
    device, precision, threads = form
    return restorer_for(path, device=device, precision=precision, threads=threads)


def _check_allowed(unit: str, here: str, *, planned: str, numerics: str) -> None:
    text = (
        f"{unit}: this machine computes as {here} and gives other bits than the plan, which was"
        f" made with {planned}"
    )
    if numerics == "relaxed":
        log.warning("%s; numerics: relaxed lets it go on", text)
        return
    raise NotThisMachine(
        f"{text}. Give the jobs machines of one kind (a constraint of the cluster), or set"
        " resources.precision to fp32, or resources.numerics to relaxed."
    )
