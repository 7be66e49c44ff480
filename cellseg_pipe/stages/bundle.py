"""Segments many small images in one job, each whole and in memory; one is lost if it is killed."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from cellseg_pipe import __version__
from cellseg_pipe.config import Experiment, Unit, units_of
from cellseg_pipe.ledger import open_batch, write_whole
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.restoration import restore_plan_to_json
from cellseg_pipe.segmentation.frozen import plan_to_json
from cellseg_pipe.stages._run_layout import BUNDLE, PLAN, SMALL, RunLayout
from cellseg_pipe.stages.audit import withdraw_run
from cellseg_pipe.stages.networks import (
    Networks,
    checked_networks,
    networks_of,
    numerics_of,
)
from cellseg_pipe.stages.opened import FAILURES, is_of_image, open_unit
from cellseg_pipe.stages.tiling import read_frozen, write_plan
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.stages.whole import publish_whole, segment_whole

__all__ = ["note_failure", "plan", "run"]

log = logging.getLogger(__name__)
MOST_KILLS = 3  # of a job at one image, which is then left out


def plan(experiment: Experiment, layout: RunLayout) -> Path:
    """Segment the largest image and throw the cells away: its time and memory tell those of all.

    Parameters
    ----------
    experiment : Experiment
        What is done; its images are found already.
    layout : RunLayout
        The run.

    Returns
    -------
    path
        The plan; what is there already is left as it is.
    """
    file = layout.files(SMALL, PLAN).plan
    if file.exists():
        return file
    known = {unit.name: unit for unit in units_of(experiment)}
    largest = layout.unit(SMALL).stage(PLAN).images
    for name in dict.fromkeys((*largest, *(n for stage in layout.bundles for n in stage.images))):
        try:
            facts = _timed(open_unit(experiment, known[name]))
        except FAILURES as error:  # of one that is bad: the next one tells as much
            if not is_of_image(error):
                raise
            log.warning("%s: %s", name, error)
            last = error
            continue
        write_plan(file, facts)
        return file
    raise last


def _timed(unit: UnitRun) -> dict[str, Any]:
    networks = networks_of(unit.chosen, unit.experiment.resources)
    segment_whole(unit, networks)  # the first time waits for what is loaded and compiled
    began = time.monotonic()
    found = segment_whole(unit, networks)
    seconds = time.monotonic() - began
    plan, restoring = found.decided.plan, found.restoring
    facts = {} if restoring is None else {"restoring": restore_plan_to_json(restoring)}
    return {
        "version": __version__,
        "unit": unit.name,
        "voxels": found.cells.labels.size,
        "seconds": seconds,
        "memory_bytes": found.memory_bytes,
        **numerics_of(unit, networks, plan=plan, restoring=restoring),
        **facts,
        "region": None,
        "plan": plan_to_json(plan),
    }


class _Loading:
    """The networks of small images: loaded once, and checked against those of the plan.

    Parameters
    ----------
    paths : StagePaths
        Of the plan.
    numerics : {"strict", "relaxed"}
        Whether another arithmetic is refused.
    threads : int or None
        Threads of this job.
    """

    def __init__(self, paths: StagePaths, *, numerics: str, threads: int | None) -> None:
        self._frozen = read_frozen(paths)
        self._numerics, self._threads = numerics, threads
        self._loaded: Networks | None = None

    def load(self) -> Networks:
        """Return the networks."""
        if self._loaded is None:
            self._loaded = checked_networks(
                self._frozen, numerics=self._numerics, threads=self._threads
            )
        return self._loaded


def run(
    experiment: Experiment, layout: RunLayout, number: int, *, threads: int | None = None
) -> None:
    """Segment the images of one bundle that are not done yet; those that fail are noted.

    Parameters
    ----------
    experiment : Experiment
        What is done; its images are found already.
    layout : RunLayout
        The run; its small images are planned.
    number : int
        Of the bundle.
    threads : int, optional
        Threads to use.
    """
    stage = layout.unit(SMALL).stage(f"{BUNDLE}{number}")
    numerics = experiment.resources.numerics
    nets = _Loading(layout.files(SMALL, PLAN), numerics=numerics, threads=threads)
    files = layout.files(SMALL, stage.name)
    with open_batch(files, 0, range(len(stage.images))) as work:
        if work.done:
            return
        known = {unit.name: unit for unit in units_of(experiment)}
        # Who replaces the results of one of these images knows by it that this job is undone.
        digests = {name: layout.audits[name] for name in stage.images}
        write_whole(files.images, json.dumps(digests).encode())
        withdraw_run(layout.paths)
        kills = _kills(files)
        # What a job was killed at comes last: it may have been no fault of the image.
        for key in sorted(work.missing, key=lambda key: kills.get(stage.images[key], 0)):
            name, began = stage.images[key], time.monotonic()
            files.trying.write_text(json.dumps({"at": name, "kills": kills}))
            audit = layout.audit(name)
            if kills.get(name, 0) < MOST_KILLS:
                info = _one(experiment, known[name], nets, audit=audit, threads=threads)
            else:
                info = _refused(audit)
            work.add(key, b"", info=info)
            log.info("%s: %s in %.2f s", name, info, time.monotonic() - began)
        files.trying.unlink(missing_ok=True)
        work.finish()


def _kills(files: StagePaths) -> dict[str, int]:
    """Return how often this job was killed at which image."""
    try:
        said = json.loads(files.trying.read_text())
    except (OSError, ValueError):  # none, or killed while it was written
        return {}
    kills: dict[str, int] = said["kills"]
    return {**kills, said["at"]: kills.get(said["at"], 0) + 1}


def _refused(audit: StagePaths) -> dict[str, Any]:
    error = MemoryError(
        f"the job was killed {MOST_KILLS} times while it was at this image: it may be damaged, or"
        " need more than resources.memory_gb"
    )
    note_failure(audit, error)
    return {"failed": str(error)}


def _one(
    experiment: Experiment,
    unit: Unit,
    nets: _Loading,
    *,
    audit: StagePaths,
    threads: int | None,
) -> dict[str, Any]:
    """Segment an image and publish its results, unless that is done; say what came of it."""
    if audit.plan.exists():
        return {"n_cells": json.loads(audit.plan.read_text())["n_cells"]}
    networks = nets.load()
    try:
        opened = open_unit(experiment, unit)
        found = segment_whole(opened, networks, threads=threads)
    except FAILURES as error:
        if not is_of_image(error):
            raise
        note_failure(audit, error)
        return {"failed": str(error)}
    # What goes wrong from here on, as a full disk, is not the image's fault and ends the job.
    facts = publish_whole(opened, found, numerics_of_job=networks.other, threads=threads)
    return {"n_cells": facts["n_cells"]}


def note_failure(audit: StagePaths, error: Exception) -> None:
    """Write down why a unit could not be finished.

    Parameters
    ----------
    audit : StagePaths
        Of its last stage.
    error : Exception
        The reason.
    """
    tries = json.loads(audit.failed.read_text())["tries"] if audit.failed.exists() else 0
    facts = {"reason": str(error), "tries": tries + 1}
    write_whole(audit.failed, json.dumps(facts, indent=1).encode())
    log.error("%s: %s", audit.unit.name, error)
