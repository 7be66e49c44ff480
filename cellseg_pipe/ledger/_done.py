"""The file that says that a batch is done, and by which parts of which files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellseg_pipe.ledger._crash import crash_point
from cellseg_pipe.ledger._errors import Corrupt, NotDone, StageFiles
from cellseg_pipe.ledger._files import explained, publish, write_all

__all__ = ["Done", "Segment", "checksum_of", "keys_checksum_of", "read_done", "write_done"]


@dataclass(frozen=True)
class Segment:
    """What one attempt has given to a batch.

    Parameters
    ----------
    ledger : str
        File of the lines, from the stage's folder.
    data : str
        File of the blobs, from the stage's folder.
    ledger_bytes : int
        How much of the ledger counts; an attempt that was taken over may have written on.
    n_tiles : int
        Tiles that count.
    skip : tuple of int
        Keys in the ledger that do not count: another attempt's do, or the blob was damaged.
    """

    ledger: str
    data: str
    ledger_bytes: int
    n_tiles: int
    skip: tuple[int, ...] = ()


@dataclass(frozen=True)
class Done:
    """A finished batch.

    Parameters
    ----------
    n_tiles : int
        Tiles of the batch.
    segments : tuple of Segment
        Where they are.
    checksum : str
        sha256 of the keys and the crc32 of their blobs, by key.
    keys_checksum : str
        sha256 of the keys alone.
    """

    n_tiles: int
    segments: tuple[Segment, ...]
    checksum: str
    keys_checksum: str

    def to_json(self) -> bytes:
        """Return the content of the file."""
        return json.dumps(dataclasses.asdict(self), indent=1).encode() + b"\n"


def keys_checksum_of(keys: Iterable[int]) -> str:
    """Return the sha256 of keys in ascending order.

    Parameters
    ----------
    keys : iterable of int
        In any order.

    Returns
    -------
    str
        64 hex digits.
    """
    return hashlib.sha256(np.array(sorted(keys), "<i8").tobytes()).hexdigest()


def checksum_of(crcs: Mapping[int, int]) -> str:
    """Return the sha256 of keys and the crc32 of their blobs.

    Parameters
    ----------
    crcs : mapping of int to int
        From key to crc32.

    Returns
    -------
    str
        64 hex digits, the same for any order.
    """
    pairs = np.array(sorted(crcs.items()), [("key", "<i8"), ("crc", "<u4")])
    return hashlib.sha256(pairs.tobytes()).hexdigest()


def read_done(stage_paths: StageFiles, number: int) -> Done:
    """Read the done file of a batch.

    Parameters
    ----------
    stage_paths : StageFiles
        Of the stage.
    number : int
        Of the batch.

    Returns
    -------
    Done
        What it says.
    """
    path = stage_paths.done(number)
    try:
        said: dict[str, Any] = json.loads(path.read_bytes())
        segments = tuple(
            Segment(**segment | {"skip": tuple(segment["skip"])}) for segment in said["segments"]
        )
        return Done(**said | {"segments": segments})
    except FileNotFoundError:
        raise NotDone(
            f"batch {number} of {stage_paths.title} is not done: there is no {path}. Run it first."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            f"{path} is no done file ({error}). Remove it and run batch {number} of"
            f" {stage_paths.title} again: finished tiles are kept."
        ) from error


def write_done(path: Path, done: Done, *, name: str, check: Callable[[], None]) -> bool:
    """Write the done file of a batch, whole and on the disk, unless there is one.

    Parameters
    ----------
    path : path
        Of the done file; its folder exists.
    done : Done
        What it says.
    name : str
        What no other attempt on the batch is called.
    check : callable
        Raises if the attempt may not finish; called last.

    Returns
    -------
    bool
        False if there was one.
    """
    temporary = path.with_name(f".{path.name}.{name}")
    with explained(path):
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            crash_point("done-made")
            write_all(handle, done.to_json(), "done-torn")
            os.fsync(handle)
            crash_point("done-written")
            check()
            return publish(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
