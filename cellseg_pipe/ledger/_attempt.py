"""One attempt on a batch: the data file and the ledger that it alone writes."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cellseg_pipe.io.files import sync_folder
from cellseg_pipe.ledger._crash import crash_point
from cellseg_pipe.ledger._done import Segment
from cellseg_pipe.ledger._errors import LedgerError
from cellseg_pipe.ledger._files import explained, write_all
from cellseg_pipe.ledger._lines import Line, line_of

__all__ = ["Attempt", "Blob", "views_of"]

Blob = bytes | bytearray | memoryview | NDArray[Any]


def views_of(blob: Blob | Sequence[Blob]) -> list[memoryview]:
    """Return what is to be written as plain bytes, without a copy.

    Parameters
    ----------
    blob : buffer or list or tuple of buffers
        bytes, memoryview or arrays in C order.

    Returns
    -------
    list of memoryview
        The parts that are not empty.
    """
    parts: Sequence[Any] = blob if isinstance(blob, list | tuple) else [blob]
    views = []
    for part in parts:
        view = memoryview(part)
        if not view.c_contiguous:
            raise ValueError(
                f"a blob needs arrays in C order, got shape {view.shape} with strides"
                f" {view.strides}. Use numpy.ascontiguousarray first."
            )
        if view.nbytes:
            views.append(view.cast("B"))
    return views


class Attempt:
    """The two open files of an attempt.

    Parameters
    ----------
    data, ledger : path
        Files that do not exist; their folders do.
    """

    def __init__(self, data: Path, ledger: Path) -> None:
        self.unsynced = 0
        self._n_tiles = 0
        self._data_bytes = 0
        self._ledger_bytes = 0
        self._whole = True
        with contextlib.ExitStack() as files:
            with explained(data):
                self._data = files.enter_context(open(data, "xb", buffering=0))
                crash_point("data-made")
            with explained(ledger):
                self._ledger = files.enter_context(open(ledger, "xb", buffering=0))
                crash_point("ledger-made")
                sync_folder(data.parent)
                sync_folder(ledger.parent)
                crash_point("files-synced")
            self._files = files.pop_all()

    def append(self, key: int, views: list[memoryview], *, blank: bool, info: str) -> int:
        """Write a tile, and then the line that says so.

        Parameters
        ----------
        key : int
            The tile.
        views : list of memoryview
            Its blob, in parts.
        blank : bool
            Whether there is nothing in it.
        info : str
            JSON.

        Returns
        -------
        int
            crc32 of the blob.
        """
        self._check_whole()
        self._whole = False  # until both are written: an error or Ctrl-C may come at any byte
        crc = n_bytes = 0
        with explained(Path(self._data.name)):
            for view in views:
                write_all(self._data.fileno(), view, "data-torn")
                crc = zlib.crc32(view, crc)
                n_bytes += view.nbytes
        crash_point("data-written")
        now = round(time.time(), 3)
        line = line_of(Line(key, self._data_bytes, n_bytes, crc, blank, now), info)
        with explained(Path(self._ledger.name)):
            write_all(self._ledger.fileno(), line, "line-torn")
        crash_point("line-written")
        self._data_bytes += n_bytes
        self._ledger_bytes += len(line)
        self._n_tiles += 1
        self.unsynced += 1
        self._whole = True
        return crc

    def sync(self) -> None:
        """Bring both files onto the disk, the blobs before the lines that speak of them."""
        self._check_whole()
        self._whole = False  # after a failed fsync nobody knows what is on the disk
        with explained(Path(self._data.name)):
            os.fsync(self._data.fileno())
        crash_point("data-synced")
        with explained(Path(self._ledger.name)):
            os.fsync(self._ledger.fileno())
        crash_point("ledger-synced")
        self.unsynced = 0
        self._whole = True

    def segment(self, root: Path) -> Segment:
        """Return what this attempt gives to the batch.

        Parameters
        ----------
        root : path
            Folder of the stage.

        Returns
        -------
        Segment
            All that was written.
        """
        return Segment(
            ledger=Path(self._ledger.name).relative_to(root).as_posix(),
            data=Path(self._data.name).relative_to(root).as_posix(),
            ledger_bytes=self._ledger_bytes,
            n_tiles=self._n_tiles,
        )

    def close(self) -> None:
        """Close both files; on a network file system that may tell of a full disk."""
        self._files.close()

    def _check_whole(self) -> None:
        if not self._whole:
            raise LedgerError(
                f"{self._data.name} was not written to the end: this attempt cannot go on. Open the"
                " batch again; the tiles finished before are kept."
            )
