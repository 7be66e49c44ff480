"""Many small images in one job: the files of the stages; bad ones are listed, killed runs go on."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pyarrow import parquet

import cellseg_pipe as cs
from cellseg_pipe.io import gather
from cellseg_pipe.ledger import Batch
from cellseg_pipe.stages import bundle, whole
from cellseg_pipe.stages.layout import lay_out, layout_of, open_stages
from cellseg_pipe.stages.status import read_status
from cellseg_pipe.stages.summary import SomeFailed
from tests.pipeline.conftest import scene
from tests.pipeline.worker import (
    ages,
    compare,
    config_of,
    experiment,
    killed_run,
    published,
    results_of,
    run,
    save_tiff,
    segment,
    shards_of,
    small_tiles,
)

TILES = {"window_px": 96, "overlap_px": 16, "batches": {"bundles": 2}, "bundle_px": 10_000}
SAID = {"reach_px": 12}
NAMES = ("a", "b", "c", "d", "e")
SHAPES = ((70, 100), (64, 64), (40, 90), (100, 100), (33, 47))


def image_of(number):
    return scene(SHAPES[number], seed=number + 3)[0]


def images_in(folder):
    (folder / "images").mkdir()
    for number, name in enumerate(NAMES):
        save_tiff(folder / "images" / f"{name}.tif", image_of(number))
    return folder / "images"


@pytest.fixture
def folder(tmp_path):
    return images_in(tmp_path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What an undisturbed run publishes, and its table."""
    with small_tiles():
        chosen = chosen_of(images_in(tmp_path_factory.mktemp("expected")))
        run(chosen)
        return content_of(chosen)


def chosen_of(folder, **sections):
    """All images of a folder; their results lie beside it."""
    tiles = TILES | sections.pop("tiles", {})
    return experiment(folder.parent, [folder], **{"tiles": tiles, "segment": SAID} | sections)


def summary_of(chosen):
    return json.loads((Path(chosen.output.dir) / "summary.json").read_text())


def run_table(chosen):
    return plain(parquet.read_table(Path(chosen.output.dir) / "cells.parquet"))


def plain(table):
    """Columns as lists that can be compared: nan is one and the same."""
    columns = table.to_pydict().items()
    return {name: [math.nan if value != value else value for value in of] for name, of in columns}


def content_of(chosen):
    """What does not name the hash of the run, which is of the age of its images, too."""
    kept = {name: shards_of(Path(chosen.output.dir) / name) for name in NAMES}
    return (
        kept,
        [file["cells.parquet/part-00000.parquet"] for file in files_of(chosen).values()],
        run_table(chosen),
    )


def files_of(chosen, names=NAMES):
    return {name: results_of(Path(chosen.output.dir) / name) for name in names}


def test_5000_images_are_one_run_of_at_most_50_jobs(tmp_path):
    (tmp_path / "images").mkdir()
    first = tmp_path / "images" / "0.npy"
    np.save(first, np.zeros((512, 512), np.uint8))
    for number in range(1, 5000):
        os.link(first, first.with_name(f"{number}.npy"))
    layout, _ = lay_out(experiment(tmp_path, [tmp_path / "images"]))
    jobs = [(unit, stage) for unit, stage, batches in open_stages(layout) for _ in batches]
    segmented = [name for _, stage in jobs[1:] for name in stage.images]
    assert len(layout.audits) == 5000 and sorted(segmented) == sorted(layout.audits)
    assert len(jobs) <= 50


def test_the_files_are_those_of_the_stages(folder):
    """Bit for bit: labels, their pyramid and metadata, tables; and the whole in memory."""
    together = chosen_of(folder, output={"dir": str(folder.parent / "together")})
    alone = chosen_of(folder, output={"dir": str(folder.parent / "alone")}, tiles={"bundle_px": 0})
    assert run(together) == []  # no image has a job of its own
    assert {name for name, _, _ in run(alone)} == set(NAMES)
    assert files_of(together) == files_of(alone)
    for number, name in enumerate(NAMES):
        expected = segment(image_of(number), window_px=96, overlap_px=16, **SAID)
        compare(published(together, name), expected)
    mine, theirs = summary_of(together), summary_of(alone)
    assert mine["complete"] and mine["exact"] and mine["failed"] == {}
    assert mine["n_cells"] == theirs["n_cells"] > 20
    same = {"image", "mode", "shape", "n_cells", "n_flagged", "labels_bytes", "exact", "numerics"}
    same |= {"diameter_px", "ngff", "spacing_um", "target", "labels", "table"}
    for name in NAMES:
        assert {k: mine["units"][name][k] for k in same} == {
            k: theirs["units"][name][k] for k in same
        }
    assert run_table(together) == run_table(alone)
    plans = [json.loads((Path(c.output.dir) / "plan.json").read_text()) for c in (together, alone)]
    assert [plan["b"]["plan"] for plan in plans][0] == plans[1]["b"]["tiles"]["plan"]


