"""Looks at the image block by block and at the labels along seams, whatever the tiles are."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.io.shards import read_box
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.qc import Lines, SeamCounts, block_figures, count_lines, lines_of, margin_px
from cellseg_pipe.segmentation.tiled import painted_from
from cellseg_pipe.stages._blocks import block_grid, look_grid
from cellseg_pipe.stages.batches import batch_of
from cellseg_pipe.stages.paint import stored_labels
from cellseg_pipe.stages.tiles import naming
from cellseg_pipe.stages.tiling import Tiling, read_frozen, read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.tiles import Grid

__all__ = ["Looked", "look_whole", "looked_at", "looked_channels", "run", "typical_px"]

log = logging.getLogger(__name__)


def looked_channels(tiling: Tiling, n_channels: int) -> list[int]:
    """Return the channels that the network sees.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    n_channels : int
        Of the image.

    Returns
    -------
    list of int
        Their numbers; all of them where it sees a mixture.
    """
    kinds = {pick.kind for pick in tiling.plan.picks}
    if kinds & {"grey", "stain"}:
        return list(range(n_channels))
    return sorted({pick.index for pick in tiling.plan.picks if pick.kind == "channel"})


def seam_lines(tiling: Tiling) -> tuple[Lines, ...]:
    """Return where tiles meet, and lines to compare with.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.

    Returns
    -------
    tuple of Lines
        Per axis of level 0.
    """
    plan, cores = tiling.plan, tiling.tiles.cores
    positions = []
    for axis, (pitch, n) in enumerate(zip(cores.pitch, cores.shape, strict=True)):
        walked = np.arange(pitch, n, pitch)
        if not plan.walks_level_0:
            walked = np.searchsorted(painted_from(plan, axis), walked)
        # Planes are joined by a rule of their own, which knows no tiles; times are no volume.
        alone = plan.series or (plan.mode == "planes" and axis == 0)
        positions.append(() if alone else tuple(int(p) for p in walked))
    return lines_of(plan.shape, positions, clear_px=typical_px(tiling))


def typical_px(tiling: Tiling) -> float:
    """Return the diameter of a typical cell as voxels count, which may be no cubes.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.

    Returns
    -------
    float
        In px.
    """
    plan = tiling.plan
    stretch = plan.settings.anisotropy if len(plan.shape) == 3 else 1.0
    return float(plan.diameter_px / stretch ** (1 / 3))


def run(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Look at those boxes of one batch that are not done yet.

    Parameters
    ----------
    unit : UnitRun
        The unit; its labels are painted.
    batch : int
        Which batch; there are as many as of painting.
    threads : int, optional
        Threads to use.
    """
    tiling = read_tiling(unit.stage("tiles"))
    grid = look_grid(unit.image.shape, unit.look_mode)
    keys = batch_of(np.arange(len(grid)), batch, unit.batches["paint"])
    with open_batch(unit.stage("qc"), batch, keys) as work:
        if work.done:
            return
        image = read_frozen(unit.stage("plan")).open_image()
        channels = looked_channels(tiling, image.n_channels)
        wanted = _in_region(tiling, grid)
        for number in work.missing:
            if not wanted[number]:
                work.add(number, b"", blank=True)
                continue
            box = grid.box(number)
            with naming(f"{unit.name}: block {number}, {box}"):
                pixels = image.read(box)[channels]
                work.add(number, _seen(unit, tiling, box, pixels=pixels, threads=threads))
        work.finish()


def _in_region(tiling: Tiling, grid: Grid) -> NDArray[np.bool_]:
    """Return which boxes of an image are looked at: what is meant to be segmented."""
    region = tiling.plan.region
    return np.ones(len(grid), bool) if region is None else region.touched_boxes(grid)


