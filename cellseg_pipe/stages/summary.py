"""Sums up a run: what was found, one table of all units, and what could not be segmented."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cellseg_pipe import __version__
from cellseg_pipe.io.gather import gather_tables
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.stages import benchmarks
from cellseg_pipe.stages._run_layout import SMALL, RunLayout
from cellseg_pipe.stages.audit import Incomplete

__all__ = ["SomeFailed", "finish"]

log = logging.getLogger(__name__)

SAID = 5  # failures in a message; the file has all

# Of a small image in its audit, where others have plans.
DEPENDS_ON = ("plan", "restoring", "restorer")


class SomeFailed(ValueError):
    """Some units could not be segmented; the others are."""


def finish(layout: RunLayout, config: str) -> None:
    """Write what the whole run made, once all its units are finished or have failed.

    Parameters
    ----------
    layout : RunLayout
        The run.
    config : str
        The experiment in effect, as YAML.
    """
    found, failed = _results(layout)
    summary = {
        "version": __version__,
        "complete": not failed,
        "exact": all(facts["exact"] for facts in found.values()),
        "n_cells": sum(facts["n_cells"] for facts in found.values()),
        "failed": failed,
        "units": found,
        "resources": benchmarks.summed(benchmarks.gather(layout), benchmarks.known_prices()),
    }
    run = layout.paths
    for marker in run.runs.glob("finished-*.json"):
        if failed or marker != layout.marker:  # of what is not here any more
            marker.unlink(missing_ok=True)
    _keep(run.config, config)
    _keep(run.plan, json.dumps(_plans(layout, found), indent=1))
    said = json.dumps(summary, indent=1)
    # Whoever replaces results takes the summary back: with it the table is right, too.
    right = run.summary.exists() and run.summary.read_text() == said and run.cells.exists()
    if len(found) + len(failed) > 1 and found and not right:
        n_targets = len(yaml.safe_load(config).get("targets") or ())
        n_rows = gather_tables(run.cells, _tables(layout, found, several=n_targets > 1))
        log.info("%d cells of %d units: %s", n_rows, len(found), run.cells)
    _keep(run.summary, said)
    log.info("%d cells in %d units: %s", summary["n_cells"], len(found), run.summary)
    if failed:
        _keep(run.failed, json.dumps(failed, indent=1))
        raise SomeFailed(_message(failed, n_units=len(found) + len(failed), file=run.failed))
    run.failed.unlink(missing_ok=True)
    _keep(layout.marker, run.summary.read_text())


def _results(layout: RunLayout) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what was found of each unit, and why others failed."""
    found, failed = {}, dict(layout.failed)
    for name in layout.audits:
        paths = layout.audit(name)
        if paths.plan.exists():
            found[name] = json.loads(paths.plan.read_text())
            _check_published(layout, name, _stages(layout, name, found[name]))
        elif paths.failed.exists():
            failed[name] = json.loads(paths.failed.read_text())["reason"]
        else:
            raise Incomplete(
                f"{name} is not finished: {paths.plan} is missing. Start the run again."
            )
    return found, failed


def _check_published(layout: RunLayout, name: str, stages: list[str]) -> None:
    published = layout.paths.unit(name)
    more = {"sift": published.sifted, "shrink": published.restored}
    for path in (
        published.labels,
        published.cells,
        *(path for stage, path in more.items() if stage in stages),
    ):
        if not path.exists():
            raise Incomplete(
                f"{name}: {path} was published and is gone. Remove {layout.audit(name).plan} and"
                f" {_made_by(layout, name, stages)} and start the run again."
            )


def _made_by(layout: RunLayout, name: str, stages: list[str]) -> str:
    """Return the folders without which all stores of a unit are made again."""
    for stage in layout.bundles:
        if name in stage.images:
            return str(layout.files(SMALL, stage.name).root)
    painted = [s for s in stages if s in ("paint", "restore", "shrink") or s.startswith("level")]
    return ", ".join(str(layout.files(name, stage).root) for stage in painted)


def _stages(layout: RunLayout, name: str, facts: dict[str, Any]) -> list[str]:
    """Return the stages of a unit; none of a small image that was segmented in memory."""
    if name in layout.names:
        return [stage.name for stage in layout.unit(name).stages]
    return list(facts.get("stages", ()))


def _plans(layout: RunLayout, found: dict[str, Any]) -> dict[str, Any]:
    """Return what results depend on; small images keep it with what was found, and lose it here."""
    plans, large = {}, set(layout.names)
    for name, facts in found.items():
        of_image = {key: facts.pop(key) for key in DEPENDS_ON if key in facts}
        stages: dict[str, Any] = facts.pop("stages", {})
        of_stages = {stage: plan for stage, plan in stages.items() if plan is not None}
        if name in large and not (of_image or of_stages):  # else an earlier job was of many
            files = {
                stage.name: layout.files(name, stage.name).plan
                for stage in layout.unit(name).stages  # those made from others have no plan
                if stage.kind in ("plan", "tiles")
            }
            of_stages = {
                stage: json.loads(file.read_text())
                for stage, file in files.items()
                if file.exists()  # a job of many that failed may have taken it away
            }
        plans[name] = of_image or of_stages
    return plans


def _tables(
    layout: RunLayout, found: Mapping[str, Any], *, several: bool
) -> dict[Path, dict[str, str]]:
    """Return the table of each unit, with the columns that tell which one it is."""
    several |= len({facts["target"] for facts in found.values()}) > 1  # of those made, too
    tables = {}
    for name, facts in found.items():
        target = facts["target"]
        about = {"image": name.removesuffix(f"-{target}") if several else name}
        tables[layout.paths.unit(name).cells] = about | ({"target": target} if several else {})
    return tables


def _keep(path: Path, text: str) -> None:
    """Write a file unless it is there with this content: its age must not change."""
    if not path.exists() or path.read_text() != text:
        write_whole(path, text.encode())


def _message(failed: Mapping[str, str], *, n_units: int, file: Path) -> str:
    """Return what a user is told of units that failed: the first ones, one a line."""
    lines = [f"{name}: {reason}" for name, reason in list(failed.items())[:SAID]]
    lines += [f"and {len(failed) - SAID} more"] if len(failed) > SAID else []
    return (
        f"{len(failed)} of {n_units} images could not be segmented; the others are done. {file}"
        " lists them. Mend or remove them and start again: only these are done then.\n  "
        + "\n  ".join(lines)
    )
