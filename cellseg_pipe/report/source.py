"""A finished run as the report sees it: what its files say, opened when it is asked for."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._attributes import level_paths
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.io.result import open_result
from cellseg_pipe.io.shards import read_box
from cellseg_pipe.ledger import Corrupt, NotDone, Records
from cellseg_pipe.paths import RunPaths, StagePaths
from cellseg_pipe.plot import flow_colors
from cellseg_pipe.plot.pictures import fitted, probability
from cellseg_pipe.segmentation.frozen import plan_from_json
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.predict import on_walked_grid
from cellseg_pipe.segmentation.stored import stored_records
from cellseg_pipe.stages._run_layout import RunLayout
from cellseg_pipe.stages.layout import read_layout
from cellseg_pipe.stages.tiling import Tiling, read_tiling

__all__ = ["Run", "UnitSource", "open_run"]

log = logging.getLogger(__name__)

GONE = "the windows of the network are no longer stored (scratch was cleaned)"
NO_WINDOWS = "small images and labels made from others keep no windows of the network"


@dataclass(frozen=True)
class UnitSource:
    """One unit of a finished run.

    Parameters
    ----------
    run : Run
        What it is of.
    name : str
        Of the unit.
    facts : dict
        What `summary.json` says of it.
    """

    run: Run
    name: str
    facts: dict[str, Any]

    @property
    def axes(self) -> str:
        """A letter per axis."""
        return str(self.facts.get("axes") or "zyx"[-len(self.shape) :])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image."""
        return tuple(self.facts["shape"])

    @property
    def spacing_um(self) -> tuple[float, ...] | None:
        """Size of a voxel, along the last axes."""
        said = self.facts.get("spacing_um")
        return None if said is None else tuple(said)

    @property
    def aspect(self) -> float:
        """Height of a plane over its width."""
        spacing = self.spacing_um or (1.0, 1.0)
        return self.shape[-2] * spacing[-2] / (self.shape[-1] * spacing[-1])

    @property
    def qc(self) -> dict[str, Any]:
        """What quality control says."""
        found: dict[str, Any] = self.facts.get("qc") or {}
        return found

    @property
    def cells(self) -> Path:
        """The table of cells."""
        return self.run.folder / self.facts["table"]

    @property
    def planned(self) -> dict[str, Any]:
        """What `plan.json` says of it, or of the unit that its labels are made from."""
        own: dict[str, Any] = self.run.plan.get(self.name) or {}
        made = self.facts.get("made_from")
        if "plan" in own or not made:
            return own
        found: dict[str, Any] = self.run.plan.get(made[0]) or {}
        return found

    def _open(self, level: int) -> OpenImage:
        about = self.planned.get("plan", {}).get("image", {"path": self.facts["image"]})
        known = {"axes": about.get("axes"), "series": about.get("series") or 0}
        return open_image(about["path"], level=level, **known).as_series()

    @cached_property
    def image(self) -> OpenImage | None:
        """The image; None where it cannot be read any more."""
        try:
            image = self._open(0)
        except (OSError, TypeError, ValueError) as error:
            log.warning("%s: %s", self.name, error)
            return None
        return image if image.shape == self.shape else None

    @property
    def coarse_image(self) -> OpenImage | None:
        """The image at the coarsest resolution that its file holds."""
        if self.image is None or self.image.n_levels < 2:
            return self.image
        return self._open(self.image.n_levels - 1)

    @cached_property
    def seen_channels(self) -> list[int]:
        """Channels that the network sees, two at most."""
        plan = self.tiling.plan if self.tiling is not None else self._plan_of_small
        if plan is None:
            return [0]
        picks = [p.index for p in plan.picks if p.kind == "channel" and p.index is not None]
        return list(dict.fromkeys(picks))[:2] or [0]

    @property
    def _plan_of_small(self) -> Plan | None:
        """What was decided of a small image; None where that is no longer known."""
        planned = self.planned.get("tiles", self.planned).get("plan")
        return None if planned is None else plan_from_json(planned)

    def labels(self, box: Box, level: int = 0) -> NDArray[np.uint32]:
        """Return the labels of a box.

        Parameters
        ----------
        box : Box
            In voxels of the level.
        level : int
            Of the pyramid.

        Returns
        -------
        uint32 array [*box]
            Labels.
        """
        store = self.run.folder / self.facts["labels"]
        return read_box(store / level_paths(store)[level], box)

    def level_shape(self, level: int) -> tuple[int, ...]:
        """Return the shape of the labels at a level.

        Parameters
        ----------
        level : int
            Of the pyramid.

        Returns
        -------
        tuple of int
            Along all axes.
        """
        shape = open_result(self.run.folder).labels(self.name, level).shape
        return tuple(int(n) for n in shape)

    @property
    def n_levels(self) -> int:
        """Levels of the labels."""
        return len(level_paths(self.run.folder / self.facts["labels"]))

    @cached_property
    def tiling(self) -> Tiling | None:
        """How its cells were found; None of small images, and where that is no longer known."""
        return self._tiling_of("tiles")

    def _tiling_of(self, stage: str) -> Tiling | None:
        paths = self.files(stage)
        return read_tiling(paths) if paths is not None and paths.plan.exists() else None

    def files(self, stage: str) -> StagePaths | None:
        """Return the files of a stage.

        Parameters
        ----------
        stage : str
            Its name.

        Returns
        -------
        StagePaths or None
            None where there is no such stage.
        """
        layout = self.run.layout
        if layout is None or self.name not in layout.names:
            return None
        known = {known.name for known in layout.unit(self.name).stages}
        return layout.files(self.name, stage) if stage in known else None

    def network(self, box: Box) -> dict[str, NDArray[np.uint8]] | str:
        """Return what the network said of a box of level 0, as pictures of its middle plane.

        Parameters
        ----------
        box : Box
            Of one plane.

        Returns
        -------
        dict of str to uint8 array [y, x, ...] or str
            `flows` and `probability`; or why there are none.
        """
        paths, tiling = self._windows(box)
        if paths is None or tiling is None:
            return NO_WINDOWS
        plan = tiling.plan
        walked = _scaled(box, plan.shape, plan.walk_shape)
        try:
            records = stored_records(Records(paths, tiling.n_predict), plan)
            answer = on_walked_grid(records, plan, walked)
        except (NotDone, Corrupt, FileNotFoundError):
            return GONE
        size = answer.logit.shape[-2:]  # of the first plane, where a box has several
        logit = answer.logit.reshape(-1, *size)[0]
        flow = answer.flow.reshape(len(answer.flow), -1, *size)[:, 0]
        shape = box.shape[-2:]
        pictures = {"flows": flow_colors(flow)[..., :3], "probability": probability(logit)}
        return {name: fitted(picture, shape) for name, picture in pictures.items()}

    def _windows(self, box: Box) -> tuple[StagePaths | None, Tiling | None]:
        """Return the windows that see a box, where parts differ at the diameter of its middle."""
        fields = None if self.tiling is None else self.tiling.plan.fields
        if fields is None:
            return self.files("predict"), self.tiling
        middle = [(a + b) // 2 for a, b in zip(box.start, box.stop, strict=True)]
        number = fields.classes[fields.grid.owner(middle)] + 1
        return self.files(f"predict{number}"), self._tiling_of(f"tiles{number}")


def _scaled(box: Box, shape: tuple[int, ...], other: tuple[int, ...]) -> Box:
    """Return a box on another grid of the same image; not empty."""
    start = [min(a * m // n, m - 1) for a, n, m in zip(box.start, shape, other, strict=True)]
    stop = [-(-b * m // n) for b, n, m in zip(box.stop, shape, other, strict=True)]
    return Box(tuple(start), tuple(max(a + 1, b) for a, b in zip(start, stop, strict=True)))


@dataclass(frozen=True)
class Run:
    """A finished run.

    Parameters
    ----------
    folder : path
        Of the results.
    summary, plan : dict
        Content of `summary.json` and `plan.json`.
    """

    folder: Path
    summary: dict[str, Any]
    plan: dict[str, Any]

    @property
    def paths(self) -> RunPaths:
        """All files of the run."""
        return RunPaths(self.folder)

    @cached_property
    def units(self) -> tuple[UnitSource, ...]:
        """In the order of the experiment."""
        units = self.summary["units"]
        return tuple(UnitSource(self, name, facts) for name, facts in units.items())

    @property
    def failed(self) -> dict[str, str]:
        """Why other units could not be segmented."""
        found: dict[str, str] = self.summary.get("failed") or {}
        return found

    @cached_property
    def layout(self) -> RunLayout | None:
        """Its jobs; None where `runs` was removed."""
        try:
            return dataclasses.replace(read_layout(self.folder), root=self.folder)
        except FileNotFoundError:
            return None

    @property
    def scores(self) -> dict[str, Any]:
        """What `evaluate` found of these very results; empty where there is nothing."""
        file = self.folder / "evaluation.json"
        if not file.exists() or os.stat(file).st_mtime_ns < os.stat(self.paths.summary).st_mtime_ns:
            return {}
        found: dict[str, Any] = json.loads(file.read_text())
        return found


def open_run(folder: Path) -> Run:
    """Open the folder of a run that is finished, perhaps but for some images.

    Parameters
    ----------
    folder : path
        The `output.dir` of the experiment.

    Returns
    -------
    Run
        The run.
    """
    result = open_result(folder)
    plan = folder / "plan.json"
    return Run(folder, result.summary, json.loads(plan.read_text()) if plan.exists() else {})
