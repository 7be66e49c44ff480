"""Gives the cells of a unit their numbers: counts per block, summed up, or tiles joined by IoU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.segmentation.seams import (
    Linked,
    link_views,
    linked_from_bytes,
    linked_to_bytes,
    seam_overlaps,
    seams_from_bytes,
    seams_to_bytes,
    view_from_bytes,
)
from cellseg_pipe.segmentation.tiled import BLOCK_PX
from cellseg_pipe.stages.tiles import FoundTiles, SeenTiles
from cellseg_pipe.stages.tiling import Tiling, read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.tiles import Grid, first_ids

__all__ = ["numbered_tiles", "run", "run_seams"]


def run_seams(
    tiles_paths: StagePaths, masks_paths: StagePaths, paths: StagePaths, *, batch: int
) -> None:
    """Compare the tiles of one batch with those of higher numbers that look at the same pixels.

    Parameters
    ----------
    tiles_paths, masks_paths, paths : StagePaths
        Of the stages `tiles`, `masks` and `seams`.
    batch : int
        Which batch; there are as many as of tiles.
    """
    tiling = read_tiling(tiles_paths)
    masks = Records(masks_paths, tiling.n_masks)
    with open_batch(paths, batch, tiling.batch(batch)) as work:
        if work.done:
            return
        for number in work.missing:
            if masks.is_blank(number):
                work.add(number, b"", blank=True)
            else:
                work.add(number, _compared(tiling, masks, number))
        work.finish()


def _compared(tiling: Tiling, masks: Records, number: int) -> bytes:
    tiles = tiling.tiles
    view = view_from_bytes(masks.read(number), tiles.tile(number))
    tables = []
    for other in tiles.cores.over(view.tile.outer.grow(tiles.halo)):
        tile = tiles.tile(other)
        if other > number and view.tile.outer.meets(tile.outer) and not masks.is_blank(other):
            tables.append(seam_overlaps(view, view_from_bytes(masks.read(other), tile)))
    return seams_to_bytes(view.nodes, tables)


def run(
    tiles_paths: StagePaths,
    masks_paths: StagePaths,
    paths: StagePaths,
    *,
    seams_paths: StagePaths,
    seam_iou: float,
) -> None:
    """Give all cells of a unit their numbers; in mode planes, those of each plane.

    Parameters
    ----------
    tiles_paths, masks_paths, paths : StagePaths
        Of the stages `tiles`, `masks` and `number`.
    seams_paths : StagePaths
        Of the stage `seams`, where tiles are joined by IoU.
    seam_iou : float
        From which IoU on.
    """
    tiling = read_tiling(tiles_paths)
    with open_batch(paths, 0, [0]) as work:
        if work.done:
            return
        if work.missing:  # an earlier attempt may have come so far and no further
            if tiling.seams == "iou":
                seams = Records(seams_paths, tiling.n_masks)
                blob = linked_to_bytes(_linked(tiling, seams, seam_iou=seam_iou))
            else:
                blob = pack({"first": _first(tiling, Records(masks_paths, tiling.n_masks))})
            work.add(0, blob)
        work.finish()


def _first(tiling: Tiling, masks: Records) -> NDArray[np.int64]:
    """Return the number of the first cell of each block."""
    counts = np.zeros(len(Grid(tiling.plan.walk_shape, BLOCK_PX[tiling.plan.mode])), np.int64)
    for _, info in masks.infos():
        np.add.at(counts, info["blocks"], info["counts"])
    return first_ids(counts)


def _linked(tiling: Tiling, seams: Records, *, seam_iou: float) -> Linked:
    nodes, tables = [], []
    for number in range(len(tiling.tiles)):
        if not seams.is_blank(number):
            own, shared = seams_from_bytes(seams.read(number), number)
            nodes.append(own)
            tables += shared
    return link_views(nodes, tables, plan=tiling.plan, seam_iou=seam_iou)


def numbered_tiles(unit: UnitRun, tiling: Tiling) -> FoundTiles | SeenTiles:
    """Return the cells of a unit's tiles under the numbers that `run` gave them.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    tiling : Tiling
        Its tiles.

    Returns
    -------
    FoundTiles or SeenTiles
        As tiles are joined.
    """
    masks = Records(unit.stage("masks"), tiling.n_masks)
    blob = Records(unit.stage("number"), 1).read(0)
    if tiling.seams == "iou":
        return SeenTiles(tiling, masks, linked_from_bytes(blob))
    return FoundTiles(tiling, masks, unpack(blob)[0]["first"])
