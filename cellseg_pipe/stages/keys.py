"""Which windows, tiles or boxes a job works on, to name those that it could not finish."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cellseg_pipe.stages._blocks import look_grid
from cellseg_pipe.stages.batches import batch_of, window_batch
from cellseg_pipe.stages.paint import level_keys, paint_grid
from cellseg_pipe.stages.tiling import read_frozen, read_tiling
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["keys_of"]

OF_TILES = ("masks", "rivals", "seams", "link", "measure", "compartments")
OF_BOXES = ("paint", "overlap", "qc", "restore")


def keys_of(unit: UnitRun, stage: str, batch: int) -> Iterable[int]:
    """Return what a job works on.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    stage : str
        Name of the stage.
    batch : int
        Which batch.

    Returns
    -------
    iterable of int
        Keys of its ledger; none of `sift` and `shrink`, whose pieces are of several levels.
    """
    unit, stage = unit.named(stage)
    if stage == "predict":
        frozen = read_frozen(unit.stage("plan"))
        return window_batch(frozen.plan, batch, frozen.facts["n_batches"])
    if stage in OF_TILES:
        return read_tiling(unit.stage("tiles")).batch(batch)
    if stage in OF_BOXES:
        grid = paint_grid(unit)
        if stage == "qc":
            grid = look_grid(unit.image.shape, unit.look_mode)
        elif stage == "restore":
            grid = unit.restored_grid
        return batch_of(np.arange(len(grid)), batch, unit.batches["paint"])
    if stage.startswith("level"):
        return level_keys(unit, int(stage.removeprefix("level")))
    return [] if stage in ("sift", "shrink") else [0]
