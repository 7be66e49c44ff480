"""Copies an image that cannot be read box by box, once, to a store that can."""

from __future__ import annotations

import json
from pathlib import Path

from cellseg_pipe.io.convert import convert
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["run"]

MEMORY_BYTES = 2_000_000_000  # where the experiment does not say what a job may take


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
    convert(unit.image, unit.copy, memory_bytes=memory, stage_hash=paths.digest)
    write_whole(paths.plan, json.dumps({"copy": str(unit.copy), "of": unit.image.path}).encode())
    return paths.plan
