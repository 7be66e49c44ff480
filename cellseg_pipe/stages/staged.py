"""Runs the usual stages of one small image, one after the other in one job, and keeps no scratch.

What relates targets, or joins tiles by overlap, or follows a region, works on stored labels and
records: a job that takes many small images lets each of them go through that, image by image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from cellseg_pipe import __version__
from cellseg_pipe.config import Experiment, Unit
from cellseg_pipe.cost import StageCost
from cellseg_pipe.io._moving import remove
from cellseg_pipe.ledger import passing_over, write_whole
from cellseg_pipe.stages._run_layout import kind_of
from cellseg_pipe.stages.jobs import do_job, jobs_of, open_jobs
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.stages.unit_costs import costs_of

__all__ = [
    "clear_stages",
    "needs_stages",
    "plan_staged",
    "run_staged",
    "together",
    "with_plans",
]

KEPT = ("restore", "shrink", "sift")  # beside the labels
JOB_S = 0.01  # of a job inside another one: it opens files, and leaves marks


def needs_stages(units: Sequence[UnitRun]) -> bool:
    """Return whether the results of an image cannot be made of each unit whole and in memory.

    Parameters
    ----------
    units : sequence of UnitRun
        Those of the image.

    Returns
    -------
    bool
        True where targets are related or made from others, tiles joined by overlap, dropped cells
        left out of second labels, and with a region or a restored image that is kept.
    """
    said = units[0].experiment
    related = said.relate is not None or any(unit.sources for unit in units)
    asked = said.stitch.seams != "exact" or said.qc.labels
    return related or asked or any(u.region_said is not None or u.saves_restored for u in units)


def together(experiment: Experiment, of_image: list[Unit]) -> list[list[Unit]]:
    """Return which units of an image need each other: all, or each only itself.

    Parameters
    ----------
    experiment : Experiment
        What they are of.
    of_image : list of Unit
        Those of the image.

    Returns
    -------
    list of list of Unit
        In their order.
    """
    grown = any(target.expand is not None for target in experiment.targets.values())
    if grown or experiment.relate is not None:
        return [of_image]
    return [[unit] for unit in of_image]


def plan_staged(units: Sequence[UnitRun]) -> dict[str, Any]:
    """Plan the units of an image, as large ones are; what they take tells that of others.

    Parameters
    ----------
    units : sequence of UnitRun
        Those of the image.

    Returns
    -------
    dict
        Voxels, seconds and memory, and by target what the networks were.
    """
    costs: list[StageCost] = [cost for unit in units for cost in costs_of(unit)]
    own = {unit.unit.target: unit.stage("plan").plan for unit in units if not unit.sources}
    # Networks stay loaded, so that the next image has them.
    loaded = sum(cost.memory_bytes for cost in costs if cost.stage == "predict")
    return {
        "version": __version__,
        "unit": units[0].name,
        "voxels": sum(unit.n_voxels for unit in units),
        "seconds": sum(cost.seconds + JOB_S * cost.n_jobs for cost in costs),
        "memory_bytes": max(loaded, *(cost.memory_bytes for cost in costs)),
        "kept_bytes": sum(cost.disk_bytes for cost in costs if cost.stage in KEPT),
        "networks": {target: json.loads(plan.read_text()) for target, plan in own.items()},
    }


def run_staged(
    units: Sequence[UnitRun], *, numerics_of_job: str = "", threads: int | None = None
) -> dict[str, dict[str, Any]]:
    """Do what is missing of the units of an image, and remove what only its stages needed.

    Parameters
    ----------
    units : sequence of UnitRun
        Those of the image.
    numerics_of_job : str
        How this machine computes, if that is not as the plan's did.
    threads : int, optional
        Threads to use.

    Returns
    -------
    dict of str to dict
        What `summary.json` says of each unit, by its name.
    """
    audits = [unit.stage("audit").plan for unit in units]
    done = all(audit.exists() for audit in audits)
    # Jobs of the image's own may have finished it, and keep its windows for other settings.
    ours = not done or any("stages" in json.loads(audit.read_text()) for audit in audits)
    if not done:
        for audit in audits:  # one may be needed by another, and have lost its records
            audit.unlink(missing_ok=True)
        with passing_over(0):  # what this job passes over are images
            for unit, job in open_jobs(units):
                do_job(unit, job.stage, batch=job.batch, threads=threads)
    if not ours:
        return {
            unit.name: json.loads(audit.read_text())
            for unit, audit in zip(units, audits, strict=True)
        }
    found = {unit.name: with_plans(unit, numerics_of_job) for unit in units}
    for unit in units:
        clear_stages(unit)
    return found


def with_plans(unit: UnitRun, numerics_of_job: str = "") -> dict[str, Any]:
    """Return what was found of a unit, with the plans that its stages made: these will go.

    Parameters
    ----------
    unit : UnitRun
        The unit; it is finished.
    numerics_of_job : str
        How this machine computes, if that is not as the plan's did.

    Returns
    -------
    dict
        What `summary.json` says of it, and `stages`.
    """
    audit = unit.stage("audit").plan
    found: dict[str, Any] = json.loads(audit.read_text())
    if "stages" in found:
        return found
    found["stages"] = {
        job.stage: json.loads(job.output.read_text())
        if kind_of(job.stage) in ("plan", "tiles") and job.output.exists()
        else None
        for job in jobs_of(unit)
    }
    if numerics_of_job:
        found["exact"] = False
        found["warnings"].append(f"it ran as {numerics_of_job}")
    write_whole(audit, json.dumps(found, indent=1).encode())
    return found


def clear_stages(unit: UnitRun) -> None:
    """Remove the stages of a unit, each with one step: a part of one would be taken for all.

    Parameters
    ----------
    unit : UnitRun
        The unit; what says what was found of it stays.
    """
    scratch = unit.run.unit(unit.name).scratch
    folders = [path for path in scratch.iterdir() if path.is_dir()] if scratch.exists() else []
    for folder in folders:
        if folder.name.startswith("audit-"):
            continue
        aside = folder
        if not folder.name.startswith("."):
            aside = folder.with_name(f".old-{folder.name}")
            remove(aside)
            os.rename(folder, aside)
        remove(aside)
