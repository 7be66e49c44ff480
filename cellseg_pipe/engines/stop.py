"""Says who works in a results folder, keeps others out of it, and ends what runs there."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cellseg_pipe.engines._queue import LOGS, Queued, cancel_jobs, jobs_in_queue
from cellseg_pipe.engines._snakemake_state import earlier_jobs
from cellseg_pipe.engines.submit import is_controller
from cellseg_pipe.ledger import Held, Holder, RunLock
from cellseg_pipe.paths import RunPaths

__all__ = ["cancel", "idle"]

POLL_S = 0.2
QUEUE_POLL_S = 2.0  # many users ask Slurm at a time
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
            if left := _left(root, jobs_in_queue(root)):
                raise ValueError(
                    f"jobs still work in {root}: {left}. Wait until they end, or end them with"
                    f" cellseg cancel {root}."
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
    queued = jobs_in_queue(root)
    if holder is not None and holder.alive is None:
        if not any(is_controller(job.log) for job in queued):
            raise ValueError(
                f"{root} is in use by {holder}. Log in there and type cellseg cancel {root}."
            )
    elif holder is None and not earlier_jobs(root) and not queued:
        return f"nothing runs in {root}"
    if left := _stopped(root, holder, wait_s):
        raise ValueError(
            f"{left} did not stop within {wait_s:.0f} s. Wait, or end them (kill -9, scancel): what"
            " is finished is kept either way."
        )
    who = f"{holder} has stopped" if holder else "the jobs that were left have stopped"
    return f"{who}; what is done is kept, the same command goes on"


def _stopped(root: Path, holder: Holder | None, wait_s: float) -> str:
    """Interrupt the run, then its jobs, then end them; return what is left."""
    began = time.monotonic()
    told: set[object] = set()
    while True:
        main = [holder.pid] if holder is not None and holder.alive else []
        jobs, queued = earlier_jobs(root), jobs_in_queue(root)
        waited_s = time.monotonic() - began
        if not (main or jobs or queued):
            return ""
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
        # What submits jobs ends first: it takes them along.
        first = [job for job in queued if is_controller(job.log)]
        ends = queued if waited_s > min(JOBS_AFTER_S, wait_s) and not main else first
        cancel_jobs([job for job in ends if job.number not in told])
        told |= {job.number for job in ends}
        if waited_s > wait_s:
            return _left(root, queued, main)
        time.sleep(QUEUE_POLL_S if (root / LOGS).is_dir() else POLL_S)


def _left(root: Path, queued: list[Queued], main: Sequence[int] = ()) -> str:
    """Return who works in a folder, as a user types their numbers; nothing if nobody does."""
    pids, numbers = [*main, *earlier_jobs(root)], [job.number for job in queued]
    parts = [f"processes {' '.join(map(str, pids))}"] if pids else []
    parts += [f"jobs {' '.join(numbers)} of Slurm"] if numbers else []
    return " and ".join(parts)