def test_one_table_says_which_image(folder):
    chosen = chosen_of(folder)
    run(chosen)
    table = run_table(chosen)
    assert list(table)[:2] == ["image", "label"]
    assert list(dict.fromkeys(table["image"])) == [n for n in NAMES if n in table["image"]]
    for name in NAMES:
        own = published(chosen, name)[1]
        rows = np.flatnonzero(np.array(table["image"]) == name)
        for column, values in own.items():
            np.testing.assert_array_equal(np.array(table[column])[rows], values)
    result = cs.open_result(chosen.output.dir)
    assert plain(result.table()) == table
    assert result.table("c").num_rows == table["image"].count("c")


@pytest.mark.parametrize("mode", ["planes", "3d"])
def test_volumes_are_small_too(tmp_path, mode):
    volume = scene((9, 40, 50), seed=2, diameter_px=12)[0]
    images = [{"path": str(save_tiff(tmp_path / "v.tif", volume)), "axes": "zyx"}]
    said = {"mode": mode, "reach_px": 12}
    kept = []
    for limit in (0, volume.size):
        chosen = experiment(
            tmp_path,
            images,
            segment=said,
            tiles=TILES | {"bundle_px": limit},
            output={"dir": str(tmp_path / f"out{limit}")},
        )
        run(chosen)
        kept.append(files_of(chosen, "v"))
    assert kept[0] == kept[1] and summary_of(chosen)["n_cells"] > 2
    assert not (tmp_path / f"out{volume.size}" / "cells.parquet").exists()  # of one image


def spoil(path):
    """Pixels that cannot be decoded behind a header that can be read."""
    tifffile.imwrite(path, tifffile.imread(path), compression="zlib")
    with tifffile.TiffFile(path) as file:
        start, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + size] = bytes(size)
    path.write_bytes(content)


def refused(chosen):
    with pytest.raises(SomeFailed) as error:
        run(chosen)
    return str(error.value)


def test_bad_images_are_listed_and_the_rest_is_done(folder, expected):
    """No header, no pixels, no such channel; then one is repaired, and one is taken away."""
    kept = (folder / "b.tif").read_bytes(), (folder / "d.tif").read_bytes()
    (folder / "b.tif").write_bytes(kept[0][:100])
    spoil(folder / "d.tif")
    chosen = chosen_of(folder, measure={"channels": [0]})
    said = refused(chosen)
    assert "2 of 5 images could not be segmented" in said
    assert "b: " in said and "d: " in said and "d.tif cannot be read" in said
    out = Path(chosen.output.dir)
    failed = json.loads((out / "failed.json").read_text())
    assert list(failed) == ["b", "d"] and str(folder / "b.tif") in failed["b"]
    summary = summary_of(chosen)
    assert not summary["complete"] and summary["failed"] == failed
    assert list(summary["units"]) == ["a", "c", "e"]
    assert set(run_table(chosen)["image"]) <= {"a", "c", "e"}
    assert not list((out / "runs").glob("finished-*"))
    assert not cs.open_result(out).is_complete
    before = ages(out)

    # What is still bad is tried again, the others' results stay untouched.
    (folder / "b.tif").write_bytes(kept[0])
    assert "1 of 5 images" in refused(chosen)
    published_files = {f for f in before if f.split("/")[0] in NAMES}
    assert {f: before[f] for f in published_files}.items() <= ages(out).items()
    assert list(summary_of(chosen)["units"]) == ["a", "b", "c", "e"]

    (folder / "d.tif").write_bytes(kept[1])
    run(chosen)
    assert summary_of(chosen)["complete"] and not (out / "failed.json").exists()
    assert {f: before[f] for f in published_files}.items() <= ages(out).items()
    assert content_of(chosen) == expected
    last = ages(out)
    assert run(chosen) == [] and ages(out) == last


def test_images_that_lack_a_channel(folder):
    save_tiff(folder / "c.tif", np.stack([image_of(2)] * 2))
    chosen = chosen_of(folder, measure={"channels": [1]})
    refused(chosen)
    failed = json.loads((Path(chosen.output.dir) / "failed.json").read_text())
    assert list(failed) == ["a", "b", "d", "e"]
    assert "measure.channels names 1, the image has 0 to 0" in failed["a"]
    assert list(summary_of(chosen)["units"]) == ["c"]


