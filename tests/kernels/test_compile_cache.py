"""The compile cache: filled once, by one process, wherever HOME may be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
import numpy as np
from cellseg_pipe.kernels import overlap_pairs
print(overlap_pairs(np.array([0, 1, 1]), np.array([2, 2, 3])).count.tolist())
"""


def environment(**changes):
    """The surroundings of a job: no cache from this test run, and a HOME that nothing can write."""
    base = {k: v for k, v in os.environ.items() if not k.startswith(("CELLSEG_", "XDG_", "NUMBA_"))}
    return {**base, "HOME": "/proc/none", "PYTHONPATH": str(Path.cwd()), **changes}


def start(**changes):
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip(), err.count("compiling")


def run(**changes):
    return outcome(start(**changes))


@pytest.mark.slow
def test_sixteen_cold_starters_with_a_read_only_home_compile_once(tmp_path):
    processes = [start(CELLSEG_CACHE=str(tmp_path)) for _ in range(16)]
    outcomes = [outcome(process) for process in processes]
    assert [out for out, _ in outcomes] == ["[1, 1, 1]"] * 16
    assert sum(compiled for _, compiled in outcomes) == 1
    assert run(CELLSEG_CACHE=str(tmp_path)) == ("[1, 1, 1]", 0)


def test_without_any_home_the_temporary_folder_serves(tmp_path):
    assert run(TMPDIR=str(tmp_path)) == ("[1, 1, 1]", 1)
    folder = tmp_path / f"cellseg_pipe-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert run(TMPDIR=str(tmp_path)) == ("[1, 1, 1]", 0)


def test_a_folder_that_others_can_write_is_not_trusted(tmp_path):
    folder = tmp_path / f"cellseg_pipe-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert run(TMPDIR=str(tmp_path)) == ("[1, 1, 1]", 1)
    assert not any(folder.iterdir())


def test_a_damaged_cache_costs_time_and_nothing_else(tmp_path):
    assert run(CELLSEG_CACHE=str(tmp_path))[0] == "[1, 1, 1]"
    for file in tmp_path.rglob("*.nb?"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    out, _ = run(CELLSEG_CACHE=str(tmp_path))
    assert out == "[1, 1, 1]"
    assert run(CELLSEG_CACHE=str(tmp_path)) == ("[1, 1, 1]", 0)


@pytest.mark.slow
def test_a_filled_cache_is_read_where_nothing_can_be_written(tmp_path):
    fill = "from cellseg_pipe.kernels import compile_all; print(compile_all())"
    env = environment(CELLSEG_CACHE=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", fill], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for path in [*tmp_path.rglob("*"), tmp_path]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert run(CELLSEG_CACHE=str(tmp_path)) == ("[1, 1, 1]", 0)
        assert sorted(path.name for path in tmp_path.rglob("*")) == before
    finally:
        for path in [tmp_path, *tmp_path.rglob("*")]:
            path.chmod(0o755)


def test_another_cpu_has_another_cache(tmp_path):
    run(CELLSEG_CACHE=str(tmp_path))
    run(CELLSEG_CACHE=str(tmp_path), NUMBA_CPU_NAME="generic")
    assert len(list(tmp_path.iterdir())) == 2
