"""Reads boxes of one Zarr array: by tensorstore where it can, else by zarr-python."""

from __future__ import annotations

import functools
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._raw import said
from cellseg_pipe.io._stores import Store

__all__ = ["FAULTS", "ZarrSource", "open_pixels"]

log = logging.getLogger(__name__)

CACHE_BYTES = 64 << 20  # decoded chunks, of all arrays of a process together
HELD_BYTES = CACHE_BYTES // 2  # decoded chunks beside those, while a box is read
SEARCHED = 4096  # chunks that are tried one by one for the damaged one
DRIVERS = {2: "zarr", 3: "zarr3"}
# What the libraries raise where metadata or chunks are not as they should be.
FAULTS = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, OSError,
    AssertionError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class ZarrSource:
    """An array of a Zarr hierarchy.

    Parameters
    ----------
    path : str
        Of the image, for messages.
    key : str
        Of the array in it.
    shape, chunk : tuple of int
        Of the array, and of what is decoded as one.
    dtype : dtype
        In the order of bytes of this machine.
    fetch : callable
        From slices to an array.
    """

    path: str
    key: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    fetch: Callable[[tuple[slice, ...]], NDArray[Any]]

    @property
    def piece_bytes(self) -> int:
        """Size of a chunk."""
        return math.prod(self.chunk) * self.dtype.itemsize

    def read(self, box: Box) -> NDArray[Any]:
        """Return a box; chunks that were never written hold the fill value."""
        try:
            found = np.empty(box.shape, self.dtype)
            self._fill(found, box)
            return found
        except FAULTS as error:
            where, reason = self._damaged(box) or (f"{box.start} to {box.stop}", error)
            raise ValueError(
                f"{self.path} cannot be read as OME-Zarr: array {self.key!r}, {where}:"
                f" {said(reason)}. Copy the store again, or delete the file of that chunk to read"
                " it as empty."
            ) from error

    def _fill(self, found: NDArray[Any], box: Box) -> None:
        """Read a box, only so many chunks at a time: all that are asked for are held at once."""
        cells = box.cells(self.chunk)
        if cells.size <= 1 or cells.size * self.piece_bytes <= HELD_BYTES:
            found[...] = self.fetch(box.slices)
            return
        axis = int(np.argmax(cells.shape))
        middle = (cells.start[axis] + cells.shape[axis] // 2) * self.chunk[axis]
        low = Box(box.start, (*box.stop[:axis], middle, *box.stop[axis + 1 :]))
        high = Box((*box.start[:axis], middle, *box.start[axis + 1 :]), box.stop)
        for part in (low, high):
            self._fill(found[part.relative_to(box.start).slices], part)

    def _damaged(self, box: Box) -> tuple[str, Exception] | None:
        """Return the first chunk of a box that cannot be read, and why."""
        cells = box.cells(self.chunk)
        if cells.size > SEARCHED:
            return None
        for index in cells.points():
            edges = tuple(i * edge for i, edge in zip(index, self.chunk, strict=True))
            chunk = Box(edges, tuple(a + e for a, e in zip(edges, self.chunk, strict=True)))
            try:
                self.fetch(chunk.clip(box).slices)
            except FAULTS as error:
                return f"chunk {'/'.join(map(str, index))}", error
        return None


def open_pixels(store: Store, key: str, metadata: dict[str, Any]) -> ZarrSource:
    """Open an array.

    Parameters
    ----------
    store : Store
        That holds it.
    key : str
        Of the array.
    metadata : dict
        Its `.zarray` or `zarr.json`.

    Returns
    -------
    ZarrSource
        Nothing of its pixels is read yet.
    """
    label = key or "(root)"
    ndim = _checked_shape(metadata, f"{store.name}, array {label!r}")
    fast = _by_tensorstore(store, key, metadata)
    if fast is not None and fast.rank == ndim:
        chunk = fast.chunk_layout.read_chunk.shape or fast.shape
        return ZarrSource(
            store.name,
            label,
            tuple(fast.shape),
            tuple(chunk),
            np.dtype(fast.dtype.numpy_dtype),
            lambda slices: fast[slices].read().result(),
        )
    slow = _by_zarr(store, key, label)
    if len(slow.chunks) != slow.ndim or any(n < 1 for n in slow.chunks):
        raise ValueError(f"{store.name}, array {label!r} has chunks of shape {slow.chunks!r:.60}.")
    return ZarrSource(
        store.name,
        label,
        tuple(slow.shape),
        tuple(slow.chunks),
        np.dtype(slow.dtype).newbyteorder("="),
        lambda slices: np.asarray(slow[slices]),
    )


def _checked_shape(metadata: dict[str, Any], name: str) -> int:
    shape = metadata.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{name} needs a shape of whole numbers, got {shape!r:.60}.")
    version = metadata.get("zarr_format")
    if type(version) is not int or version not in DRIVERS:
        raise ValueError(f"{name} needs a zarr_format of 2 or 3, got {version!r:.60}.")
    if any(n >= 2**62 for n in shape):
        raise ValueError(f"{name} needs a shape below 2^62, got {shape!r:.60}.")
    return len(shape)


@functools.lru_cache(maxsize=1)
def _context() -> Any:
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})


def _by_tensorstore(store: Store, key: str, metadata: dict[str, Any]) -> Any:
    """Return the array, None where tensorstore cannot open it.

    It knows no filters (delta, fixed scale), no LZMA, LZ4 and LZF of Zarr 2, nothing of numcodecs
    in Zarr 3, and no type of objects; it is 1.5 times as fast where it can.
    """
    where = store.kvstore(f"{key}/" if key else "")
    if where is None:
        return None
    import tensorstore

    where["path"] = where["path"].rstrip("/") + "/"
    driver = DRIVERS[metadata["zarr_format"]]
    spec = {"driver": driver, "kvstore": where, "recheck_cached_data": "open"}
    if _nested(store, key, metadata):
        spec["metadata"] = {"dimension_separator": "/"}
    try:
        return tensorstore.open(spec, open=True, read=True, context=_context()).result()
    except (ValueError, NotImplementedError, OSError, TypeError) as error:
        log.debug("%s/%s is read by zarr-python: %s", store.name, key, said(error))
        return None


def _nested(store: Store, key: str, metadata: dict[str, Any]) -> bool:
    """Tell whether chunks lie in folders though the metadata do not say so, as before 0.4."""
    if metadata.get("zarr_format") != 2 or "dimension_separator" in metadata:
        return False
    names = [name for name in store.children(key) if name[:1] != "."]
    return len(metadata["shape"]) > 1 and any(map(str.isdecimal, names))


def _by_zarr(store: Store, key: str, label: str) -> Any:
    import zarr

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of codecs that are no standard yet
            return zarr.open_array(store=store.opened(), path=key, mode="r")
    except (*FAULTS, zarr.errors.BaseZarrError) as error:
        raise ValueError(
            f"{store.name} cannot be read as OME-Zarr: array {label!r} cannot be opened:"
            f" {said(error)}. Copy or export it again."
        ) from error
