"""Runs all jobs of an experiment one after the other in this process."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable
from pathlib import Path

from cellseg_pipe.config import Experiment, Unit, units_of, with_images
from cellseg_pipe.engines.stop import idle
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.stages._run_layout import RunLayout
from cellseg_pipe.stages.bundle import note_failure
from cellseg_pipe.stages.evaluate_run import score
from cellseg_pipe.stages.jobs import Job, open_jobs, run_job
from cellseg_pipe.stages.layout import forget_failures, layout_of
from cellseg_pipe.stages.named_jobs import bundle_jobs, finish, run_bundle
from cellseg_pipe.stages.on_finish import told
from cellseg_pipe.stages.opened import FAILURES, is_of_image, open_unit
from cellseg_pipe.stages.room import check_room
from cellseg_pipe.stages.staged import together
from cellseg_pipe.stages.unit import UnitRun

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
    # Whoever is told when it ends may use the folder: by then nobody holds it.
    with contextlib.ExitStack() as at_end, idle(paths.root, job="cellseg run"):
        layout = layout_of(experiment)
        check_room(layout)
        forget_failures(layout)
        at_end.enter_context(told(experiment.on_finish, layout))
        found, large = with_images(experiment), set(layout.names)
        wanted = (unit for unit in units_of(found) if unit.name in large)
        for _, of_image in itertools.groupby(wanted, key=lambda unit: unit.image.name):
            for several in together(found, list(of_image)):
                _run_units(layout, found, several, on_job=on_job, threads=threads)
        for job in bundle_jobs(layout):
            if not job.output.exists():
                run_bundle(found, layout, job.stage, threads=threads)
        finish(layout.config)
        score(experiment, layout)
    return paths


def _run_units(
    layout: RunLayout,
    experiment: Experiment,
    several: list[Unit],
    *,
    on_job: Callable[[UnitRun, Job], None] | None,
    threads: int | None,
) -> None:
    """Run the jobs of units that need each other; where there are more, they fail alone."""
    try:
        for unit, job in open_jobs([open_unit(experiment, unit) for unit in several]):
            if on_job:
                on_job(unit, job)
            run_job(unit, job.stage, batch=job.batch, threads=threads)
    except FAILURES as error:
        if len(several) == len(layout.audits) or not is_of_image(error):
            raise
        for paths in (layout.audit(each.name) for each in several):
            if not paths.plan.exists():
                note_failure(paths, error)
