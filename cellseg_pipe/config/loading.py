"""From a YAML file, or what another program read from it, to an experiment that is right."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cellseg_pipe.config._problems import ConfigError, Key, Problem, RuleError
from cellseg_pipe.config._wording import problems_in
from cellseg_pipe.config._yaml import Source, plain, read_yaml
from cellseg_pipe.config.experiment import Experiment

__all__ = ["experiment_of", "load_experiment"]


def load_experiment(path: Path | str) -> Experiment:
    """Read and check an experiment file.

    Parameters
    ----------
    path : path
        A YAML file. Images with a relative path are looked for in its folder first, then in the
        working directory.

    Returns
    -------
    Experiment
        All its paths absolute. What is wrong with the file is raised as one ConfigError.
    """
    source = read_yaml(Path(path))
    return _checked(source.data, source)


def experiment_of(mapping: Mapping[str, Any], *, source: Path | str | None = None) -> Experiment:
    """Check an experiment that was read before, as by Snakemake.

    Parameters
    ----------
    mapping : mapping
        Keys and values of the file; it goes before what the file says.
    source : path, optional
        The file it came from: tells lines, keys that are given twice, and where images lie.

    Returns
    -------
    Experiment
        As from `load_experiment`.
    """
    return _checked(mapping, Source() if source is None else read_yaml(Path(source)))


def _checked(given: Any, source: Source) -> Experiment:
    """Return the experiment, or raise all that is wrong with it."""
    if not isinstance(given, Mapping) or not given:
        kind = "nothing" if not given else f"a {type(given).__name__}"
        text = f"needs keys with values, at least images and output, got {kind}."
        raise ConfigError.of([Problem((), text), *source.problems], file=source.file)
    data, problems = plain(given)
    problems = [*source.problems, *problems]
    # Absolute, so that no later change of folder matters.
    folder = source.file.absolute().parent if source.file else None
    experiment, more = _validated(data, {"folder": folder})
    problems += more
    if experiment is None or problems:
        raise ConfigError.of(problems, file=source.file, lines=source.lines)
    experiment._source = source
    return experiment


def _validated(data: Any, context: dict[str, Any]) -> tuple[Experiment | None, list[Problem]]:
    """Return the experiment, or what is wrong: of keys, and of what is left without those."""
    try:
        return Experiment.model_validate(data, context=context), []
    except ValidationError as error:
        problems = problems_in(error, data, _schema())
        if any(isinstance(e.get("ctx", {}).get("error"), RuleError) for e in error.errors()):
            return None, problems
    try:
        Experiment.model_validate(_without(data, problems), context=context)
    except ValidationError as error:
        causes = [e.get("ctx", {}).get("error") for e in error.errors()]
        rules = [p for cause in causes if isinstance(cause, RuleError) for p in cause.problems]
        problems += [rule for rule in rules if not _shaken(rule, problems)]
    return None, problems


@cache
def _schema() -> dict[str, Any]:
    return Experiment.model_json_schema()


def _without(data: Any, problems: list[Problem]) -> Any:
    """Return a copy without the keys that are wrong."""
    data = copy.deepcopy(data)
    for problem in problems:
        path = problem.path
        while len(path) > 2 and not isinstance(path[-1], str):
            path = path[:-1]  # an item goes with its list: the others keep their numbers
        holder = data
        for key in path[:-1]:
            inside = isinstance(holder, dict) and key in holder
            inside = inside or (isinstance(holder, list) and isinstance(key, int))
            holder = holder[key] if inside else None
        if path and isinstance(holder, dict):
            holder.pop(path[-1], None)
    return _with_required(data)


def _with_required(data: Any) -> Any:
    """Return the same with a stand-in for what has no default."""
    images, output = data.get("images"), data.get("output")
    images = images if isinstance(images, list) and images else [{}]
    data["images"] = [{"path": ".", **(i if isinstance(i, dict) else {})} for i in images]
    data["output"] = {"dir": ".", **(output if isinstance(output, dict) else {})}
    return data


def _shaken(rule: Problem, problems: list[Problem]) -> bool:
    """Tell whether a rule may be broken only because a key was left out."""
    needs: tuple[Key, ...] = (rule.path, *rule.needs)
    return any(
        wrong.path[: len(need)] == need[: len(wrong.path)] for wrong in problems for need in needs
    )
