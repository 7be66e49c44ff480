"""Segments many small images in one job, one after the other; one is lost if it is killed."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cellseg_pipe import __version__
from cellseg_pipe.config import Experiment, Unit, units_of
from cellseg_pipe.ledger import Fenced, Held, LedgerError, Stopped, open_batch, write_whole
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.restoration import restore_plan_to_json
from cellseg_pipe.segmentation.frozen import plan_to_json
from cellseg_pipe.stages._run_layout import BUNDLE, PLAN, SMALL, RunLayout
from cellseg_pipe.stages.audit import forget_bundles, withdraw_run
from cellseg_pipe.stages.networks import (
    Networks,
    checked_networks,
    networks_of,
    numerics_of,
)
from cellseg_pipe.stages.opened import FAILURES, NotThisMachine, is_of_image, open_unit
from cellseg_pipe.stages.staged import (
    clear_stages,
    needs_stages,
    plan_staged,
    run_staged,
    together,
    with_plans,
)
from cellseg_pipe.stages.tiling import frozen_of, write_plan
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.stages.whole import publish_whole, segment_whole

__all__ = ["note_failure", "plan", "run"]

log = logging.getLogger(__name__)
ADDED = ("voxels", "seconds", "memory_bytes", "kept_bytes")
MOST_KILLS = 3  # of a job at one image, which is then left out
KILLED = MemoryError(
    f"the job was killed {MOST_KILLS} times while it was at this image: it may be damaged, or"
    " need more than resources.memory_gb"
)


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
    names = dict.fromkeys((*largest, *(n for stage in layout.bundles for n in stage.images)))
    missing = {known[name].target for name in names if not known[name].sources}
    found: dict[str, Any] = {}
    last: Exception | None = None
    for several in _images(known[name] for name in names):
        for part in together(experiment, several):
            if missing.isdisjoint(unit.target for unit in part):
                continue
            facts = _tried(experiment, part)
            if isinstance(facts, Exception):
                last = facts
            else:
                found = _joined(found, facts) if found else facts
                missing -= facts["networks"].keys()
        if not missing:
            break
    if not found and last is not None:
        raise last
    write_plan(file, found)
    return file


def _tried(experiment: Experiment, part: list[Unit]) -> dict[str, Any] | Exception:
    """Plan units that need each other; what is wrong with their image, if it is bad."""
    try:
        units = [open_unit(experiment, unit) for unit in part]
        if needs_stages(units):
            return plan_staged(units)
        return functools.reduce(_joined, map(_timed, units))
    except FAILURES as error:  # the next image tells as much
        if not is_of_image(error):
            raise
        log.warning("%s: %s", part[0].name, error)
        return error


def _joined(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Return what targets take that need each other not: their networks are loaded together."""
    sums = {name: left[name] + right[name] for name in ADDED}
    return {**left, **sums, "networks": left["networks"] | right["networks"]}


def _images(units: Iterable[Unit]) -> Iterator[list[Unit]]:
    """Yield the units of each image."""
    for _, several in itertools.groupby(units, key=lambda unit: unit.image.name):
        yield list(several)


