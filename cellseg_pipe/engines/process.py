"""Runs all jobs of an experiment one after the other in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from cellseg_pipe.config import Experiment
from cellseg_pipe.ledger import RunLock
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.stages.evaluate_run import score
from cellseg_pipe.stages.jobs import Job, finish, open_jobs, run_job
from cellseg_pipe.stages.layout import layout_of
from cellseg_pipe.stages.room import check_room
from cellseg_pipe.stages.unit import UnitRun, unit_runs

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(
    experiment: Experiment,
    *,
    threads: int | None = None,
    on_job: Callable[[UnitRun, Job], None] | None = None,
) -> RunPaths:
    """Segment all images of an experiment; what an earlier run has done is not done again.

    Parameters
    ----------
    experiment : Experiment
        What is to be done.
    threads : int, optional
        Threads of each job.
    on_job : callable, optional
        Is told of each job before it runs.

    Returns
    -------
    RunPaths
        Where the results are.
    """
    paths = RunPaths(Path(experiment.output.dir))
    paths.root.mkdir(parents=True, exist_ok=True)
    with RunLock(paths.run_lock, job="cellseg run"):
        layout = layout_of(experiment)
        check_room(layout)
        for unit, job in open_jobs(unit_runs(experiment)):
            if on_job:
                on_job(unit, job)
            run_job(unit, job.stage, batch=job.batch, threads=threads)
        finish(layout.config)
        score(experiment, layout)
    return paths
