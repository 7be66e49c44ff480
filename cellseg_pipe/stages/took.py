"""Measures what a job takes, and keeps it as a line beside the job's log."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import resource
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from cellseg_pipe.machine import available_threads
from cellseg_pipe.paths import StagePaths

__all__ = ["Took", "Usage", "of_process", "read_took", "recorded"]

log = logging.getLogger(__name__)

PROC = Path("/proc/self")
MB = 1 << 20


@dataclass(frozen=True)
class Took:
    """What one attempt on a job took.

    Parameters
    ----------
    host : str
        Where it ran.
    slurm_job : str or None
        Its number there.
    started : float
        Seconds since 1970.
    wall_s, cpu_s : float
        How long it took, and what its threads and programs computed together.
    threads : int
        That it was given.
    gpus : int
        That it was given, or used.
    computed_on_gpu : bool
        Whether it used one.
    peak_bytes : int
        Most memory at a time.
    asked_bytes : int or None
        Memory that the scheduler gave it.
    read_bytes, written_bytes : int or None
        By the program, whatever the system keeps in memory; None where it does not tell.
    failed : str or None
        Kind of the error that ended it.
    """

    host: str
    slurm_job: str | None
    started: float
    wall_s: float
    cpu_s: float
    threads: int
    gpus: int
    computed_on_gpu: bool
    peak_bytes: int
    asked_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    failed: str | None = None


NAMES = {field.name for field in fields(Took)}


@dataclass(frozen=True)
class Usage:
    """What a process has used up to a moment.

    Parameters
    ----------
    at_s : float
        The moment, on the clock that is never set.
    cpu_s : float
        Of all threads and programs that have ended.
    read_bytes, written_bytes : int or None
        By the program.
    n_on_gpu : int
        Arrays that it has made on GPUs.
    """

    at_s: float
    cpu_s: float = 0.0
    read_bytes: int | None = 0
    written_bytes: int | None = 0
    n_on_gpu: int = 0


def of_process() -> Usage:
    """Return what this process had used when it began: nothing, but loading it counts from then."""
    age_s = max(0.0, time.time() - psutil.Process().create_time())
    return Usage(time.monotonic() - age_s)


@contextlib.contextmanager
def recorded(
    paths: StagePaths, batch: int, *, threads: int | None = None, since: Usage | None = None
) -> Iterator[None]:
    """Write down what is taken until the end, be it an error. A job that is killed leaves nothing.

    Parameters
    ----------
    paths : StagePaths
        Of the stage.
    batch : int
        Which job.
    threads : int, optional
        That the job was given; by default all that this process may use.
    since : Usage, optional
        From which moment on; by default from now.

    Yields
    ------
    None
        Nothing.
    """
    if since is None:
        _forget_peak()
        since = _used()
    failed = None
    try:
        yield
    except BaseException as error:
        failed = type(error).__name__
        raise
    finally:
        took = _took(since, threads=threads or available_threads(), failed=failed)
        try:
            _append(paths.took(batch), took)
        except OSError as error:  # no reason to lose a job that is done
            log.warning("what this job took is not written down: %s", error)


def read_took(path: Path) -> list[Took]:
    """Read what the attempts on a job took.

    Parameters
    ----------
    path : path
        From `StagePaths.took`.

    Returns
    -------
    list of Took
        Of those that were not killed; what is torn is passed over.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and set(said) == NAMES:
                found.append(Took(**said))
    return found


def _append(path: Path, took: Took) -> None:
    """Add a line by one write, whole behind whatever a crash has left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(handle, f"\n{json.dumps(asdict(took))}\n".encode())
    finally:
        os.close(handle)


def _took(since: Usage, *, threads: int, failed: str | None) -> Took:
    now = _used()
    wall_s = now.at_s - since.at_s
    on_gpu = now.n_on_gpu > since.n_on_gpu
    return Took(
        host=socket.gethostname(),
        slurm_job=os.environ.get("SLURM_JOB_ID"),
        started=round(time.time() - wall_s, 3),
        wall_s=round(wall_s, 3),
        cpu_s=round(now.cpu_s - since.cpu_s, 3),
        threads=threads,
        gpus=max(_given_gpus(os.environ), int(on_gpu)),
        computed_on_gpu=on_gpu,
        peak_bytes=_peak_bytes(),
        asked_bytes=_asked_bytes(os.environ),
        read_bytes=_since(since.read_bytes, now.read_bytes),
        written_bytes=_since(since.written_bytes, now.written_bytes),
        failed=failed,
    )


def _since(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before


def _used() -> Usage:
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    cpu_s = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    moved = _numbers(PROC / "io")
    return Usage(time.monotonic(), cpu_s, moved.get("rchar"), moved.get("wchar"), _n_on_gpu())


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file of names with values; none where there is no such file."""
    try:
        text = path.read_text()
    except OSError:
        return {}
    found = re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE)
    return {name: int(value) for name, value in found}


def _forget_peak() -> None:
    """Have the system forget the most memory of this process: other jobs ran in it before."""
    with contextlib.suppress(OSError):
        (PROC / "clear_refs").write_text("5")


def _peak_bytes() -> int:
    peak_kb = _numbers(PROC / "status").get("VmHWM")
    if peak_kb is not None:
        return peak_kb * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _n_on_gpu() -> int:
    """Count the arrays that were made on GPUs so far, without loading what makes them."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    devices = range(torch.cuda.device_count())
    return sum(torch.cuda.memory_stats(n).get("allocation.all.allocated", 0) for n in devices)


def _given_gpus(environment: Mapping[str, str]) -> int:
    said = environment.get("SLURM_GPUS_ON_NODE", "")
    return int(said) if said.isdecimal() else 0


def _asked_bytes(environment: Mapping[str, str]) -> int | None:
    """Return the memory that Slurm gave to a job."""
    names = ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
    node, cpu, n = (environment.get(name, "") for name in names)
    if node.isdecimal() and int(node):
        return int(node) * MB
    return int(cpu) * int(n) * MB if cpu.isdecimal() and n.isdecimal() else None
