"""Parts of an image at diameters of their own through Snakemake, as in one process."""

import numpy as np
import pytest
import tifffile

from cellseg_pipe.config import load_experiment
from cellseg_pipe.engines import process
from cellseg_pipe.geometry import Box
from cellseg_pipe.report.source import open_run
from cellseg_pipe.report.timing import seconds_by_tile
from cellseg_pipe.stages import forecast
from cellseg_pipe.stages.status import read_status
from tests.pipeline.conftest import scene
from tests.workflow import runs

SHAPE = (260, 400)
TARGETS = {"nuclei": {"model": "nuclei", "diameter_px": "auto", "diameter_classes": 2}}


def experiment(path, out, **sections):
    return runs.experiment(path, ["a.tif"], out, targets=TARGETS, **sections)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("classes")
    small, large = (scene(SHAPE, diameter_px=px, seed=px)[0] for px in (10, 32))
    picture = np.where(np.arange(SHAPE[1]) < SHAPE[1] // 2, small, large)
    tifffile.imwrite(cwd / "a.tif", picture)
    config = experiment(cwd / "my.yaml", "out")
    runs.run(config, cwd=cwd)
    return cwd, config


def test_both_engines_give_the_same_files(finished, monkeypatch):
    cwd, config = finished
    monkeypatch.chdir(cwd)
    assert runs.planned(config, cwd=cwd) == {}
    again = experiment(cwd / "process.yaml", "process")
    process.run(load_experiment(again), threads=1)
    assert runs.results(cwd / "process") == runs.results(cwd / "out")
    assert runs.planned(again, cwd=cwd) == {"report": 1}  # which the command around it draws


def test_a_change_reruns_what_depends_on_it(finished):
    cwd, _ = finished
    stricter = experiment(cwd / "stricter.yaml", "out", segment={"min_size_px": 40})
    found = runs.planned(stricter, cwd=cwd)
    assert found["tiles"] == 3 and found["masks"] == 4 and found["rivals"] == 2
    assert found["number"] == 3 and not {"plan", "predict"} & set(found)


def test_the_report_knows_the_parts(finished):
    cwd, _ = finished
    (unit,) = open_run(cwd / "out").units
    assert len(unit.facts["diameter_classes"]) == 2
    for x in (20, 300):  # of either part there are windows
        found = unit.network(Box((50, x), (90, x + 60)))
        assert set(found) == {"flows", "probability"}
        assert found["probability"].any()
    seconds = seconds_by_tile(unit)
    assert seconds is not None and np.isfinite(seconds).all()
    page = (cwd / "out" / "report.html").read_text()
    assert "parts of the image at their own: " in page


def test_status_and_forecast_know_the_stages(finished, monkeypatch):
    cwd, config = finished
    monkeypatch.chdir(cwd)
    status = read_status(cwd / "out")
    assert status.complete and status.share == 1
    assert {"plan", "plan1", "predict2", "rivals"} <= {stage.stage for stage in status.stages}
    costs = {cost.stage: cost for _, cost in forecast.run(config).stages}
    assert {"predict1", "predict2", "masks1", "masks2", "paint", "measure"} <= set(costs)
    assert "predict" not in costs and costs["predict1"].n_jobs == 2
