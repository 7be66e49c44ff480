"""Workers of engine dask as jobs of Slurm: cancelled while they work and while they wait."""

import re
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml

from cellseg_pipe.stages.status import read_status
from tests.slurm.runs import jobs_of
from tests.workflow import runs

pytestmark = pytest.mark.slurm
PATIENCE_S = 900


def test_workers_are_jobs_and_those_that_are_cancelled_are_replaced(
    cluster, finished, tmp_path, site
):
    site("partition: cpu\nwalltime_minutes: 60\n")
    said = {"cluster": "slurm", "workers": 2}
    resources = {"threads": 1, "device": "cpu", "memory_gb": 2.5}
    config = runs.experiment(
        tmp_path / "my.yaml", [finished.cwd / "a.tif"], "out", dask=said, resources=resources
    )
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"engine": "dask"}))
    cluster.ask("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    command = [sys.executable, "-m", "cellseg_pipe.cli", "run", str(config)]
    with (tmp_path / "said.txt").open("w") as out:
        child = subprocess.Popen(
            command, cwd=tmp_path, env=runs.environment(), stdout=out, stderr=subprocess.STDOUT
        )
    try:
        cancelled = disturb(cluster, child, tmp_path / "out")
        assert child.wait(PATIENCE_S) == 0, (tmp_path / "said.txt").read_text()
    finally:
        child.kill()
        child.wait()
        cluster.ask("scontrol", "update", "nodename=n2", "state=resume")
    assert runs.results(tmp_path / "out") == finished.results
    jobs = jobs_of(cluster, tmp_path)
    ended = {job["JobId"] for job in jobs if job["JobId"] in cancelled}
    assert ended == set(cancelled) and len(jobs) > len(cancelled) > 0
    assert {job["Partition"] for job in jobs} == {"cpu"}
    assert {job["TimeLimit"] for job in jobs} == {"01:00:00"}
    assert not any("gpu" in job.get("TresPerJob", "") for job in jobs)
    assert not cluster.jobs("PENDING", "RUNNING")


def disturb(cluster, child, out):
    """Cancel each job once there is a worker; ask the dashboard meanwhile."""
    end = time.monotonic() + PATIENCE_S
    while not list(out.glob("runs/a/*/claims/*")) and not list(out.glob("runs/a/plan-*/*")):
        assert child.poll() is None and time.monotonic() < end, out
        time.sleep(0.2)
    (said,) = read_status(out).dashboards
    address = re.match(r"dashboard: (http\S+)/status \(from another machine first: ssh ", said)[1]
    with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
        assert answer.read() == b"ok"
    jobs = [job["JobId"] for job in cluster.jobs("PENDING", "RUNNING")]
    cluster.ask("scancel", *jobs)
    return jobs
