"""How long the stages of a run took and how much memory, as logs and ledgers tell it."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.ledger import NotDone
from cellseg_pipe.ledger._claims import read_holder
from cellseg_pipe.ledger._index import load_index
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.report.source import Run, UnitSource

__all__ = ["StageTime", "seconds_by_tile", "stage_times"]

LOG = re.compile(r"([a-z]+\d*)-([0-9a-f]{12})(?:\.\d+)?\.tsv")


@dataclass
class StageTime:
    """What a stage took, of all its jobs.

    Parameters
    ----------
    stage : str
        Its name.
    n_jobs : int
        Whose time is known.
    seconds, cpu_seconds : float
        Sums; nan where nothing is known.
    memory_bytes : float
        Of the largest job.
    planned_seconds, planned_bytes : float
        What was predicted.
    """

    stage: str
    n_jobs: int = 0
    seconds: float = math.nan
    cpu_seconds: float = math.nan
    memory_bytes: float = math.nan
    planned_seconds: float = math.nan
    planned_bytes: float = math.nan


def stage_times(run: Run) -> list[StageTime]:
    """Return what each stage took, over all units.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    list of StageTime
        In the order of the stages: of the jobs that Snakemake measured, else from claims to done.
    """
    found: dict[str, StageTime] = {}
    layout = run.layout
    if layout is None:
        return []
    for name, stage in layout.jobs():
        known = found.setdefault(stage.kind, StageTime(stage.kind))
        files = layout.files(name, stage.name)
        folder = run.paths.logs / files.unit.root.name
        measured = list(_benchmarks(folder, stage.name, stage.digest))
        for seconds, cpu, memory in measured or _claimed(files, stage.n_batches):
            known.n_jobs += 1
            known.seconds = _plus(known.seconds, seconds)
            known.cpu_seconds = _plus(known.cpu_seconds, cpu)
            known.memory_bytes = np.fmax(known.memory_bytes, memory)
    for unit in run.units:
        for cost in unit.planned.get("tiles", {}).get("predicted", ()):
            own = found.get(cost["stage"].rstrip("0123456789"))
            if own is not None and unit.planned is run.plan.get(unit.name):
                own.planned_seconds = _plus(own.planned_seconds, cost["seconds"])
                own.planned_bytes = np.fmax(own.planned_bytes, cost["memory_bytes"])
    return [one for one in found.values() if one.n_jobs]


def _plus(one: float, other: float) -> float:
    if math.isnan(one):
        return other
    return one if math.isnan(other) else one + other


def _benchmarks(folder: Path, stage: str, digest: str) -> Iterator[tuple[float, float, float]]:
    """Yield seconds, CPU seconds and bytes of each job that Snakemake measured."""
    for path in sorted(folder.glob(f"{stage}-{digest}*.tsv")):
        if LOG.fullmatch(path.name) is None:
            continue
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                memory = _float(row.get("max_rss")) * 2**20
                yield _float(row.get("s")), _float(row.get("cpu_time")), memory


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:  # a job that was too short to be looked at
        return math.nan


def _claimed(files: StagePaths, n_batches: int) -> Iterator[tuple[float, float, float]]:
    """Yield the seconds from the last claim of a job to its end."""
    for batch, tokens in sorted(files.attempts().items()):
        done = files.done(batch)
        if batch < n_batches and done.exists():
            holder = read_holder(files.claim(batch, tokens[-1]))
            if holder is not None:
                yield max(done.stat().st_mtime - holder.since, 0.0), math.nan, math.nan


def seconds_by_tile(unit: UnitSource) -> NDArray[np.float64] | None:
    """Return how long the masks of each tile took, over the plane.

    Parameters
    ----------
    unit : UnitSource
        The unit.

    Returns
    -------
    float64 array [y, x] or None
        Sums over planes, a value per column of tiles; None where that is no longer known.
    """
    files, tiling = unit.files("masks"), unit.tiling
    if files is None or tiling is None:
        return None
    counts = tiling.tiles.cores.counts
    seconds = np.full(math.prod(counts), np.nan)
    try:
        for batch in range(tiling.n_masks):
            for key, value in _tile_seconds(files, batch):
                seconds[key] = value
    except (NotDone, FileNotFoundError):
        return None
    grid = seconds.reshape(-1, *counts[-2:])
    known = np.isfinite(grid).any(axis=0)
    return np.where(known, np.nansum(grid, axis=0), np.nan)


def _tile_seconds(files: StagePaths, batch: int) -> Iterator[tuple[int, float]]:
    index = load_index(files, batch)
    for number, segment in enumerate(index.segments):
        rows: Any = np.sort(index.rows[index.rows["segment"] == number], order="time")
        token = int(Path(segment.ledger).stem.split(".")[1])
        holder = read_holder(files.claim(batch, token))
        before = rows["time"][0] if holder is None else holder.since
        for key, time in zip(rows["key"].tolist(), rows["time"].tolist(), strict=True):
            yield key, max(time - before, 0.0)
            before = time
