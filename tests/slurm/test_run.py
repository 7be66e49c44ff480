"""A run on Slurm gives what a run on this machine gives, and asks for what it needs."""

import pytest

from tests.slurm import runs as on_slurm
from tests.workflow import runs

pytestmark = pytest.mark.slurm
NETWORK = {"plan", "predict"}


def pixels(results):
    """Without what says where the network may run: that differs here."""
    return {name: digest for name, digest in results.items() if not name.endswith(".zattrs")}


def test_labels_are_those_of_a_local_run(cluster, finished, tmp_path, site):
    """Jobs that run the network ask for a GPU of the site, and others for none."""
    site("partition: cpu\ngpu: {partition: gpu, model: fake}\n")
    device = {"device": "auto"}
    config = runs.experiment(
        tmp_path / "my.yaml", [finished.cwd / "a.tif"], "out", resources=device
    )
    on_slurm.run(config, cwd=tmp_path)
    assert pixels(runs.results(tmp_path / "out")) == pixels(finished.results)
    jobs = on_slurm.jobs_of(cluster, tmp_path)
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    rules = {on_slurm.rule_of(job) for job in jobs}
    assert rules >= {"plan", "predict", "tiles", "masks", "number", "paint", "measure", "audit"}
    for job in jobs:
        network = on_slurm.rule_of(job) in NETWORK
        assert job["Partition"] == ("gpu" if network else "cpu")
        assert ("gpu:fake:1" in job.get("TresPerJob", "")) == network
        assert job["JobName"].startswith("cellseg_")
    again = on_slurm.run(config, cwd=tmp_path)
    assert "Nothing to be done" in again
    assert len(on_slurm.jobs_of(cluster, tmp_path)) == len(jobs)
