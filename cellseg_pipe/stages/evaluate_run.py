"""Scores what a run has published against truth that its user has, as a job of the workflow."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cellseg_pipe.config import Evaluate, Experiment
from cellseg_pipe.config._kinds import expanded
from cellseg_pipe.config._problems import ConfigError
from cellseg_pipe.config._yaml import Source, read_yaml
from cellseg_pipe.io.files import size_and_age
from cellseg_pipe.io.images import list_images, pair_files
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.stages._run_layout import RunLayout
from cellseg_pipe.stages._train_config import section_of
from cellseg_pipe.stages._train_layout import digest_of
from cellseg_pipe.stages.evaluate import EvaluationSettings, Pair, is_store, run_pairs

__all__ = ["Scoring", "lay_out", "read_scoring", "run_job", "score"]


@dataclass(frozen=True)
class Scoring:
    """A job that scores a run.

    Parameters
    ----------
    root : path
        Folder of the results.
    digest : str
        Hash of all that the scores depend on.
    pairs : tuple of (str, path, path)
        Name, published labels, truth.
    settings : EvaluationSettings
        How they are scored.
    """

    root: Path
    digest: str
    pairs: tuple[Pair, ...]
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)

    @property
    def file(self) -> Path:
        """Where this is written down."""
        return self.root / "runs" / f"evaluate-{self.digest}.json"

    @property
    def marker(self) -> Path:
        """What says that it is done."""
        return self.root / "runs" / f"evaluated-{self.digest}.json"

    @property
    def text(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self), default=str, indent=1)


def lay_out(section: Mapping[str, Any], layout: RunLayout, *, source: str | None = None) -> Scoring:
    """Find the truth of each unit of a run. Nothing is written.

    Parameters
    ----------
    section : mapping
        What the experiment says of it.
    layout : RunLayout
        The run.
    source : str, optional
        The experiment file: the truth is looked for in its folder first, then in the working
        directory.

    Returns
    -------
    Scoring
        The job.
    """
    about = Source() if source is None else read_yaml(Path(source))
    data = dict(section) if isinstance(section, Mapping) else section
    if not isinstance(data, dict):
        raise ValueError(f"evaluate needs keys with values, at least truth, got {section!r}.")
    said, problems = section_of(Evaluate, data, ("evaluate",))
    if problems:
        raise ConfigError.of(problems, file=about.file, lines=about.lines)
    truth = _found(expanded(said.truth), about.file)
    pairs = tuple(_pairs(layout, truth, said.pattern))
    settings = EvaluationSettings(said.thresholds, said.ignore_label, said.boundary_px)
    read = [(name, str(labels), *size_and_age(file)) for name, labels, file in pairs]
    return Scoring(layout.root, digest_of(layout.digest, read, asdict(settings)), pairs, settings)


def score(experiment: Experiment, layout: RunLayout) -> None:
    """Score a finished run as its experiment asks for, unless that is done.

    Parameters
    ----------
    experiment : Experiment
        With a section `evaluate`.
    layout : RunLayout
        The run.
    """
    if experiment.evaluate is None:
        return
    file = experiment._source.file
    section = experiment.evaluate.model_dump(exclude_unset=True)
    job = lay_out(section, layout, source=None if file is None else str(file))
    if not job.marker.exists():
        write_whole(job.file, job.text.encode())
        run_job(job.file)


def _found(name: str, file: Path | None) -> Path:
    near = [file.absolute().parent] if file else []
    for folder in (*near, Path.cwd()):
        if (path := Path(os.path.normpath(folder / name))).exists():
            return path
    raise FileNotFoundError(
        f"evaluate.truth needs a file or folder that is there, got {name}. Name one in"
        f" {' or '.join(map(str, (*near, Path.cwd())))}, or an absolute path."
    )


def _pairs(layout: RunLayout, truth: Path, pattern: str) -> list[Pair]:
    """Return what belongs together, by the names of units."""
    labels = {name: layout.paths.unit(name).labels for name in layout.audits}
    if truth.is_file() or is_store(truth):
        if len(labels) > 1:
            raise ValueError(
                f"evaluate.truth needs a folder with a file for each of {len(labels)} units, got"
                f" the file {truth}. Call the files {', '.join(sorted(labels)[:3])} ..."
            )
        return [(name, path, truth) for name, path in labels.items()]
    # Files of these names do not exist: they stand for the units.
    units = {f"{name}.zarr": name for name in labels}
    paired = pair_files([Path(name) for name in units], list_images(truth, pattern))
    return [(key, labels[units[unit.name]], file) for key, unit, file in paired]


def read_scoring(path: Path | str) -> Scoring:
    """Read a job that was laid out.

    Parameters
    ----------
    path : path
        Its file.

    Returns
    -------
    Scoring
        As it was written.
    """
    stored = json.loads(Path(path).read_text())
    pairs = tuple((name, Path(pred), Path(truth)) for name, pred, truth in stored["pairs"])
    settings = EvaluationSettings(**stored["settings"])
    return Scoring(Path(stored["root"]), stored["digest"], pairs, settings)


def run_job(path: Path | str) -> None:
    """Score a run, and write what says that it is done.

    Parameters
    ----------
    path : path
        File of the job.
    """
    job = read_scoring(path)
    scores = run_pairs(job.pairs, job.root, settings=job.settings).scores
    for other in job.marker.parent.glob("evaluated-*.json"):
        other.unlink(missing_ok=True)  # their scores were replaced
    about = {"n_images": len(job.pairs), "ap": {str(k): v for k, v in scores.ap.items()}}
    write_whole(job.marker, json.dumps(about, indent=1).encode())
