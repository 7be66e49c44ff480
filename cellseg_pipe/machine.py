"""What this process may use of its machine: CPUs, memory and time that a scheduler gave it."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime
from pathlib import Path

__all__ = ["available_bytes", "available_threads", "end_of_job"]

ANSWER_S = 30  # that a scheduler may take to answer


def available_threads() -> int:
    """Return how many CPUs this process may use, which a scheduler may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes() -> int | None:
    """Return the memory that this process may still take; None where the system does not tell."""
    limits = [_meminfo("/proc/meminfo")]
    for folder in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory"):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            top, now = _number(f"{folder}/{limit}"), _number(f"{folder}/{used}")
            limits.append(None if top is None or now is None else top - now)
    known = [limit for limit in limits if limit is not None]
    return max(0, min(known)) if known else None


def _meminfo(path: str) -> int | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _number(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def end_of_job() -> float | None:
    """Return when Slurm ends the job that this is part of; None outside, and without a limit.

    Returns
    -------
    float or None
        Seconds since 1970.
    """
    job, known = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_JOB_END_TIME", "")
    if job is None:
        return None
    if known.isdecimal():  # of newer versions
        return float(known)
    try:
        said = subprocess.run(
            ("squeue", "--noheader", "--jobs", job, "--format", "%e"),
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        ).stdout
        return datetime.fromisoformat(said.strip()).timestamp()
    except (OSError, subprocess.TimeoutExpired, ValueError):  # nothing that is a time
        return None
