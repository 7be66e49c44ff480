"""Writes the shards of one zarr array, each whole and with the same bytes; reads boxes of it."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._arrays import (
    UNREADABLE,
    edges,
    io_context,
    key_prefix,
    metadata_file,
    open_array,
)
from cellseg_pipe.io._attributes import described, to_disk
from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.io.levels import CHUNK_PX, shard_shape
from cellseg_pipe.tiles import Grid

__all__ = ["ShardWriter", "Written", "io_context", "read_box"]

_numbers = itertools.count()  # of the stores in memory, so that threads do not meet


@dataclass(frozen=True)
class Written:
    """What the files of one shard hold.

    Parameters
    ----------
    n_files : int
        1 or, without shards, one per chunk; blank ones have none.
    n_bytes : int
        Of all files.
    crc32 : int
        Over the names and bytes of all files, in their order.
    """

    n_files: int
    n_bytes: int
    crc32: int

    @property
    def blank(self) -> bool:
        """Whether there is nothing but background."""
        return self.n_files == 0


class ShardWriter:
    """Writes an array shard by shard; jobs may do so side by side if none shares a shard.

    A shard is encoded in memory and its file takes its name when it is complete, so neither a
    killed job nor what it left behind shows in the result: the same voxels give the same bytes.
    Without shards (OME-Zarr 0.4) the unit is a box of whole chunks, of which each file is whole.

    Parameters
    ----------
    level : path
        The array: one level of a store.
    threads : int, optional
        That encode at the same time; as many as there are CPUs by default.

    Attributes
    ----------
    grid : Grid
        The shards.
    dtype : dtype
        Of the array.
    """

    def __init__(self, level: Path | str, *, threads: int | None = None) -> None:
        self._level = Path(level)
        self._context = io_context(threads)
        self._name, self._driver = metadata_file(self._level)
        self._metadata = (self._level / self._name).read_bytes()
        array = open_array(self._level, self._context)
        self._chunk = edges(array.chunk_layout.write_chunk)
        self._prefix = key_prefix(json.loads(self._metadata), self._level)
        self._fill = array.fill_value
        self.dtype = np.dtype(array.dtype.numpy_dtype)
        sharded = self._chunk != edges(array.chunk_layout.read_chunk)
        self.grid = Grid(array.shape, self._chunk if sharded else _unit(self._level, array.shape))
        if any(p % c for p, c in zip(self.grid.pitch, self._chunk, strict=True)):
            self.grid = Grid(array.shape, self._chunk)  # chunks of others

    def write_shard(self, where: int | Box, array: NDArray[Any]) -> Written:
        """Write one shard; a blank one has no file, and one of an earlier attempt is removed.

        Parameters
        ----------
        where : int or Box
            Number in the grid, or a box of whole shards (of whole chunks in 0.4) but for the
            image border.
        array : array [*shape of the box]
            Its voxels, in the type of the stored array.

        Returns
        -------
        Written
            What the files hold; equal voxels give equal answers.
        """
        box = self._box(where)
        if array.shape != box.shape or array.dtype != self.dtype:
            raise ValueError(
                f"{self._level} needs {self.dtype} of shape {box.shape} for {box}, got"
                f" {array.dtype} of shape {array.shape}."
            )
        blank = not np.any(array != self._fill)
        encoded = {} if blank else self._encoded(box, array)
        for key in self._keys(box):
            self._replace(key, encoded.get(key))
        return _summed(encoded)

    def stored(self, where: int | Box) -> Written:
        """Return what is stored of one shard, to be compared with what was written.

        Parameters
        ----------
        where : int or Box
            As in `write_shard`.

        Returns
        -------
        Written
            What the files hold now.
        """
        files = {key: self._level / key for key in self._there(where)}
        return _summed({key: file.read_bytes() for key, file in files.items()})

    def size(self, where: int | Box) -> tuple[int, int]:
        """Return how large one shard is, which takes no reading.

        Parameters
        ----------
        where : int or Box
            As in `write_shard`.

        Returns
        -------
        n_files, n_bytes : int
            As of `Written`.
        """
        sizes = [(self._level / key).stat().st_size for key in self._there(where)]
        return len(sizes), sum(sizes)

    def _there(self, where: int | Box) -> list[str]:
        """Return the keys of the files that a shard has."""
        return [key for key in self._keys(self._box(where)) if (self._level / key).is_file()]

    def _box(self, where: int | Box) -> Box:
        """Return a box of whole shards, or refuse."""
        if not isinstance(where, Box):
            return self.grid.box(where)
        shape = self.grid.shape
        whole = where.size > 0 and all(
            0 <= a and b <= n and a % c == 0 and (b % c == 0 or b == n)
            for a, b, c, n in zip(where.start, where.stop, self._chunk, shape, strict=True)
        )
        if not whole:
            raise ValueError(
                f"{self._level} is written in whole shards of {self._chunk} voxels within {shape},"
                f" got {where}. Two jobs must never write one shard."
            )
        return where

    def _encoded(self, box: Box, array: NDArray[Any]) -> dict[str, bytes]:
        """Return the content of the files of a box by their keys, encoded in memory.

        In place tensorstore would read what an earlier attempt left of a shard at the border, and
        keep parts of it.
        """
        place = f"memory://{next(_numbers)}/"
        memory = ts.KvStore.open(place, context=self._context).result()
        try:
            memory[self._name] = self._metadata
            spec = {"driver": self._driver, "kvstore": place}
            store = ts.open(spec, context=self._context, open=True).result()
            with ts.Transaction() as whole:  # or each chunk would rewrite its shard
                store.with_transaction(whole)[box.slices] = array
            made = {key.decode() for key in memory.list().result()}
            return {key: bytes(memory[key]) for key in self._keys(box) if key in made}
        finally:
            memory.delete_range(ts.KvStore.KeyRange()).result()

    def _keys(self, box: Box) -> Iterator[str]:
        """Yield the keys of all files that a box may have."""
        for index in box.cells(self._chunk).points():
            yield self._prefix + "/".join(map(str, index))

    def _replace(self, key: str, content: bytes | None) -> None:
        """Give a file its content at one instant, or remove it."""
        file = self._level / key
        if content is None:
            if file.exists():
                file.unlink(missing_ok=True)  # another attempt may have been as quick
                to_disk(file.parent)
            return
        new = [folder for folder in file.parents if not folder.is_dir()]
        file.parent.mkdir(parents=True, exist_ok=True)
        with binary_whole(file) as opened:
            opened.write(content)
        for folder in (file.parent, *(folder.parent for folder in new)):
            to_disk(folder)


def read_box(level: Path | str, box: Box, *, threads: int | None = None) -> NDArray[Any]:
    """Read a box of an array.

    Parameters
    ----------
    level : path
        The array: one level of a local store.
    box : Box
        Inside it.
    threads : int, optional
        That decode at the same time; as many as there are CPUs by default.

    Returns
    -------
    array [*shape of the box]
        Where there is no file, the background.
    """
    level = Path(level)
    context = io_context(threads)
    array = open_array(level, context)
    if not Box.of(array.shape).contains(box):
        raise ValueError(f"{level} has shape {array.shape}, asked for {box}. Clip the box first.")
    try:
        return np.asarray(array[box.slices].read().result())
    except UNREADABLE as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{level} cannot be read at {box}: {said}. A file of it is damaged: remove that file"
            " and run the job again that wrote it."
        ) from error


def _unit(level: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return what is written at once where there are no shards: the box of one shard of 0.5."""
    scales = described(level.parent).get("multiscales") or [{}]
    axes = [axis.get("name") for axis in scales[0].get("axes", [])]
    ndim = sum(axis in tuple("zyx") for axis in axes) if len(axes) == len(shape) else len(shape)
    return shard_shape(shape, ndim) if ndim in CHUNK_PX else (1,) * len(shape)


def _summed(files: dict[str, bytes]) -> Written:
    crc = 0
    for key, content in files.items():
        crc = zlib.crc32(content, zlib.crc32(key.encode(), crc))
    return Written(len(files), sum(map(len, files.values())), crc)
