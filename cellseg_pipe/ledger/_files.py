"""Writing that says what to do when the disk is full, and files that appear whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from cellseg_pipe.io.files import binary_whole, sync_folder
from cellseg_pipe.ledger._crash import crash_point, tears

__all__ = ["explained", "make_folder", "publish", "sync_file", "write_all", "write_whole"]

ADVICE = {
    errno.ENOSPC: "the disk is full. Free space (`cellseg clean` drops what can be made again)",
    errno.EDQUOT: "your quota is used up. Free space (`cellseg clean` drops what can be made"
    " again) or ask for more",
    errno.EROFS: "the file system is read-only. Mount it for writing, or choose another output",
    errno.EACCES: "this user may not write here. Give the right to, or choose another output",
    errno.EPERM: "this user may not write here. Give the right to, or choose another output",
}
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one that says what to do.

    Parameters
    ----------
    path : path
        What is being written.

    Yields
    ------
    None
        Nothing.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        text = f"{ADVICE[error.errno]}, then start again: nothing finished is lost"
        raise OSError(error.errno, text, str(path)) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they outlast a power cut.

    Parameters
    ----------
    folder : path
        It may exist.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with explained(folder):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def write_all(handle: int, content: bytes | memoryview, site: str) -> None:
    """Write to the end of an open file.

    Parameters
    ----------
    handle : int
        Of the file.
    content : bytes or memoryview
        Of single bytes.
    site : str
        Name of the crash site in the middle of the write.
    """
    rest = memoryview(content)
    if tears(site):
        half = len(rest) // 2
        os.write(handle, rest[:half])
        crash_point(site)
        rest = rest[half:]
    while rest:
        rest = rest[os.write(handle, rest) :]


def sync_file(path: Path) -> None:
    """Bring what any process has written to a file onto the disk.

    Parameters
    ----------
    path : path
        The file.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, path: Path) -> bool:
    """Give a whole file its name, unless there is one of that name.

    Parameters
    ----------
    temporary : path
        The file, on the disk; its own name goes.
    path : path
        The name it gets.

    Returns
    -------
    bool
        False if there was one.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        temporary.unlink()
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # No hard links here: rename replaces a rival's file by one that says the same.
        os.replace(temporary, path)
    crash_point("done-linked")
    sync_folder(path.parent)
    crash_point("done-synced")
    temporary.unlink(missing_ok=True)
    crash_point("done-tidied")
    return True


def write_whole(path: Path | str, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file that appears under its name only when it is whole and on the disk.

    Parameters
    ----------
    path : path
        The file. Its folder is made; an old file of that name stays until the new one is whole.
    content : bytes or callable
        What to write, or what writes it when it is given the open file.
    """
    path = Path(path)
    make_folder(path.parent)
    with explained(path):
        with binary_whole(path) as file:
            if callable(content):
                content(file)
                crash_point("whole-torn")
            else:
                write_all(file.fileno(), content, "whole-torn")
            crash_point("whole-written")
        crash_point("whole-renamed")
