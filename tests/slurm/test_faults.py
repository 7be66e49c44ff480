"""Faults of a cluster: whatever ends, the same command gives the same result."""

import re

import pytest

from cellseg_pipe.config import load_experiment
from cellseg_pipe.ledger import tiles_found
from cellseg_pipe.stages.keys import keys_of
from cellseg_pipe.stages.opened import unit_runs
from tests.pipeline.conftest import scene
from tests.pipeline.worker import ome_zarr
from tests.slurm import runs as on_slurm
from tests.workflow import runs

pytestmark = pytest.mark.slurm


@pytest.fixture
def config(finished, tmp_path, site):
    """A run of the image whose result is known."""
    return runs.experiment(tmp_path / "my.yaml", [finished.cwd / "a.tif"], "out")


def test_jobs_that_run_and_that_wait_are_cancelled(cluster, config, finished, tmp_path):
    cluster.drain()
    with on_slurm.started(config, cwd=tmp_path) as process:
        waiting = on_slurm.wait_for(cluster, "plan", "PENDING", process)
        cluster.ask("scancel", waiting["JobId"])
        cluster.resume()
        working = on_slurm.wait_for(cluster, "predict", "RUNNING", process)
        cluster.ask("scancel", working["JobId"])
        said = on_slurm.finish(process, tmp_path)
    assert "CANCELLED" in said
    assert runs.results(tmp_path / "out") == finished.results


def test_a_start_finds_the_jobs_of_one_that_was_killed(cluster, config, finished, tmp_path):
    with on_slurm.started(config, cwd=tmp_path) as process:
        left = on_slurm.wait_for(cluster, "predict", "RUNNING", process)["JobId"]
        cluster.ask("scontrol", "suspend", left)
        process.kill()
    with on_slurm.started(config, cwd=tmp_path) as process:
        assert process.wait(on_slurm.PATIENCE_S) == 1
    said = (tmp_path / "said.txt").read_text()
    assert left in said and "are still in the queue of Slurm" in said
    assert "CELLSEG_ORPHANS=wait" in said and "Traceback" not in said
    with on_slurm.started(config, cwd=tmp_path, CELLSEG_ORPHANS="wait") as process:
        cluster.wait_until(lambda: "waiting for jobs" in (tmp_path / "said.txt").read_text(), 300)
        assert cluster.job(left)["JobState"] == "SUSPENDED"
        cluster.ask("scontrol", "resume", left)
        on_slurm.finish(process, tmp_path)
    assert cluster.job(left)["JobState"] == "COMPLETED"
    assert runs.results(tmp_path / "out") == finished.results


def test_daemons_end_and_start_again(cluster, config, finished, tmp_path):
    with on_slurm.started(config, cwd=tmp_path) as process:
        node = on_slurm.wait_for(cluster, "predict", "RUNNING", process)["NodeList"]
        cluster.stop_controller()
        cluster.kill_node(node)
        cluster.start_controller()
        cluster.start_node(node)
        on_slurm.finish(process, tmp_path)
    assert runs.results(tmp_path / "out") == finished.results


def test_a_tile_that_cannot_be_done_costs_no_others(cluster, tmp_path, site):
    image = scene((150, 200))[0]
    store = ome_zarr(tmp_path / "a.zarr", image, 2)
    chunk = store / "0" / "2.3"
    kept = chunk.read_bytes()
    chunk.write_bytes(kept[:9])
    config = runs.experiment(
        tmp_path / "my.yaml",
        [store],
        tmp_path / "out",
        tiles={"window_px": 64, "overlap_px": 16},
        normalise={"range": [100, 2000]},  # or the plan reads this chunk
    )
    with on_slurm.started(config, "--retries", 0, cwd=tmp_path) as process:
        assert process.wait(on_slurm.PATIENCE_S) == 1
    (unit,) = unit_runs(load_experiment(config))
    left, n, named = set(), 0, set()
    for batch in range(2):
        keys = set(keys_of(unit, "predict", batch))
        left |= keys - tiles_found(unit.stage("predict"), batch)[1]
        n += len(keys)
    for log in (tmp_path / "out" / "logs" / "a").glob("predict-*.log"):
        named |= set(re.findall(r"window (\(\d+, \d+\)).*chunk 2/3", log.read_text()))
    assert 0 < len(named) == len(left) < n / 2
    assert not (tmp_path / "out" / "summary.json").exists()
    chunk.write_bytes(kept)
    on_slurm.run(config, cwd=tmp_path)
    assert runs.results(tmp_path / "out")


def test_a_run_is_cancelled_with_its_jobs(cluster, config, tmp_path, capsys):
    cluster.drain()
    with on_slurm.started(config, cwd=tmp_path) as process:
        job = on_slurm.wait_for(cluster, "plan", "PENDING", process)["JobId"]
        process.kill()
    out = tmp_path / "out"
    assert on_slurm.cellseg("status", out) == 1
    assert f"in the queue of Slurm: jobs {job} (0 running)" in capsys.readouterr().out
    assert on_slurm.cellseg("clean", out, "--yes") == 1
    assert f"jobs {job} of Slurm" in capsys.readouterr().err
    assert on_slurm.cellseg("cancel", out) == 0
    assert "the jobs that were left have stopped" in capsys.readouterr().out
    assert cluster.job(job)["JobState"] == "CANCELLED"
    assert on_slurm.cellseg("cancel", out) == 0
    assert "nothing runs in" in capsys.readouterr().out