def _timed(unit: UnitRun) -> dict[str, Any]:
    """Segment an image in memory."""
    networks = networks_of(unit.chosen, unit.experiment.resources)
    segment_whole(unit, networks)  # the first time waits for what is loaded and compiled
    began = time.monotonic()
    found = segment_whole(unit, networks)
    seconds = time.monotonic() - began
    plan, restoring = found.decided.plan, found.restoring
    facts = {
        "unit": unit.name,
        **numerics_of(unit, networks, plan=plan, restoring=restoring),
        "restoring": None if restoring is None else restore_plan_to_json(restoring),
        "region": None,
        "plan": plan_to_json(plan),
    }
    return {
        "version": __version__,
        "unit": unit.name,
        "voxels": unit.n_voxels,
        "seconds": seconds,
        "memory_bytes": found.memory_bytes,
        "kept_bytes": 0,
        "networks": {unit.unit.target: facts},
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
        self._paths = paths
        self._planned = json.loads(paths.plan.read_text())["networks"]
        self._numerics, self._threads = numerics, threads
        self._loaded: dict[str, Networks] = {}

    def load(self, target: str) -> Networks:
        """Return the networks of a target."""
        if target not in self._planned:
            raise ValueError(
                f"{target} could be planned of no image when the run began. Mend or remove these"
                f" images, remove {self._paths.plan}, and start again."
            )
        if target not in self._loaded:
            frozen = frozen_of(self._planned[target])
            try:
                self._loaded[target] = checked_networks(
                    frozen, numerics=self._numerics, threads=self._threads
                )
            except NotThisMachine:
                raise
            except FAILURES as error:  # a node without its GPU would spoil every image
                raise NotThisMachine(
                    f"the networks of {target} could not be loaded: {error}"
                ) from error
        return self._loaded[target]


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
        images = list(_images(known[name] for name in stage.images))
        keys = {name: key for key, name in enumerate(stage.images)}
        try:
            # What a job was killed at comes last: it may have been no fault of the image.
            for several in sorted(images, key=lambda units: kills.get(str(units[0].image.name), 0)):
                names = [unit.name for unit in several]
                if set(work.missing).isdisjoint(keys[name] for name in names):
                    continue
                began, image = time.monotonic(), str(several[0].image.name)
                files.trying.write_text(json.dumps({"at": image, "kills": kills}))
                audits = [layout.audit(name) for name in names]
                if kills.get(image, 0) < MOST_KILLS:
                    forget_bundles(layout.paths, {name: digests[name] for name in names}, but=files)
                    infos = _one(experiment, several, nets, audits=audits, threads=threads)
                else:
                    infos = _failed(audits, KILLED)
                for name, info in zip(names, infos, strict=True):
                    if keys[name] in work.missing:
                        work.add(keys[name], b"", info=info)
                log.info("%s: %s in %.2f s", image, infos, time.monotonic() - began)
        except (KeyboardInterrupt, Stopped, *FAILURES):  # it was told to, or no image is to blame
            files.trying.write_text(json.dumps({"at": "", "kills": kills}))
            raise
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


def _one(
    experiment: Experiment,
    several: list[Unit],
    nets: _Loading,
    *,
    audits: list[StagePaths],
    threads: int | None,
) -> list[dict[str, Any]]:
    """Segment an image for all its targets, unless that is done; say what came of each."""
    infos: list[dict[str, Any]] = []
    for part in together(experiment, several):
        own = audits[len(infos) : len(infos) + len(part)]
        infos += _part(experiment, part, nets, audits=own, threads=threads)
    return infos


def _part(
    experiment: Experiment,
    part: list[Unit],
    nets: _Loading,
    *,
    audits: list[StagePaths],
    threads: int | None,
) -> list[dict[str, Any]]:
    """Segment an image for targets that need each other, or for one."""
    units: list[UnitRun] = []
    staged, other = False, ""
    try:
        units = [open_unit(experiment, unit) for unit in part]
        staged = needs_stages(units)
        networks = [nets.load(unit.unit.target) for unit in units if not unit.sources]
        other = next((each.other for each in networks if each.other), "")
        if staged:
            found = run_staged(units, numerics_of_job=other, threads=threads)
            return [{"n_cells": facts["n_cells"]} for facts in found.values()]
        if len(units) == 1 and audits[0].plan.exists():
            return [{"n_cells": json.loads(audits[0].plan.read_text())["n_cells"]}]
        whole = segment_whole(units[0], networks[0], threads=threads) if len(units) == 1 else None
    except (*FAILURES, LedgerError) as error:
        if isinstance(error, Held | Fenced) or not is_of_image(error):
            raise
        _tidy(units if staged else [], other)
        return _failed(audits, error)
    if whole is None:  # what was to be made of them could not be opened: each by itself
        pairs = zip(part, audits, strict=True)
        each = (_part(experiment, [u], nets, audits=[a], threads=threads) for u, a in pairs)
        return list(itertools.chain.from_iterable(each))
    # What goes wrong from here on, as a full disk, is not the image's fault and ends the job.
    facts = publish_whole(units[0], whole, numerics_of_job=other, threads=threads)
    return [{"n_cells": facts["n_cells"]}]


def _tidy(units: list[UnitRun], numerics_of_job: str) -> None:
    """Remove the stages of an image that failed: what is there may be what is wrong."""
    for unit in units:
        if unit.stage("audit").plan.exists():  # it was finished before another one failed
            with_plans(unit, numerics_of_job)
    for unit in units:
        clear_stages(unit)


def _failed(audits: list[StagePaths], error: Exception) -> list[dict[str, Any]]:
    """Note why those units of an image could not be finished that are not."""
    for audit in audits:
        if not audit.plan.exists():
            note_failure(audit, error)
    return [{"failed": str(error)}] * len(audits)


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
