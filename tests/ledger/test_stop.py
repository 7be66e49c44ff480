"""A batch stops before its time is up, or when it is told to, and loses nothing."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest

from cellseg_pipe import machine
from cellseg_pipe.ledger import Records, Stopped, _stop, open_batch
from tests.ledger.worker import add, keys_of, stage_of

KEYS = keys_of(0)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_stop, "time", clock)
    monkeypatch.setattr(_stop, "_asked", _stop._Asked())
    return clock


def work(stage, clock, *, takes):
    """Work on a batch whose tiles take some seconds; return how many were made."""
    made = 0
    with open_batch(stage, 0, KEYS) as batch:
        for key in batch.missing:
            clock.now += takes
            made += 1
            add(batch, key)
        batch.finish()
    return made


@pytest.mark.parametrize(("takes", "end", "n_tiles"), [(10.0, 1055.0, 3), (1.0, 1013.5, 2)])
def test_no_tile_is_begun_that_may_not_end(tmp_path, clock, takes, end, n_tiles):
    """After three tiles of 10 s 25 s are left: too little for two more and for the end."""
    stage = stage_of(tmp_path)
    _stop._asked.end = end
    with pytest.raises(Stopped) as stopped:
        work(stage, clock, takes=takes)
    assert stopped.value.code == 75
    assert clock.now == 1000 + n_tiles * takes < end
    _stop._asked.end = math.inf
    clock.now = 5000.0
    assert work(stage, clock, takes=takes) == len(KEYS) - n_tiles
    assert len(Records(stage, 1).keys()) == len(KEYS)


def test_the_last_tile_needs_no_time_after_it(tmp_path, clock):
    before_the_last = 1000 + (len(KEYS) - 1) * 100.0
    _stop._asked.end = before_the_last + 2 * 100.0 + _stop.RESERVE_S
    assert work(stage_of(tmp_path), clock, takes=100.0) == len(KEYS)


def test_slow_tiles_count_and_a_single_one_does_not(clock):
    pace = _stop.Pace()
    for took in [1.0] * 38 + [5.0, 60.0]:
        clock.now += took
        pace.tile()
    assert pace.slow_s == 1.0
    for took in [5.0, 5.0]:
        clock.now += took
        pace.tile()
    assert pace.slow_s == 5.0


def test_without_a_limit_nothing_stops(clock):
    pace = _stop.Pace()
    clock.now += 1e9
    pace.tile()
    assert pace.check() == ""


CHILD = """
import sys, time
from pathlib import Path
from cellseg_pipe.ledger import open_batch, stop_in_time
from tests.ledger.worker import add, keys_of, stage_of

stop_in_time(None)
with open_batch(stage_of(Path(sys.argv[1])), 0, keys_of(0)) as batch:
    add(batch, batch.missing[0])
    add(batch, batch.missing[0])
    print("ready", flush=True)
    sys.stdin.readline()
    time.sleep(0 if sys.argv[2] == "SIGUSR1" else 1000)
    add(batch, batch.missing[0])
    print("went on", flush=True)
"""


@pytest.mark.parametrize(("name", "n_tiles"), [("SIGTERM", 2), ("SIGUSR1", 3)])
def test_signals(tmp_path, name, n_tiles):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, getattr(signal, name))
        rest, _ = child.communicate("\n", timeout=120)
    assert (child.returncode, rest) == (75, "")
    with open_batch(stage_of(tmp_path), 0, KEYS) as batch:  # the claim was let go
        assert batch.adopted == n_tiles


def test_the_end_of_a_job_is_read_from_the_environment(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_JOB_END_TIME"):
        monkeypatch.delenv(name, raising=False)
    assert machine.end_of_job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1790000000")
    assert machine.end_of_job() == 1790000000.0


@pytest.mark.parametrize("said", ["N/A", "", "slurm_load_jobs error: Invalid job id specified"])
def test_a_job_without_a_limit_has_no_end(tmp_path, monkeypatch, said):
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\necho '{said}'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert machine.end_of_job() is None
    squeue.write_text("#!/bin/sh\necho 2026-11-21T21:00:00\n")
    assert machine.end_of_job() == time.mktime((2026, 11, 21, 21, 0, 0, 0, 0, -1))
