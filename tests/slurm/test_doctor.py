"""What `cellseg doctor` says of a real Slurm."""

import pytest

from cellseg_pipe import site
from cellseg_pipe.stages._doctor_cluster import look_at_cluster

pytestmark = pytest.mark.slurm


def test_a_real_slurm_is_understood(cluster, tmp_path, monkeypatch):
    (tmp_path / "site.yaml").write_text("{partition: cpu, gpu: {partition: gpu, model: fake}}")
    monkeypatch.setenv("CELLSEG_SITE", str(tmp_path / "site.yaml"))
    site._read.cache_clear()
    job = cluster.submit("sleep 60")
    cluster.wait(job, "RUNNING")
    found = {f.what: f for f in look_at_cluster()}
    assert not [f for f in found.values() if f.level == "error"]
    assert "cpu (up to infinite)" in found["partitions"].said
    assert found["gpus of slurm"].said == "in cpu, gpu"
    assert found["squeue"].said == "answers; 1 jobs of yours are in the queue"
    assert "no records" in found["sacct"].said
    (tmp_path / "site.yaml").write_text("{partition: nowhere}")
    site._read.cache_clear()
    (wrong,) = [f for f in look_at_cluster() if f.level == "error"]
    assert wrong.what == "partition" and "nowhere" in wrong.said
