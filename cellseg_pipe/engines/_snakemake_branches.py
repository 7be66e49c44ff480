"""Training and scoring as the rules see them: branches of their own beside the segmentation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cellseg_pipe.config import experiment_of
from cellseg_pipe.config._yaml import read_yaml
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.stages import _train_layout
from cellseg_pipe.stages._run_layout import RunLayout
from cellseg_pipe.stages.layout import keep, lay_out, read_layout

__all__ = ["Asked", "Branches", "ask", "asked_before", "workflow_error"]

LAYOUT, SCORING = "CELLSEG_LAYOUT", "CELLSEG_SCORING"  # tell jobs which files to read
LEAST_MB = 2000
VOXEL_BYTES = 40  # of labels and truth while they are compared
TRAIN_MINUTES, SCORE_MINUTES = 1440, 60
NEEDS = {
    "train": "train needs a training file, as `cellseg train` takes it (config/examples/train-*),"
    " and got an experiment. Name one with --configfile.",
    "evaluate": "evaluate needs the truth of the images: add `evaluate: {truth: FOLDER}` to the"
    " experiment, or --config 'evaluate={truth: FOLDER}' to the command.",
}


class Branches:
    """What trains and what scores.

    Parameters
    ----------
    layout : RunLayout
        The run; without units it is one of training.
    text : str
        The file in effect; empty in jobs.
    scoring : path, optional
        What the job that scores reads.
    """

    def __init__(self, layout: RunLayout, text: str = "", scoring: Path | None = None) -> None:
        self._layout, self._text = layout, text
        self._scoring = scoring or layout.paths.runs / "evaluate-none.json"

    @property
    def trains(self) -> bool:
        """Whether the file is one of training."""
        return not self._layout.units

    @property
    def trained(self) -> str:
        """What says that training is finished."""
        return self._layout.inside(_train_layout.trained_marker(self._layout))

    @property
    def scored(self) -> str:
        """What says that the run is scored."""
        return self.scoring.replace("evaluate-", "evaluated-")

    @property
    def scoring(self) -> str:
        """What the job that scores reads."""
        return self._layout.inside(self._scoring)

    def inputs(self, name: str) -> Callable[[Any], list[str]]:
        """Return what gives the inputs of a branch.

        Parameters
        ----------
        name : {"train", "evaluate"}
            Which one.

        Returns
        -------
        callable
            From wildcards to files; refuses what the file does not ask for.
        """

        def needed(_wildcards: Any) -> list[str]:
            there = self.trains if name == "train" else self._scoring.stem != "evaluate-none"
            if not there:
                raise workflow_error(NEEDS[name])
            return self._layout.ends

        return needed

    def memory_mb(self, name: str) -> Callable[..., int]:
        """Return what gives the memory of a job.

        Parameters
        ----------
        name : {"train", "evaluate"}
            Which branch.

        Returns
        -------
        callable
            From wildcards and attempt to MB; more with each attempt.
        """

        def needed(_wildcards: Any, attempt: int = 1) -> int:
            if name == "train" and self._text:
                return round(_train_layout.memory_mb(self._text) * 1.5 ** (attempt - 1))
            return round((LEAST_MB + self._largest() * VOXEL_BYTES / 1e6) * 1.5 ** (attempt - 1))

        return needed

    def _largest(self) -> int:
        """Return the voxels of the largest image that is planned."""
        voxels = [0]
        for name in self._layout.names:
            plan = self._layout.files(name, "plan").plan
            voxels += [_voxels(plan)] if plan.exists() else []
        return max(voxels)

    def minutes(self, name: str) -> int:
        """Return the run time of a job: training goes on when it is started again.

        Parameters
        ----------
        name : {"train", "evaluate"}
            Which branch.

        Returns
        -------
        int
            Minutes.
        """
        return TRAIN_MINUTES if name == "train" else SCORE_MINUTES


def _voxels(plan: Path) -> int:
    n = 1
    for edge in json.loads(plan.read_text())["image"]["shape"]:
        n *= edge
    return n


def typed(given: Any, written: Any) -> Any:
    """Return what Snakemake has read with the types that YAML gives it.

    Parameters
    ----------
    given : object
        A value, or keys with values. Inside `--config section={key: 3}` Snakemake takes all for
        text.
    written : object
        What the file says of it, which has its types.

    Returns
    -------
    object
        With numbers, true, false and null where such was typed.
    """
    if isinstance(given, Mapping):
        keys = written if isinstance(written, Mapping) else {}
        return {key: typed(value, keys.get(key)) for key, value in given.items()}
    if isinstance(given, list):
        items = written if isinstance(written, list) else []
        known = [*items, *[None] * len(given)][: len(given)]
        return [typed(value, old) for value, old in zip(given, known, strict=True)]
    if not isinstance(given, str) or given == written:
        return given
    try:
        plain = yaml.safe_load(given)
    except yaml.YAMLError:
        return given
    return plain if isinstance(plain, bool | int | float) or plain is None else given


@dataclass(frozen=True)
class Asked:
    """What a file asks for.

    Parameters
    ----------
    layout : RunLayout
        The jobs.
    branches : Branches
        What trains and what scores.
    text : str
        The file in effect; empty in jobs.
    scoring : Scoring, optional
        What is scored.
    on_finish : tuple of str, optional
        What is run when the run has ended; not in jobs.
    """

    layout: RunLayout
    branches: Branches
    text: str = ""
    scoring: Any = None
    on_finish: tuple[str, ...] | None = None

    def keep(self) -> None:
        """Write down what jobs read."""
        keep(self.layout, self.text)
        if self.scoring is not None:
            write_whole(self.scoring.file, self.scoring.text.encode())


def asked_before() -> Asked:
    """Return what the main process has laid out, in one of its jobs on any node."""
    layout = read_layout(os.environ.get(LAYOUT, Path.cwd()))
    known = layout.paths.runs.glob("evaluate-*.json")
    newest = max(known, key=lambda file: file.stat().st_mtime, default=None)
    scoring = Path(os.environ[SCORING]) if SCORING in os.environ else newest
    return Asked(layout, Branches(layout, scoring=scoring))


def ask(config: Mapping[str, Any], *, source: str | None) -> Asked:
    """Return what a file asks for. Nothing is written.

    Parameters
    ----------
    config : mapping
        What Snakemake has read.
    source : str or None
        The file.

    Returns
    -------
    Asked
        Its jobs are told by the environment where to read it.
    """
    config = typed(config, read_yaml(Path(source)).data if source else {})
    given = {key: value for key, value in config.items() if key != "evaluate"}
    on_finish = None
    if _train_layout.is_training(given):
        layout, text = _train_layout.lay_out(given, source=source)
    else:
        experiment = experiment_of(given, source=source)
        on_finish = experiment.on_finish
        layout, text = lay_out(experiment)
    os.environ[LAYOUT] = str(layout.file)
    os.environ.pop(SCORING, None)
    scoring = None
    if "evaluate" in config:
        from cellseg_pipe.stages import evaluate_run

        scoring = evaluate_run.lay_out(config["evaluate"], layout, source=source)
        os.environ[SCORING] = str(scoring.file)
    branches = Branches(layout, text, scoring.file if scoring else None)
    return Asked(layout, branches, text, scoring, on_finish)


def workflow_error(text: str) -> Exception:
    """Return an error that Snakemake shows as it is.

    Parameters
    ----------
    text : str
        What the user is told.

    Returns
    -------
    WorkflowError
        To raise.
    """
    from snakemake.exceptions import WorkflowError  # type: ignore[import-untyped]

    return WorkflowError(text)