def test_an_image_that_does_not_fit_says_what_helps(folder, monkeypatch):
    def needed(plan, *rest, **more):
        return 10**15 if plan.shape == SHAPES[2] else 0

    monkeypatch.setattr(whole, "whole_bytes", needed)
    refused(chosen_of(folder))
    failed = json.loads((folder.parent / "out" / "failed.json").read_text())
    assert list(failed) == ["c"]
    assert "needs about 1000000" in failed["c"] and "tiles.bundle_px: 0" in failed["c"]


def test_when_no_image_can_be_opened_the_start_is_refused(folder):
    for path in folder.iterdir():
        path.write_bytes(b"II*\0")
    with pytest.raises(ValueError, match="a.tif"):
        layout_of(chosen_of(folder))


def test_a_large_image_that_fails_does_not_stop_the_others(folder):
    spoil(folder / "d.tif")
    chosen = chosen_of(folder, tiles={"bundle_px": 9_000})  # d has 10,000 px and its own jobs
    assert "d: " in refused(chosen)
    assert list(summary_of(chosen)["units"]) == ["a", "b", "c", "e"]
    save_tiff(folder / "d.tif", image_of(3))
    assert {name for name, _, _ in run(chosen)} == {"d"}
    assert list(summary_of(chosen)["units"]) == list(NAMES)


def test_an_image_that_kills_its_job_is_left_out_in_the_end(folder, monkeypatch):
    real = bundle._one

    def deadly(experiment, units, *rest, **more):
        if units[0].name == "b":
            raise SystemExit("as if the process were killed")
        return real(experiment, units, *rest, **more)

    monkeypatch.setattr(bundle, "_one", deadly)
    chosen = chosen_of(folder)
    for _ in range(bundle.MOST_KILLS):
        with pytest.raises(SystemExit):
            run(chosen)
        assert not (Path(chosen.output.dir) / "summary.json").exists()
    assert "was killed 3 times while it was at this image" in refused(chosen)
    assert list(summary_of(chosen)["units"]) == ["a", "c", "d", "e"]
    monkeypatch.undo()
    run(chosen)
    assert list(summary_of(chosen)["units"]) == list(NAMES)


KILLS = {"whole-written": (5, 3), "data-written": (3,), "done-written": (1,)}


@pytest.mark.parametrize("site", KILLS)
def test_a_killed_run_loses_the_image_in_flight(folder, expected, site, tmp_path):
    chosen = chosen_of(folder)
    config, log = config_of(chosen, tmp_path / "c.yaml"), str(tmp_path / "log")
    assert all(killed_run(config, f"{site}:{number}", None, log) for number in KILLS[site])
    assert not (Path(chosen.output.dir) / "summary.json").exists()
    assert not killed_run(config, "", None, log)
    assert content_of(chosen) == expected
    assert summary_of(chosen)["complete"]


def test_what_is_done_is_not_done_again(folder, monkeypatch):
    """A job that ends between images goes on with the next one."""
    chosen, made, n_planned = chosen_of(folder), [], 2
    real = whole.segment_whole

    def segmented(unit, engines, **settings):
        made.append(unit.name)
        return real(unit, engines, **settings)

    def full(self, key, *args, **settings):
        if len(made) == n_planned + 2:
            raise OSError(28, "No space left on device")
        return add(self, key, *args, **settings)

    add = Batch.add
    monkeypatch.setattr(bundle, "segment_whole", segmented)
    monkeypatch.setattr(Batch, "add", full)
    with pytest.raises(OSError, match="No space"):
        run(chosen)
    monkeypatch.setattr(Batch, "add", add)
    assert not (Path(chosen.output.dir) / "summary.json").exists()
    assert len(made) == n_planned + 2
    run(chosen)
    assert sorted(made[n_planned:]) == list(NAMES)


def test_headers_are_read_once(folder, monkeypatch):
    from cellseg_pipe.io import headers

    opened = []
    real = headers.open_image
    monkeypatch.setattr(
        headers, "open_image", lambda path, **given: (opened.append(path), real(path, **given))[1]
    )
    chosen = chosen_of(folder)
    first = layout_of(chosen)
    assert len(opened) == 5
    assert layout_of(chosen) == first and len(opened) == 5
    save_tiff(folder / "b.tif", image_of(3))
    os.utime(folder / "b.tif", ns=(1, 1))
    changed, _ = lay_out(chosen)
    assert opened[5:] == [str(folder / "b.tif")]
    assert changed.audits["b"] != first.audits["b"] and changed.audits["a"] == first.audits["a"]


