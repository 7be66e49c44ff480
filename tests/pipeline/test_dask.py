"""Engine dask: the bits of the other engines, what they began goes on, nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
import yaml
from pyarrow import parquet

from cellseg_pipe.config import load_experiment
from cellseg_pipe.engines import dask, process
from cellseg_pipe.engines.stop import cancel
from cellseg_pipe.stages.layout import read_layout
from cellseg_pipe.stages.status import read_status
from tests.pipeline import worker
from tests.pipeline.conftest import scene
from tests.pipeline.worker import config_of, experiment, killed_run, results_of, run, save_tiff

TILES = {"window_px": 64, "overlap_px": 16, "batches": {"predict": 3, "masks": 3, "paint": 2}}
SAID = {"reach_px": 12}
PATIENCE_S = 300


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return save_tiff(tmp_path_factory.mktemp("picture") / "a.tif", scene((90, 130))[0])


def chosen(folder, picture, **sections):
    said = {"segment": SAID, "tiles": TILES, "dask": {"workers": 2}, "engine": "dask"}
    said |= {"resources": {"device": "cpu", "threads": 1, "memory_gb": 2.5}}
    return experiment(folder, [picture], **(said | sections))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, picture):
    """Checksums of all results of engine process."""
    with worker.small_tiles():
        folder = tmp_path_factory.mktemp("undisturbed")
        run(chosen(folder, picture))
        return results_of(folder / "out" / "a")


@pytest.fixture(autouse=True)
def small_workers(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", "tests.pipeline.dask_preload")
    import dask as library
    import distributed  # noqa: F401  # set before its defaults are there, a key takes these along

    with library.config.set({"distributed.worker.preload": ["tests.pipeline.dask_preload"]}):
        yield


def started(config, *, deaf=False):
    """A run as a user starts it, or a script in the background; what it says lies beside its file.

    What a script's shell starts in the background is deaf to interrupts until it says otherwise.
    """
    command = [sys.executable, "-m", "tests.pipeline.small_run", str(config)]
    if deaf:
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    with config.with_name("said.txt").open("w") as said:
        return subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_for(found, child):
    end = time.monotonic() + PATIENCE_S
    while not (what := found()):
        assert child.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return what


def test_workers_that_die_cost_nothing_and_the_bits_are_those_of_one_process(
    tmp_path, picture, undisturbed, monkeypatch
):
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    for number in range(3):
        (deaths / str(number)).touch()
    monkeypatch.setenv("CELLSEG_TEST_DEATHS", str(deaths))
    dask.run(chosen(tmp_path, picture))
    assert list(deaths.iterdir()) == []
    out = tmp_path / "out"
    assert results_of(out / "a") == undisturbed
    assert json.loads((out / "summary.json").read_text())["complete"] is True
    assert read_status(out).complete
    assert list((out / "runs" / "dashboards").iterdir()) == []
    assert not list((out / "runs" / ".cache").glob("tls-*"))


@pytest.mark.parametrize("mode", ["planes", "3d"])
def test_volumes_have_the_bits_of_one_process(tmp_path, mode):
    """Also where cells are linked from plane to plane; labels, tables, outlines."""
    volume = save_tiff(
        tmp_path / "v.tif", scene((13, 61, 107) if mode == "planes" else (13, 45, 59))[0]
    )
    image = {"path": str(volume), "axes": "zyx"}
    said = {"segment": SAID | {"mode": mode}, "measure": {"outlines": True}}
    found = []
    for name, engine in (("one", process), ("several", dask)):
        (tmp_path / name).mkdir()
        engine.run(chosen(tmp_path / name, image, **said))
        found.append(results_of(tmp_path / name / "out" / "v"))
    assert found[0] == found[1] and any("outlines" in file for file in found[0])
    table = parquet.read_table(tmp_path / "several" / "out" / "v" / "cells.parquet")
    assert table.num_rows > 2


def test_a_killed_process_is_finished_by_dask(tmp_path, picture, undisturbed):
    said = chosen(tmp_path, picture)
    config = config_of(said, tmp_path / "a.yaml")
    assert killed_run(config, "released:9", None, str(tmp_path / "computed"))
    assert not (tmp_path / "out" / "a" / "cells.parquet").exists()
    dask.run(said)
    assert results_of(tmp_path / "out" / "a") == undisturbed


def test_a_killed_controller_leaves_no_process_and_one_process_finishes(
    tmp_path, picture, undisturbed
):
    said = chosen(tmp_path, picture)
    out = tmp_path / "out"
    child = started(config_of(said, tmp_path / "a.yaml"))
    wait_for(lambda: list(out.glob("runs/a/predict-*/done/*.json")), child)
    workers = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.wait()
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert alive == []
    process.run(load_experiment(tmp_path / "a.yaml"))
    assert results_of(out / "a") == undisturbed


@pytest.mark.parametrize("deaf", [False, True])
def test_a_run_is_cancelled_and_gone_on_with(tmp_path, picture, undisturbed, deaf):
    said = chosen(tmp_path, picture)
    out = tmp_path / "out"
    child = started(config_of(said, tmp_path / "a.yaml"), deaf=deaf)
    wait_for(lambda: list(out.glob("runs/a/predict-*/ledger/*")), child)
    workers = psutil.Process(child.pid).children(recursive=True)
    assert "has stopped" in cancel(out, wait_s=PATIENCE_S)
    assert child.wait(timeout=PATIENCE_S) != 0
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert alive == []
    assert not list(out.glob("runs/finished-*"))
    dask.run(said)
    assert results_of(out / "a") == undisturbed


def free_scheduler(folder):
    """A scheduler that somebody started, and a worker of it."""
    file = folder / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not file.exists():
        assert scheduler.poll() is None
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1"]
    command += ["--no-dashboard", "--death-timeout", "60", "--local-directory", str(folder)]
    return address, scheduler, subprocess.Popen(command, stderr=subprocess.DEVNULL)


def test_a_scheduler_that_runs_already_is_used_and_may_be_killed(tmp_path, picture, undisturbed):
    address, scheduler, helper = free_scheduler(tmp_path)
    out = tmp_path / "out"
    try:
        said = chosen(tmp_path, picture, dask={"cluster": address})
        child = started(config_of(said, tmp_path / "a.yaml"))
        wait_for(lambda: list(out.glob("runs/a/predict-*/done/*.json")), child)
        os.kill(scheduler.pid, signal.SIGKILL)
        assert child.wait(timeout=PATIENCE_S) == 1
        assert f"the scheduler at {address} is gone" in (tmp_path / "said.txt").read_text()
    finally:
        for each in (scheduler, helper):
            each.kill()
            each.wait()
    dask.run(chosen(tmp_path, picture))
    assert results_of(out / "a") == undisturbed


def test_a_bad_image_stops_no_other_and_is_named(tmp_path, picture, undisturbed):
    image = scene((90, 130))[0]
    other = save_tiff(tmp_path / "b.tif", image)
    said = chosen(tmp_path, picture)
    text = yaml.safe_load(config_of(said, tmp_path / "a.yaml").read_text())
    text["images"].append({"path": str(other), "diameter_px": 30000.0})
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(ValueError, match=r"1 of 2 images could not be segmented") as caught:
        dask.run(load_experiment(tmp_path / "a.yaml"))
    assert "\n  b: plan, batch 0: " in str(caught.value)
    assert results_of(tmp_path / "out" / "a") == undisturbed


def test_jobs_of_workers_are_rows_and_who_is_to_know_is_told(tmp_path, picture):
    command = ["/bin/sh", "-c", f'echo "$CELLSEG_STATUS" >> {tmp_path / "told"}']
    said = chosen(tmp_path, picture, on_finish=command)
    dask.run(said)
    dask.run(said)
    rows = parquet.read_table(tmp_path / "out" / "benchmarks.parquet").to_pylist()
    stages = list(read_layout(tmp_path / "out").jobs())
    sizes = Counter(stage.kind for _, stage in stages for _ in range(stage.n_batches))
    # A job that has none like it has the threads of both workers.
    assert [(row["unit"], row["stage"], row["batch"], row["threads"]) for row in rows] == [
        (unit, stage.name, batch, 2 if sizes[stage.kind] == 1 else 1)
        for unit, stage in stages
        for batch in range(stage.n_batches)
    ]
    assert {(row["attempt"], row["failed"]) for row in rows} == {(1, None)}
    assert (tmp_path / "told").read_text() == "finished\n"
