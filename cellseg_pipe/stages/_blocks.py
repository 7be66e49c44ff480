"""Into which blocks quality control cuts an image: they depend on its shape alone."""

from __future__ import annotations

from cellseg_pipe.tiles import Grid

__all__ = ["block_grid", "look_grid"]

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
