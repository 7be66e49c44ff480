"""Writes a file whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

__all__ = ["binary_whole", "written_whole"]


@contextlib.contextmanager
def written_whole(path: Path | str) -> Iterator[TextIO]:
    """Open a text file that appears under its name only when it is complete.

    Parameters
    ----------
    path : path
        The file; its folder must exist. An old file of that name stays until the new one is whole.

    Yields
    ------
    text file
        To write to.
    """
    with binary_whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        yield text
        text.flush()
        text.detach()  # the file is closed where it was opened


@contextlib.contextmanager
def binary_whole(path: Path | str) -> Iterator[BinaryIO]:
    """Open a file of bytes that appears under its name only when it is complete.

    Parameters
    ----------
    path : path
        The file; its folder must exist. An old file of that name stays until the new one is whole.

    Yields
    ------
    binary file
        To write to and read from.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        with open(name, "w+b") as file:  # by name, which some writers ask for
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
