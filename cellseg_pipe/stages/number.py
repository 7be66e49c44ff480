"""Gives the cells of a unit their numbers: counts per block, summed up; in planes, chains."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.kernels import Pairs, boxes_and_areas, overlap_pairs, sum_pairs
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.segmentation.cells import Rows, add_rows, chain_cells, join_rows
from cellseg_pipe.segmentation.stored import tables_from_bytes, tables_to_bytes
from cellseg_pipe.segmentation.tiled import BLOCK_PX, DROPPED, paint
from cellseg_pipe.stages.plan import Tiling, read_tiling
from cellseg_pipe.stages.tiles import FoundTiles
from cellseg_pipe.tiles import Grid, first_ids

__all__ = ["read_numbers", "run", "run_link"]

log = logging.getLogger(__name__)


def first_numbers(tiling: Tiling, masks: Records) -> NDArray[np.int64]:
    """Return the number of the first cell of each block.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    masks : Records
        Its tiles.

    Returns
    -------
    int64 array [n_blocks]
        Before planes are joined.
    """
    counts = np.zeros(len(Grid(tiling.plan.walk_shape, BLOCK_PX[tiling.plan.mode])), np.int64)
    for _, info in masks.infos():
        np.add.at(counts, info["blocks"], info["counts"])
    return first_ids(counts)


def run_link(
    tiles_paths: StagePaths, masks_paths: StagePaths, paths: StagePaths, *, batch: int
) -> None:
    """Count what the cells of neighbouring planes share, in one batch of columns.

    Parameters
    ----------
    tiles_paths, masks_paths, paths : StagePaths
        Of the stages `tiles`, `masks` and `link`.
    batch : int
        Which batch; there are as many as of tiles.
    """
    tiling = read_tiling(tiles_paths)
    masks = Records(masks_paths, tiling.n_masks)
    tiles = FoundTiles(tiling, masks, first_numbers(tiling, masks))
    with open_batch(paths, batch, tiling.batch(batch)) as work:
        if work.done:
            return
        for number in work.missing:
            work.add(number, _shared(tiling, tiles, number))
        work.finish()


def _shared(tiling: Tiling, tiles: FoundTiles, number: int) -> bytes:
    """Return areas of a core's cells, and what they share with the plane above."""
    core = tiling.tiles.tile(number).core
    here = paint(core, tiles.over(core))
    objects = boxes_and_areas(here)
    label, area = objects.label, objects.area
    if core.stop[0] == tiling.plan.walk_shape[0]:
        return tables_to_bytes(label=label, area=area)
    above = Box((core.start[0] + 1, *core.start[1:]), (core.stop[0] + 1, *core.stop[1:]))
    pairs = overlap_pairs(here, paint(above, tiles.over(above)))
    return tables_to_bytes(label=label, area=area, pairs=pairs)


def run(
    tiles_paths: StagePaths, masks_paths: StagePaths, *, link_paths: StagePaths, paths: StagePaths
) -> None:
    """Give all cells of a unit their numbers.

    Parameters
    ----------
    tiles_paths, masks_paths, link_paths, paths : StagePaths
        Of the stages `tiles`, `masks`, `link` (in mode planes) and `number`.
    """
    tiling = read_tiling(tiles_paths)
    masks = Records(masks_paths, tiling.n_masks)
    with open_batch(paths, 0, [0]) as work:
        if work.done:
            return
        if work.missing:  # an earlier attempt may have come so far and no further
            first = first_numbers(tiling, masks)
            chain = np.zeros(0, np.uint32)
            if tiling.plan.mode == "planes":
                links = Records(link_paths, tiling.n_masks)
                chain = _chains(tiling, links, FoundTiles(tiling, masks, first))
            work.add(0, pack({"first": first, "chain": chain}))
        work.finish()


def _chains(tiling: Tiling, links: Records, tiles: FoundTiles) -> NDArray[np.uint32]:
    """Return the number of the chain of each cell of all planes."""
    numbers = range(len(tiling.tiles))
    # Of a tile no more is kept than a row per cell.
    parts = [_rows_of(tiles, number) for number in numbers]
    rows = add_rows([part for part, _ in parts])
    on_border = np.zeros(len(rows.id), bool)
    area = np.zeros(len(rows.id), np.int64)
    for number, (part, border) in zip(numbers, parts, strict=True):
        on_border[part.id.astype(np.int64) - 1] = border
        found = _read_link(links, number)
        area[found["label"].astype(np.int64) - 1] += found["area"]
    pairs = _planes(tiling, links)
    return chain_cells(rows, pairs, plan=tiling.plan, area=area, on_border=on_border)


def _rows_of(tiles: FoundTiles, number: int) -> tuple[Rows, NDArray[np.bool_]]:
    """Return the numbered cells of a tile, and which of them touch the border."""
    found, ids = tiles.read(number)
    order = np.argsort(ids, kind="stable")
    return join_rows([(found, ids)]), found.on_border[order[ids[order] != DROPPED]]


def _planes(tiling: Tiling, links: Records) -> Iterator[Pairs]:
    """Yield the table of each plane with the next, summed over its tiles."""
    cores = tiling.tiles.cores
    for z in range(tiling.plan.walk_shape[0] - 1):
        plane = Box((z, *(0,) * (len(cores.shape) - 1)), (z + 1, *cores.shape[1:]))
        yield sum_pairs([_read_link(links, number)["pairs"] for number in cores.over(plane)])


def _read_link(links: Records, number: int) -> dict[str, Any]:
    return tables_from_bytes(links.read(number), pairs=Pairs)


def read_numbers(paths: StagePaths) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Read what `run` decided.

    Parameters
    ----------
    paths : StagePaths
        Of the stage `number`.

    Returns
    -------
    first : int64 array [n_blocks]
        Number of the first cell of each block.
    chain : uint32 array [n]
        In mode planes, the chain of each such number, 0 for none; else empty.
    """
    arrays, _ = unpack(Records(paths, 1).read(0))
    return arrays["first"], arrays["chain"]
