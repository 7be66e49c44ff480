"""From a YAML file to a training plan; what the file leaves open comes from the start model."""

from __future__ import annotations

import difflib
import os
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from cellseg_pipe.config._kinds import expanded
from cellseg_pipe.config._problems import ConfigError, Key, Problem
from cellseg_pipe.config._wording import problems_in
from cellseg_pipe.config._yaml import Source, plain, read_yaml
from cellseg_pipe.nets.checkpoint import Model
from cellseg_pipe.training.settings import (
    CHANNELS,
    DIAMETER_PX,
    FINE_TUNING_RATE,
    LEARNING_RATE,
    WIDTHS,
    Augmentation,
    Reading,
    TrainingPlan,
)

__all__ = ["completed", "completed_restoring", "plan_of", "read_plan", "section_of"]

# Of the augmentation, what restoring has laws of its own for.
WITHOUT_EFFECT = (
    "blur_px", "photons", "noise",
    "p_blur", "p_poisson", "p_noise", "p_invert", "p_drop", "p_empty",
)  # fmt: skip


def read_plan(path: Path | str) -> TrainingPlan:
    """Read a configuration file.

    Parameters
    ----------
    path : path
        YAML.

    Returns
    -------
    TrainingPlan
        With paths relative to the file made absolute. What is wrong is raised as one ConfigError.
    """
    source = read_yaml(Path(path))
    return plan_of(source.data, source)


def plan_of(given: Any, source: Source) -> TrainingPlan:
    """Check a training plan that was read before, as by Snakemake.

    Parameters
    ----------
    given : object
        Keys and values of the file; they go before what the file says.
    source : Source
        The file: tells lines, keys that are given twice, and where images lie.

    Returns
    -------
    TrainingPlan
        As from `read_plan`.
    """
    data, problems = plain(given)
    if not isinstance(data, dict):
        text = "needs keys with values: output, data, network and recipe."
        raise ConfigError.of([Problem((), text), *source.problems], file=source.file)
    plan, more = section_of(TrainingPlan, data)
    if problems := [*source.problems, *problems, *more]:
        raise ConfigError.of(problems, file=source.file, lines=source.lines)
    return _absolute(plan, source.file.resolve().parent if source.file else Path.cwd())


def section_of(kind: Any, data: dict[str, Any], path: Key = ()) -> tuple[Any, list[Problem]]:
    """Check a section.

    Parameters
    ----------
    kind : dataclass
        What it should be.
    data : dict
        What it is; keys that are not known are taken out.
    path : tuple of str
        Keys that lead to it.

    Returns
    -------
    object or None
        The section, if it is right but for unknown keys.
    list of Problem
        What is wrong.
    """
    problems = _taken_out(data, kind, path)
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(data), problems
    except ValidationError as error:
        found = problems_in(error, data, adapter.json_schema())
    return None, [*problems, *(replace(p, path=(*path, *p.path)) for p in found)]


def _taken_out(data: dict[str, Any], kind: type, path: Key) -> list[Problem]:
    """Take unknown keys out of a section and those below; return what is to be said of them."""
    parts = get_type_hints(kind)
    problems = []
    for key in list(data):
        if key not in parts:
            near = difflib.get_close_matches(key.lower(), parts, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(parts)}."
            problems.append(Problem((*path, key), f"is no known key. {hint}"))
            del data[key]
        elif is_dataclass(parts[key]) and isinstance(data[key], dict):
            problems += _taken_out(data[key], parts[key], (*path, key))
        elif is_dataclass(parts[key]) and data[key] is None:
            data[key] = {}  # a section whose keys are all commented out
    return problems


def _absolute(plan: TrainingPlan, base: Path) -> TrainingPlan:
    def there(text: str) -> str:
        return os.path.normpath(base / expanded(text))

    def found(model: str) -> str:
        return there(model) if os.path.isfile(there(model)) else model

    data, start, restore = plan.data, plan.network.start, plan.restore
    roots = [data.root] if isinstance(data.root, str) else data.root
    return replace(
        plan,
        output=there(plan.output),
        data=replace(
            data,
            root=[there(root) for root in roots],
            manifest=None if data.manifest is None else there(data.manifest),
            cache=None if data.cache is None else there(data.cache),
        ),
        network=replace(plan.network, start=None if start is None else found(start)),
        restore=restore and replace(restore, segmenter=found(restore.segmenter)),
    )


