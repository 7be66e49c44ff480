"""The jobs of a unit, in an order in which they can run, and what runs one of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cellseg_pipe.stages import (
    audit,
    chain,
    classes,
    made,
    masks,
    measure,
    number,
    paint,
    plan,
    predict,
    prepare,
    qc,
    relate,
    restored_store,
    room,
    sift,
)
from cellseg_pipe.stages._past_failures import past_failures
from cellseg_pipe.stages.layout import read_layout
from cellseg_pipe.stages.took import Usage, recorded
from cellseg_pipe.stages.unit import UnitRun

__all__ = [
    "Job",
    "all_jobs",
    "do_job",
    "jobs_of",
    "open_jobs",
    "run_job",
]

LEVEL = "level"
# What comes when all units of an image are painted and measured, and in which order.
LATER = {"overlap": 0, "match": 0, "compartments": 0, "judge": 1, "sift": 1, "audit": 2}


@dataclass(frozen=True)
class Job:
    """One batch of one stage of a unit.

    Parameters
    ----------
    stage : str
        Name of the stage.
    batch : int
        Which batch.
    output : path
        The file that says it is done.
    """

    stage: str
    batch: int
    output: Path


def jobs_of(unit: UnitRun) -> Iterator[Job]:
    """Yield the jobs of a unit; each needs all those of the stages before it.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Yields
    ------
    Job
        In order.
    """
    if unit.sources:
        yield Job("tiles", 0, unit.stage("tiles").plan)
    else:
        yield from _network_jobs(unit)
    yield from _batches(unit, "paint", unit.batches["paint"])
    yield from _batches(unit, "measure", unit.batches["masks"])
    if unit.experiment.qc.maps:
        yield from _batches(unit, "qc", unit.batches["paint"])
    if unit.saves_restored:
        yield from _batches(unit, "restore", unit.batches["paint"])
        yield from _batches(unit, "shrink", 1)
    for level in range(1, unit.n_levels):
        yield from _batches(unit, f"{LEVEL}{level}", 1)
    if "overlap" in unit.digests:
        yield from _batches(unit, "overlap", unit.batches["paint"])
        yield from _batches(unit, "match", 1)
    if "compartments" in unit.digests:
        yield from _batches(unit, "compartments", unit.batches["masks"])
    if unit.experiment.qc.labels:
        yield from _batches(unit, "judge", 1)
        yield from _batches(unit, "sift", unit.batches["paint"])
    yield Job("audit", 0, unit.stage("audit").plan)


def _network_jobs(unit: UnitRun) -> Iterator[Job]:
    """Yield the jobs that lead from pixels to numbered cells."""
    if unit.needs_copy:
        yield Job("prepare", 0, unit.stage("prepare").plan)
    yield Job("plan", 0, unit.stage("plan").plan)
    for k in range(1, len(unit.parts) + 1):
        yield Job(f"plan{k}", 0, unit.stage(f"plan{k}").plan)
        yield from _tile_jobs(unit, str(k))
        yield from _batches(unit, f"number{k}", 1)
    if unit.parts:
        yield Job("tiles", 0, unit.stage("tiles").plan)
        yield from _batches(unit, "rivals", unit.batches["masks"])
    else:
        yield from _tile_jobs(unit)
    if unit.experiment.stitch.seams == "iou":
        yield from _batches(unit, "seams", unit.batches["masks"])
    yield from _batches(unit, "number", 1)
    if unit.is_chained:
        yield from _batches(unit, "link", unit.batches["masks"])
        yield from _batches(unit, "chain", 1)


def _tile_jobs(unit: UnitRun, number: str = "") -> Iterator[Job]:
    """Yield the jobs that find the cells of tiles, of one class of diameters if it has a number."""
    yield from _batches(unit, f"predict{number}", unit.batches["predict"])
    yield Job(f"tiles{number}", 0, unit.stage(f"tiles{number}").plan)
    yield from _batches(unit, f"masks{number}", unit.batches["masks"])


def all_jobs(of_units: Iterable[UnitRun]) -> Iterator[tuple[UnitRun, Job]]:
    """Yield the jobs of several units; each needs some of those before it.

    Units of one image may need each other's labels: what relates them comes when all of its units
    are painted, and after that what publishes them.

    Parameters
    ----------
    of_units : iterable of UnitRun
        Image by image; of an image are all in memory.

    Yields
    ------
    unit : UnitRun
        Whose job it is.
    job : Job
        In order.
    """
    for _, several in itertools.groupby(of_units, key=lambda unit: unit.unit.image.name):
        found: tuple[list[tuple[UnitRun, Job]], ...] = ([], [], [])
        for unit in several:
            for job in jobs_of(unit):
                if job.stage in LATER:
                    found[LATER[job.stage]].append((unit, job))
                else:
                    yield unit, job
        yield from itertools.chain(*found)


def open_jobs(of_units: Iterable[UnitRun]) -> Iterator[tuple[UnitRun, Job]]:
    """Yield the jobs that are still to do: of finished units none, though their scratch went.

    From a finished unit another one may be made that is not: then its records are needed again.

    Parameters
    ----------
    of_units : iterable of UnitRun
        Of an image.

    Yields
    ------
    unit : UnitRun
        Whose job it is.
    job : Job
        In order.
    """
    several = list(of_units)
    to_do = [unit for unit in several if not unit.stage("audit").plan.exists()]
    open_names = {unit.name for unit in to_do}
    needed = {unit.origin.name for unit in to_do if unit.sources}
    for unit, job in all_jobs(several):
        wanted = unit.name in open_names or (unit.name in needed and _is_record(unit, job))
        if wanted and not job.output.exists():
            yield unit, job


def _is_record(unit: UnitRun, job: Job) -> bool:
    """Return whether a job leads to cells, not to files that users see."""
    return not unit.sources and job.stage in {other.stage for other in _network_jobs(unit)}


def _batches(unit: UnitRun, stage: str, n: int) -> Iterator[Job]:
    for batch in range(n):
        yield Job(stage, batch, unit.stage(stage).done(batch))


def run_job(
    unit: UnitRun,
    stage: str,
    *,
    batch: int,
    threads: int | None = None,
    since: Usage | None = None,
) -> None:
    """Run one job and write down what it took; what is done already is left as it is.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    stage : str
        Name of the stage.
    batch : int
        Which batch.
    threads : int, optional
        Threads to use.
    since : Usage, optional
        From when on it is measured; by default from now.
    """
    work = _work(unit, stage, batch=batch, threads=threads)
    with recorded(unit.stage(stage), batch, threads=threads, since=since):
        past_failures(work, unit.stage(stage), batch)
        if stage == "tiles":  # what will not fit is refused before the long work
            with contextlib.suppress(FileNotFoundError):  # a script's jobs have no run around them
                room.check_room(read_layout(unit.run.root))


def do_job(unit: UnitRun, stage: str, *, batch: int, threads: int | None = None) -> None:
    """Do one job as a part of another one, which writes down what it took.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    stage : str
        Name of the stage.
    batch : int
        Which batch.
    threads : int, optional
        Threads to use.
    """
    work = _work(unit, stage, batch=batch, threads=threads)
    past_failures(work, unit.stage(stage), batch)


def _work(unit: UnitRun, stage: str, *, batch: int, threads: int | None) -> Callable[[], object]:
    """Return what does a job; it refuses a stage that there is not."""
    unit, stage = unit.named(stage)
    at = unit.stage
    runs: dict[str, Callable[[], object]] = {
        "prepare": lambda: prepare.run(unit),
        "plan": lambda: plan.plan_network(unit),
        "predict": lambda: predict.run(
            at("plan"),
            at("predict"),
            batch,
            threads=threads,
            numerics=unit.experiment.resources.numerics,
        ),
        "tiles": lambda: made.plan_tiles(unit),
        "masks": lambda: masks.run(
            at("tiles"), at("predict"), at("masks"), batch=batch, threads=threads
        ),
        "seams": lambda: number.run_seams(at("tiles"), at("masks"), at("seams"), batch=batch),
        "rivals": lambda: classes.run_rivals(unit, batch=batch, threads=threads),
        "number": lambda: _number(unit),
        "link": lambda: chain.run_link(unit, batch=batch),
        "chain": lambda: chain.run(unit),
        "paint": lambda: made.run_paint(unit, batch=batch, threads=threads),
        "measure": lambda: measure.run(unit, batch=batch, threads=threads),
        "qc": lambda: qc.run(unit, batch=batch, threads=threads),
        "restore": lambda: restored_store.run(unit, batch=batch, threads=threads),
        "shrink": lambda: restored_store.run_shrink(unit, threads=threads),
        "judge": lambda: sift.run_judge(unit),
        "sift": lambda: sift.run(unit, batch=batch, threads=threads),
        "overlap": lambda: relate.run_overlap(unit, batch=batch, threads=threads),
        "match": lambda: relate.run_match(unit),
        "compartments": lambda: relate.run_compartments(unit, batch=batch, threads=threads),
        "audit": lambda: audit.run(unit),
    }
    if stage.startswith(LEVEL):
        level = int(stage.removeprefix(LEVEL))
        return lambda: paint.run_level(unit, level=level, threads=threads)
    if stage not in runs:
        raise ValueError(f"there is no stage {stage!r}; stages are {', '.join(runs)}.")
    return runs[stage]


def _number(unit: UnitRun) -> None:
    """Give cells their numbers; where a unit has classes of diameters, those that stay."""
    if unit.parts:
        classes.run_number(unit)
        return
    number.run(
        unit.stage("tiles"),
        unit.stage("masks"),
        unit.stage("number"),
        seams_paths=unit.stage("seams"),
        seam_iou=unit.experiment.stitch.seam_iou,
    )
