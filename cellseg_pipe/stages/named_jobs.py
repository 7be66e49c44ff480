"""Runs one job that is named by its experiment file, its unit and its stage, and ends a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cellseg_pipe.config import Experiment, load_experiment, units
from cellseg_pipe.paths import safe_name
from cellseg_pipe.stages import bundle, room, summary
from cellseg_pipe.stages._run_layout import BUNDLE, PLAN, SMALL, RunLayout
from cellseg_pipe.stages.jobs import Job, run_job
from cellseg_pipe.stages.layout import read_layout
from cellseg_pipe.stages.opened import FAILURES, is_of_image, open_unit
from cellseg_pipe.stages.took import Usage, recorded

__all__ = ["bundle_jobs", "finish", "layout_beside", "run_bundle", "run_one"]

NETWORK = ("plan", "predict")  # with a number those of a class of diameters
DIGITS = "0123456789"


def run_one(
    config: Path | str,
    unit: str,
    stage: str,
    *,
    batch: int = 0,
    threads: int | None = None,
    since: Usage | None = None,
) -> None:
    """Run one job of an experiment file.

    Parameters
    ----------
    config : path
        The experiment in effect.
    unit : str
        Name of the unit, or of its folder.
    stage : str
        Name of the stage.
    batch : int
        Which batch.
    threads : int, optional
        Threads to use.
    since : Usage, optional
        From when on it is measured; by default from now.
    """
    experiment = load_experiment(config)
    if threads is not None and (stage.rstrip(DIGITS) in NETWORK or stage.startswith(BUNDLE)):
        import torch  # here: other jobs do without, and begin sooner

        torch.set_num_threads(threads)
    if unit in (SMALL, safe_name(SMALL)):
        layout = layout_beside(config)
        run_bundle(experiment, layout, stage, threads=threads, since=since)
        return
    names = {safe_name(each.name): each.name for each in units(experiment)}
    name = names.get(unit, unit)
    try:
        opened = open_unit(experiment, name)
        run_job(opened, stage, batch=batch, threads=threads, since=since)
    except FAILURES as error:
        layout = layout_beside(config)
        if is_of_image(error) and name in layout.audits:
            bundle.note_failure(layout.audit(name), error)
        raise


def bundle_jobs(layout: RunLayout) -> Iterator[Job]:
    """Yield the jobs that segment small images; each needs the first.

    Parameters
    ----------
    layout : RunLayout
        The run.

    Yields
    ------
    Job
        None where there are no such images.
    """
    if layout.bundles:
        yield Job(PLAN, 0, layout.files(SMALL, PLAN).plan)
    for stage in layout.bundles:
        yield Job(stage.name, 0, layout.files(SMALL, stage.name).done(0))


def run_bundle(
    experiment: Experiment,
    layout: RunLayout,
    stage: str,
    *,
    threads: int | None = None,
    since: Usage | None = None,
) -> None:
    """Run one of the jobs that segment small images, and write down what it took.

    Parameters
    ----------
    experiment : Experiment
        What is done.
    layout : RunLayout
        The run.
    stage : str
        From `bundle_jobs`.
    threads : int, optional
        Threads to use.
    since : Usage, optional
        From when on it is measured; by default from now.
    """
    with recorded(layout.files(SMALL, stage), 0, threads=threads, since=since):
        if stage == PLAN:
            bundle.plan(experiment, layout)
            room.check_room(layout)
        else:
            bundle.run(experiment, layout, int(stage.removeprefix(BUNDLE)), threads=threads)


def layout_beside(config: Path | str) -> RunLayout:
    """Return the layout that was written with an experiment.

    Parameters
    ----------
    config : path
        The experiment in effect.

    Returns
    -------
    RunLayout
        The run.
    """
    return read_layout(RunLayout(Path(), Path(config), "", ()).file)


def finish(config: Path | str) -> None:
    """Write the summary of a run whose units are all audited, and what says that it is finished.

    Parameters
    ----------
    config : path
        The experiment in effect.
    """
    summary.finish(layout_beside(config), Path(config).read_text())
