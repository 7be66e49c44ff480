"""Makes the lower levels of a pyramid shard by shard, each from the finished level above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box, ceil_div
from cellseg_pipe.io.levels import level_grid
from cellseg_pipe.io.shards import ShardWriter, Written, io_context, read_box
from cellseg_pipe.tiles import Grid

__all__ = ["Kind", "downsample", "downsample_shard", "level_grid"]

Kind = Literal["labels", "image"]
METHODS: dict[Kind, Literal["mode", "mean"]] = {"labels": "mode", "image": "mean"}


def downsample(
    array: NDArray[Any],
    factor: Sequence[int],
    *,
    kind: Kind = "labels",
    threads: int | None = None,
) -> NDArray[Any]:
    """Return an array at a lower resolution.

    Parameters
    ----------
    array : array
        Starts at a multiple of the factor.
    factor : sequence of int
        Voxels that become one, per axis; those at the far border may be fewer.
    kind : {"labels", "image"}
        Labels: the one that most of the voxels have, on a tie the lowest, so that background wins
        over cells. Image: the mean, which whole numbers round to the nearest, halves to even.
    threads : int, optional
        As many as there are CPUs by default.

    Returns
    -------
    array
        In the same type; sides rounded up.
    """
    if all(f == 1 for f in factor):
        return array
    source = ts.array(np.ascontiguousarray(array), context=io_context(threads))
    return np.asarray(ts.downsample(source, list(factor), METHODS[kind]).read().result())


def downsample_shard(
    store: Path | str,
    level: int,
    number: int,
    *,
    kind: Kind = "labels",
    threads: int | None = None,
) -> Written:
    """Write one shard of a level from the level above, which must be finished.

    Shards of a level may be written in any order and by any number of jobs. Memory is that of the
    shard and of one shard above.

    Parameters
    ----------
    store : path
        An image or label image that has all its levels.
    level : int
        1 or more.
    number : int
        Of the shard in the level's grid.
    kind : {"labels", "image"}
        What the voxels are, which decides how they are brought together.
    threads : int, optional
        As many as there are CPUs by default.

    Returns
    -------
    Written
        What its files hold.
    """
    if level < 1:
        raise ValueError(f"level 0 is made by none above it, asked for level {level}.")
    above = ShardWriter(Path(store) / str(level - 1), threads=threads)
    writer = ShardWriter(Path(store) / str(level), threads=threads)
    factor = _factor(above.grid.shape, writer.grid.shape, store)
    box = writer.grid.box(number)
    made = np.empty(box.shape, writer.dtype)
    # One shard above at a time; they hold whole voxels of this level, as their sides are even.
    edge = tuple(ceil_div(p, f) for p, f in zip(above.grid.pitch, factor, strict=True))
    parts = Grid(box.shape, edge)
    for part in map(parts.box, range(len(parts))):
        source = _enlarged(part.shift(box.start), factor, above.grid.shape)
        voxels = read_box(Path(store) / str(level - 1), source, threads=threads)
        made[part.slices] = downsample(voxels, factor, kind=kind, threads=threads)
    return writer.write_shard(number, made)


def _factor(above: tuple[int, ...], below: tuple[int, ...], store: Path | str) -> tuple[int, ...]:
    """Return by what each axis was divided, as the shapes of two levels tell."""
    factor = tuple(1 if a == b else 2 for a, b in zip(above, below, strict=True))
    if any(ceil_div(a, f) != b for a, b, f in zip(above, below, factor, strict=True)):
        raise ValueError(
            f"{store} needs levels that are equal or half as long along each axis, got {above} and"
            f" {below}. Make its levels with create_label_pyramid or create_image."
        )
    return factor


def _enlarged(box: Box, factor: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    """Return the voxels of the level above that a box is made of."""
    start = tuple(a * f for a, f in zip(box.start, factor, strict=True))
    stop = tuple(min(b * f, n) for b, f, n in zip(box.stop, factor, shape, strict=True))
    return Box(start, stop)
