"""Takes over what earlier attempts on a batch have finished, if it is whole on the disk."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.ledger._done import Segment
from cellseg_pipe.ledger._errors import StageFiles
from cellseg_pipe.ledger._files import explained, sync_file
from cellseg_pipe.ledger._lines import parse

__all__ = ["adopt"]

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 22


def adopt(
    paths: StageFiles, batch: int, *, below: int, keys: Collection[int]
) -> tuple[list[Segment], dict[int, int]]:
    """Read what the attempts before a token have finished.

    Parameters
    ----------
    paths : StageFiles
        Of the stage.
    batch : int
        Number of the batch.
    below : int
        The token of the new attempt.
    keys : collection of int
        Tiles that are wanted.

    Returns
    -------
    segments : list of Segment
        What each attempt gives, where it gives anything.
    crcs : dict of int to int
        From key to crc32 of the tiles that are whole. Their blobs have been read and are on the
        disk.
    """
    segments: list[Segment] = []
    crcs: dict[int, int] = {}
    wanted = set(keys)
    for token in paths.attempts().get(batch, ()):
        ledger, data = paths.ledger(batch, token), paths.data(batch, token)
        if token >= below or not ledger.exists():
            continue
        # The lines are read before the blobs: an attempt that still runs writes the blob first.
        text = ledger.read_bytes()
        lines = parse(text)
        found = _whole(lines, data, wanted)
        if not found:
            continue
        for path in (data, ledger):  # the attempt may have died before it synced them
            with explained(path):
                sync_file(path)
        skip = tuple(key for key in lines["key"].tolist() if key not in found)
        segments.append(
            Segment(
                ledger=ledger.relative_to(paths.root).as_posix(),
                data=data.relative_to(paths.root).as_posix(),
                ledger_bytes=len(text),
                n_tiles=len(found),
                skip=skip,
            )
        )
        crcs |= found
        wanted -= found.keys()
    return segments, crcs


def _whole(lines: NDArray[Any], data: os.PathLike[str], wanted: set[int]) -> dict[int, int]:
    """Return the crc32 of the tiles that are wanted and whose blob is as its line says."""
    try:
        handle = os.open(data, os.O_RDONLY)
    except FileNotFoundError:
        return {}
    try:
        found = {
            int(line["key"]): int(line["crc"])
            for line in lines[np.isin(lines["key"], list(wanted))]
            if _crc_of(handle, int(line["offset"]), int(line["bytes"])) == line["crc"]
        }
    finally:
        os.close(handle)
    if damaged := len(wanted.intersection(lines["key"].tolist())) - len(found):
        log.warning("%s: %d tiles are damaged and will be made again", data, damaged)
    return found


def _crc_of(handle: int, offset: int, n_bytes: int) -> int | None:
    """Return the crc32 of a part of a file; None if the file ends before it does."""
    crc, end = 0, offset + n_bytes
    while offset < end:
        chunk = os.pread(handle, min(CHUNK_BYTES, end - offset), offset)
        if not chunk:
            return None
        crc = zlib.crc32(chunk, crc)
        offset += len(chunk)
    return crc
