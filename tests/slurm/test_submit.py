"""The workflow manager as a job of its own, which hands over before its time is up."""

import sys

import pytest

from cellseg_pipe.engines import submit
from cellseg_pipe.engines._queue import jobs_in_queue
from cellseg_pipe.ledger import RunLock
from cellseg_pipe.paths import RunPaths
from tests.slurm import runs as on_slurm
from tests.workflow import runs

pytestmark = pytest.mark.slurm
# What `cellseg run` does in such a job, as when its time were nearly up at once.
WATCH = """
import sys
from pathlib import Path
from cellseg_pipe.engines import start
once = Path(sys.argv[1]) / "once"
if once.exists():
    sys.exit(0)
once.touch()
start.HAND_OVER_S = 1e9
command = [sys.executable, "-c", "import time; time.sleep(1000)"]
sys.exit(start._watched(command, Path(sys.argv[1])))
"""


def test_a_run_starts_in_the_queue(cluster, finished, tmp_path, site, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = runs.experiment(tmp_path / "my.yaml", [finished.cwd / "a.tif"], "out")
    words = ("run", config, "--submit", "--profile", on_slurm.profile(tmp_path / "profile"))
    assert on_slurm.cellseg(*words) == 0
    said = capsys.readouterr().out
    (job,) = (job for job in cluster.jobs() if job["JobName"] == "cellseg_controller")
    assert f"submitted as job {job['JobId']}" in said
    assert on_slurm.cellseg(*words) == 1
    assert "has a controller in the queue of Slurm already" in capsys.readouterr().err
    cluster.wait_until(
        lambda: cluster.job(job["JobId"])["JobState"] not in ("PENDING", "RUNNING"),
        on_slurm.PATIENCE_S,
    )
    log = tmp_path / "out" / ".snakemake" / "slurm_logs" / f"controller-{job['JobId']}.log"
    assert cluster.job(job["JobId"])["JobState"] == "COMPLETED", log.read_text()
    assert runs.results(tmp_path / "out") == finished.results
    assert on_slurm.cellseg("status", tmp_path / "out") == 0


def test_another_job_goes_on_before_the_time_is_up(cluster, tmp_path, site, monkeypatch):
    monkeypatch.chdir(tmp_path)
    site("walltime_minutes: 7\n")
    out, script = tmp_path / "out", tmp_path / "watch.py"
    script.write_text(WATCH)
    lock = RunPaths(out).run_lock
    with RunLock(lock):
        pass
    first = int(submit._sbatch(out, f"{sys.executable} {script} {out}"))
    assert cluster.job(first)["TimeLimit"] == "00:07:00"
    assert cluster.wait(first)["JobState"] == "COMPLETED"
    (second, *_) = (job for job in cluster.jobs() if int(job["JobId"]) > first)
    assert second["JobName"] == "cellseg_controller"
    assert second["TimeLimit"] == "00:07:00"
    assert RunLock(lock).holder() is None
    said = (out / ".snakemake" / "slurm_logs" / f"controller-{first}.log").read_text()
    assert f"job {second['JobId']} goes on" in said
    for job in jobs_in_queue(out):
        assert submit.is_controller(job.log)
