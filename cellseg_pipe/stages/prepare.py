"""Copies an image that cannot be read box by box, once, to a store that can."""

from __future__ import annotations

import json
import math
from pathlib import Path

from cellseg_pipe.io.convert import convert
from cellseg_pipe.io.levels import choose_version, count_files
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.stages.room import refuse, room_in
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["run"]

MEMORY_BYTES = 2_000_000_000  # where the experiment does not say what a job may take


def _check_room(unit: UnitRun) -> None:
    """Refuse a copy that does not fit, as if nothing of it were compressed."""
    image = unit.image
    n_bytes = math.prod(image.shape) * image.voxel_bytes * image.n_times
    version = choose_version(image.shape, len(image.shape), image.n_channels)
    n_files = image.n_times * count_files(
        image.shape, len(image.shape), image.n_channels, version=version
    )
    lacks = room_in(unit.copy.parent).lacks(n_bytes, n_files)
    refuse(lacks, unit.experiment.resources.disk)


def run(unit: UnitRun) -> Path:
    """Copy the image of a unit.

    Parameters
    ----------
    unit : UnitRun
        The unit; `needs_copy` is true.

    Returns
    -------
    path
        What says that the copy is there.
    """
    paths = unit.stage("prepare")
    if paths.plan.exists() and unit.copy.exists():
        return paths.plan
    paths.root.mkdir(parents=True, exist_ok=True)
    said = unit.experiment.resources.memory_gb
    memory = MEMORY_BYTES if said == "auto" else round(said * 1e9)
    _check_room(unit)
    convert(unit.image, unit.copy, memory_bytes=memory, stage_hash=paths.digest)
    write_whole(paths.plan, json.dumps({"copy": str(unit.copy), "of": unit.image.path}).encode())
    return paths.plan
