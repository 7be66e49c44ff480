"""kill -9 at every step of the protocol, then start again: nothing finished is made twice."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import cellseg_pipe.ledger
from cellseg_pipe.ledger import CRASH_SITES, Records, _claims, read_done
from tests.ledger.worker import (
    N_BATCHES,
    blob_of,
    info_of,
    keys_of,
    main,
    stage_of,
    whole_ledger_keys,
    work,
)

WHOLE = [site for site in CRASH_SITES if site.startswith("whole-")]
BATCH = [site for site in CRASH_SITES if site not in WHOLE]
ALL_KEYS = [key for number in range(N_BATCHES) for key in keys_of(number)]


def killed_worker(mode, root, crash):
    """Run the worker in a process of its own and return how it ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.ledger.worker"])
    process = context.Process(target=main, args=(mode, str(root), crash))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


def program(root, crash):
    """Run the worker as a program, which gets CELLSEG_CRASH from its environment."""
    env = os.environ | {"CELLSEG_CRASH": crash}
    command = [sys.executable, "-m", "tests.ledger.worker", "work", str(root)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    """A claim whose maker was killed before it filled it is waited for."""
    monkeypatch.setattr(_claims, "GRACE_S", 0.05)


def work_here(root):
    log = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        work(root, log)
    finally:
        os.close(log)


def computed(root):
    return (
        [int(line) for line in (root / "log").read_text().split()]
        if (root / "log").exists()
        else []
    )


def check_result(root):
    stage = stage_of(root)
    records = Records(stage, N_BATCHES)
    assert records.keys().tolist() == sorted(ALL_KEYS)
    assert {key: records.read(key) for key in ALL_KEYS} == {key: blob_of(key) for key in ALL_KEYS}
    assert dict(records.infos()) == {key: info_of(key) for key in ALL_KEYS}
    assert [key for key in ALL_KEYS if records.is_blank(key)] == [k for k in ALL_KEYS if k % 4 == 0]
    return [read_done(stage, number).checksum for number in range(N_BATCHES)]


@pytest.fixture(scope="module")
def checksums(tmp_path_factory):
    """Those of a run that nobody disturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    work_here(root)
    assert computed(root) == ALL_KEYS
    return check_result(root)


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("site", BATCH)
def test_killed_and_started_again(tmp_path, checksums, site, nth):
    assert killed_worker("work", tmp_path, f"{site}:{nth}") == -signal.SIGKILL
    before = computed(tmp_path)
    kept = whole_ledger_keys(stage_of(tmp_path))
    assert len(set(before) - kept) <= 1  # the one tile that was in flight
    work_here(tmp_path)
    twice = {key for key, n in Counter(computed(tmp_path)).items() if n > 1}
    assert twice == set(before) - kept
    assert check_result(tmp_path) == checksums


@pytest.mark.slow
def test_killed_again_and_again(tmp_path, checksums):
    """Every life dies at the next site; the work still gets done, each tile at most three times."""
    for site in BATCH:
        killed_worker("work", tmp_path, f"{site}:2")
    work_here(tmp_path)
    assert check_result(tmp_path) == checksums
    assert max(Counter(computed(tmp_path)).values()) <= 3  # two sites lie within a tile's writes


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("site", WHOLE)
def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path, site, nth):
    assert killed_worker("whole", tmp_path, f"{site}:{nth}") == -signal.SIGKILL
    path = tmp_path / "folder" / "file"
    newest = nth if site == "whole-renamed" else nth - 1
    if newest == 0:
        assert not path.exists()
    else:
        assert path.read_bytes() == b"abcd"[newest - 1 : newest] * 1000


def test_the_site_comes_from_the_environment(tmp_path):
    run = program(tmp_path, "line-written:2")
    assert (run.returncode, run.stderr) == (-signal.SIGKILL, "")
    assert whole_ledger_keys(stage_of(tmp_path)) == set(keys_of(0)[:2])
    run = program(tmp_path, "claim-made:x")
    assert run.returncode == 1
    assert "CELLSEG_CRASH needs a name or name:n, got 'claim-made:x'" in run.stderr


def test_every_site_is_listed():
    folder = Path(cellseg_pipe.ledger.__file__).parent
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    passed = re.findall(r'crash_point\("([a-z-]+)"\)', source)
    torn = re.findall(r'write_all\(.*"([a-z-]+)"\)', source)
    assert set(passed + torn) == set(CRASH_SITES)
    assert len(set(CRASH_SITES)) == len(CRASH_SITES)
