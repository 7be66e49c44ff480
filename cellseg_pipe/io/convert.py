"""Converts an image whose boxes cannot be read cheaply to OME-Zarr, once and out of core."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box, ceil_div
from cellseg_pipe.io._attributes import MARKER, marker_of, set_attribute, to_disk
from cellseg_pipe.io._segments import CACHE_BYTES
from cellseg_pipe.io.levels import choose_version, chunk_shape, shard_shape
from cellseg_pipe.io.ngff import ImageMeta, Version, create_image, show_values
from cellseg_pipe.io.opening import OpenImage
from cellseg_pipe.tiles import Grid

if TYPE_CHECKING:
    import zarr

__all__ = ["convert"]

log = logging.getLogger(__name__)

COPIES = 4  # of a slab: read, put in order, cut into chunks, compressed


@dataclass(frozen=True)
class _Cut:
    """How an image is stored and in which slabs it is copied; spatial axes."""

    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    slab: tuple[int, ...]


def convert(
    image: OpenImage,
    out: Path | str,
    *,
    memory_bytes: int,
    version: Version | None = None,
    stage_hash: str = "",
) -> Path:
    """Copy the pixels of an image to an OME-Zarr store of one level, slab by slab.

    The store appears under its name when it is complete. If it is there already, of the same
    pixels, nothing is done.

    Parameters
    ----------
    image : OpenImage
        Of any kind.
    out : path
        The new store; its folder must exist.
    memory_bytes : int
        What the copy may take.
    version : {"0.4", "0.5"}, optional
        Of the format; by default 0.5, which has shards, from 20,000 chunks on.
    stage_hash : str
        Of the stage that makes the store; empty where none does.

    Returns
    -------
    path
        The store.
    """
    out = Path(out)
    if _is_done(image, out):
        return out
    version = version or choose_version(image.shape, len(image.shape), image.n_channels)
    cut = _cut(image, memory_bytes, version)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        made = Path(folder) / out.name
        level = _created(made, image, cut, version=version, stage_hash=stage_hash)
        window = _copied(image, level, cut)
        _finish(made, image, window)
        try:
            os.rename(made, out)
        except OSError:
            if not _is_done(image, out):  # else another process was first, with the same pixels
                raise
        to_disk(out.parent)
    log.info("%s converted to %s (OME-Zarr %s)", image.path, out, version)
    return out


def _is_done(image: OpenImage, out: Path) -> bool:
    if not os.path.lexists(out):
        return False
    if (marker_of(out) or {}).get("source") != image.identity:
        raise FileExistsError(
            f"{out} exists and is no copy of {image.path} as it is now. Remove it, or name another"
            " store."
        )
    return True


def _cut(image: OpenImage, memory_bytes: int, version: Version) -> _Cut:
    """Return the thickest slabs that fit into memory; thin planes as chunks where none does."""
    shape, ndim = image.shape, len(image.shape)
    chunk, shard = chunk_shape(shape, ndim), shard_shape(shape, ndim)
    flat = (1,) * (ndim - 2) + chunk_shape(shape[-2:], 2)
    flat_shard = (1,) * (ndim - 2) + shard_shape(shape[-2:], 2)
    voxel_bytes = COPIES * image.voxel_bytes
    whole_bytes = image.voxel_bytes * math.prod(shape)
    # Decoded strips are kept as far as they fit, and one is decoded besides.
    held_bytes = max(min(CACHE_BYTES, whole_bytes), image.piece_bytes) + image.piece_bytes
    spare_bytes = memory_bytes - held_bytes
    least_bytes = 0
    for stored, packed, unit in (
        (chunk, shard, shard if version == "0.5" else chunk),
        (chunk, shard, chunk),  # a shard is then written in parts
        (flat, flat_shard, flat),
    ):
        depth = math.prod(unit[:-2])
        least_bytes = voxel_bytes * depth * unit[-2] * shape[-1]
        if least_bytes <= spare_bytes:
            rows = spare_bytes // least_bytes * unit[-2]
            slab = (*unit[:-2], min(rows, ceil_div(shape[-2], unit[-2]) * unit[-2]), shape[-1])
            return _Cut(stored, packed, slab)
    raise ValueError(
        f"{image.path} needs {(held_bytes + least_bytes) / 1e6:.0f} MB to be converted, of which"
        f" {image.piece_bytes / 1e6:.0f} MB for a piece that is decoded as one; got"
        f" {memory_bytes / 1e6:.0f} MB. Raise the memory, or save it in tiles first."
    )


def _created(
    made: Path, image: OpenImage, cut: _Cut, *, version: Version, stage_hash: str
) -> zarr.Array:
    """Create the store, with an axis of channels or times only where there are several."""
    axes = ("t" if image.n_times > 1 else "") + ("c" if image.n_channels > 1 else "")
    lead = tuple(n for n in (image.n_times, image.n_channels) if n > 1)
    known = image.spacing_um is not None
    meta = ImageMeta(
        axes + image.spatial,
        image.spacing_um or (1.0,) * len(image.shape),
        _channels(image),
        translation_um=(image.offset_um or ()) if known else (),
        unit="micrometer" if known else None,
        stage_hash=stage_hash,
    )
    array = {
        "shape": (*lead, *image.shape),
        "dtype": image.dtype,
        "chunks": (*(1,) * len(lead), *cut.chunk),
        "shards": (*(1,) * len(lead), *cut.shard) if version == "0.5" else None,
    }
    return create_image(made, meta, array=array, value_range=(0, 1), version=version)


def _channels(image: OpenImage) -> tuple[str, ...]:
    if image.channel_names:
        return image.channel_names
    if image.rgb:
        return ("red", "green", "blue")
    return tuple(f"channel {i}" for i in range(image.n_channels)) if image.n_channels > 1 else ()


def _slabs(shape: tuple[int, ...], cut: _Cut) -> Iterator[Box]:
    grid = Grid(shape, cut.slab)
    return (grid.box(number) for number in range(len(grid)))


def _copied(image: OpenImage, level: zarr.Array, cut: _Cut) -> tuple[float, float]:
    """Copy all pixels and return the lowest and the highest value that is a number."""
    low, high = math.inf, -math.inf
    for time in range(image.n_times):
        for number, box in enumerate(_slabs(image.shape, cut)):
            pixels = image.read(box, t=time)
            low, high = _widened(low, high, pixels)
            values = pixels if image.n_channels > 1 else pixels[0]
            lead = ((time,) if image.n_times > 1 else ()) + (slice(None),) * (image.n_channels > 1)
            level[(*lead, *box.slices)] = values
            log.debug("%s: time %d, slab %d copied", image.path, time, number)
    return (low, high) if low < high else (0.0, 1.0)


def _widened(low: float, high: float, pixels: NDArray[Any]) -> tuple[float, float]:
    if pixels.dtype.kind == "f":
        pixels = pixels[np.isfinite(pixels)]
    if pixels.size == 0:
        return low, high
    first, last = pixels.min().item(), pixels.max().item()
    return min(low, first), max(high, last)


def _finish(made: Path, image: OpenImage, window: tuple[float, float]) -> None:
    """Write what is known at the end: the range of values, and what was copied."""
    low, high = (int(v) if image.dtype.kind in "biu" else float(v) for v in window)
    show_values(made, [(low, high)] * image.n_channels)
    set_attribute(made, (MARKER, "source"), image.identity)
    if image.rgb:
        set_attribute(made, (MARKER, "rgb"), value=True)
