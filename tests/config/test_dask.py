"""Where the engine dask has its workers: what is taken, and what does not fit together."""

import pytest

from cellseg_pipe.config import ConfigError, experiment_of

LEAST = {"images": [{"path": "a.tif"}], "output": {"dir": "out"}}


def said(dask, **sections):
    with pytest.raises(ConfigError) as caught:
        experiment_of(LEAST | {"dask": dask} | sections)
    return str(caught.value)


def test_by_itself_it_is_this_machine():
    dask = experiment_of(LEAST).dask
    assert (dask.cluster, dask.workers, dask.dashboard) == ("local", "auto", True)
    assert experiment_of(LEAST | {"dask": None}).dask == dask


@pytest.mark.parametrize("cluster", ["local", "tcp://10.0.0.1:8786", "tls://login1.lab:443"])
def test_clusters_that_are_known(cluster):
    assert experiment_of(LEAST | {"dask": {"cluster": cluster}}).dask.cluster == cluster


@pytest.mark.parametrize("cluster", ["slrum", "tcp://host", "http://host:80", "", 8786])
def test_other_clusters_are_refused(cluster):
    text = said({"cluster": cluster})
    assert "dask.cluster needs " in text
    assert ("Did you mean slurm?" in text) == (cluster == "slrum")


def test_slurm_is_told_how_many_and_how_large():
    slurm = {"cluster": "slurm", "partition": "long", "account": "lab", "walltime_minutes": 60}
    assert experiment_of(LEAST | {"dask": slurm | {"workers": 8}}).dask.walltime_minutes == 60
    text = said(slurm, resources={"memory_gb": "auto"})
    assert "dask.workers needs a number with cluster: slurm, got auto" in text
    assert "resources.memory_gb needs a number with dask.cluster: slurm, got auto" in text


@pytest.mark.parametrize("key", ["partition", "account", "interface"])
def test_keys_of_slurm_need_slurm(key):
    text = f"dask.{key} needs cluster: slurm, got cluster: local. Leave it out."
    assert text in said({key: "x"})


def test_somebody_elses_cluster_is_as_large_as_it_is():
    text = said({"cluster": "tls://a:1", "workers": 3, "dashboard": False})
    assert "dask.workers has no effect: tls://a:1 has workers and a page of its own." in text
    assert "dask.dashboard has no effect" in text


def test_keys_are_known_by_name():
    assert "dask.worker is no known key. Did you mean workers?" in said({"worker": 3})
