"""How far a run is, from its own records: nothing is asked of the program that runs it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cellseg_pipe.ledger import Progress, progress
from cellseg_pipe.stages._run_layout import BUNDLE, SMALL, RunLayout, StageLayout, is_plan
from cellseg_pipe.stages.layout import read_layout

__all__ = ["Status", "StageStatus", "read_status"]


@dataclass(frozen=True)
class StageStatus:
    """How far one stage of a unit is.

    Parameters
    ----------
    unit, stage : str
        Which one.
    n_jobs, n_done : int
        Its jobs.
    n_tiles : int
        Tiles that are done, those of jobs that still run too.
    per_s : float
        Tiles a second over the last minutes.
    active : tuple of str
        Who works on it.
    """

    unit: str
    stage: str
    n_jobs: int
    n_done: int
    n_tiles: int
    per_s: float
    active: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Parameters
    ----------
    root : path
        Folder of the results.
    stages : tuple of StageStatus
        In order.
    complete : bool
        Whether the run is finished.
    dashboards : tuple of str
        Where the workers of dask are shown, and how to see that from another machine.
    """

    root: Path
    stages: tuple[StageStatus, ...]
    complete: bool
    dashboards: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Jobs that are done, of all."""
        n = sum(stage.n_jobs for stage in self.stages)
        return sum(stage.n_done for stage in self.stages) / max(n, 1)

    @property
    def text(self) -> str:
        """A line per stage, and one for the whole."""
        lines = [f"{'unit':20} {'stage':10} {'jobs':>11} {'tiles':>8}  at work"]
        for s in self.stages:
            rate = f" {s.per_s:.2g}/s" if s.per_s else ""
            lines.append(
                f"{s.unit[:20]:20} {s.stage:10} {s.n_done:>5}/{s.n_jobs:<5} {s.n_tiles:>8}  "
                f"{', '.join(s.active)}{rate}".rstrip()
            )
        state = "finished" if self.complete else f"{self.share:.0%} of the jobs done"
        return "\n".join([*lines, *self.dashboards, f"{self.root}: {state}"])


def read_status(root: Path | str) -> Status:
    """Look at a run.

    Parameters
    ----------
    root : path
        Folder of the results.

    Returns
    -------
    Status
        As it is now.
    """
    layout = read_layout(root)
    small = {stage.name for stage in layout.bundles}
    large = [job for job in layout.jobs() if job[0] != SMALL or job[1].name not in small]
    stages = tuple(_stage(layout, unit, stage) for unit, stage in large)
    if layout.bundles:
        stages += (_summed([_stage(layout, SMALL, stage) for stage in layout.bundles]),)
    complete = layout.marker.exists()
    shown = () if complete else tuple(_dashboards(layout.paths.dashboards))
    return Status(layout.root, stages, complete, shown)


def _dashboards(folder: Path) -> Iterator[str]:
    """Yield where work is shown: files that workers' owners keep as long as they live."""
    for file in sorted(folder.glob("*.json")):
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            said = json.loads(file.read_text())
            yield f"dashboard: {said['address']} (from another machine first: {said['tunnel']})"


def _summed(parts: list[StageStatus]) -> StageStatus:
    """Return the jobs that segment many small images each as one stage, an image as a tile."""
    return StageStatus(
        SMALL,
        BUNDLE,
        sum(part.n_jobs for part in parts),
        sum(part.n_done for part in parts),
        sum(part.n_tiles for part in parts),
        sum(part.per_s for part in parts),
        tuple(holder for part in parts for holder in part.active),
    )


def _stage(layout: RunLayout, unit: str, stage: StageLayout) -> StageStatus:
    files = layout.files(unit, stage.name)
    if is_plan(stage.name):
        done = int(files.plan.exists())
        return StageStatus(unit, stage.name, 1, done, 0, 0.0, ())
    found: Progress = progress(files, stage.n_batches, 0)
    active = tuple(f"{one.holder}" for one in found.active if one.alive is not False)
    return StageStatus(
        unit,
        stage.name,
        stage.n_batches,
        found.batches_done,
        found.tiles_done,
        found.tiles_per_s,
        active,
    )
