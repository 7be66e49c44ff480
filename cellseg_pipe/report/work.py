"""What the page says of the work: time, memory and throughput of each stage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cellseg_pipe.report.charts import Figure, bars
from cellseg_pipe.report.html import Section, numbers, short, table
from cellseg_pipe.report.source import Run
from cellseg_pipe.report.timing import StageTime, stage_times

__all__ = ["duration", "work"]


def work(run: Run) -> tuple[Section, list[Figure]] | None:
    """Return what the stages took beside what was predicted.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    Section
        Of the page.
    list of Figure
        Its charts. None where nothing is known.
    """
    times = stage_times(run)
    if not times:
        return None
    figures = [
        Figure("stage-times", "Time of all jobs", bars(_pairs(times, "seconds", 1.0), unit="s"),
               _data(times), "Solid: what it took. Pale: what was predicted."),
    ]  # fmt: skip
    memory = {k: v for k, v in _pairs(times, "bytes", 1e9).items() if math.isfinite(v[0])}
    if memory:
        said = "Largest job. Solid: what it took. Pale: what was predicted."
        figures.append(
            Figure("stage-memory", "Memory", bars(memory, unit="GB"), _data(times), said)
        )
    body = numbers(_totals(run, times))
    charts = "".join(figure.html for figure in figures)
    alone = len(figures) == 1
    body += f'<div class="pair">{charts}{_table(times) if alone else ""}</div>'
    if not alone:
        body += f"<details><summary>All stages as a table</summary>{_table(times)}</details>"
    return Section("Work", "Time and memory", body), figures


def _pairs(times: list[StageTime], what: str, per: float) -> dict[str, tuple[float, float]]:
    """Return what was and what was predicted, by stage."""
    actual = {"seconds": "seconds", "bytes": "memory_bytes"}[what]
    return {t.stage: (getattr(t, actual) / per, getattr(t, f"planned_{what}") / per) for t in times}


def _totals(run: Run, times: list[StageTime]) -> dict[str, tuple[str, str]]:
    seconds = sum(t.seconds for t in times if math.isfinite(t.seconds))
    voxels = sum(math.prod(unit.shape) for unit in run.units)
    rows = {
        "Time of all jobs": duration(seconds),
        "Throughput": (short(voxels / 1e6 / max(seconds, 1e-9)), "million px a second"),
        "Cells a second": (short(run.summary["n_cells"] / max(seconds, 1e-9)), ""),
        "Jobs": (short(sum(t.n_jobs for t in times)), ""),
    }
    cost = run.summary.get("resources", {}).get("cost")
    if cost is not None:
        rows["Cost"] = (short(cost["total"]), cost["currency"])
    most = [t.memory_bytes for t in times if math.isfinite(t.memory_bytes)]
    if most:
        rows["Largest job"] = (short(max(most) / 1e9), "GB")
    return rows


def duration(seconds: float) -> tuple[str, str]:
    """Return a time in the unit that suits it.

    Parameters
    ----------
    seconds : float
        The time.

    Returns
    -------
    str
        The number.
    str
        Its unit.
    """
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return short(seconds / size, 2), unit
    return short(seconds, 2), "s"


def _data(times: list[StageTime]) -> dict[str, Any]:
    names = ("n_jobs", "seconds", "cpu_seconds", "memory_bytes", "planned_seconds", "planned_bytes")
    columns: dict[str, Any] = {"stage": np.array([t.stage for t in times], object)}
    return columns | {name: np.array([getattr(t, name) for t in times], float) for name in names}


def _table(times: list[StageTime]) -> str:
    rows: dict[str, list[Any]] = {
        "Stage": [t.stage for t in times],
        "Jobs": [t.n_jobs for t in times],
        "Time, s": [t.seconds for t in times],
        "Predicted, s": [t.planned_seconds for t in times],
        "CPU, s": [t.cpu_seconds for t in times],
        "Memory, GB": [t.memory_bytes / 1e9 for t in times],
        "Predicted, GB": [t.planned_bytes / 1e9 for t in times],
    }
    known = {k: v for k, v in rows.items() if any(isinstance(x, str) or x == x for x in v)}
    return table(list(known), zip(*known.values(), strict=True))
