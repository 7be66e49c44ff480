"""Looks at the file system of a results folder: does it do what a run relies on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from cellseg_pipe.paths import RunPaths
from cellseg_pipe.stages._finding import Finding, error, fine, warning
from cellseg_pipe.stages.layout import read_layout
from cellseg_pipe.stages.room import left_to_do, room_in

__all__ = ["look_at_folder"]

LEAST_BYTES, LEAST_FILES = 10**9, 10_000
NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "afs")
FLEETING = ("tmpfs", "ramfs", "overlay")
OTHER_PLACE = "Name another output.dir."


def look_at_folder(root: Path) -> Iterator[Finding]:
    """Yield what was found of a folder, in which nothing is left.

    Parameters
    ----------
    root : path
        Folder of the results, or what is to be one.

    Yields
    ------
    Finding
        One at least of each thing.
    """
    there = root.absolute()
    while not there.exists():
        there = there.parent
    yield _kind(there)
    if not there.is_dir():
        yield error("folder", f"{there} is a file", OTHER_PLACE)
        return
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".cellseg-doctor-", dir=there))
    except OSError as fault:
        yield error("folder", f"{there} cannot be written: {fault.strerror}", OTHER_PLACE)
        return
    try:
        yield from _tried(scratch)
        yield _rights(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    yield from _room(root)


def _kind(folder: Path) -> Finding:
    mounts = [p for p in psutil.disk_partitions(all=True) if folder.is_relative_to(p.mountpoint)]
    kind = max(mounts, key=lambda p: len(p.mountpoint)).fstype if mounts else "unknown"
    said = f"{folder} on {kind}"
    if kind in FLEETING:
        return warning(
            "file system",
            f"{said}, which goes with this machine or container",
            "Name an output.dir that stays, if results are to.",
        )
    if kind.startswith(NETWORK):
        return fine("file system", f"{said}, shared by nodes")
    if kind.startswith("fuse"):
        return warning("file system", f"{said}, which may be slow", OTHER_PLACE)
    return fine("file system", said)


def _tried(scratch: Path) -> Iterator[Finding]:
    """Do what a run does: what fails is told with its consequence."""
    trials: tuple[tuple[str, Callable[[Path], None], str, str], ...] = (
        ("exclusive files", _exclusive, "error", "Two runs may take one job."),
        ("rename", _rename, "error", "Files would not appear whole."),
        ("fsync", _fsync, "error", "A power cut would lose what is called finished."),
        ("locks", _locks, "warning", "Two starts in one folder are told apart by a file alone."),
        ("hard links", _link, "warning", "Renaming serves instead; nothing is to be done."),
    )
    right = []
    for what, trial, level, consequence in trials:
        try:
            trial(scratch)
        except OSError as fault:
            said = f"do not work here ({fault.strerror or fault})"
            if level == "error":
                yield error(what, said, f"{consequence} {OTHER_PLACE}")
            else:
                yield warning(what, said, consequence)
        else:
            right.append(what)
    if right:
        yield fine("files", f"{', '.join(right)} work")


def _exclusive(scratch: Path) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(scratch / "claim", flags))
    with contextlib.suppress(FileExistsError):
        os.close(os.open(scratch / "claim", flags))
        raise OSError("a file was made twice")


def _rename(scratch: Path) -> None:
    (scratch / "old").write_text("old")
    (scratch / "new").write_text("new")
    os.replace(scratch / "new", scratch / "old")
    if (scratch / "old").read_text() != "new" or (scratch / "new").exists():
        raise OSError("the file has not replaced the other")


def _link(scratch: Path) -> None:
    (scratch / "one").write_text("one")
    os.link(scratch / "one", scratch / "two")
    with contextlib.suppress(FileExistsError):
        os.link(scratch / "one", scratch / "two")
        raise OSError("a link has replaced a file")


def _fsync(scratch: Path) -> None:
    (scratch / "kept").write_text("kept")
    for path, flags in ((scratch / "kept", os.O_RDWR), (scratch, os.O_RDONLY)):
        handle = os.open(path, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _locks(scratch: Path) -> None:
    with open(scratch / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _rights(scratch: Path) -> Finding:
    """Tell who may read what this user writes."""
    file = scratch / "mine"
    file.touch()
    mode = file.stat().st_mode & 0o777
    readers = "all" if mode & 0o004 else "the group" if mode & 0o040 else "this user alone"
    return fine("rights", f"new files have {mode:03o}: {readers} can read results")


def _room(root: Path) -> Iterator[Finding]:
    room = room_in(root)
    files = "" if room.free_files is None else f", {room.free_files} files"
    said = f"{room.free_bytes / 1e9:.1f} GB{files} free"
    if room.quota_bytes is not None:
        said += f", quota leaves {room.quota_bytes / 1e9:.1f} GB"
    if room.quota_files is not None:
        said += f", quota leaves {room.quota_files} files"
    mend = f"Free some (cellseg clean lists what can go). {OTHER_PLACE}"
    if lacks := _lacks(root):
        yield error("room", f"the planned run does not fit: {lacks}", mend)
    elif room.lacks(LEAST_BYTES, LEAST_FILES):
        yield warning("room", said, mend)
    else:
        yield fine("room", said)


def _lacks(root: Path) -> str:
    """Return what a run that was begun there lacks; nothing where none was."""
    if not any(RunPaths(root).runs.glob("layout-*.json")):
        return ""
    return room_in(root).lacks(*left_to_do(read_layout(root)))