def completed_restoring(plan: TrainingPlan, start: Model | None, segmenter: Model) -> TrainingPlan:
    """Return the plan of a network that restores with what it leaves open.

    Parameters
    ----------
    plan : TrainingPlan
        As it was read.
    start : Model or None
        What training begins with.
    segmenter : Model
        What restored images are for: its diameter, inputs and percentiles hold.

    Returns
    -------
    TrainingPlan
        Complete.
    """
    seen, known = segmenter.info, start.info if start else None
    if seen.task != "segmentation" or seen.target != "flow" or seen.architecture.ndim != 2:
        raise ValueError(f"restore.segmenter needs a 2D model of flows, got {segmenter.summary}.")
    if known and (known.task != "restoration" or known.architecture.n_inputs != 1):
        raise ValueError(
            "network.start needs a network that restores one channel, got"
            f" {start.summary if start else ''}."
        )
    given = plan.network.diameter_px or (known.diameter_px if known else seen.diameter_px)
    if given != seen.diameter_px:
        raise ValueError(
            f"network.diameter_px needs that of the segmenter, {seen.diameter_px:g}, got {given:g}."
            " Leave it out, or take another segmenter."
        )
    _check_unused(plan)
    rate = plan.recipe.learning_rate or (FINE_TUNING_RATE if known else LEARNING_RATE)
    n_inputs = seen.architecture.n_inputs
    return replace(
        plan,
        network=replace(
            plan.network,
            diameter_px=given,
            widths=None if known else plan.network.widths or WIDTHS,
        ),
        reading=replace(plan.reading, n_inputs=n_inputs, percentiles=seen.percentiles),
        recipe=replace(plan.recipe, learning_rate=rate),
    )


def _check_unused(plan: TrainingPlan) -> None:
    """Refuse settings without effect: images are made worse by laws of their own."""
    usual = Augmentation()
    said = [
        f"augmentation.{name}" for name in WITHOUT_EFFECT
        if getattr(plan.augmentation, name) != getattr(usual, name)
    ]  # fmt: skip
    if plan.reading.percentiles != Reading().percentiles:
        said.append("reading.percentiles")
    if said:
        raise ValueError(
            f"{', '.join(said)}: without effect where a network learns to restore. Leave it out."
        )


def completed(plan: TrainingPlan, start: Model | None) -> TrainingPlan:
    """Return the plan with what it leaves open.

    Parameters
    ----------
    plan : TrainingPlan
        As it was read.
    start : Model or None
        What training begins with.

    Returns
    -------
    TrainingPlan
        Diameter, channels, percentiles and learning rate are set, and widths of a fresh network.
    """
    network, reading = plan.network, plan.reading
    known = start.info if start else None
    channels = network.channels or (known.channels if known else CHANNELS)
    if known and len(channels) != known.architecture.n_inputs:
        raise ValueError(
            f"network.channels needs {known.architecture.n_inputs} names, as {network.start} has"
            f" inputs ({', '.join(known.channels)}), got {len(channels)}. Leave it out."
        )
    if known and (known.architecture.ndim != 2 or known.task != "segmentation"):
        raise ValueError(
            f"network.start needs a 2D network that segments, got {start.summary if start else ''}."
        )
    percentiles = reading.percentiles
    if known and percentiles == Reading().percentiles:
        percentiles = known.percentiles
    rate = plan.recipe.learning_rate or (FINE_TUNING_RATE if known else LEARNING_RATE)
    diameter = network.diameter_px or (known.diameter_px if known else DIAMETER_PX)
    return replace(
        plan,
        network=replace(
            network,
            channels=tuple(channels),
            diameter_px=diameter,
            widths=None if known else network.widths or WIDTHS,
        ),
        reading=replace(reading, n_inputs=len(channels), percentiles=percentiles),
        recipe=replace(plan.recipe, learning_rate=rate),
    )
