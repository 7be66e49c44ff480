"""Into which blocks an image is cut, for quality control and for tiles: its shape decides."""

from __future__ import annotations

from typing import Any

from cellseg_pipe.geometry import per_axis
from cellseg_pipe.segmentation.tiled import BLOCK_PX as NUMBERED_PX
from cellseg_pipe.tiles import Grid

__all__ = ["block_grid", "cores_said", "look_grid"]

BLOCK_PX = {"2d": (256, 256), "planes": (8, 256, 256), "3d": (32, 128, 128)}
BLOCK_PX["series"] = (1, 256, 256)  # of one time
BLOCKS_MAX = 1 << 18  # of an image: blocks of a larger one are larger
LOOK_PX = {"2d": (2048, 2048), "planes": (16, 1024, 1024), "3d": (64, 256, 256)}
LOOK_PX["series"] = (1, 2048, 2048)


def block_grid(shape: tuple[int, ...], mode: str) -> Grid:
    """Return the blocks of which each has a row in the table of quality control.

    Parameters
    ----------
    shape : tuple of int
        Of the image.
    mode : {"2d", "planes", "3d", "series"}
        How it is seen.

    Returns
    -------
    Grid
        On level 0; it depends on the image alone.
    """
    grid = Grid(shape, BLOCK_PX[mode])
    while len(grid) > BLOCKS_MAX:
        grid = Grid(shape, tuple(2 * edge for edge in grid.pitch))
    return grid


def look_grid(shape: tuple[int, ...], mode: str) -> Grid:
    """Return the boxes that are looked at one at a time: whole blocks.

    Parameters
    ----------
    shape : tuple of int
        Of the image.
    mode : {"2d", "planes", "3d", "series"}
        How it is seen.

    Returns
    -------
    Grid
        On level 0.
    """
    blocks = block_grid(shape, mode).pitch
    edges = tuple(max(edge, block) for edge, block in zip(LOOK_PX[mode], blocks, strict=True))
    return Grid(shape, edges)


def cores_said(core_px: Any, mode: str, *, seams: str) -> tuple[int, ...]:
    """Return the edges of the core of a tile as the user set them.

    Parameters
    ----------
    core_px : int or tuple of int
        `tiles.core_px`.
    mode : {"2d", "planes", "3d"}
        How the image is seen.
    seams : {"exact", "iou"}
        How tiles are joined.

    Returns
    -------
    tuple of int
        Whole blocks where seams are exact; one plane in mode planes.
    """
    block = NUMBERED_PX[mode] if seams == "exact" else (1,) * len(NUMBERED_PX[mode])
    core = per_axis(core_px, len(block), "tiles.core_px")
    if mode == "planes":
        core = (1, *core[1:])
    if any(c % b for c, b in zip(core, block, strict=True)):
        raise ValueError(
            f"tiles.core_px needs multiples of {block}, the units in which cells are numbered, got"
            f" {core}."
        )
    return core
