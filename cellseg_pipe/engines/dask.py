"""Spreads the batches of all stages over the workers of a dask cluster."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path

from cellseg_pipe.config import Experiment, load_experiment
from cellseg_pipe.engines._dask_jobs import RunJobs
from cellseg_pipe.engines._dask_needs import needs_of
from cellseg_pipe.engines._dask_pool import open_pool
from cellseg_pipe.engines._dask_spread import Spread
from cellseg_pipe.engines._dask_steps import Steps, Todo, steps_of
from cellseg_pipe.engines._queue import settle_orphans
from cellseg_pipe.engines._snakemake_needs import NETWORK
from cellseg_pipe.engines._snakemake_state import lock_of_run
from cellseg_pipe.paths import RunPaths, safe_name
from cellseg_pipe.site import load_site
from cellseg_pipe.stages._run_layout import SMALL, RunLayout, kind_of
from cellseg_pipe.stages.bundle import note_failure
from cellseg_pipe.stages.costs import planned_costs
from cellseg_pipe.stages.evaluate_run import score
from cellseg_pipe.stages.layout import forget_failures, layout_of, open_stages
from cellseg_pipe.stages.named_jobs import finish, layout_beside
from cellseg_pipe.stages.on_finish import told
from cellseg_pipe.stages.room import check_room

__all__ = ["run", "spread"]


def run(experiment: Experiment, *, cores: int | None = None) -> RunPaths:
    """Segment all images of an experiment; what an earlier run has done is not done again.

    Parameters
    ----------
    experiment : Experiment
        What is to be done.
    cores : int, optional
        Of this machine, for workers that are its processes.

    Returns
    -------
    RunPaths
        Where the results are.
    """
    paths = RunPaths(Path(experiment.output.dir))
    paths.root.mkdir(parents=True, exist_ok=True)
    # Whoever is told when it ends may use the folder: by then nobody holds it.
    with contextlib.ExitStack() as at_end, contextlib.ExitStack() as held:
        settle = partial(_settle, experiment, paths)
        lock = lock_of_run(paths, settle=settle, job="cellseg run, dask")
        held.push(lock.__exit__)
        layout = layout_of(experiment)
        check_room(layout)
        forget_failures(layout)
        at_end.enter_context(told(experiment.on_finish, layout))
        steps = Steps(open_stages(layout))
        if steps:
            needs = needs_of(experiment, n_jobs=steps.most(), cores=cores)
            with open_pool(experiment, needs, name="run") as pool:
                spreading = Spread(pool, RunJobs(layout, experiment, needs))
                failed = spreading.all(steps)
            _note(layout, failed, fatal=spreading.fatal, waiting=steps.waiting())
        finish(layout.config)
        score(experiment, layout)
    return paths


def _settle(experiment: Experiment, paths: RunPaths) -> None:
    if experiment.dask.cluster == "slurm":
        mine = os.environ.get("SLURM_JOB_ID")
        settle_orphans(paths.root, load_site().orphans, besides=mine)


def spread(config: Path, unit: str, stage: str, *, cores: int | None = None) -> None:
    """Run all jobs of one stage of a unit that are not done: what a rule of the workflow calls.

    Parameters
    ----------
    config : path
        The experiment in effect.
    unit, stage : str
        Their names.
    cores : int, optional
        Of this machine, for workers that are its processes.
    """
    experiment, layout = load_experiment(config), layout_beside(config)
    steps = steps_of(layout, unit, stage)
    if steps:
        costs = {cost["stage"]: cost for cost in planned_costs(layout.files(unit, "tiles"))}
        memory = costs.get(stage, {}).get("memory_bytes", 0)
        needs = needs_of(
            experiment,
            n_jobs=len(steps),
            cores=cores,
            memory_bytes=memory,
            network=kind_of(stage) in NETWORK,
        )
        with open_pool(experiment, needs, name=f"{safe_name(unit)}-{stage}") as pool:
            spreading = Spread(pool, RunJobs(layout, experiment, needs))
            failed = spreading.all(steps)
        _note(layout, failed, fatal=spreading.fatal, waiting={})
        if failed:
            raise ValueError(_listed(failed))
    gate = layout.files(unit, stage).gate
    outputs = [layout.root / name for name in layout.outputs(unit, stage)]
    gate.touch()
    newest = max(file.stat().st_mtime_ns for file in outputs)
    os.utime(gate, ns=(newest, newest))  # it says no more than these: what read them is up to date


def _note(
    layout: RunLayout, failed: dict[Todo, str], *, fatal: set[Todo], waiting: dict[str, str]
) -> None:
    """Write down which images could not be segmented; raise what none of them is to blame for."""
    others: dict[Todo, str] = {}
    reasons: dict[str, list[str]] = {}
    for todo, why in failed.items():
        # Where the image is to blame the job has written that down itself.
        if todo.unit != SMALL and (todo in fatal or layout.audit(todo.unit).failed.exists()):
            reasons.setdefault(todo.unit, []).append(f"{todo.stage}, batch {todo.batch}: {why}")
        else:
            others[todo] = why
    for unit, stage in waiting.items():
        reasons.setdefault(unit, [f"needs {stage}, which is not done"])
    for unit, lines in reasons.items():
        note_failure(layout.audit(unit), ValueError("; ".join(lines)))
    if others:
        raise ValueError(_listed(others))


def _listed(failed: dict[Todo, str]) -> str:
    return "\n  ".join(f"{todo}: {why}" for todo, why in failed.items())
