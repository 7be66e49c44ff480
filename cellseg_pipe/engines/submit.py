"""Runs the workflow manager itself as a job of Slurm: login nodes end long processes.

Before its time is up it hands over to another job like it.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path

from cellseg_pipe.config import load_experiment
from cellseg_pipe.engines._queue import LOGS, jobs_in_queue, slurm
from cellseg_pipe.ledger import RunLock
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.site import load_site

__all__ = ["CONTROLLER", "VARIABLE", "hand_over", "is_controller", "submit"]

log = logging.getLogger(__name__)

CONTROLLER = "controller"
VARIABLE = "CELLSEG_CONTROLLER"  # holds the command of such a job, in the job
MEMORY_MB = 3000  # the workflow manager takes 1.4 GB for 100,000 jobs
MINUTES = 1440  # where the site sets no limit


def submit(config: Path, *, profile: Path) -> str:
    """Have a run start in the queue.

    Parameters
    ----------
    config : path
        The experiment file.
    profile : path
        Of Snakemake.

    Returns
    -------
    str
        What a user is told.
    """
    root = Path(load_experiment(config).output.dir)
    if left := [job for job in jobs_in_queue(root) if is_controller(job.log)]:
        raise ValueError(
            f"{root} has a controller in the queue of Slurm already: job {left[0].number}. Look at"
            f" it with cellseg status {root}, or end it with cellseg cancel {root}."
        )
    program = [sys.executable, "-m", "cellseg_pipe.cli", "run", str(config.resolve())]
    # What is no path here is the name of a profile that Snakemake knows.
    known = profile.resolve() if profile.exists() else profile
    program += ["--engine", "snakemake", "--profile", str(known)]
    number = _sbatch(root, shlex.join(program))
    return (
        f"submitted as job {number}, which submits the others; cellseg status {root} tells how far"
        f" it is, cellseg cancel {root} ends it. It writes to"
        f" {root / LOGS / f'{CONTROLLER}-{number}.log'}"
    )


def is_controller(file: Path) -> bool:
    """Tell whether a log is that of a job which runs the workflow manager.

    Parameters
    ----------
    file : path
        The log.

    Returns
    -------
    bool
        By its name.
    """
    return file.name.startswith(f"{CONTROLLER}-")


def hand_over(root: Path) -> None:
    """Have another job go on when this one ends; its own workflow manager is dead already.

    Parameters
    ----------
    root : path
        Folder of the results.
    """
    with RunLock(RunPaths(root).run_lock, job="cellseg run"):
        pass  # what was killed here has left its lock, and another machine could not tell
    number = _sbatch(root, os.environ[VARIABLE], after=os.environ["SLURM_JOB_ID"])
    log.warning("the time of this job is nearly up: job %s goes on", number)


def _sbatch(root: Path, program: str, *, after: str | None = None) -> str:
    """Submit a job that runs a program; return its number."""
    site, logs = load_site(), root.resolve() / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    options = [f"--job-name=cellseg_{CONTROLLER}", f"--output={logs / CONTROLLER}-%j.log"]
    options += [f"--time={site.walltime_minutes or MINUTES}", f"--mem={MEMORY_MB}"]
    options += ["--ntasks=1", "--cpus-per-task=1", f"--chdir={Path.cwd()}", "--export=ALL"]
    given = (("partition", site.partition), ("account", site.account), ("qos", site.qos))
    options += [f"--{name}={value}" for name, value in given if value]
    options += shlex.split(site.extra or "")
    options += [f"--dependency=afterany:{after}"] if after else []
    # An earlier controller leaves jobs at work: these finish before the next one looks.
    told = f"export {VARIABLE}={shlex.quote(program)} CELLSEG_ORPHANS=${{CELLSEG_ORPHANS:-wait}}"
    said = slurm("sbatch", "--parsable", *options, "--wrap", f"{told}; exec {program}")
    return said.strip().split(";")[0]
