"""The networks of a unit: loaded, and checked against those that it was planned with."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from cellseg_pipe.config import UnitSettings
from cellseg_pipe.nets._info import SAM_PREFIX
from cellseg_pipe.nets.restore import restorer_for
from cellseg_pipe.restoration import RestorePlan
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.stages.canaries import canary, restoring_canary
from cellseg_pipe.stages.opened import NotThisMachine
from cellseg_pipe.stages.tiling import Frozen
from cellseg_pipe.stages.unit import UnitRun

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import AnyEngine, Engine

__all__ = [
    "Networks",
    "checked_networks",
    "checked_restorer",
    "named",
    "networks_of",
    "numerics_of",
    "restorer_facts",
    "restorer_of_facts",
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
    about = restorer_facts(unit, networks.restorer)
    if about is not None and networks.restorer is not None and restoring is not None:
        told = restoring_canary(networks.restorer, restoring)
        facts["restorer"] = {**about, "canary": told}
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
    restorer, other = checked_restorer(unit, numerics=numerics, threads=threads)
    return Networks(tuple(engines), restorer, other or (others[-1] if others else ""))


def checked_restorer(
    unit: Frozen, *, numerics: str = "strict", threads: int | None = None
) -> tuple[Engine | None, str]:
    """Load the network of a plan that restores, and refuse another file and another arithmetic.

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
    restorer : Engine or None
        None where no network restores.
    other : str
        How this machine computes, if that is not as the plan's did.
    """
    facts, restoring = unit.facts, unit.restoring
    restorer = restorer_of_facts(facts, threads=threads)
    if restorer is None or restoring is None:
        return None, ""
    planned, expected = facts["restorer"]["numerics"], facts["restorer"]["canary"]
    if restoring_canary(restorer, restoring) == expected:
        return restorer, ""
    _check_allowed(facts["unit"], restorer.numerics, planned=planned, numerics=numerics)
    return restorer, restorer.numerics


def restorer_of_facts(
    facts: Mapping[str, Any], *, device: str | None = None, threads: int | None = None
) -> Engine | None:
    """Load the network that restored an image, and refuse another file.

    Parameters
    ----------
    facts : mapping
        Of the plan: `restorer`, if a network restores, and `device`.
    device : str, optional
        Where it runs instead, in the type that suits there: for pictures, not for results.
    threads : int, optional
        Threads to use.

    Returns
    -------
    Engine or None
        None where no network restores.
    """
    about = facts.get("restorer")
    if about is None:
        return None
    path = about["model"]["path"]
    form = Form(facts.get("device", "auto"), about["numerics"].split()[1], threads)
    if device is not None:
        form = Form(device, "auto", threads)
    restorer = _loaded_restorer(path, _written(path), form=form)
    _check_file(about["model"], restorer)
    return restorer


def restorer_facts(unit: UnitRun, restorer: Engine | None) -> dict[str, Any] | None:
    """Return which network restores the image of a unit.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    restorer : Engine or None
        What restores, if a network does.

    Returns
    -------
    dict or None
        Name, checksum and path of its `model`, and its `numerics`.
    """
    if restorer is None or unit.chosen.restore is None:
        return None
    model = _about(restorer, str(unit.chosen.restore.model))
    return {"model": model, "numerics": restorer.numerics}


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
