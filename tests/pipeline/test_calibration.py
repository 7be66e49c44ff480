"""What a few tiles tell of a whole run: kept, used by later plans, and near the truth in bytes."""

import json

import numpy as np
import pytest

from cellseg_pipe.cost import Rates
from cellseg_pipe.stages import calibration, forecast
from cellseg_pipe.stages.costs import planned_costs
from cellseg_pipe.stages.opened import open_unit
from tests.pipeline.conftest import scene
from tests.pipeline.worker import config_of, experiment, run, save_tiff

WINDOWS = {"window_px": 64, "overlap_px": 16}


@pytest.fixture(autouse=True)
def starts(monkeypatch):
    """Processes are started by one test only."""
    monkeypatch.setattr(calibration, "_starting_s", lambda code: 1.0 + ("torch" in code))


def test_what_jobs_do_before_their_work_can_be_run(monkeypatch):
    monkeypatch.undo()
    starts = calibration._starts_s(0.5)
    assert starts["start_s"] > 0 and starts["network_start_s"] > 0.5


def test_jobs_take_what_a_process_takes_to_begin(monkeypatch):
    monkeypatch.undo()
    assert (
        0
        < calibration._starting_s("import json")
        < calibration._starting_s("import time; time.sleep(2)")
    )


def planned(tmp_path, image, **sections):
    axes = "zyx"[-image.ndim :]
    entry = {"path": str(save_tiff(tmp_path / "a.tif", image)), "axes": axes}
    chosen = experiment(tmp_path, [entry], tiles=WINDOWS, **sections)
    config = config_of(chosen, tmp_path / "a.yaml")
    usual = forecast.run(config)
    return chosen, config, usual, forecast.run(config, calibrate=True)


def stored_bytes(out, stage):
    return sum(file.stat().st_size for file in out.glob(f"runs/a/{stage}-*/data/*.bin"))


@pytest.mark.parametrize("seams", ["exact", "iou"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_bytes_are_near_the_truth_and_scratch_is_gone(tmp_path, ndim, seams):
    image = scene((210, 230) if ndim == 2 else (20, 70, 80))[0]
    sections = {"stitch": {"seams": seams}}
    chosen, config, usual, found = planned(tmp_path, image, **sections)
    out = tmp_path / "out"
    assert not list((out / "runs").glob(".calibrate*"))
    said = json.loads((out / "runs" / "a" / "rates.json").read_text())
    assert said.pop("window_s") > 0
    rates = Rates(**said)
    assert rates.filled == 1
    assert min(rates.masks_s, rates.paint_s, rates.measure_s, rates.start_s) > 0
    assert rates.network_start_s > 2 > rates.start_s == 1
    assert found.text != usual.text
    # What was measured stays with the run, for its jobs and for other settings of it.
    assert forecast.run(config).stages == found.stages
    unit = open_unit(chosen, "a")
    assert planned_costs(unit.stage("tiles")) == [vars(cost) for _, cost in found.stages]
    run(chosen)
    costs = {cost.stage: cost for _, cost in found.stages}
    windows = stored_bytes(out, "predict")
    assert costs["predict"].disk_bytes == pytest.approx(windows, rel=0.5)  # of style there is less
    assert costs["masks"].disk_bytes == pytest.approx(stored_bytes(out, "masks"), rel=0.5)


def test_another_threshold_is_planned_with_what_was_measured(tmp_path):
    chosen, _, _, found = planned(tmp_path, scene((120, 130))[0])
    changed = chosen.model_copy(
        update={"segment": chosen.segment.model_copy(update={"cellprob_threshold": 1.0})}
    )
    again = forecast.run(config_of(changed, tmp_path / "b.yaml"))
    assert [cost.seconds for _, cost in again.stages] == [cost.seconds for _, cost in found.stages]


def test_blank_windows_cost_nothing(tmp_path):
    image = np.zeros((60, 900), np.uint16)
    image[:, :300] = scene((60, 300))[0]
    _, _, usual, found = planned(tmp_path, image)
    before, after = (dict((c.stage, c) for _, c in f.stages) for f in (usual, found))
    share = after["predict"].disk_bytes / before["predict"].disk_bytes
    assert 0.25 < share < 0.5
    image[:] = 0
    (tmp_path / "empty").mkdir()
    _, _, _, empty = planned(tmp_path / "empty", image)
    assert empty.stages[0][1].disk_bytes == 0