def _seen(
    unit: UnitRun, tiling: Tiling, box: Box, *, pixels: NDArray[Any], threads: int | None
) -> bytes:
    typical = typical_px(tiling)
    window = box.grow(margin_px(typical)).clip(Box.of(unit.image.shape))
    labels = read_box(stored_labels(unit) / "0", window, threads=threads)
    blocks = block_grid(unit.image.shape, unit.look_mode)
    figures, covered = [], []
    for number in blocks.over(box):
        block = blocks.box(number)
        figures.append(block_figures(pixels[:, *block.relative_to(box.start).slices]))
        covered.append(np.count_nonzero(labels[block.relative_to(window.start).slices]))
    seams = count_lines(
        labels, window=window, core=box, lines=seam_lines(tiling), typical_px=typical
    )
    return pack(
        {
            "figures": np.stack(figures),
            "covered": np.array(covered, np.int64),
            "seam": seams.seam,
            "other": seams.other,
        }
    )


@dataclass(frozen=True)
class Looked:
    """What was found of all blocks.

    Parameters
    ----------
    figures : float64 array [n, c, len(FIGURES)]
        Of the blocks, by channel.
    covered : int64 array [n]
        Voxels of each block that are in cells.
    inside : bool array [n]
        Whether a block has pixels of the region, if there is one: the others are not looked at.
    seams : SeamCounts
        Of all seams.
    """

    figures: NDArray[np.float64]
    covered: NDArray[np.int64]
    inside: NDArray[np.bool_]
    seams: SeamCounts


def looked_at(unit: UnitRun, tiling: Tiling) -> Looked:
    """Read what the jobs of this stage found.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    tiling : Tiling
        Its tiles.

    Returns
    -------
    Looked
        In the order of the blocks.
    """
    n_boxes = len(look_grid(unit.image.shape, unit.look_mode))
    return _put_together(unit, tiling, _stored(unit, n_boxes))


def look_whole(
    unit: UnitRun, tiling: Tiling, pixels: NDArray[Any], *, threads: int | None = None
) -> Looked:
    """Look at all of an image that is in memory, as the jobs of this stage do box by box.

    Parameters
    ----------
    unit : UnitRun
        The unit; its labels are stored.
    tiling : Tiling
        Its tiles.
    pixels : array [C, *spatial]
        All channels of the image.
    threads : int, optional
        Threads to use.

    Returns
    -------
    Looked
        In the order of the blocks.
    """
    grid = look_grid(unit.image.shape, unit.look_mode)
    seen = pixels[looked_channels(tiling, len(pixels))]
    found = (
        (number, unpack(_seen(unit, tiling, box, pixels=seen[:, *box.slices], threads=threads))[0])
        for number, box in enumerate(map(grid.box, range(len(grid))))
    )
    return _put_together(unit, tiling, found)


def _put_together(
    unit: UnitRun, tiling: Tiling, parts: Iterable[tuple[int, dict[str, NDArray[Any]]]]
) -> Looked:
    shape, mode = unit.image.shape, unit.look_mode
    blocks, grid = block_grid(shape, mode), look_grid(shape, mode)
    n_channels = len(looked_channels(tiling, unit.image.n_channels))
    figures = np.full((len(blocks), n_channels, 0), math.nan)
    covered = np.zeros(len(blocks), np.int64)
    seams = []
    for number, found in parts:
        if not figures.shape[2]:
            figures = np.full((*figures.shape[:2], found["figures"].shape[2]), math.nan)
        rows = list(blocks.over(grid.box(number)))
        figures[rows], covered[rows] = found["figures"], found["covered"]
        seams.append(SeamCounts(found["seam"], found["other"]))
    inside = _in_region(tiling, blocks)
    figures[~inside], covered[~inside] = math.nan, 0
    return Looked(figures, covered, inside, SeamCounts.add(seams))


def _stored(unit: UnitRun, n: int) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    records = Records(unit.stage("qc"), unit.batches["paint"])
    for number in range(n):
        if not records.is_blank(number):
            yield number, unpack(records.read(number))[0]
