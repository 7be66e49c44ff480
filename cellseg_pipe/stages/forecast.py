"""What a run will take: tiles, jobs, memory, hours, disk and files, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cellseg_pipe.config import load_experiment, units_of, with_images
from cellseg_pipe.cost import StageCost
from cellseg_pipe.stages import bundle
from cellseg_pipe.stages._bundle_costs import bundle_costs
from cellseg_pipe.stages._run_layout import BUNDLE, SMALL
from cellseg_pipe.stages.layout import keep, lay_out
from cellseg_pipe.stages.opened import open_unit
from cellseg_pipe.stages.room import Room, left_to_do, room_in
from cellseg_pipe.stages.unit_costs import costs_of

__all__ = ["Forecast", "run"]


@dataclass(frozen=True)
class Forecast:
    """What a run takes, and whether it fits.

    Parameters
    ----------
    stages : tuple of (str, StageCost)
        Name of the unit, and what each of its stages takes.
    jobs : int
        That run side by side.
    room : Room
        What may be written where the results go.
    left : (int, int)
        Bytes and files that are not there yet.
    """

    stages: tuple[tuple[str, StageCost], ...]
    jobs: int
    room: Room
    left: tuple[int, int]

    @property
    def disk_bytes(self) -> int:
        """Bytes of all stages."""
        return sum(cost.disk_bytes for _, cost in self.stages)

    @property
    def n_files(self) -> int:
        """Files of all stages."""
        return sum(cost.n_files for _, cost in self.stages)

    @property
    def fits(self) -> bool:
        """Whether disk and files suffice; memory is refused by the plan itself."""
        return not self.room.lacks(*self.left)

    @property
    def text(self) -> str:
        """A line per stage, and the sums."""
        head = f"{'unit':16} {'stage':8} {'tiles':>8} {'jobs':>6} {'memory':>9} {'time':>9}"
        lines = [f"{head} {'disk':>9} {'files':>8}"]
        lines += [
            f"{unit[:16]:16} {s.stage:8} {s.n_tiles:>8} {s.n_jobs:>6}"
            f" {s.memory_bytes / 1e9:>6.2f} GB {_time(s.seconds):>9}"
            f" {s.disk_bytes / 1e9:>6.2f} GB {s.n_files:>8}"
            for unit, s in self.stages
        ]
        total = sum(cost.seconds for _, cost in self.stages)
        lines.append(
            f"together {_time(total)} of one job at a time, about {_time(total / self.jobs)} with"
            f" {self.jobs}; {self.disk_bytes / 1e9:.2f} GB in {self.n_files} files,"
            f" {self.left[0] / 1e9:.2f} GB of them to be written where"
            f" {self.room.free_bytes / 1e9:.0f} GB are free"
        )
        if not self.fits:
            lacks = self.room.lacks(*self.left)
            lines.append(
                f"this does not fit: {lacks}. Free that much (cellseg clean lists what can go), or"
                " name another output.dir"
            )
        return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, length, limit in (("s", 1, 90), ("min", 60, 5400)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def run(config: Path | str, *, jobs: int = 1, calibrate: bool = False) -> Forecast:
    """Plan all units of an experiment and say what they will take.

    Parameters
    ----------
    config : path
        The experiment file.
    jobs : int
        That run side by side.
    calibrate : bool
        Try a few tiles of each unit, and predict from what they took.

    Returns
    -------
    Forecast
        The plans stay: a run begins with them.
    """
    experiment = with_images(load_experiment(config))
    layout, text = lay_out(experiment)
    keep(layout, text, begun=False)
    stages, large = [], set(layout.names)
    for unit in (each for each in units_of(experiment) if each.name in large):
        opened = open_unit(experiment, unit)
        stages += [(opened.name, cost) for cost in costs_of(opened, calibrate=calibrate)]
    if layout.bundles:
        bundle.plan(experiment, layout)
        stages += [(SMALL, _summed(bundle_costs(layout)))]
    return Forecast(tuple(stages), jobs, room_in(experiment.output.dir), left_to_do(layout))


def _summed(costs: Mapping[str, StageCost]) -> StageCost:
    """Return what jobs of one kind take together; of memory what each of them takes."""
    parts = list(costs.values())
    return StageCost(
        BUNDLE,
        sum(part.n_tiles for part in parts),
        len(parts),
        max(part.memory_bytes for part in parts),
        sum(part.seconds for part in parts),
        sum(part.disk_bytes for part in parts),
        sum(part.n_files for part in parts),
    )
