"""Who works on what: numbered claim files, of which the one with the highest number counts."""

from __future__ import annotations

import datetime
import json
import logging
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from cellseg_pipe.io.files import sync_folder
from cellseg_pipe.ledger._crash import crash_point
from cellseg_pipe.ledger._errors import Held, StageFiles
from cellseg_pipe.ledger._files import explained, write_all

__all__ = ["Holder", "create_claim", "read_holder", "release_claim", "take_token"]

log = logging.getLogger(__name__)

# Of one length: a claim is released in place, which needs no room on a full disk.
HELD, FREE = b'"state": "held"', b'"state": "free"'
GRACE_S = 1.0  # from the making of a claim to its content
SAME_START_S = 2.0  # the clock that start times are told by may be set in between


@dataclass(frozen=True)
class Holder:
    """Who made a claim.

    Parameters
    ----------
    host : str
        Name of the machine.
    pid : int
        The process there.
    started : float
        When the process started: a number is used again by later processes. Seconds since 1970.
    job : str
        What the caller says of itself.
    since : float
        When the claim was made. Seconds since 1970.
    released : bool
        Whether the holder has let go.
    """

    host: str
    pid: int
    started: float
    job: str
    since: float
    released: bool = False

    @classmethod
    def me(cls, job: str) -> Holder:
        """Return this process.

        Parameters
        ----------
        job : str
            What it says of itself.

        Returns
        -------
        Holder
            From now.
        """
        pid = os.getpid()
        started = psutil.Process(pid).create_time()
        return cls(socket.gethostname(), pid, started, job, time.time())

    @property
    def alive(self) -> bool | None:
        """Whether the process still runs; None on another machine, where nobody can tell."""
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.pid)
            running = process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
            return running and abs(process.create_time() - self.started) < SAME_START_S
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        """Return the words of a message."""
        since = datetime.datetime.fromtimestamp(self.since).astimezone()
        job = f" ({self.job})" if self.job else ""
        when = since.isoformat(sep=" ", timespec="seconds")
        return f"process {self.pid} on {self.host}{job} since {when}"


def create_claim(path: Path, holder: Holder) -> bool:
    """Make a claim if nobody has made it.

    Parameters
    ----------
    path : path
        The claim; its folder exists.
    holder : Holder
        Who makes it.

    Returns
    -------
    bool
        False if there is one.
    """
    said = {name: getattr(holder, name) for name in ("host", "pid", "started", "job", "since")}
    content = json.dumps(said)[:-1].encode() + b", " + HELD + b"}\n"
    with explained(path):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            crash_point("claim-made")
            write_all(handle, content, "claim-torn")
            crash_point("claim-written")
            os.fsync(handle)
        finally:
            os.close(handle)
        sync_folder(path.parent)
    crash_point("claim-synced")
    return True


def release_claim(path: Path) -> None:
    """Say that the holder of a claim has let go. The file stays: its number is used up.

    Parameters
    ----------
    path : path
        The claim.
    """
    try:
        place = path.read_bytes().index(HELD)
        handle = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(handle, FREE, place)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        log.warning("%s cannot be released before this process ends: %s", path, error)


def read_holder(path: Path) -> Holder | None:
    """Read a claim.

    Parameters
    ----------
    path : path
        The claim.

    Returns
    -------
    Holder or None
        None if there is no whole claim.
    """
    try:
        said = json.loads(path.read_bytes())
        return Holder(
            host=str(said["host"]),
            pid=int(said["pid"]),
            started=float(said["started"]),
            job=str(said["job"]),
            since=float(said["since"]),
            released=said["state"] == "free",
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def patient_holder(path: Path) -> Holder | None:
    """Read a claim; if it is empty, its maker may be about to fill it: wait a moment.

    Parameters
    ----------
    path : path
        The claim.

    Returns
    -------
    Holder or None
        None if its maker died, or if there is no claim.
    """
    end = time.monotonic() + GRACE_S
    while (holder := read_holder(path)) is None and path.exists() and time.monotonic() < end:
        time.sleep(GRACE_S / 20)
    return holder


def take_token(paths: StageFiles, batch: int, *, job: str, takeover: bool) -> int:
    """Claim a batch.

    Parameters
    ----------
    paths : StageFiles
        Of the stage.
    batch : int
        Number of the batch.
    job : str
        What the caller says of itself.
    takeover : bool
        Whether to take it from a process that is alive.

    Returns
    -------
    int
        The fencing token: higher than all before it.
    """
    me = Holder.me(job)
    token = max(paths.attempts().get(batch, (0,)))
    while True:
        if token:
            _check_free(paths, batch, token=token, takeover=takeover)
        token += 1
        if create_claim(paths.claim(batch, token), me):
            return token


def _check_free(paths: StageFiles, batch: int, *, token: int, takeover: bool) -> None:
    name = f"batch {batch} of {paths.title}"
    holder = patient_holder(paths.claim(batch, token))
    if holder is None:
        log.warning("%s: claim %d cannot be read, its maker died; going on from there", name, token)
    elif not holder.released and holder.alive is None:
        log.warning("%s was claimed by %s: if that still works it will be refused", name, holder)
    elif not holder.released and holder.alive:
        if not takeover:
            raise Held(
                f"{name} is being worked on by {holder}. Wait for it or end it;"
                " takeover=True takes its place at once, and keeps what it has finished."
            )
        log.warning("%s is taken over from %s", name, holder)
