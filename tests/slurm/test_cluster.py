"""The Slurm of the tests is a real one, and leaves that of the machine alone."""

import os
from pathlib import Path

import psutil
import pytest

from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm
OF_THE_MACHINE = [Path(path) for path in ("/etc/slurm", "/etc/munge", "/run/munge")]


def entries():
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_size)
        for folder in OF_THE_MACHINE
        for path in (folder, *folder.rglob("*"))
        if path.exists()
    }


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_of_the_machine_is_touched_and_nothing_is_left():
    if os.geteuid() != 0:
        pytest.skip("slurmd runs jobs of users, so it needs root")
    before = entries()
    with Cluster() as cluster:
        job = cluster.submit("exec sleep 1000")
        cluster.wait(job, "RUNNING")
        mine = cluster.processes()
        assert len(mine) >= 6  # munged, slurmctld, two slurmd, a step and the job
        assert entries() == before
    assert entries() == before
    assert not [process for process in mine if lives(process)]
    assert not cluster.root.exists()


def test_a_job_sees_the_gpus_it_asked_for_and_no_others(cluster):
    said = 'echo "gpus=$CUDA_VISIBLE_DEVICES node=$SLURMD_NODENAME config=$SLURM_CONF"'
    none, one, two = (cluster.submit(said, *option) for option in ([], ["--gpus=1"], ["--gpus=2"]))
    assert {cluster.wait(job)["JobState"] for job in (none, one, two)} == {"COMPLETED"}
    assert "gpus= " in cluster.output(none)
    assert cluster.output(one).split()[0] in ("gpus=0", "gpus=1")
    assert "gpus=0,1 " in cluster.output(two)
    assert f"config={cluster.config}" in cluster.output(one)


def test_jobs_survive_their_daemons(cluster):
    job = cluster.submit("sleep 4; echo done")
    node = cluster.wait(job, "RUNNING")["NodeList"]
    cluster.stop_controller()
    cluster.kill_node(node)
    cluster.start_controller()
    cluster.start_node(node)
    assert cluster.wait(job)["JobState"] == "COMPLETED"
    assert cluster.output(job) == "done\n"


def test_a_job_of_a_node_that_is_gone_has_failed(cluster):
    job = cluster.submit("sleep 1000")
    node = cluster.wait(job, "RUNNING")["NodeList"]
    cluster.crash_node(node)
    assert cluster.wait(job)["JobState"] == "NODE_FAIL"
    cluster.start_node(node)
    cluster.wait_until(lambda: cluster.nodes()[node] == "idle")


def test_memory_is_a_limit(cluster):
    eat = "exec python3 -c 'import time; held = bytearray(400_000_000); time.sleep(60)'"
    job = cluster.wait(cluster.submit(eat, "--mem=100"))
    assert job["JobState"] in ("FAILED", "OUT_OF_MEMORY", "CANCELLED")
