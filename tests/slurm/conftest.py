"""One Slurm for all tests of a process: bringing it up takes some seconds."""

import os

import pytest

from cellseg_pipe.site import _read
from tests.slurm.cluster import Cluster
from tests.workflow.conftest import finished  # noqa: F401


@pytest.fixture(scope="session")
def slurm():
    if os.geteuid() != 0:
        pytest.skip("slurmd runs jobs of users, so it needs root")
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(slurm, monkeypatch):
    """The cluster with an empty queue, which programs started by the test use."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm.environment[name])
    slurm.clear()
    yield slurm
    slurm.clear()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Write a site file that counts."""

    def write(text):
        (tmp_path / "site.yaml").write_text(text)
        _read.cache_clear()
        monkeypatch.setenv("CELLSEG_SITE", str(tmp_path / "site.yaml"))

    write("")
    return write
