"""The lines of a ledger: one per finished tile, each with a checksum of itself."""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LINE", "Line", "info_text", "line_of", "parse"]

# `info_start` and `info_bytes` say where in the ledger the info stands, which stays text.
LINE = np.dtype(
    [
        ("key", np.int64),
        ("offset", np.int64),
        ("bytes", np.int64),
        ("crc", np.uint32),
        ("blank", np.bool_),
        ("time", np.float64),
        ("info_start", np.int64),
        ("info_bytes", np.int64),
    ]
)
PATTERN = re.compile(
    rb'^(\{"key":(-?\d+),"offset":(\d+),"bytes":(\d+),"crc":(\d+),"blank":(true|false)'
    rb',"time":(\d+\.\d+),"info":(\{.*\})),"line":"([0-9a-f]{8})"\}$',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Line:
    """What is kept of a finished tile.

    Parameters
    ----------
    key : int
        The tile.
    offset, bytes, crc : int
        Where its blob begins in the data file, how long it is, and its crc32.
    blank : bool
        Whether there is nothing in it.
    time : float
        When it was finished, in seconds since 1970.
    """

    key: int
    offset: int
    bytes: int
    crc: int
    blank: bool
    time: float


def info_text(key: int, info: dict[str, Any] | None) -> str:
    """Return what a stage says of a tile, as JSON on one line.

    Parameters
    ----------
    key : int
        The tile.
    info : dict of str, optional
        Plain values: str, int, finite float, bool, None, and lists and dicts of them.

    Returns
    -------
    str
        JSON.
    """
    try:
        return json.dumps(info or {}, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the info of a tile needs plain finite values, got {info!r} for tile {key}: {error}."
        ) from error


def line_of(line: Line, info: str) -> bytes:
    """Return the line of one tile.

    Parameters
    ----------
    line : Line
        The numbers.
    info : str
        JSON.

    Returns
    -------
    bytes
        A line of JSON whose last value is the checksum of all before it.
    """
    numbers = json.dumps(dataclasses.asdict(line), separators=(",", ":"))
    body = f'{numbers[:-1]},"info":{info}'.encode()
    return b'%b,"line":"%08x"}\n' % (body, zlib.crc32(body))


def parse(text: bytes) -> NDArray[Any]:
    """Return the lines of a ledger that are whole; what is torn or changed is passed over.

    Parameters
    ----------
    text : bytes
        Of the file, or of its beginning.

    Returns
    -------
    LINE array [n]
        In the order of the file, the first of each key.
    """
    rows = [
        (
            int(match[2]),
            int(match[3]),
            int(match[4]),
            int(match[5]),
            match[6] == b"true",
            float(match[7]),
            match.start(8),
            match.end(8) - match.start(8),
        )
        for match in PATTERN.finditer(text)
        if zlib.crc32(match[1]) == int(match[9], 16)
    ]
    lines = np.array(rows, LINE)
    _, first = np.unique(lines["key"], return_index=True)
    return lines[np.sort(first)]
