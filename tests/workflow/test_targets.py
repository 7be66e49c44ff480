"""Nuclei, cells grown from them and the cytoplasm through Snakemake, as in one process."""

import pytest

from cellseg_pipe.config import load_experiment
from cellseg_pipe.engines import process
from cellseg_pipe.stages import forecast
from cellseg_pipe.stages.status import read_status
from tests.workflow import runs

TARGETS = {
    "nuclei": {"model": str(runs.TINY), "diameter_px": 30},
    "cells": {"expand": "nuclei", "expand_px": 6},
}
MADE = {"tiles": 2, "paint": 2, "measure": 2}
RELATED = {"overlap": 1, "match": 1, "compartments": 1}
REST = {
    "tiles": {"batches": {"predict": 1, "masks": 1}},
    "restore": {"method": "median", "save": True},
}
END = {"audit": 2, "summary": 1, "report": 1}


def experiment(path, out, **relate):
    said = {"nuclei": "nuclei", "cells": "cells", "labels": True, **relate}
    return runs.experiment(path, ["a.tif"], out, targets=TARGETS, relate=said, **REST)


@pytest.fixture(scope="module")
def related(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("related")
    runs.picture(cwd / "a.tif", shape=(120, 150))
    config = experiment(cwd / "my.yaml", "out")
    runs.run(config, cwd=cwd)
    return cwd, config


def test_both_engines_give_the_same_files(related, monkeypatch):
    cwd, _ = related
    monkeypatch.chdir(cwd)
    again = experiment(cwd / "process.yaml", "process")
    process.run(load_experiment(again), threads=1)
    found = runs.results(cwd / "process")
    assert found == runs.results(cwd / "out")
    assert [name for name in found if name.startswith("a-nuclei/restored.ome.zarr/0/")]
    assert not [name for name in found if name.startswith("a-cells/restored")]
    assert {name.partition("/")[0] for name in found} == {
        "a-nuclei", "a-cells", "a-cytoplasm", "cells.parquet"
    }  # fmt: skip
    assert runs.planned(again, cwd=cwd) == {"report": 1}  # which the command around it draws


def test_a_change_reruns_what_depends_on_it(related):
    cwd, config = related
    assert runs.planned(config, cwd=cwd) == {}
    stricter = experiment(cwd / "stricter.yaml", "out", min_overlap=0.8)
    assert runs.planned(stricter, cwd=cwd) == {"match": 1, "compartments": 1} | END
    sections = {"targets": {"cells": {"expand": "nuclei", "expand_px": 9}}}
    farther = runs.experiment(
        cwd / "farther.yaml", ["a.tif"], "out",
        targets=TARGETS | sections["targets"], **REST,
        relate={"nuclei": "nuclei", "cells": "cells", "labels": True},
    )  # fmt: skip
    assert runs.planned(farther, cwd=cwd) == MADE | RELATED | END | {"audit": 3, "qc": 2}


def test_status_and_forecast_know_all_stages(related, monkeypatch):
    cwd, config = related
    monkeypatch.chdir(cwd)
    status = read_status(cwd / "out")
    assert status.complete and status.share == 1
    stages = {(stage.unit, stage.stage) for stage in status.stages}
    assert {("a-cells", "overlap"), ("a-cells", "match"), ("a-cytoplasm", "paint")} <= stages
    assert {("a-nuclei", "restore"), ("a-nuclei", "shrink")} <= stages
    assert ("a-cells", "predict") not in stages and ("a-nuclei", "overlap") not in stages
    costs = {(unit, cost.stage): cost for unit, cost in forecast.run(config).stages}
    assert ("a-cells", "compartments") in costs and ("a-cells", "predict") not in costs
    grown, painted = costs["a-cells", "paint"], costs["a-nuclei", "paint"]
    assert grown.seconds > painted.seconds and 0 < grown.memory_bytes < 2e9
