"""What `cellseg clean` leaves of a finished run, and how `cellseg cancel` ends one that works."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from cellseg_pipe.cli import main
from cellseg_pipe.engines.stop import cancel
from cellseg_pipe.ledger import RunLock
from cellseg_pipe.paths import RunPaths
from tests.workflow import runs


def pixels(results):
    """Labels and table: what a store says of itself names the run that made it."""
    return {
        name: found
        for name, found in results.items()
        if not name.endswith((".zattrs", ".zgroup", "zarr.json"))
    }


def test_after_clean_there_is_nothing_to_do_until_a_setting_changes(tmp_path):
    cwd = tmp_path
    runs.picture(cwd / "a.tif")
    config = runs.experiment(cwd / "my.yaml", ["a.tif"], "out")
    runs.run(config, cwd=cwd)
    before = runs.results(cwd / "out")
    assert main(["clean", str(cwd / "out"), "--scratch", "--yes"]) == 0
    assert not list((cwd / "out" / "runs").glob("*/predict-*"))
    assert runs.planned(config, cwd=cwd) == {}
    assert runs.results(cwd / "out") == before
    # Other measures need what was freed, and the plan says so.
    changed = runs.experiment(cwd / "changed.yaml", ["a.tif"], "out", measure={"channels": []})
    jobs = runs.planned(changed, cwd=cwd)
    assert {"predict", "masks", "measure", "audit"} <= set(jobs)


@contextlib.contextmanager
def working(command, there, *, cwd, interrupts):
    """A run that has begun with its work; scripts start theirs so that they ignore interrupts."""
    handler = signal.default_int_handler if interrupts else signal.SIG_IGN
    before = signal.signal(signal.SIGINT, handler)  # an ignored one is inherited
    try:
        with (cwd / "said.txt").open("w") as said:
            child = subprocess.Popen(
                command, cwd=cwd, env=runs.environment(), stdout=said, stderr=subprocess.STDOUT
            )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        end = time.monotonic() + 600
        while not list((cwd / "out").glob(there)) and time.monotonic() < end:
            assert child.poll() is None
            time.sleep(0.05)
        yield child
    finally:
        child.kill()
        child.wait()


def test_a_run_is_cancelled_and_gone_on_with(tmp_path, finished):
    runs.picture(tmp_path / "a.tif")
    config = runs.experiment(
        tmp_path / "my.yaml", ["a.tif"], "out", tiles={"batches": {"predict": 12}}
    )
    out, command = tmp_path / "out", runs.command("--configfile", config)
    with working(command, "runs/a/predict-*/claims/*", cwd=tmp_path, interrupts=True) as child:
        said = cancel(out, wait_s=300)
        assert "has stopped" in said and "(snakemake)" in said
        assert child.wait(timeout=60) != 0
    assert cancel(out).startswith("nothing runs in")
    assert not list(out.glob("runs/finished-*.json"))
    runs.run(config, cwd=tmp_path)
    assert pixels(runs.results(out)) == pixels(finished.results)


@pytest.mark.parametrize("interrupts", [True, False])
def test_a_run_in_one_process_is_cancelled(tmp_path, interrupts):
    runs.picture(tmp_path / "a.tif")
    config = runs.experiment(tmp_path / "my.yaml", ["a.tif"], "out")
    command = [sys.executable, "-m", "cellseg_pipe.cli", "run", config, "--engine", "process"]
    with working(command, "runs/.locks/run.*", cwd=tmp_path, interrupts=interrupts) as child:
        assert "has stopped" in cancel(tmp_path / "out", wait_s=300)
        assert child.wait(timeout=60) == 130
    said = (tmp_path / "said.txt").read_text()
    assert "cellseg run: stopped. The same command goes on." in said and "Traceback" not in said


def test_another_machine_is_named(tmp_path):
    lock = RunPaths(tmp_path).run_lock
    with RunLock(lock, job="snakemake"):
        (file,) = lock.parent.iterdir()
        said = json.loads(file.read_text())
        here = said["host"]
        assert here == socket.gethostname()
        file.write_text(json.dumps(said | {"host": "node17"}))
        with pytest.raises(ValueError, match=r"in use by process \d+ on node17.*Log in there"):
            cancel(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        cancel(tmp_path / "nothing")
