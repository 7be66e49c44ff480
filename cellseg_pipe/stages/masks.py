"""Finds the cells of the tiles of one batch."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.segmentation.predict import on_walked_grid
from cellseg_pipe.segmentation.stored import found_to_bytes, stored_records
from cellseg_pipe.segmentation.tiled import Found, counts_of, find_cells
from cellseg_pipe.stages.plan import Tiling, read_tiling
from cellseg_pipe.stages.tiles import naming

__all__ = ["run"]

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
    records = stored_records(Records(predict_paths, tiling.n_predict), tiling.plan)
    with open_batch(paths, batch, tiling.batch(batch)) as work:
        if work.done:
            return
        for number in work.missing:
            began = time.monotonic()
            with naming(f"tile {number}, {tiling.tiles.tile(number).core}"):
                found = _tile(tiling, records, number=number, threads=threads)
            work.add(
                number,
                found_to_bytes(found),
                blank=len(found.peak) == 0,
                info=_info(found, tiling),
            )
            took = time.monotonic() - began
            log.info("tile %d: %d cells in %.2f s", number, len(found.peak), took)
        work.finish()


def _tile(tiling: Tiling, records: Any, *, number: int, threads: int | None) -> Found:
    tile = tiling.tiles.tile(number)
    answer = on_walked_grid(records, tiling.plan, tile.outer)
    return find_cells(answer, tiling.plan, window=tile.outer, core=tile.core, threads=threads)


def _info(found: Found, tiling: Tiling) -> dict[str, Any]:
    """Return what later stages need to know of a tile without its pixels."""
    block, count = counts_of(found, tiling.plan)
    return {
        "blocks": block.tolist(),
        "counts": count.tolist(),
        "n_too_far": found.n_too_far,
        "n_over_edge": found.n_over_edge,
        "n_on_border": int(np.count_nonzero(found.on_border)),
    }
