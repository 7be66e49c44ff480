"""In mode planes, joins the cells of neighbouring planes to cells of the volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.kernels import Pairs, boxes_and_areas, overlap_pairs, sum_pairs
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.segmentation.cells import chain_cells
from cellseg_pipe.segmentation.places import in_region
from cellseg_pipe.segmentation.stored import tables_from_bytes, tables_to_bytes
from cellseg_pipe.stages.number import numbered_tiles
from cellseg_pipe.stages.tiles import Tiles
from cellseg_pipe.stages.tiling import Tiling, read_tiling
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["read_chain", "run", "run_link"]


def run_link(unit: UnitRun, *, batch: int) -> None:
    """Count what the cells of neighbouring planes share, in one batch of columns.

    Parameters
    ----------
    unit : UnitRun
        The unit; the cells of its planes have numbers.
    batch : int
        Which batch; there are as many as of tiles.
    """
    tiling = read_tiling(unit.stage("tiles"))
    with open_batch(unit.stage("link"), batch, tiling.batch(batch)) as work:
        if work.done:
            return
        tiles = numbered_tiles(unit, tiling)
        for number in work.missing:
            work.add(number, _shared(tiling, tiles, number))
        work.finish()


def _shared(tiling: Tiling, tiles: Tiles, number: int) -> bytes:
    """Return areas of a core's cells, and what they share with the plane above."""
    core = tiling.tiles.tile(number).core
    here = tiles.paint(core)
    objects = boxes_and_areas(here)
    label, area = objects.label, objects.area
    if core.stop[0] == tiling.plan.walk_shape[0]:
        return tables_to_bytes(label=label, area=area)
    above = Box((core.start[0] + 1, *core.start[1:]), (core.stop[0] + 1, *core.stop[1:]))
    pairs = overlap_pairs(here, tiles.paint(above))
    return tables_to_bytes(label=label, area=area, pairs=pairs)


def run(unit: UnitRun) -> None:
    """Give the cells of the volume their numbers.

    Parameters
    ----------
    unit : UnitRun
        The unit; its planes are compared.
    """
    tiling = read_tiling(unit.stage("tiles"))
    with open_batch(unit.stage("chain"), 0, [0]) as work:
        if work.done:
            return
        if work.missing:  # an earlier attempt may have come so far and no further
            tiles = numbered_tiles(unit, tiling)
            links = Records(unit.stage("link"), tiling.n_masks)
            work.add(0, pack({"chain": _chains(tiling, links, tiles)}))
        work.finish()


def _chains(tiling: Tiling, links: Records, tiles: Tiles) -> NDArray[np.uint32]:
    """Return the number of the chain of each cell of all planes."""
    counts, seen = np.zeros(tiling.plan.walk_shape[0], np.int64), []
    for number in range(len(tiling.tiles)):
        rows = tiles.rows(number)
        counts[tiling.tiles.tile(number).core.start[0]] += len(rows.id)
        outside = rows.id[~in_region(rows.peak, tiling.plan)]
        seen.append((tiles.on_border(number), outside))
    on_border, inside = np.zeros(counts.sum(), bool), np.ones(counts.sum(), bool)
    area = np.zeros(counts.sum(), np.int64)
    for number, (border, outside) in enumerate(seen):
        on_border[border.astype(np.int64) - 1] = True
        inside[outside.astype(np.int64) - 1] = False
        found = _read_link(links, number)
        area[found["label"].astype(np.int64) - 1] += found["area"]
    pairs = _planes(tiling, links)
    return chain_cells(
        counts, pairs, plan=tiling.plan, area=area, on_border=on_border, inside=inside
    )


def _planes(tiling: Tiling, links: Records) -> Iterator[Pairs]:
    """Yield the table of each plane with the next, summed over its tiles."""
    cores = tiling.tiles.cores
    for z in range(tiling.plan.walk_shape[0] - 1):
        plane = Box((z, *(0,) * (len(cores.shape) - 1)), (z + 1, *cores.shape[1:]))
        yield sum_pairs([_read_link(links, number)["pairs"] for number in cores.over(plane)])


def _read_link(links: Records, number: int) -> dict[str, Any]:
    return tables_from_bytes(links.read(number), pairs=Pairs)


def read_chain(unit: UnitRun) -> NDArray[np.uint32]:
    """Read what `run` decided.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    uint32 array [n]
        In mode planes, the chain of each cell of a plane, 0 for none; else, and in series that are
        not linked, empty.
    """
    if not unit.is_chained:
        return np.zeros(0, np.uint32)
    return unpack(Records(unit.stage("chain"), 1).read(0))[0]["chain"]
