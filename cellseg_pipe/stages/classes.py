"""Units whose parts are seen at diameters of their own: planned by class, then joined.

A unit has the stages from `plan` to `number` once for each class of diameters: `plan1`, `predict1`
and so on are those of the first. How many there are was said before any pixel was seen; a class
that is not found has no region, and its stages nothing to do.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.packing import pack
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.regions import Region
from cellseg_pipe.segmentation.cells import Rows, add_rows
from cellseg_pipe.segmentation.joining import (
    Settled,
    Shared,
    add_shared,
    blocks_of,
    cells_in,
    settle_rows,
    shared_pixels,
)
from cellseg_pipe.segmentation.stored import tables_from_bytes, tables_to_bytes
from cellseg_pipe.stages.number import class_tiles, counts_of_blocks
from cellseg_pipe.stages.tiles import FoundTiles, naming
from cellseg_pipe.stages.tiling import read_frozen, read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.tiles import first_ids

__all__ = ["run_number", "run_rivals", "seen_as"]

log = logging.getLogger(__name__)


def seen_as(unit: UnitRun) -> tuple[dict[str, Any], Region | None, bool]:
    """Return how a class of a unit is seen, which the unit's own plan has measured.

    Parameters
    ----------
    unit : UnitRun
        Of one class, or any other.

    Returns
    -------
    dict
        Settings that replace those of the unit: none but for a class.
    Region or None
        Where the peaks of its cells lie.
    bool
        Whether no cells were found to measure the diameter of the unit on.
    """
    if unit.part is None:
        return {}, None, False
    plan = read_frozen(unit.whole.stage("plan")).plan
    assert plan.fields is not None  # or there would be no classes
    sizes = plan.fields.diameter_px
    px = sizes[unit.part] if unit.part < len(sizes) else plan.diameter_px
    region = plan.fields.region(unit.part, plan.region)
    return {"diameter_px": px, "diameter_classes": 1}, region, plan.unmeasured


def run_rivals(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Count the pixels that cells of different classes share, in the cores of a batch of tiles.

    Parameters
    ----------
    unit : UnitRun
        With several classes, whose cells are numbered.
    batch : int
        Which batch; there are as many as of tiles.
    threads : int, optional
        Threads to use.
    """
    tiling, classes = read_tiling(unit.stage("tiles")), class_tiles(unit)
    with open_batch(unit.stage("rivals"), batch, tiling.batch(batch)) as work:
        if work.done:
            return
        for number in work.missing:
            core = tiling.tiles.tile(number).core
            blob = b""
            if sum(tiles.reach(core) for tiles in classes) > 1:
                with naming(f"{unit.name}: tile {number}, {core}"):
                    found = [tiles.paint(core) for tiles in classes]
                shared = shared_pixels(found, threads=threads)
                blob = tables_to_bytes(shared=shared) if len(shared.count) else b""
            work.add(number, blob, blank=not blob)
        work.finish()


def run_number(unit: UnitRun) -> None:
    """Decide which cells of all classes stay, and count them by block.

    Parameters
    ----------
    unit : UnitRun
        With several classes.
    """
    with open_batch(unit.stage("number"), 0, [0]) as work:
        if work.done:
            return
        if work.missing:  # an earlier attempt may have come so far and no further
            settled, first = _settled(unit)
            work.add(0, pack({"first": first, **vars(settled)}))
            log.info("%s: %d cells were found twice", unit.name, len(settled.gone))
        work.finish()


def _settled(unit: UnitRun) -> tuple[Settled, NDArray[np.int64]]:
    """Return what becomes of all cells, and the number of the first cell of each block."""
    tiling, classes = read_tiling(unit.stage("tiles")), class_tiles(unit)
    rivals = Records(unit.stage("rivals"), tiling.n_masks)
    shared = add_shared(
        [
            tables_from_bytes(rivals.read(int(number)), shared=Shared)["shared"]
            for number in rivals.keys()
            if not rivals.is_blank(int(number))
        ]
    )
    contested = np.union1d(shared.left, shared.right)
    rows = [_rows(tiles, cells_in(contested, n)) for n, tiles in enumerate(classes)]
    plans = [read_tiling(part.stage("tiles")).plan for part in unit.parts]
    settled = settle_rows(shared, rows, plans)
    counts = np.sum([counts_of_blocks(part) for part in unit.parts], axis=0)
    for n, part in enumerate(rows):
        gone = part.take(np.isin(part.id, cells_in(settled.gone, n)))
        counts = counts - blocks_of(gone.peak, tiling.plan)
    return settled, first_ids(counts)


def _rows(tiles: FoundTiles, labels: NDArray[np.uint32]) -> Rows:
    """Return what is known of some cells: only their tiles are read."""
    found = (tiles.rows(number) for number in tiles.owners(labels) or [0])
    return add_rows([rows.take(np.isin(rows.id, labels)) for rows in found])
