"""The jobs of a run as a workflow manager needs them: names, files, what needs what. No pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cellseg_pipe.config import Experiment, dump, experiment_of, with_images
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.paths import RunPaths, StagePaths

__all__ = ["RunLayout", "StageLayout", "UnitLayout", "layout_of", "read_layout"]

PLANS = (
    "prepare",
    "plan",
    "tiles",
    "audit",
)  # stages of one job that make a JSON file of their own


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
        Stages that must be done before.
    """

    name: str
    digest: str
    n_batches: int
    needs: tuple[str, ...]


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
        return next(stage for stage in self.stages if stage.name == name)


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
    """

    root: Path
    config: Path
    digest: str
    units: tuple[UnitLayout, ...]

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
        return next(u for u in self.units if name in (u.name, self.paths.unit(u.name).root.name))

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
        """Return the files that say that a stage is done.

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
        if stage in PLANS:
            return [str(files.plan)]
        n_batches = self.unit(unit).stage(stage).n_batches
        return [str(files.done(batch)) for batch in range(n_batches)]

    def inputs(self, unit: str, stage: str) -> list[str]:
        """Return the files that must be there before a stage begins.

        Parameters
        ----------
        unit, stage : str
            Their names.

        Returns
        -------
        list of str
            Outputs of other stages.
        """
        needs = self.unit(unit).stage(stage).needs
        return [name for need in needs for name in self.outputs(unit, need)]

    def pattern(self, stage: str) -> str:
        """Return the name of a job's output for all units, with wildcards.

        Parameters
        ----------
        stage : str
            Its name, which may be a wildcard itself.

        Returns
        -------
        str
            With `{unit}`, `{digest}` and, where there are several jobs, `{batch}`.
        """
        folder = f"{self.paths.runs}/{{unit}}/{stage}-{{digest}}"
        return f"{folder}/{stage}.json" if stage in PLANS else f"{folder}/done/{{batch}}.json"

    def jobs(self) -> Iterator[tuple[str, StageLayout]]:
        """Yield unit and stage of all stages of all units."""
        for unit in self.units:
            for stage in unit.stages:
                yield unit.name, stage


def layout_of(
    experiment: Experiment | Mapping[str, Any], *, source: str | None = None
) -> RunLayout:
    """Open all images of an experiment, and write down what jobs there are.

    Parameters
    ----------
    experiment : Experiment or mapping
        What is to be done.
    source : str, optional
        The YAML file that a mapping was read from.

    Returns
    -------
    RunLayout
        Kept in the run's folder, so that its jobs need not open the images again.
    """
    from cellseg_pipe.stages.unit import unit_runs

    if not isinstance(experiment, Experiment):
        experiment = experiment_of(experiment, source=source)
    experiment = with_images(experiment)
    paths, text = RunPaths(experiment.output.dir), dump(experiment)
    name = _digest(text)
    units = tuple(UnitLayout(unit.name, tuple(_stages(unit))) for unit in unit_runs(experiment))
    digest = _digest(text, [asdict(unit) for unit in units])
    layout = RunLayout(paths.root, paths.runs / f"config-{name}.yaml", digest, units)
    _keep(layout.config, text.encode())
    _keep(layout.file, json.dumps(_plain(layout), indent=1).encode())
    return layout


def _stages(unit: Any) -> Iterator[StageLayout]:
    """Yield the stages of a unit with what each needs."""
    needs = {
        **({"prepare": ()} if unit.needs_copy else {}),
        "plan": ("prepare",) if unit.needs_copy else (),
        "predict": ("plan",),
        "tiles": ("plan",),
        "masks": ("tiles", "predict"),
        "link": ("masks",),
        "number": ("masks", "link") if unit.mode == "planes" else ("masks",),
        "paint": ("number",),
        "measure": ("paint",),
        "level1": ("paint",),
    }
    top = f"level{unit.n_levels - 1}" if unit.n_levels > 1 else "paint"
    for level in range(2, unit.n_levels):
        needs[f"level{level}"] = (f"level{level - 1}",)
    if unit.n_levels == 1:
        del needs["level1"]
    if unit.mode != "planes":
        del needs["link"]
    needs["audit"] = ("measure", top)
    as_many = {"link": "masks", "measure": "masks"}
    for stage, before in needs.items():
        n_batches = unit.batches.get(as_many.get(stage, stage), 1)
        yield StageLayout(stage, unit.stage(stage).digest, n_batches, before)


def read_layout(path: Path | str) -> RunLayout:
    """Read the layout of a run that was begun.

    Parameters
    ----------
    path : path
        Folder of the results, whose newest layout is meant, or the file of a layout.

    Returns
    -------
    RunLayout
        As it was written.
    """
    path = Path(path)
    if path.is_dir():
        known = RunPaths(path).runs.glob("layout-*.json")
        newest = max(known, key=lambda file: file.stat().st_mtime, default=None)
        if newest is None:
            raise FileNotFoundError(f"{path} holds no run: there is no {path}/runs/layout-*.json.")
        path = newest
    stored = json.loads(path.read_text())
    units = tuple(
        UnitLayout(
            unit["name"],
            tuple(StageLayout(**{**s, "needs": tuple(s["needs"])}) for s in unit["stages"]),
        )
        for unit in stored["units"]
    )
    return RunLayout(Path(stored["root"]), Path(stored["config"]), stored["digest"], units)


def _plain(layout: RunLayout) -> dict[str, Any]:
    return {
        "root": str(layout.root),
        "config": str(layout.config),
        "digest": layout.digest,
        "units": [asdict(unit) for unit in layout.units],
    }


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _keep(path: Path, content: bytes) -> None:
    """Write a file unless it is there with this content: its age must not change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content)
