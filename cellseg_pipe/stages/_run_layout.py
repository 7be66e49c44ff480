"""The jobs of a run, their files and what each needs: names only, nothing is opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cellseg_pipe.io.headers import Headers
from cellseg_pipe.paths import RunPaths, StagePaths

__all__ = [
    "BUNDLE",
    "PLAN",
    "SMALL",
    "RunLayout",
    "StageLayout",
    "UnitLayout",
    "is_plan",
    "kind_of",
]

# Stages of one job that make a JSON file of their own.
PLANS = ("prepare", "plan", "tiles", "audit")
MANY = 1 << 13  # pairs of jobs that wait for each other, which a workflow manager lists quickly
PLAN, BUNDLE = "plan", "bundle"  # of small images: the stages of the latter are numbered
SMALL = "small images"  # stands for their units: no image has a name with a space


def kind_of(stage: str) -> str:
    """Return the name of the rule that runs a stage.

    Parameters
    ----------
    stage : str
        Its name; that of a level, a class of diameters or a bundle has a number.

    Returns
    -------
    str
        Without the number, or what stands for it.
    """
    return stage.removesuffix("{number}").rstrip("0123456789")


def is_plan(stage: str) -> bool:
    """Return whether a stage is one job that makes a JSON file of its own.

    Parameters
    ----------
    stage : str
        Its name.

    Returns
    -------
    bool
        Otherwise its batches leave marks.
    """
    return kind_of(stage) in PLANS


@dataclass(frozen=True)
class StageLayout:
    """One stage of a unit.

    Parameters
    ----------
    name : str
        Of the stage.
    digest : str
        Hash of all that it depends on.
    n_batches : int
        Its jobs.
    needs : tuple of str
        Stages that must be done before; those of other units as UNIT/STAGE.
    images : tuple of str
        Of a job that segments many small images: the names of their units.
    voxels : int
        What these are together.
    """

    name: str
    digest: str
    n_batches: int
    needs: tuple[str, ...]
    images: tuple[str, ...] = ()
    voxels: int = 0

    @property
    def kind(self) -> str:
        """Name of the rule that runs it: one for all levels."""
        return kind_of(self.name)


@dataclass(frozen=True)
class UnitLayout:
    """The stages of a unit, in order.

    Parameters
    ----------
    name : str
        Of the unit.
    stages : tuple of StageLayout
        Each after those that it needs.
    """

    name: str
    stages: tuple[StageLayout, ...]

    def stage(self, name: str) -> StageLayout:
        """Return one stage.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        StageLayout
            The stage.
        """
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, StageLayout]:
        return {stage.name: stage for stage in self.stages}


@dataclass(frozen=True)
class RunLayout:
    """A run: where it is, and its units.

    Parameters
    ----------
    root : path
        Folder of the results.
    config : path
        The experiment in effect, which jobs read.
    digest : str
        Hash of the experiment and of all that its units depend on.
    units : tuple of UnitLayout
        In the order of the experiment.
    threads : int, optional
        Of a job; None for all that it may use.
    device : str
        Where the network runs.
    disk : {"strict", "relaxed"}
        Whether a run is refused that will not fit.
    audits : dict of str to str
        Of each unit that has results or will, in the order of the experiment: the hash of what it
        depends on. Those of small images are among them, and have no stages.
    failed : dict of str to str
        Why the images of other units could not be opened.
    cluster : str
        Where engine dask has its workers, which then have all batches of a stage in one job of the
        workflow; empty with other engines.
    workers : int, optional
        That are asked for there.
    headers : Headers, optional
        What the images say of themselves, to be kept.
    """

    root: Path
    config: Path
    digest: str
    units: tuple[UnitLayout, ...]
    threads: int | None = None
    device: str = "auto"
    disk: str = "strict"
    audits: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    cluster: str = ""
    workers: int | None = None
    headers: Headers | None = field(default=None, compare=False, repr=False)

    @property
    def paths(self) -> RunPaths:
        """All files of the run."""
        return RunPaths(self.root)

    @property
    def file(self) -> Path:
        """Where this is written down."""
        return self.config.with_name(f"{self.config.stem.replace('config-', 'layout-', 1)}.json")

    @property
    def marker(self) -> Path:
        """What says that this very run is finished."""
        return self.paths.runs / f"finished-{self.digest}.json"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The units that have jobs of their own."""
        return tuple(unit.name for unit in self.units if unit.name != SMALL)

    @property
    def bundles(self) -> tuple[StageLayout, ...]:
        """The jobs that segment many small images each."""
        small = [unit for unit in self.units if unit.name == SMALL]
        return tuple(stage for unit in small for stage in unit.stages if stage.name != PLAN)

    @property
    def ends(self) -> list[str]:
        """The files that say that all units are finished, seen from the run's folder."""
        files = [self.outputs(name, "audit") for name in self.names]
        files += [self.outputs(SMALL, stage.name) for stage in self.bundles]
        return [name for one in files for name in one]

    def audit(self, name: str) -> StagePaths:
        """Return the files of the last stage of a unit, a small image's too.

        Parameters
        ----------
        name : str
            Of the unit.

        Returns
        -------
        StagePaths
            Its plan is what was found.
        """
        return self.paths.unit(name).stage("audit", self.audits[name])

    def unit(self, name: str) -> UnitLayout:
        """Return a unit.

        Parameters
        ----------
        name : str
            Of the unit, or of its folder.

        Returns
        -------
        UnitLayout
            The unit.
        """
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, UnitLayout]:
        folders = {self.paths.unit(unit.name).root.name: unit for unit in self.units}
        return folders | {unit.name: unit for unit in self.units}

    def files(self, unit: str, stage: str) -> StagePaths:
        """Return the files of a stage.

        Parameters
        ----------
        unit, stage : str
            Their names.

        Returns
        -------
        StagePaths
            Of this run.
        """
        known = self.unit(unit)
        return self.paths.unit(known.name).stage(stage, known.stage(stage).digest)

    def outputs(self, unit: str, stage: str) -> list[str]:
        """Return the files that say that a stage is done, seen from the run's folder.

        Parameters
        ----------
        unit, stage : str
            Their names.

        Returns
        -------
        list of str
            One per job.
        """
        files = self.files(unit, stage)
        if is_plan(stage):
            return [self.inside(files.plan)]
        n_batches = self.unit(unit).stage(stage).n_batches
        return [self.inside(files.done(batch)) for batch in range(n_batches)]

    def inputs(self, unit: str, stage: str) -> list[str]:
        """Return the files that must be there before a stage begins.

        Parameters
        ----------
        unit, stage : str
            Their names.

        Returns
        -------
        list of str
            Outputs of other stages, or what stands for them.
        """
        known = self.unit(unit).stage(stage)
        names = []
        for need in known.needs:
            other, _, needed = need.rpartition("/")
            outputs = self.outputs(other or unit, needed)
            spread = bool(self.cluster) and len(outputs) > 1
            many = spread or known.n_batches * len(outputs) > MANY
            names += [self.gate(other or unit, needed)] if many else outputs
        return names

    def gate(self, unit: str, stage: str) -> str:
        """Return the file that stands for all outputs of a stage, where many jobs wait for many.

        Parameters
        ----------
        unit, stage : str
            Their names.

        Returns
        -------
        str
            Seen from the run's folder.
        """
        return self.inside(self.files(unit, stage).gate)

    def pattern(self, stage: str) -> str:
        """Return the name of a job's output for all units, seen from the run's folder.

        Parameters
        ----------
        stage : str
            Its name, which may be a wildcard itself.

        Returns
        -------
        str
            With `{unit}`, `{digest}` and, where there are several jobs, `{batch}`.
        """
        folder = f"{self.inside(self.paths.runs)}/{{unit}}/{stage}-{{digest}}"
        return f"{folder}/{stage}.json" if is_plan(stage) else f"{folder}/done/{{batch}}.json"

    def inside(self, path: Path) -> str:
        """Return the name of a file as seen from the run's folder: a run may be moved.

        Parameters
        ----------
        path : path
            In the run's folder.

        Returns
        -------
        str
            Without that folder.
        """
        return path.relative_to(self.root).as_posix()

    def jobs(self) -> Iterator[tuple[str, StageLayout]]:
        """Yield unit and stage of all stages of all units."""
        for unit in self.units:
            for stage in unit.stages:
                yield unit.name, stage
