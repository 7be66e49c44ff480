"""Writes a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

__all__ = ["binary_whole", "size_and_age", "sync_folder", "written_whole"]


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
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")
    # Made with the mode that the umask leaves, without asking for the umask: one can only ask by
    # setting it, which other threads would notice. Opened by name, which some writers ask for.
    file = open(temporary, "x+b")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path | str) -> None:
    """Make the names in a folder outlast a power cut.

    Parameters
    ----------
    folder : path
        In which files were made, renamed or removed.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network shares cannot
            raise
    finally:
        os.close(handle)


def size_and_age(path: Path | str) -> tuple[int, int]:
    """Return what changes when an image is written again.

    Parameters
    ----------
    path : path
        A file, a place in a zip file, or a store, of which all files count.

    Returns
    -------
    n_bytes, mtime_ns : int
        Of all together, and of the newest.
    """
    path = Path(path)
    if path.is_dir():
        about = [each.stat() for each in path.rglob("*")]
    else:  # a place in a zip file changes with that file
        about = [next((each for each in (path, *path.parents) if each.is_file()), path).stat()]
    return sum(one.st_size for one in about), max((one.st_mtime_ns for one in about), default=0)
