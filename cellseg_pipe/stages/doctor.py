"""Looks whether this machine, its cluster and a results folder have what runs need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cellseg_pipe.config import Experiment, load_experiment
from cellseg_pipe.stages._doctor_cluster import look_at_cluster
from cellseg_pipe.stages._doctor_folder import look_at_folder
from cellseg_pipe.stages._doctor_machine import look_at_machine
from cellseg_pipe.stages._finding import Finding, error, fine

__all__ = ["Finding", "as_json", "examine", "text_of"]

MARKS = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}


def examine(place: Path) -> list[Finding]:
    """Look at everything.

    Parameters
    ----------
    place : path
        An experiment file, or the folder of results.

    Returns
    -------
    list of Finding
        Errors are what runs would fail by.
    """
    experiment, found = None, []
    if place.is_dir() or not place.suffix:
        root = place
    else:
        try:
            experiment = load_experiment(place)
        except (OSError, ValueError) as fault:
            found.append(error("experiment", str(fault), "Correct the file."))
        else:
            found.append(fine("experiment", f"{place} can be read"))
        root = _folder_of(experiment)
    return [
        *found,
        *look_at_machine(experiment),
        *look_at_cluster(),
        *look_at_folder(root),
    ]


def _folder_of(experiment: Experiment | None) -> Path:
    return Path.cwd() if experiment is None else Path(experiment.output.dir)


def text_of(findings: Sequence[Finding]) -> str:
    """Return findings for people.

    Parameters
    ----------
    findings : sequence of Finding
        In any order.

    Returns
    -------
    str
        A line each, what to do below it, and the sums.
    """
    lines = []
    for each in findings:
        lines.append(f"{MARKS[each.level]} {each.what}: {each.said}")
        if each.mend:
            lines.append(f"        -> {each.mend}")
    n_errors, n_warnings = (_count(findings, level) for level in ("error", "warning"))
    return "\n".join([*lines, f"{n_errors} errors, {n_warnings} warnings"])


def as_json(findings: Sequence[Finding]) -> str:
    """Return findings for programs.

    Parameters
    ----------
    findings : sequence of Finding
        In any order.

    Returns
    -------
    str
        JSON with `errors`, `warnings` and `findings`.
    """
    said = {
        "errors": _count(findings, "error"),
        "warnings": _count(findings, "warning"),
        "findings": [asdict(each) for each in findings],
    }
    return json.dumps(said, indent=1)


def _count(findings: Sequence[Finding], level: str) -> int:
    return sum(each.level == level for each in findings)
