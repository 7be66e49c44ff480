"""How long the stages of a run took and how much memory, as its jobs and ledgers tell it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.tables import read_table
from cellseg_pipe.ledger import NotDone
from cellseg_pipe.ledger._claims import read_holder
from cellseg_pipe.ledger._index import load_index
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.report.source import Run, UnitSource

__all__ = ["StageTime", "seconds_by_tile", "stage_times"]


@dataclass
class StageTime:
    """What a stage took, of all its jobs.

    Parameters
    ----------
    stage : str
        Its name.
    n_jobs : int
        That ran.
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
        In the order of the stages, attempts that failed included; none of runs of earlier versions.
    """
    if not run.paths.benchmarks.exists():
        return []
    jobs = read_table(run.paths.benchmarks)
    found: dict[str, StageTime] = {}
    names = [str(name).rstrip("0123456789") for name in jobs["stage"]]
    for kind in dict.fromkeys(names):
        own = {name: column[np.array(names) == kind] for name, column in jobs.items()}
        found[kind] = StageTime(
            kind,
            len({*zip(own["unit"], own["stage"], own["batch"], strict=True)}),
            seconds=float(own["wall_s"].sum()),
            cpu_seconds=float(own["cpu_s"].sum()),
            memory_bytes=float(own["peak_bytes"].max()),
        )
    for unit in run.units:
        for cost in unit.planned.get("tiles", {}).get("predicted", ()):
            known = found.get(cost["stage"].rstrip("0123456789"))
            if known is not None and unit.planned is run.plan.get(unit.name):
                before = 0.0 if math.isnan(known.planned_seconds) else known.planned_seconds
                known.planned_seconds = before + cost["seconds"]
                known.planned_bytes = np.fmax(known.planned_bytes, cost["memory_bytes"])
    return list(found.values())


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
    tiling = unit.tiling
    if tiling is None:
        return None
    fields = tiling.plan.fields
    numbers = [""] if fields is None else [str(k + 1) for k in range(len(fields.diameter_px))]
    stages = [files for number in numbers if (files := unit.files(f"masks{number}")) is not None]
    if not stages:
        return None
    counts = tiling.tiles.cores.counts
    seconds = np.full(math.prod(counts), np.nan)
    try:
        for files, batch in itertools.product(stages, range(tiling.n_masks)):
            for key, value in _tile_seconds(files, batch):
                seconds[key] = np.nansum([seconds[key], value])
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
