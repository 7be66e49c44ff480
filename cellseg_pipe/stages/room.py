"""Whether results fit: free bytes and files of the disk, and what the user's quota leaves."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from cellseg_pipe.cost import StageCost
from cellseg_pipe.stages._bundle_costs import bundle_costs
from cellseg_pipe.stages.costs import planned_costs
from cellseg_pipe.stages.layout import RunLayout, open_stages
from cellseg_pipe.stages.opened import NotThisMachine

__all__ = ["Room", "check_room", "left_to_do", "refuse", "room_in"]

log = logging.getLogger(__name__)

QUOTA_BLOCK_BYTES = 1024
QUOTA_S = 20.0  # a server that does not answer must not hold a run up


@dataclass(frozen=True)
class Room:
    """What may still be written in a folder.

    Parameters
    ----------
    folder : path
        Where.
    free_bytes, free_files : int or None
        Of the file system; None for files where it does not count them.
    quota_bytes, quota_files : int or None
        That the quotas of the user and of the folder's group leave; None where there is none.
    """

    folder: Path
    free_bytes: int
    free_files: int | None
    quota_bytes: int | None = None
    quota_files: int | None = None

    def lacks(self, n_bytes: int, n_files: int) -> str:
        """Say what is missing for so many bytes and files, and how much.

        Parameters
        ----------
        n_bytes, n_files : int
            That are to be written.

        Returns
        -------
        str
            Empty if nothing is.
        """
        found = []
        for what, needed, free, size, unit in (
            ("the disk has", n_bytes, self.free_bytes, 1e9, "GB"),
            ("your quota leaves", n_bytes, self.quota_bytes, 1e9, "GB"),
            ("the disk has", n_files, self.free_files, 1, "files"),
            ("your quota leaves", n_files, self.quota_files, 1, "files"),
        ):
            if free is not None and needed > free:
                digits = 2 if unit == "GB" else 0
                found.append(
                    f"{what} {free / size:.{digits}f} {unit} in {self.folder} and"
                    f" {needed / size:.{digits}f} are needed, {(needed - free) / size:.{digits}f}"
                    " more"
                )
        return "; ".join(found)


class NoRoom(NotThisMachine):
    """What is to be written does not fit."""


def room_in(folder: Path | str) -> Room:
    """Look what may be written in a folder.

    Parameters
    ----------
    folder : path
        Or what is to be one: then the folder counts that it will be made in.

    Returns
    -------
    Room
        As it is now.
    """
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    there = os.statvfs(folder)
    quotas = [
        _lustre_quota(folder, *owner) or _quota(folder, *owner) or (None, None)
        for owner in (("-u", str(os.getuid())), ("-g", _group_of(folder)))
    ]
    least = (
        min((n for n in left if n is not None), default=None) for left in zip(*quotas, strict=True)
    )
    n_files = there.f_favail if there.f_files else None
    return Room(folder, there.f_bavail * there.f_frsize, n_files, *least)


def _group_of(folder: Path) -> str:
    """Return the number of the group that new files in a folder get."""
    there = os.stat(folder)
    return str(there.st_gid if there.st_mode & stat.S_ISGID else os.getgid())


def _lustre_quota(folder: Path, kind: str, number: str) -> tuple[int | None, int | None] | None:
    """Return what a quota of Lustre leaves a user or group; None where that is not known."""
    lines = _said("lfs", "quota", "-q", kind, number, str(folder))
    # Behind a long name the numbers begin a new line.
    words = [word for line in lines for word in line]
    first = next((n for n, word in enumerate(words) if word.rstrip("*").isdigit()), 0)
    if first and words[0].startswith("/") and len(words) >= first + 7:
        return _left(words[first:])
    if lines:
        log.warning("the quota is not known: lfs says %s", " ".join(words))
    return None


def _quota(folder: Path, kind: str, number: str) -> tuple[int | None, int | None] | None:
    """Return what a quota of the file system leaves; None where that is not known."""
    device = _device_of(folder)
    # Of a user it is asked without a number, which not all may ask for.
    for words in _said("quota", "-w", *([kind, number] if kind == "-g" else [])):
        if len(words) >= 7 and words[0] == device:
            return _left(words[1:])
    return None


def _device_of(folder: Path) -> str:
    mounts = [p for p in psutil.disk_partitions(all=True) if folder.is_relative_to(p.mountpoint)]
    return max(mounts, key=lambda p: len(p.mountpoint)).device if mounts else ""


def _said(program: str, *arguments: str) -> list[list[str]]:
    """Return the words of each line that a program says; nothing where it is missing or fails."""
    path = shutil.which(program)
    if path is None:
        return []
    command = [path, *arguments]
    try:
        # A quota that is used up is told by the exit status, too.
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUOTA_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("the quota is not known: %s", error)
        return []
    return [line.split() for line in done.stdout.splitlines()]


def _left(words: list[str]) -> tuple[int | None, int | None]:
    """Return bytes and files that are left, from used, quota, limit and grace of each."""
    # Grace is only there where a quota is exceeded in some programs, and `-` in others.
    numbers = [word.rstrip("*") for word in words]
    blocks, rest = numbers[:3], numbers[3:]
    files = rest[1:4] if rest and not rest[0].isdigit() else rest[:3]
    n_bytes, n_files = (_remaining(part) for part in (blocks, files))
    return (None if n_bytes is None else n_bytes * QUOTA_BLOCK_BYTES), n_files


def _remaining(part: list[str]) -> int | None:
    if len(part) < 3 or not all(word.isdigit() for word in part):
        return None
    used, soft, hard = map(int, part)
    limits = [limit for limit in (soft, hard) if limit]
    return max(0, min(limits) - used) if limits else None


def left_to_do(layout: RunLayout) -> tuple[int, int]:
    """Return bytes and files that a run is predicted to write yet, where it is planned.

    Parameters
    ----------
    layout : RunLayout
        The run.

    Returns
    -------
    n_bytes, n_files : int
        Of stages with jobs that are not done; none of units that are finished.
    """
    n_bytes = n_files = 0
    small = bundle_costs(layout)
    known = {
        name: {
            said["stage"]: StageCost(**said) for said in planned_costs(layout.files(name, "tiles"))
        }
        for name in layout.names
    }
    for unit, stage, batches in open_stages(layout):
        cost = (known.get(unit, small)).get(stage.name)
        if cost is not None:
            share = len(batches) / stage.n_batches
            n_bytes += round(cost.disk_bytes * share)
            n_files += round(cost.n_files * share)
    return n_bytes, n_files


def check_room(layout: RunLayout) -> None:
    """Refuse a run that is planned and will not fit.

    Parameters
    ----------
    layout : RunLayout
        The run.
    """
    refuse(room_in(layout.root).lacks(*left_to_do(layout)), layout.disk)


def refuse(lacks: str, strictness: str) -> None:
    """Refuse to go on where something is missing.

    Parameters
    ----------
    lacks : str
        What; nothing if it is empty.
    strictness : {"strict", "relaxed"}
        Whether it is refused, or warned of.
    """
    if lacks and strictness == "strict":
        raise NoRoom(
            f"the results will not fit: {lacks}. Free that much (cellseg clean lists what can go),"
            " name another output.dir, or set resources.disk to relaxed."
        )
    if lacks:
        log.warning("the results may not fit: %s; resources.disk lets the run go on", lacks)
