"""Opens local zarr arrays through tensorstore, with bounded threads and cache."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import tensorstore as ts

__all__ = ["UNREADABLE", "edges", "io_context", "key_prefix", "metadata_file", "open_array"]

CACHE_BYTES = 64 * 2**20  # decoded chunks that a process keeps, whatever it reads
DRIVERS = {"zarr.json": "zarr3", ".zarray": "zarr"}
UNREADABLE = (ValueError, OSError, RuntimeError, KeyError)  # what tensorstore's states become


@lru_cache(maxsize=8)
def io_context(threads: int | None = None) -> ts.Context:
    """Return what bounds the threads and the cache of all that is read and written with it.

    Parameters
    ----------
    threads : int, optional
        That encode, decode and wait for files; as many as there are CPUs by default.

    Returns
    -------
    tensorstore.Context
        The same for the same number, so that a process has one cache.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"reading and writing need 1 or more threads, got {threads}.")
    limit = "shared" if threads is None else threads
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": CACHE_BYTES},
            "data_copy_concurrency": {"limit": limit},
            "file_io_concurrency": {"limit": limit},
        }
    )


def metadata_file(level: Path) -> tuple[str, str]:
    """Return the name of an array's metadata and the driver that knows them."""
    for name, driver in DRIVERS.items():
        if (level / name).is_file():
            return name, driver
    raise FileNotFoundError(
        f"{level} needs to be a zarr array, and has no {' or '.join(DRIVERS)}. Name one level of a"
        " store, as STORE/0."
    )


def open_array(level: Path, context: ts.Context) -> ts.TensorStore:
    """Open an array by its own metadata, so that its codecs cannot be given otherwise."""
    _, driver = metadata_file(level)
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{level}/"}}
    try:
        return ts.open(spec, context=context, open=True).result()
    except UNREADABLE as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{level} cannot be opened as a zarr array: {said}.") from error


def key_prefix(metadata: dict[str, Any], level: Path) -> str:
    """Return what the keys of chunks start with; their numbers are folders in what we write."""
    old = {"name": "v2", "configuration": {"separator": metadata.get("dimension_separator", ".")}}
    encoding = metadata.get("chunk_key_encoding", old)
    usual = "/" if encoding["name"] == "default" else "."
    separator = encoding.get("configuration", {}).get("separator", usual)
    if separator != "/":
        raise ValueError(
            f"{level} needs chunks in folders (separator '/'), got {separator!r}. Convert it first."
        )
    return "c/" if encoding["name"] == "default" else ""


def edges(grid: ts.ChunkLayout.Grid) -> tuple[int, ...]:
    """Return the sides of a grid's boxes, which an array that is open always has."""
    return tuple(int(n or 0) for n in grid.shape or ())
