"""Arrays as bytes and back: compressed, without code, equal bytes for equal arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from imagecodecs import ZstdError, zstd_decode, zstd_encode
from numpy.typing import NDArray

__all__ = ["pack", "unpack"]

HEAD = struct.Struct("<I")
LEVEL = 1


def pack(arrays: Mapping[str, NDArray[Any]], **numbers: Any) -> bytes:
    """Put arrays and a few numbers into one string of bytes.

    Parameters
    ----------
    arrays : mapping of str to array
        Of numbers or booleans.
    **numbers
        Anything that JSON holds.

    Returns
    -------
    bytes
        The same for the same content.
    """
    parts, described = [], []
    for name, array in arrays.items():
        array = np.asarray(array, order="C")
        if array.dtype.kind not in "biuf":
            raise TypeError(f"pack needs arrays of numbers or booleans, got {array.dtype}: {name}.")
        part = zstd_encode(array.tobytes(), level=LEVEL) if array.size else b""
        described.append([name, array.dtype.str, list(np.shape(array)), len(part)])
        parts.append(part)
    head = json.dumps({"arrays": described, "numbers": numbers}).encode()
    return b"".join([HEAD.pack(len(head)), head, *parts])


def unpack(
    blob: bytes, *, wanted: Callable[[str], bool] | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Take out what `pack` put in.

    Parameters
    ----------
    blob : bytes
        From `pack`.
    wanted : callable, optional
        From the name of an array to whether it is unpacked; all are by default.

    Returns
    -------
    arrays : dict of str to array
        By name.
    numbers : dict
        By name.
    """
    try:
        (length,) = HEAD.unpack_from(blob)
        place = HEAD.size + length
        head = json.loads(blob[HEAD.size : place])
        arrays = {}
        for name, dtype, shape, n_bytes in head["arrays"]:
            if wanted is None or wanted(name):
                part = zstd_decode(blob[place : place + n_bytes]) if n_bytes else b""
                arrays[name] = np.frombuffer(part, np.dtype(dtype)).reshape(shape)
            place += n_bytes
    except (struct.error, ValueError, ZstdError) as error:
        raise ValueError(
            f"these {len(blob)} bytes are no packed arrays, or not all of them: {error}. Make the"
            " tile that they are of again."
        ) from error
    return arrays, head["numbers"]
