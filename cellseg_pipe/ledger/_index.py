"""The index of a finished batch: where each tile is, in arrays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.ledger._done import Segment, checksum_of, read_done
from cellseg_pipe.ledger._errors import Corrupt, StageFiles
from cellseg_pipe.ledger._lines import LINE, parse

__all__ = ["Index", "OpenFile", "corrupt", "load_index"]

ROW = np.dtype([*((name, LINE[name]) for name in LINE.names or ()), ("segment", np.int32)])


@dataclass(frozen=True)
class Index:
    """Where the tiles of a batch are.

    Parameters
    ----------
    keys : int64 array [n]
        Ascending.
    rows : ROW array [n]
        The line of each key and the number of its segment.
    segments : tuple of Segment
        What the attempts gave.
    """

    keys: NDArray[np.int64]
    rows: NDArray[Any]
    segments: tuple[Segment, ...]

    def find(self, key: int) -> int | None:
        """Return the row of a key.

        Parameters
        ----------
        key : int
            The tile.

        Returns
        -------
        int or None
            None if the batch has no such tile.
        """
        row = int(np.searchsorted(self.keys, key))
        return row if row < len(self.keys) and self.keys[row] == key else None


class OpenFile:
    """A file open for reading at any place, by any thread; closed with its last user.

    Parameters
    ----------
    path : path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._handle: int | None = None
        self._handle = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Read a part of the file.

        Parameters
        ----------
        offset, n_bytes : int
            Where it begins and how long it is.

        Returns
        -------
        bytes
            Shorter if the file ends before.
        """
        if self._handle is None:
            return b""
        first = os.pread(self._handle, n_bytes, offset)
        if len(first) == n_bytes:
            return first
        parts = [first]  # one call gives 2 GB at most
        while parts[-1]:
            n_read = sum(map(len, parts))
            parts.append(os.pread(self._handle, n_bytes - n_read, offset + n_read))
        return b"".join(parts)


def corrupt(paths: StageFiles, found: str) -> Corrupt:
    """Return the error for a stage whose files are not as they were written.

    Parameters
    ----------
    paths : StageFiles
        Of the stage.
    found : str
        What is wrong.

    Returns
    -------
    Corrupt
        To be raised.
    """
    return Corrupt(
        f"{paths.title}: {found}. Remove the file of this batch from {paths.done(0).parent} and run"
        " the stage again: only what is damaged is made anew."
    )


def load_index(paths: StageFiles, batch: int) -> Index:
    """Read the index of a finished batch.

    Parameters
    ----------
    paths : StageFiles
        Of the stage.
    batch : int
        Its number.

    Returns
    -------
    Index
        Checked against the done file.
    """
    done = read_done(paths, batch)
    parts = [_rows(paths, segment, number) for number, segment in enumerate(done.segments)]
    rows = np.concatenate([np.empty(0, ROW), *parts])
    rows = rows[np.argsort(rows["key"], kind="stable")]
    keys = np.ascontiguousarray(rows["key"])
    crcs = dict(zip(keys.tolist(), rows["crc"].tolist(), strict=True))
    if len(rows) != done.n_tiles or checksum_of(crcs) != done.checksum:
        raise corrupt(
            paths,
            f"the ledgers of batch {batch} give {len(rows)} tiles, and its done file says"
            f" {done.n_tiles} of checksum {done.checksum}",
        )
    return Index(keys, rows, done.segments)


def _rows(paths: StageFiles, segment: Segment, number: int) -> NDArray[Any]:
    try:
        text = OpenFile(paths.root / segment.ledger).read(0, segment.ledger_bytes)
    except FileNotFoundError as error:
        raise corrupt(paths, f"{error.filename} is gone") from error
    lines = parse(text)
    lines = lines[~np.isin(lines["key"], segment.skip)]
    rows = np.empty(len(lines), ROW)
    for name in LINE.names or ():
        rows[name] = lines[name]
    rows["segment"] = number
    return rows
