"""Which images are so small that one job segments many of them, and into how many jobs."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cellseg_pipe.config import Experiment
from cellseg_pipe.geometry import ceil_div
from cellseg_pipe.stages._run_layout import BUNDLE, PLAN, SMALL, StageLayout, UnitLayout
from cellseg_pipe.stages.staged import needs_stages
from cellseg_pipe.stages.unit import READ_WHOLE_BYTES, UnitRun
from cellseg_pipe.tiles import equal_batches

__all__ = ["bundled", "image_of", "layout_of_bundles"]

SMALL_VOXELS = 1 << 22  # 2048 x 2048, as a block: such an image is one tile
FROM_IMAGES = 16  # fewer are jobs of their own, which keep windows for other thresholds
BUNDLE_VOXELS = 1 << 26  # of one job
PLANNED = 5  # of the largest images, the first of which can be read tells time and memory
BEGIN_VOXELS = 1 << 16  # what beginning and ending an image takes, as time of so many voxels


def bundled(experiment: Experiment, units: Sequence[UnitRun]) -> list[UnitRun]:
    """Return the units that are segmented many by one job.

    Parameters
    ----------
    experiment : Experiment
        What they are of.
    units : sequence of UnitRun
        All of them.

    Returns
    -------
    list of UnitRun
        In their order, those of an image together.
    """
    said = experiment.tiles.bundle_px
    limit = SMALL_VOXELS if said == "auto" else said
    small = [unit for unit in units if unit.n_voxels <= limit and _fits(unit)]
    n_images = len({image_of(unit) for unit in small})
    return [] if said == "auto" and n_images < FROM_IMAGES else small


def _fits(unit: UnitRun) -> bool:
    return unit.n_voxels * unit.image.voxel_bytes <= READ_WHOLE_BYTES


def image_of(unit: UnitRun) -> str:
    """Return the name of a unit's image.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    str
        Units of one image stand together.
    """
    return str(unit.unit.image.name)


def layout_of_bundles(experiment: Experiment, units: Sequence[UnitRun]) -> UnitLayout:
    """Say which jobs segment small images.

    Parameters
    ----------
    experiment : Experiment
        What they are of.
    units : sequence of UnitRun
        From `bundled`; one or more.

    Returns
    -------
    UnitLayout
        A plan, and jobs each of which has a hash of its own images: one that is repaired, or
        failed the last time, makes its own job run again.
    """
    return UnitLayout(SMALL, tuple(_stages(experiment, units)))


def _stages(experiment: Experiment, units: Sequence[UnitRun]) -> Iterator[StageLayout]:
    images = [list(several) for _, several in itertools.groupby(units, key=image_of)]
    largest = sorted(images, key=lambda several: several[0].n_voxels, reverse=True)[:PLANNED]
    about: list[Any] = [
        (unit.name, unit.origin.digests["masks"]) for several in largest for unit in several
    ]
    if any(needs_stages(several) for several in largest):  # then all of it takes room and time
        about += [unit.digests["audit"] for several in largest for unit in several]
    tried = tuple(unit.name for several in largest for unit in several)
    yield StageLayout(PLAN, _hash(["networks", about]), 1, (), tried)
    costs = np.array([sum(unit.n_voxels + BEGIN_VOXELS for unit in of) for of in images], np.int64)
    said = experiment.tiles.batches.bundles
    n_jobs = ceil_div(int(costs.sum()), BUNDLE_VOXELS) if said == "auto" else said
    batches = equal_batches(costs, n_jobs)
    for number, batch in enumerate(np.unique(batches)):
        rows = np.flatnonzero(batches == batch).tolist()
        chosen = [unit for row in rows for unit in images[row]]
        facts = [(unit.name, unit.digests["audit"], _tries(unit)) for unit in chosen]
        names = tuple(unit.name for unit in chosen)
        voxels = sum(unit.n_voxels for unit in chosen)
        yield StageLayout(f"{BUNDLE}{number}", _hash(facts), 1, (PLAN,), names, voxels)


def _tries(unit: UnitRun) -> int:
    """Return how often an image has failed: each time makes another hash, so it is tried again."""
    file = unit.stage("audit").failed
    return int(json.loads(file.read_text())["tries"]) if file.exists() else 0


def _hash(about: Any) -> str:
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
