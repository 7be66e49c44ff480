"""What a run has in the queue of Slurm, and what a start does with jobs that an earlier one left.

Jobs of a run are known by their log, which lies in its folder.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LOGS", "Queued", "cancel_jobs", "jobs_in_queue", "listed", "settle_orphans", "slurm"]

log = logging.getLogger(__name__)

POLL_S = 5.0
SAY_S = 60.0
WAITS = ("refuse", "wait", "cancel")
VARIABLE = "CELLSEG_ORPHANS"
SHOWN = 10  # numbers in a message
STATES = "PENDING,RUNNING,SUSPENDED,COMPLETING,CONFIGURING,REQUEUED,STOPPED"
FORMAT = "JobArrayID:32|,State:16|,StdOut:4096"
LOGS = Path(".snakemake") / "slurm_logs"


@dataclass(frozen=True)
class Queued:
    """A job in the queue.

    Parameters
    ----------
    number : str
        Slurm's.
    state : str
        As RUNNING.
    log : path
        Where it writes.
    """

    number: str
    state: str
    log: Path


def jobs_in_queue(root: Path, *, besides: str | None = None) -> list[Queued]:
    """Return the jobs of a run that wait or run. Slurm is asked only if it ever had one.

    Parameters
    ----------
    root : path
        Folder of the results.
    besides : str, optional
        Number of a job that is left out: that of the caller.

    Returns
    -------
    list of Queued
        Oldest first.
    """
    logs = root.resolve() / LOGS
    if not logs.is_dir() or shutil.which("squeue") is None:
        return []
    options = ("-h", "-r", "-S", "i", "-t", STATES, "-u", str(os.getuid()), "-O", FORMAT)
    rows = (line.split("|", 2) for line in slurm("squeue", *options).splitlines())
    found = [Queued(row[0].strip(), row[1].strip(), Path(row[2].strip())) for row in rows]
    return [job for job in found if job.log.is_relative_to(logs) and job.number != besides]


def cancel_jobs(jobs: Collection[Queued]) -> None:
    """Take jobs off the queue; they finish no tile more.

    Parameters
    ----------
    jobs : collection of Queued
        Which ones.
    """
    numbers = [job.number for job in jobs]
    for first in range(0, len(numbers), 500):  # a command line has an end
        slurm("scancel", *numbers[first : first + 500])


def settle_orphans(root: Path, asked: str, *, besides: str | None = None) -> None:
    """Have no job of an earlier start in the queue: they would do the same work.

    Parameters
    ----------
    root : path
        Folder of the results.
    asked : {"refuse", "wait", "cancel"}
        What is done with them; the environment goes before it.
    besides : str, optional
        Number of a job that is none of them: that of the caller.
    """
    asked = os.environ.get(VARIABLE, asked)
    if asked not in WAITS:
        raise ValueError(f"{VARIABLE} needs one of {', '.join(WAITS)}, got {asked!r}.")
    left = jobs_in_queue(root, besides=besides)
    if not left:
        return
    said = f"{listed(left)} of an earlier start of {root}"
    if asked == "refuse":
        raise ValueError(
            f"{said} are still in the queue of Slurm. Start again with {VARIABLE}=wait in the"
            f" environment to let them finish first, or with {VARIABLE}=cancel to end them; what is"
            " finished is kept either way."
        )
    if asked == "cancel":
        log.warning("cancelling %s", said)
        cancel_jobs(left)
    else:
        log.warning("waiting for %s", said)
    last = time.monotonic()
    while left := jobs_in_queue(root, besides=besides):
        if time.monotonic() - last > SAY_S:
            log.warning("still waiting for %s", listed(left))
            last = time.monotonic()
        time.sleep(POLL_S)


def listed(jobs: Collection[Queued]) -> str:
    """Return the words for some jobs.

    Parameters
    ----------
    jobs : collection of Queued
        One or more.

    Returns
    -------
    str
        Their numbers, and how many run.
    """
    numbers = [job.number for job in jobs]
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    n_running = sum(job.state != "PENDING" for job in jobs)
    return f"jobs {' '.join(numbers[:SHOWN])}{more} ({n_running} running)"


def slurm(*command: str) -> str:
    """Run a command of Slurm.

    Parameters
    ----------
    *command : str
        Its words.

    Returns
    -------
    str
        What it says.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(
            f"{command[0]} has failed, and Slurm must answer here: {done.stderr.strip()}. Try again"
            " when it does."
        )
    return done.stdout
