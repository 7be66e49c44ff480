"""Training as a workflow manager sees it: one job, its files, and a hash of all that it reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cellseg_pipe.config._problems import ConfigError
from cellseg_pipe.config._sections import Resources
from cellseg_pipe.config._yaml import Source, read_yaml
from cellseg_pipe.io.files import size_and_age
from cellseg_pipe.nets.catalog import resolve
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.stages._run_layout import RunLayout

__all__ = ["digest_of", "is_training", "lay_out", "memory_mb", "trained_marker"]

# Of a step in float32, with a margin: per pixel of a batch and channel of the first level.
STEP_BYTES = 400
WEIGHT_BYTES = 60  # gradients, moments, means and copies for the network's other forms
JUDGED = 4  # a frozen segmenter, at full width perhaps, sees each restored crop and the clean one
PREPARED_BYTES = 2_000_000_000  # libraries, and what is kept of the images


def is_training(config: Mapping[str, Any]) -> bool:
    """Return whether a file is one of `cellseg train`.

    Parameters
    ----------
    config : mapping
        Keys and values of the file.

    Returns
    -------
    bool
        False for an experiment.
    """
    return "network" in config and "images" not in config


def lay_out(config: Mapping[str, Any], *, source: str | None = None) -> tuple[RunLayout, str]:
    """Check a training file and say what it depends on. Nothing is written.

    Parameters
    ----------
    config : mapping
        Keys and values of the file, and perhaps `resources`, as in an experiment.
    source : str, optional
        The file that they were read from.

    Returns
    -------
    RunLayout
        Without units: training is one job.
    str
        The plan in effect, as YAML.
    """
    from cellseg_pipe.stages._train_config import plan_of, section_of
    from cellseg_pipe.stages._train_job import pairs_of

    given = {key: value for key, value in config.items() if key != "resources"}
    read = Source() if source is None else read_yaml(Path(source))
    plan = plan_of(given, read)
    said = dict(config.get("resources") or {})
    resources, problems = section_of(Resources, said, ("resources",))
    if problems:
        raise ConfigError.of(problems, file=read.file, lines=read.lines)
    text = _written(plan)
    pairs = pairs_of(plan.data)
    used = [f for p in pairs for f in (p.image, p.labels, p.classes) if f]
    files = (
        [dataclasses.asdict(p) for p in pairs],
        [size_and_age(f) for f in used if Path(f).exists()],
    )
    start = plan.network.start
    models = [start, plan.restore.segmenter if plan.restore else None]
    begun = [None if model is None else size_and_age(resolve(model)) for model in models]
    root = Path(plan.output)
    return RunLayout(
        root,
        RunPaths(root).runs / f"config-{digest_of(text)}.yaml",
        digest_of(text, files, begun),
        (),
        None if resources.threads == "auto" else resources.threads,
        resources.device,
    ), text


def _written(plan: Any) -> str:
    """Return the plan as YAML that gives an equal one."""
    plain = json.loads(json.dumps(dataclasses.asdict(plan)))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)


def digest_of(*parts: Any) -> str:
    """Return a hash.

    Parameters
    ----------
    *parts : object
        What JSON takes.

    Returns
    -------
    str
        12 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def trained_marker(layout: RunLayout) -> Path:
    """Return what says that training is finished.

    Parameters
    ----------
    layout : RunLayout
        Of the training.

    Returns
    -------
    path
        Under the hash of plan and images.
    """
    return layout.paths.runs / f"trained-{layout.digest}.json"


def memory_mb(text: str) -> int:
    """Return what training takes at most.

    Parameters
    ----------
    text : str
        The plan in effect.

    Returns
    -------
    int
        MB.
    """
    plan = yaml.safe_load(text)
    n_px = plan["recipe"]["batch"] * plan["augmentation"]["crop_px"] ** 2
    widths = plan["network"].get("widths") or (32, 64, 128, 256)
    # Blocks of four convolutions of 3 x 3 on the way down, and of four on the way up.
    n_weights = 100 * sum(width**2 for width in widths)
    step = STEP_BYTES * widths[0] * n_px * (JUDGED if plan.get("restore") else 1)
    return math.ceil((PREPARED_BYTES + WEIGHT_BYTES * n_weights + step) / 1e6)