def test_how_images_are_shared_out(folder):
    """Jobs are of equal size; a changed image changes its own job alone; few images have none."""
    layout, _ = lay_out(chosen_of(folder, tiles={"batches": {"bundles": 3}}))
    images = [stage.images for stage in layout.bundles]
    assert sum(images, ()) == NAMES and len(images) == 3
    save_tiff(folder / "a.tif", image_of(0)[::-1])
    again, _ = lay_out(chosen_of(folder, tiles={"batches": {"bundles": 3}}))
    same = [a == b for a, b in zip(layout.bundles, again.bundles, strict=True)]
    assert same == [False, True, True]
    for number in range(11):
        shutil.copyfile(folder / "b.tif", folder / f"n{number}.tif")
    auto = {"bundle_px": "auto", "batches": {}}
    assert len(lay_out(chosen_of(folder, tiles=auto))[0].bundles) == 1
    (folder / "n0.tif").unlink()
    assert lay_out(chosen_of(folder, tiles=auto))[0].bundles == ()


def test_status_counts_images(folder, monkeypatch):
    chosen = chosen_of(folder)
    layout_of(chosen)
    (_, line) = read_status(chosen.output.dir).stages
    assert (line.stage, line.n_jobs, line.n_done, line.n_tiles) == ("bundle", 2, 0, 0)
    run(chosen)
    status = read_status(chosen.output.dir)
    line = status.stages[-1]
    assert (line.n_done, line.n_tiles, status.complete) == (2, 5, True)
    assert "small images" in status.text


def test_parts_of_the_table(tmp_path, monkeypatch):
    """Columns that differ, and parts that begin inside a table."""
    monkeypatch.setattr(gather, "PART_ROWS", 4)
    import pyarrow as pa

    left = {"label": [1, 2, 3, 4, 5], "mean_a": [0.5, 1.0, 1.5, 2.0, 2.5]}
    right = {"label": [1, 2], "mean_b": [7.0, 8.0], "x_um": [1.0, 2.0]}
    for name, columns in (("l", left), ("r", right)):
        parquet.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    tables = {tmp_path / "l.parquet": {"image": "l"}, tmp_path / "r.parquet": {"image": "r"}}
    for _ in range(2):  # one that is there is replaced
        assert gather.gather_tables(tmp_path / "all.parquet", tables) == 7
    parts = sorted((tmp_path / "all.parquet").iterdir())
    assert [part.name for part in parts] == ["part-00000.parquet", "part-00001.parquet"]
    assert [parquet.read_metadata(part).num_rows for part in parts] == [4, 3]
    found = parquet.read_table(tmp_path / "all.parquet").to_pydict()
    assert list(found) == ["image", "label", "mean_a", "mean_b", "x_um"]
    assert found["image"] == ["l"] * 5 + ["r"] * 2
    assert found["mean_b"] == [None] * 5 + [7.0, 8.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.parquet", "l.parquet", "r.parquet"]


def test_there_and_back_again(folder, expected):
    """Other settings replace results; with the first ones all is made again, and says so."""
    first, second = chosen_of(folder), chosen_of(folder, segment=SAID | {"min_size_px": 200})
    run(first)
    run(second)
    assert content_of(second) != expected
    run(first)
    assert content_of(first) == expected
    run(second)
    run(first)
    assert content_of(first) == expected
    assert run(first) == []


def test_a_subset_is_not_taken_for_all(folder, expected):
    everything = chosen_of(folder)
    run(everything)
    fewer = experiment(
        folder.parent, [folder / "a.tif", folder / "b.tif"], tiles=TILES, segment=SAID
    )
    run(fewer)
    assert not layout_of(everything).marker.exists()
    assert set(summary_of(fewer)["units"]) == {"a", "b"}
    run(everything)
    assert content_of(everything) == expected


def test_all_but_the_smallest_may_be_bad(folder):
    for name in NAMES[:4]:
        (folder / f"{name}.tif").write_bytes((folder / f"{name}.tif").read_bytes()[:600])
    with pytest.raises(SomeFailed, match="4 of 5 images"):
        run(chosen_of(folder))
    assert list(summary_of(chosen_of(folder))["units"]) == ["e"]


def test_a_full_disk_is_no_bad_image(folder, monkeypatch):
    full = OSError(28, "free some space, then start again", "labels")
    full.__cause__ = OSError(28, "No space left on device")

    def no_room(*_, **__):
        raise full

    monkeypatch.setattr(bundle, "segment_whole", no_room)
    with pytest.raises(OSError, match="free some space"):
        run(chosen_of(folder))
    assert not (folder.parent / "out" / "failed.json").exists()
