"""What a job took is a line of its own, which neither a crash nor an error before it spoils."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cellseg_pipe.paths import RunPaths
from cellseg_pipe.stages import took
from cellseg_pipe.stages.took import of_process, read_took, recorded

MB = 1 << 20
linux = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc of Linux")


@pytest.fixture
def stage(tmp_path):
    return RunPaths(tmp_path / "out").unit("my slide").stage("masks", "0123456789ab")


def only(stage, batch=0):
    (found,) = read_took(stage.took(batch))
    return found


def test_its_file_lies_with_the_logs_and_not_in_what_clean_removes(stage, tmp_path):
    with recorded(stage, 12, threads=3):
        pass
    folder = tmp_path / "out" / "logs" / stage.unit.root.name
    assert stage.took(12) == folder / "masks-0123456789ab.0012.jsonl"
    assert os.listdir(folder) == ["masks-0123456789ab.0012.jsonl"]
    assert read_took(stage.took(11)) == []


@linux
def test_time_memory_and_bytes_are_those_of_the_job_alone(stage, tmp_path):
    waste = bytearray(os.urandom(MB)) * 600
    del waste  # the most memory of this process, before the job
    before = time.time()
    with recorded(stage, 0, threads=3):
        kept = bytearray(os.urandom(MB)) * 64
        (tmp_path / "out.bin").write_bytes(kept[: 5 * MB])
        (tmp_path / "out.bin").read_bytes()
        sum(range(10**6))
    found = only(stage)
    assert before - 0.01 <= found.started <= time.time()
    assert 0 < found.cpu_s and 0 < found.wall_s <= time.time() - before + 0.01
    assert 5 * MB <= found.written_bytes < 6 * MB
    assert 5 * MB <= found.read_bytes < 7 * MB
    now = took._numbers(Path("/proc/self/status"))["VmRSS"] * 1024
    assert 64 * MB < found.peak_bytes < now + 300 * MB
    assert (found.threads, found.gpus, found.computed_on_gpu) == (3, 0, False)
    assert (found.failed, found.slurm_job, found.asked_bytes) == (None, None, None)


def test_programs_that_a_job_started_count(stage):
    busy = "import time\nwhile time.process_time() < .3: pass"
    with recorded(stage, 0):
        subprocess.run([sys.executable, "-c", busy], check=True)
    assert only(stage).cpu_s >= 0.3
    assert only(stage).threads == len(os.sched_getaffinity(0))


def test_a_job_with_a_process_of_its_own_counts_from_its_start(stage):
    with recorded(stage, 0, since=of_process()):
        pass
    found = only(stage)
    assert found.cpu_s == pytest.approx(sum(os.times()[:4]), abs=0.5) and found.cpu_s > 0.1
    assert found.wall_s > 0.1


def test_an_attempt_that_failed_says_so_and_the_next_is_another_line(stage):
    with pytest.raises(MemoryError), recorded(stage, 0):
        raise MemoryError("too much")
    with pytest.raises(KeyboardInterrupt), recorded(stage, 0):
        raise KeyboardInterrupt
    with recorded(stage, 0):
        pass
    found = read_took(stage.took(0))
    assert [one.failed for one in found] == ["MemoryError", "KeyboardInterrupt", None]


@pytest.mark.parametrize("left", [b'{"host": "a", "wal', b"\xff\x00", b'{"host": 3}\n', b"[1]\n7"])
def test_what_is_torn_spoils_no_other_line(stage, left):
    with recorded(stage, 0, threads=1):
        pass
    with open(stage.took(0), "ab") as file:
        file.write(left)
    with recorded(stage, 0, threads=2):
        pass
    assert [one.threads for one in read_took(stage.took(0))] == [1, 2]


def test_what_slurm_gave_is_written_down(stage, monkeypatch):
    for name, value in {
        "SLURM_JOB_ID": "77",
        "SLURM_MEM_PER_NODE": "2500",
        "SLURM_GPUS_ON_NODE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    with recorded(stage, 0, threads=4):
        pass
    found = only(stage)
    assert (found.slurm_job, found.asked_bytes, found.gpus) == ("77", 2500 * MB, 2)
    assert not found.computed_on_gpu
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "8")
    with recorded(stage, 1):
        pass
    assert only(stage, 1).asked_bytes == 800 * MB


def test_of_jobs_of_one_process_those_used_a_gpu_that_made_arrays_there(stage, monkeypatch):
    made = {0: 5, 1: 0}
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_stats=lambda n: {"allocation.all.allocated": made[n]} if made[n] else {},
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    with recorded(stage, 0):
        made[1] += 3
    with recorded(stage, 1):
        pass
    assert (only(stage).computed_on_gpu, only(stage).gpus) == (True, 1)
    assert (only(stage, 1).computed_on_gpu, only(stage, 1).gpus) == (False, 0)


def test_a_system_that_tells_nothing_leaves_blanks(stage, monkeypatch, tmp_path):
    monkeypatch.setattr(took, "PROC", tmp_path / "nothing")
    with recorded(stage, 0):
        pass
    found = only(stage)
    assert (found.read_bytes, found.written_bytes) == (None, None)
    assert found.peak_bytes > 10 * MB


def test_a_full_disk_takes_no_job_that_is_done(stage, caplog):
    stage.took(0).parent.parent.mkdir(parents=True)
    stage.took(0).parent.write_text("a file in the way")
    with recorded(stage, 0):
        done = True
    assert done and "is not written down" in caplog.text


def test_a_line_is_plain_json(stage):
    with recorded(stage, 0):
        pass
    (line,) = stage.took(0).read_text().split("\n")[1:-1]
    assert set(json.loads(line)) == took.NAMES
