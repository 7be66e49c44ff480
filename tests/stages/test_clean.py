"""What can go from a results folder, and what must stay."""

import pytest

from cellseg_pipe.cli import main
from cellseg_pipe.ledger import RunLock
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.stages import clean
from cellseg_pipe.stages.summary import SomeFailed
from tests.pipeline.conftest import scene
from tests.pipeline.worker import experiment, results_of, run, save_tiff, small_tiles


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return save_tiff(tmp_path_factory.mktemp("image") / "a.tif", scene((90, 100))[0])


@pytest.fixture(autouse=True)
def small():
    with small_tiles():
        yield


def chosen(tmp_path, image, **sections):
    return experiment(tmp_path, [image], tiles={"window_px": 64, "overlap_px": 16}, **sections)


def stages(out):
    return {path.name.rpartition("-")[0] for path in (out / "runs" / "a").iterdir()}


def names(leftovers):
    return {leftover.path.name for leftover in leftovers}


def test_a_finished_run_has_nothing_to_clean(tmp_path, image):
    run(chosen(tmp_path, image))
    assert clean.find(tmp_path / "out") == []
    with pytest.raises(FileNotFoundError, match="holds no run"):
        clean.find(tmp_path)


def test_what_crashes_and_other_settings_left_is_found_and_nothing_else(tmp_path, image, capsys):
    out = tmp_path / "out"
    run(chosen(tmp_path, image))
    before = results_of(out / "a")
    masks = next((out / "runs" / "a").glob("masks-*"))
    made = [
        out / "runs" / "a" / f"masks-{'0' * 12}" / "data" / "0000.1.bin",
        out / "a" / ".cells.parquet.0123456789abcdef",
        masks / "done" / ".0000.json.7",
        masks / "data" / "0000.7.bin",
        out / "runs" / ".calibrate-ab" / "x",
    ]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)
    (out / "a" / "notes.txt").write_text("mine")
    for name in ("a/.thumb.0123456789abcdef", ".old-notes/x", "figures/.old-plot.png"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    found = clean.find(out)
    expected = {f"masks-{'0' * 12}", made[1].name, made[2].name, made[3].name, ".calibrate-ab"}
    assert names(found) == expected
    assert all(leftover.n_bytes >= 5000 for leftover in found)
    assert main(["clean", str(out)]) == 0
    said = capsys.readouterr().out
    assert "nothing was removed" in said and made[1].name in said and "in 5 places" in said
    assert all(path.exists() for path in made)
    assert main(["clean", str(out), "--yes"]) == 0
    assert not any(path.exists() for path in made)
    assert (out / "a" / "notes.txt").read_text() == "mine"
    for name in ("a/.thumb.0123456789abcdef", ".old-notes/x", "figures/.old-plot.png"):
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    (out / "a" / "notes.txt").unlink()
    assert results_of(out / "a") == before
    assert run(chosen(tmp_path, image)) == []


def test_what_is_done_of_an_image_that_cannot_be_opened_now_stays(tmp_path, image):
    both = [image, save_tiff(tmp_path / "away.tif", scene((90, 100), seed=2)[0])]
    tiles = {"window_px": 64, "overlap_px": 16}
    run(experiment(tmp_path, both, tiles=tiles))
    both[1].rename(tmp_path / "elsewhere.tif")
    both[1].write_bytes(b"a server that does not answer")
    with pytest.raises(SomeFailed):
        run(experiment(tmp_path, both, tiles=tiles))
    assert clean.find(tmp_path / "out") == []


def test_scratch_goes_and_the_run_stays_finished(tmp_path, image):
    out = tmp_path / "out"
    run(chosen(tmp_path, image))
    before = results_of(out / "a")
    found = clean.find(out, ["orphans", "scratch"])
    assert {leftover.path.name.rpartition("-")[0] for leftover in found} == {"predict", "masks"}
    assert "computed again" in clean.text_of(found, out)
    clean.remove(found)
    assert stages(out).isdisjoint({"predict", "masks"})
    assert run(chosen(tmp_path, image)) == []
    assert results_of(out / "a") == before
    # Other measures need tiles, and so windows: all that is missing is made again.
    fewer = chosen(tmp_path, image, measure={"channels": []})
    again = {stage for _, stage, _ in run(fewer)}
    assert {"predict", "masks", "measure", "audit"} <= again
    assert "paint" not in again


def test_scratch_of_a_run_that_is_not_finished_stays(tmp_path, image):
    out = tmp_path / "out"
    run(chosen(tmp_path, image))
    next((out / "runs" / "a").glob("audit-*/audit.json")).unlink()
    assert clean.find(out, ["orphans", "scratch"]) == []


def test_earlier_experiments_go_if_asked_to(tmp_path, image):
    out = tmp_path / "out"
    run(chosen(tmp_path, image))
    run(chosen(tmp_path, image, segment={"cellprob_threshold": 1.0}))
    before = results_of(out / "a")
    assert clean.find(out) == []
    found = clean.find(out, ["orphans", "old"])
    gone = {name.rpartition("-")[0] for name in names(found)}
    assert {"masks", "tiles", "layout", "config"} <= gone and "predict" not in gone
    clean.remove(found)
    assert len(list((out / "runs").glob("layout-*.json"))) == 1
    assert clean.find(out, ["orphans", "old"]) == []
    assert results_of(out / "a") == before
    assert run(chosen(tmp_path, image, segment={"cellprob_threshold": 1.0})) == []


def test_a_folder_that_is_in_use_is_refused(tmp_path, image, capsys):
    out = tmp_path / "out"
    run(chosen(tmp_path, image))
    orphan = out / "runs" / "a" / f"masks-{'0' * 12}"
    orphan.mkdir()
    with RunLock(RunPaths(out).run_lock, job="a run"):
        assert main(["clean", str(out), "--yes"]) == 1
    assert "in use by process" in capsys.readouterr().err
    assert orphan.exists()


def test_small_images_of_a_bundle_are_of_this_run(tmp_path, image):
    tiles = {"window_px": 64, "overlap_px": 16, "bundle_px": 10_000, "batches": {"bundles": 1}}
    save_tiff(image.with_name("b.tif"), scene((60, 70), seed=2)[0])
    run(experiment(tmp_path, [image.parent], tiles=tiles))
    assert {path.name for path in (tmp_path / "out" / "runs").iterdir()} >= {"a", "b"}
    assert clean.find(tmp_path / "out", ["orphans", "old", "scratch"]) == []
