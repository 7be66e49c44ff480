"""How a pyramid is laid out: its levels, chunks, shards and files. Arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from cellseg_pipe.geometry import ceil_div
from cellseg_pipe.tiles import Grid

__all__ = [
    "CHUNK_PX",
    "SHARD_PX",
    "Version",
    "choose_version",
    "chunk_shape",
    "count_files",
    "level_factors",
    "level_grid",
    "level_shape",
    "shard_shape",
]

Version = Literal["0.4", "0.5"]
CHUNK_PX = {2: (512, 512), 3: (64, 64, 64)}
SHARD_PX = {2: (2048, 2048), 3: (128, 256, 256)}
TOP_PX = 512  # the last level has no longer side in y and x
FILES_MAX = 20_000  # from here on a store is sharded, though fewer viewers read it


def level_factors(
    shape: Sequence[int],
    spacing_um: Sequence[float] | None = None,
    *,
    n_levels: int | None = None,
) -> list[tuple[int, ...]]:
    """Return how many voxels of level 0 one voxel of each level spans.

    Each level halves y and x, until neither is longer than 512. It halves z where this makes the
    voxel more of a cube: where a step of z is shorter than sqrt(2) steps of y.

    Parameters
    ----------
    shape : sequence of int
        Spatial axes of level 0, yx or zyx.
    spacing_um : sequence of float, optional
        Size of a voxel; equal along all axes by default.
    n_levels : int, optional
        This many levels instead, 1 or more.

    Returns
    -------
    list of tuple of int
        A power of two per spatial axis for each level, ones for level 0.
    """
    steps = tuple(spacing_um or (1.0,) * len(shape))
    if len(shape) not in CHUNK_PX or len(steps) != len(shape):
        raise ValueError(
            f"a pyramid has 2 or 3 spatial axes with a spacing each, got shape {tuple(shape)} and"
            f" spacing {steps}."
        )
    if n_levels is not None and n_levels < 1:
        raise ValueError(f"a pyramid has 1 or more levels, got n_levels={n_levels}.")
    factors = [(1,) * len(shape)]
    while len(factors) < n_levels if n_levels else _is_long(shape, factors[-1]):
        factors.append(_halved(shape, factors[-1], steps))
    return factors


def _is_long(shape: Sequence[int], factor: Sequence[int]) -> bool:
    return max(level_shape(shape, factor)[-2:]) > TOP_PX


def _halved(
    shape: Sequence[int], factor: tuple[int, ...], steps: tuple[float, ...]
) -> tuple[int, ...]:
    plane = tuple(2 * f for f in factor[-2:])
    if len(factor) == 2:
        return plane
    z, y = (s * f for s, f in zip(steps[:2], factor[:2], strict=True))
    halve_z = z * z < 2 * y * y and level_shape(shape, factor)[0] > 1
    return (2 * factor[0] if halve_z else factor[0], *plane)


def level_shape(shape: Sequence[int], factor: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a level: sides are rounded up, so that no voxel is left out."""
    return tuple(ceil_div(n, f) for n, f in zip(shape, factor, strict=True))


def chunk_shape(shape: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return the chunk of an array: no larger than the image, one along leading axes.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    ndim : int
        How many of its last axes are spatial.

    Returns
    -------
    tuple of int
        Voxels per axis.
    """
    inner = (min(c, max(n, 1)) for c, n in zip(CHUNK_PX[ndim], shape[-ndim:], strict=True))
    return (*(1,) * (len(shape) - ndim), *inner)


def shard_shape(shape: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return the shard of an array: whole chunks, none of which lies wholly outside the image.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    ndim : int
        How many of its last axes are spatial.

    Returns
    -------
    tuple of int
        Voxels per axis. The shards of an array are the same boxes as a grid of `SHARD_PX` gives.
    """
    chunk = chunk_shape(shape, ndim)
    largest = (*chunk[: len(shape) - ndim], *SHARD_PX[ndim])
    return tuple(
        c if n <= c else min(s, ceil_div(n, c) * c)
        for n, c, s in zip(shape, chunk, largest, strict=True)
    )


def level_grid(
    shape: Sequence[int],
    level: int,
    *,
    spacing_um: Sequence[float] | None = None,
    ndim: int | None = None,
) -> Grid:
    """Return the shards of one level: the units of work that write it.

    Parameters
    ----------
    shape : sequence of int
        Of level 0, leading axes first.
    level : int
        0 for the finest.
    spacing_um : sequence of float, optional
        Size of a voxel; equal along all axes by default.
    ndim : int, optional
        How many of the last axes are spatial; all by default.

    Returns
    -------
    Grid
        In voxels of that level. In OME-Zarr 0.4, which has no shards, each box is some whole
        chunks.
    """
    ndim = ndim or len(shape)
    factor = level_factors(shape[-ndim:], spacing_um, n_levels=level + 1)[level]
    coarse = level_shape(shape, (*(1,) * (len(shape) - ndim), *factor))
    return Grid(coarse, shard_shape(coarse, ndim))


def count_files(
    shape: Sequence[int],
    ndim: int,
    n_channels: int = 1,
    *,
    version: Version = "0.4",
    spacing_um: Sequence[float] | None = None,
) -> int:
    """Return how many files of pixels a store has at most, over all its levels.

    Parameters
    ----------
    shape : sequence of int
        Of level 0; leading axes may be there or not.
    ndim : int
        How many of the last axes are spatial.
    n_channels : int
        Images of this shape that the store holds.
    version : {"0.4", "0.5"}
        A file is a chunk in 0.4 and a shard in 0.5.
    spacing_um : sequence of float, optional
        Size of a voxel; equal along all axes by default.

    Returns
    -------
    int
        Blank chunks and shards have no file; here they count.
    """
    lead = (1,) * (len(shape) - ndim)
    total = 0
    for factor in level_factors(shape[-ndim:], spacing_um):
        coarse = level_shape(shape, (*lead, *factor))
        stored = chunk_shape(coarse, ndim) if version == "0.4" else shard_shape(coarse, ndim)
        total += math.prod(level_shape(coarse, stored))
    return total * n_channels


def choose_version(
    shape: Sequence[int],
    ndim: int,
    n_channels: int = 1,
    *,
    spacing_um: Sequence[float] | None = None,
) -> Version:
    """Return the OME-Zarr version that suits an image, what `ngff: auto` means.

    Parameters
    ----------
    shape : sequence of int
        Of level 0; leading axes may be there or not.
    ndim : int
        How many of the last axes are spatial.
    n_channels : int
        Images of this shape that the store holds.
    spacing_um : sequence of float, optional
        Size of a voxel; equal along all axes by default.

    Returns
    -------
    {"0.4", "0.5"}
        0.4, which all viewers read, below 20,000 chunks over all levels; sharded 0.5 from there.
    """
    n_files = count_files(shape, ndim, n_channels, spacing_um=spacing_um)
    return "0.4" if n_files < FILES_MAX else "0.5"
