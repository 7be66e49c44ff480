"""Says who works in a results folder, keeps others out of it, and ends what runs there."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from cellseg_pipe.engines._snakemake_state import earlier_jobs
from cellseg_pipe.ledger import Held, Holder, RunLock
from cellseg_pipe.paths import RunPaths

__all__ = ["cancel", "idle"]

POLL_S = 0.2
JOBS_AFTER_S = 3.0  # what the workflow manager has to end its jobs by itself
# What a shell script starts in the background ignores interrupts. Ending it loses no finished tile.
TERM_AFTER_S = 15.0


@contextlib.contextmanager
def idle(root: Path, *, job: str) -> Iterator[None]:
    """Hold the lock of a results folder in which nothing runs; refuse where something does.

    Parameters
    ----------
    root : path
        Folder of the results.
    job : str
        What the holder says of itself.

    Yields
    ------
    None
        Nothing.
    """
    try:
        with RunLock(RunPaths(root).run_lock, job=job):
            if pids := earlier_jobs(root):
                raise ValueError(
                    f"jobs still work in {root}: processes {' '.join(map(str, pids))}. Wait until"
                    f" they end, or end them with cellseg cancel {root}."
                )
            yield
    except Held as error:
        raise ValueError(f"{error} cellseg cancel {root} ends a run of this machine.") from None


def cancel(root: Path, *, wait_s: float = 60.0) -> str:
    """End the run that works in a results folder, by an interrupt, else by termination.

    Parameters
    ----------
    root : path
        Folder of the results.
    wait_s : float
        How long it may take to stop.

    Returns
    -------
    str
        What was ended, for people.
    """
    if not RunPaths(root).runs.is_dir():
        raise FileNotFoundError(f"{root} holds no run: there is no {RunPaths(root).runs}.")
    holder = RunLock(RunPaths(root).run_lock).holder()
    if holder is not None and holder.alive is None:
        raise ValueError(
            f"{root} is in use by {holder}. Log in there and type cellseg cancel {root}."
        )
    if holder is None and not earlier_jobs(root):
        return f"nothing runs in {root}"
    left = _stopped(root, holder, wait_s)
    if left:
        numbers = " ".join(map(str, left))
        raise ValueError(
            f"processes {numbers} did not stop within {wait_s:.0f} s. Wait, or end them with"
            f" kill -9 {numbers}: what is finished is kept either way."
        )
    who = f"{holder} has stopped" if holder else "the jobs that were left have stopped"
    return f"{who}; what is done is kept, the same command goes on"


def _stopped(root: Path, holder: Holder | None, wait_s: float) -> list[int]:
    """Interrupt the run, then its jobs, then end them; return the processes that are left."""
    began = time.monotonic()
    told: set[tuple[int, signal.Signals]] = set()
    while True:
        main = [holder.pid] if holder is not None and holder.alive else []
        jobs = earlier_jobs(root)
        waited_s = time.monotonic() - began
        if not main and not jobs:
            return []
        signals = [(pid, signal.SIGINT) for pid in main]
        if not main or waited_s > min(JOBS_AFTER_S, wait_s):
            signals += [(pid, signal.SIGINT) for pid in jobs]
        if waited_s > TERM_AFTER_S:
            signals += [(pid, signal.SIGTERM) for pid in (*main, *jobs)]
        for pid, number in signals:
            if (pid, number) not in told:
                told.add((pid, number))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        if waited_s > wait_s:
            return [*main, *jobs]
        time.sleep(POLL_S)
