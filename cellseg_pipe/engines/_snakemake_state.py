"""What Snakemake leaves behind: its log, and jobs that go on when it is killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from cellseg_pipe.ledger import RunLock
from cellseg_pipe.paths import RunPaths

__all__ = ["earlier_jobs", "lock_of_run", "log_in"]

STATE = ".snakemake"


def log_in(root: Path | None, manager: Any) -> None:
    """Have Snakemake's log in the run's folder: it begins one where it is started, before all else.

    Parameters
    ----------
    root : path or None
        The run's folder; None if nothing is known of it, and what is said is on the screen.
    manager : LoggerManager
        Snakemake's own.
    """
    if not manager.settings.enable_file_logging or manager.settings.dryrun:
        return
    begun = {
        handler: Path(name)
        for handler, name in manager.logfile_handlers.items()
        if Path(name).parents[1].name == STATE
    }
    if root is not None and any(log.parents[2] == root for log in begun.values()):
        return
    for handler in begun:
        manager.logger.removeHandler(handler)
        handler.close()
        del manager.logfile_handlers[handler]
    if root is not None:
        manager.setup_logfile(workdir=root)
    for old in begun.values():
        _hand_over(old, [Path(name) for name in manager.logfile_handlers.values()])


def _hand_over(old: Path, logs: list[Path]) -> None:
    """Append a log to others and remove it, with its folders where nothing else is in them."""
    text = old.read_text()
    for log in logs:
        with log.open("a") as file:
            file.write(text)
    with contextlib.suppress(OSError):  # other logs are there, too
        for remove in (old.unlink, old.parent.rmdir, old.parents[1].rmdir):
            remove()


def earlier_jobs(root: Path) -> list[int]:
    """Return the jobs on this machine that a killed start of a run has left behind.

    Parameters
    ----------
    root : path
        The run's folder, in which they work.

    Returns
    -------
    list of int
        Their processes.
    """
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        cwd, words = process.info["cwd"], process.info["cmdline"] or []
        is_job = any(Path(a).name == "cellseg" and b == "job" for a, b in pairwise(words))
        if is_job and cwd and Path(cwd) == root.resolve():
            found.append(process.pid)
    return sorted(found)


def lock_of_run(paths: RunPaths, *, settle: Callable[[], None], job: str = "snakemake") -> RunLock:
    """Take the lock of a run's folder, in which no jobs are left either.

    Parameters
    ----------
    paths : RunPaths
        Of the run.
    settle : callable
        Deals with jobs that are left on other machines, or raises.
    job : str
        What the holder says of itself.

    Returns
    -------
    RunLock
        Held.
    """
    lock = RunLock(paths.run_lock, job=job)
    lock.__enter__()
    try:
        settle()
    except BaseException:
        lock.__exit__(None, None, None)
        raise
    if pids := earlier_jobs(paths.root):
        lock.__exit__(None, None, None)
        numbers = " ".join(map(str, pids))
        raise ValueError(
            f"jobs of an earlier start still work in {paths.root}: processes {numbers}. Wait until"
            f" they end, or end them (cellseg cancel {paths.root}), and start again."
        )
    return lock
