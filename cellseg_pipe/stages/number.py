"""Gives the cells of a unit their numbers: counts per block, summed up, or tiles joined by IoU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.ledger import Batch, Records, Sync, open_batch
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.segmentation.joining import Settled
from cellseg_pipe.segmentation.seams import (
    Gatherer,
    Nodes,
    part_to_bytes,
    refused_to_bytes,
    seam_overlaps,
    seams_from_bytes,
    seams_to_bytes,
    settle_seams,
    view_from_bytes,
)
from cellseg_pipe.segmentation.tiled import BLOCK_PX
from cellseg_pipe.stages.joined import JoinedTiles
from cellseg_pipe.stages.tiles import FoundTiles, SeenTiles
from cellseg_pipe.stages.tiling import Tiling, read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.tiles import Grid, first_ids

__all__ = ["class_tiles", "counts_of_blocks", "numbered_tiles", "run", "run_seams"]

RARELY = Sync(every_tiles=4096)  # what this job makes takes less time to make again


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
    # Joined tiles have a record each, and one more holds what could not be settled.
    n = len(tiling.tiles) + 1 if tiling.seams == "iou" else 1
    with open_batch(paths, 0, range(n), sync=RARELY) as work:
        if work.done:
            return
        if work.missing:  # an earlier attempt may have come so far and no further
            if tiling.seams == "iou":
                _join(tiling, Records(seams_paths, tiling.n_masks), work, seam_iou=seam_iou)
            else:
                counts = _counts(tiling, Records(masks_paths, tiling.n_masks))
                work.add(0, pack({"first": first_ids(counts)}))
        work.finish()


def counts_of_blocks(unit: UnitRun) -> NDArray[np.int64]:
    """Return how many numbered cells each block of an image has.

    Parameters
    ----------
    unit : UnitRun
        Whose tiles know their cells whole.

    Returns
    -------
    int64 array [n_blocks]
        In C order.
    """
    tiling = read_tiling(unit.stage("tiles"))
    return _counts(tiling, Records(unit.stage("masks"), tiling.n_masks))


def _counts(tiling: Tiling, masks: Records) -> NDArray[np.int64]:
    counts = np.zeros(len(Grid(tiling.plan.walk_shape, BLOCK_PX[tiling.plan.mode])), np.int64)
    for _, info in masks.infos():
        np.add.at(counts, info["blocks"], info["counts"])
    return counts


def _join(tiling: Tiling, seams: Records, work: Batch, *, seam_iou: float) -> None:
    """Name the cells of all tiles, which are read twice: only those on seams are in memory."""
    numbers = [n for n in range(len(tiling.tiles)) if not seams.is_blank(n)]
    gatherer = Gatherer(tiling.plan)
    for number in numbers:
        gatherer.add(*seams_from_bytes(seams.read(number), number))
    settled = settle_seams(gatherer.gathered(), plan=tiling.plan, seam_iou=seam_iou)
    missing = set(work.missing)
    parts = settled.parts(_nodes(seams, numbers))
    for number, part in zip(numbers, parts, strict=True):
        if number in missing:
            work.add(number, part_to_bytes(part))
            missing.remove(number)
    for number in sorted(missing - {len(tiling.tiles)}):
        work.add(number, b"", blank=True)
    if len(tiling.tiles) in missing:
        blob = refused_to_bytes(settled.conflicts, n_hidden=len(settled.hidden))
        work.add(len(tiling.tiles), blob)


def _nodes(seams: Records, numbers: list[int]) -> Iterator[Nodes]:
    for number in numbers:
        yield seams_from_bytes(seams.read(number), number)[0]


def numbered_tiles(unit: UnitRun, tiling: Tiling) -> FoundTiles | SeenTiles | JoinedTiles:
    """Return the cells of a unit's tiles under the numbers that `run` gave them.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    tiling : Tiling
        Its tiles.

    Returns
    -------
    FoundTiles, SeenTiles or JoinedTiles
        As tiles, or classes of diameters, are joined.
    """
    if unit.origin.parts:
        known, _ = unpack(Records(unit.stage("number"), 1).read(0))
        first = known.pop("first")
        return JoinedTiles(tiling, class_tiles(unit.origin), settled=Settled(**known), first=first)
    masks = Records(unit.stage("masks"), tiling.n_masks)
    numbered = Records(unit.stage("number"), 1)
    if tiling.seams == "iou":
        return SeenTiles(tiling, masks, numbered)
    return FoundTiles(tiling, masks, unpack(numbered.read(0))[0]["first"])


def class_tiles(unit: UnitRun) -> list[FoundTiles]:
    """Return the cells of each class of diameters under the numbers that they have in it.

    Parameters
    ----------
    unit : UnitRun
        With several classes.

    Returns
    -------
    list of FoundTiles
        One for each class, also where it has no cells.
    """
    found = []
    for part in unit.parts:
        tiles = numbered_tiles(part, read_tiling(part.stage("tiles")))
        assert isinstance(tiles, FoundTiles)  # seams are exact where there are classes
        found.append(tiles)
    return found
