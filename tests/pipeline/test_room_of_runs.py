"""Runs that will not fit are refused before the long work; files can be shared by a group."""

import json
import os
import stat

import pytest

from cellseg_pipe.ledger import write_whole
from cellseg_pipe.stages import forecast, jobs, room
from cellseg_pipe.stages.layout import layout_of, read_layout
from cellseg_pipe.stages.opened import unit_runs
from cellseg_pipe.stages.room import Room
from tests.pipeline.conftest import scene
from tests.pipeline.worker import config_of, experiment, run, save_tiff


def small(tmp_path, **sections):
    image = scene((90, 100))[0]
    said = {"tiles": {"window_px": 64, "overlap_px": 16}} | sections
    return experiment(tmp_path, [save_tiff(tmp_path / "a.tif", image)], **said)


def test_a_run_that_does_not_fit_stops_before_its_windows(tmp_path, monkeypatch):
    for module in (room, forecast):
        monkeypatch.setattr(module, "room_in", lambda folder: Room(folder, 1000, None))
    chosen = small(tmp_path)
    layout_of(chosen)
    with pytest.raises(ValueError, match=r"the disk has 0\.00 GB.*resources\.disk"):
        for unit in unit_runs(chosen):
            for stage in ("plan", "tiles"):
                jobs.run_job(unit, stage, batch=0)
    with pytest.raises(ValueError, match="results will not fit"):
        run(chosen)  # at once, since its plan is there
    assert not list((tmp_path / "out").rglob("*.bin"))
    predicted = forecast.run(config_of(chosen, tmp_path / "a.yaml"))
    assert not predicted.fits and "more. Free that much" in predicted.text
    assert run(small(tmp_path, resources={"disk": "relaxed"}))
    monkeypatch.setattr(room, "room_in", lambda folder: Room(folder, 10, 0))
    assert run(chosen) == []  # finished: nothing more is written


def test_only_what_is_left_to_do_counts(tmp_path):
    chosen = small(tmp_path)
    run(chosen)
    layout = layout_of(chosen)
    costs = json.loads(layout.files("a", "tiles").plan.read_text())["predicted"]
    assert room.left_to_do(layout) == (0, 0)
    layout.files("a", "audit").plan.unlink()
    assert room.left_to_do(layout) == (0, 0)
    layout.files("a", "predict").done(0).unlink()
    predict = next(cost for cost in costs if cost["stage"] == "predict")
    assert room.left_to_do(layout) == (predict["disk_bytes"], predict["n_files"])


def test_a_forecast_leaves_the_folder_to_the_run_that_it_holds(tmp_path):
    chosen = small(tmp_path)
    run(chosen)
    held = read_layout(tmp_path / "out").config
    other = small(tmp_path, segment={"cellprob_threshold": 1.0})
    forecast.run(config_of(other, tmp_path / "b.yaml"))
    assert read_layout(tmp_path / "out").config == held
    run(other)
    assert read_layout(tmp_path / "out").config != held


@pytest.fixture
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o002, 0o027], indirect=True)
def test_files_follow_the_umask_and_the_group_of_the_folder(tmp_path, umask):
    shared = tmp_path / "shared"
    shared.mkdir()
    group = 54321 if os.geteuid() == 0 else os.getegid()
    os.chown(shared, -1, group)
    shared.chmod(0o2777 & ~umask)
    output = {"dir": str(shared / "out"), "export": ["csv", "geojson"]}
    run(small(tmp_path, output=output, measure={"channels": []}))
    write_whole(shared / "out" / "whole", b"x")
    seen = 0
    for path in (shared / "out").rglob("*"):
        about = path.stat()
        mode = stat.S_IMODE(about.st_mode)
        assert about.st_gid == group, path
        if path.is_dir():
            assert mode == 0o2777 & ~umask, path
        else:
            assert mode == 0o666 & ~umask, path
        seen += 1
    assert seen > 40
