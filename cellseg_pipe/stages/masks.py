"""Finds the cells of the tiles of one batch."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from cellseg_pipe.geometry import Box
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.segmentation.predict import on_walked_grid
from cellseg_pipe.segmentation.scope import core_needed
from cellseg_pipe.segmentation.seams import see_cells, view_to_bytes
from cellseg_pipe.segmentation.stored import found_to_bytes, stored_records
from cellseg_pipe.segmentation.tiled import Found, counts_of, find_cells, no_cells
from cellseg_pipe.stages.batches import window_batches
from cellseg_pipe.stages.tiles import naming
from cellseg_pipe.stages.tiling import Tiling, read_tiling
from cellseg_pipe.tiles import Tile

__all__ = ["run", "tile_blob"]

log = logging.getLogger(__name__)


def run(
    tiles_paths: StagePaths,
    predict_paths: StagePaths,
    paths: StagePaths,
    *,
    batch: int,
    threads: int | None = None,
) -> None:
    """Find the cells of those tiles of one batch that are not done yet.

    Parameters
    ----------
    tiles_paths, predict_paths, paths : StagePaths
        Of the stages `tiles`, `predict` and `masks`.
    batch : int
        Which batch.
    threads : int, optional
        Threads to use.
    """
    tiling = read_tiling(tiles_paths)
    batches = window_batches(tiling.plan, tiling.n_predict)
    windows = Records(predict_paths, tiling.n_predict, batch_of=batches.item)
    records = stored_records(windows, tiling.plan)
    with open_batch(paths, batch, tiling.batch(batch)) as work:
        if work.done:
            return
        for number in work.missing:
            began = time.monotonic()
            with naming(f"tile {number}, {tiling.tiles.tile(number).core}"):
                tile = tiling.tiles.tile(number)
                blob, info = tile_blob(tiling, records, tile=tile, threads=threads)
            work.add(number, blob, blank=info["n_cells"] == 0, info=info)
            took = time.monotonic() - began
            log.info("tile %d: %d cells in %.2f s", number, info["n_cells"], took)
        work.finish()


def tile_blob(
    tiling: Tiling, records: Any, *, tile: Tile, threads: int | None
) -> tuple[bytes, dict[str, Any]]:
    """Return the cells of a tile, and what later stages need to know without their pixels.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    records : callable
        Gives windows.
    tile : Tile
        On the grid that particles walk on.
    threads : int, optional
        Threads to use.

    Returns
    -------
    blob : bytes
        Of the record.
    info : dict of str
        Of the record.
    """
    plan = tiling.plan
    if tiling.seams == "iou":
        answer = on_walked_grid(records, plan, tile.outer)
        view = see_cells(answer, plan, tile=tile, threads=threads)
        n_cut = int(np.count_nonzero(view.nodes.kept & ~view.nodes.complete))
        return view_to_bytes(view), {"n_cells": len(view.area), "n_cut": n_cut}
    core = core_needed(plan, tile.core)
    if core is None:
        found = no_cells(plan, tile.core)
    else:
        window = core.grow(tiling.tiles.halo).clip(Box.of(plan.walk_shape))
        answer = on_walked_grid(records, plan, window)
        found = find_cells(answer, plan, window=window, core=core, threads=threads)
    return found_to_bytes(found), _info(found, tiling)


def _info(found: Found, tiling: Tiling) -> dict[str, Any]:
    block, count = counts_of(found, tiling.plan)
    return {
        "n_cells": len(found.peak),
        "blocks": block.tolist(),
        "counts": count.tolist(),
        "n_too_far": found.n_too_far,
        "n_over_edge": found.n_over_edge,
        "n_on_border": int(np.count_nonzero(found.on_border)),
    }
