"""Quality control of runs: the same for every tiling, order and restart."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy import ndimage

from cellseg_pipe.io.tables import read_table
from cellseg_pipe.io.validate import validate
from cellseg_pipe.ledger import Corrupt, Records
from cellseg_pipe.qc import diameters
from cellseg_pipe.stages import _blocks, audit, score_seams
from cellseg_pipe.stages.jobs import jobs_of, run_job
from cellseg_pipe.stages.layout import layout_of
from cellseg_pipe.stages.opened import unit_runs
from tests.pipeline.conftest import scene
from tests.pipeline.worker import (
    ages,
    config_of,
    experiment,
    killed_run,
    published,
    results_of,
    run,
    save_tiff,
    segment,
)

SHAPES = {"2d": (140, 150), "planes": (3, 61, 107), "3d": (13, 45, 59)}
SAID = {"window_px": 96, "overlap_px": 16}
DROPPED = {
    "2d": {"min_confidence": 0.6, "border": "drop"},
    "planes": {"min_size_px": 500},
    "3d": {"min_size_px": 5000},
}
DROP = {"drop": {"min_confidence": 0.6, "border": "drop"}, "labels": True}


@pytest.fixture(autouse=True)
def small_looks(monkeypatch):
    """Several blocks and boxes in small images."""
    monkeypatch.setattr(
        _blocks, "BLOCK_PX", {"2d": (32, 32), "planes": (2, 32, 32), "3d": (8, 32, 32)}
    )
    monkeypatch.setattr(
        _blocks, "LOOK_PX", {"2d": (64, 64), "planes": (2, 64, 64), "3d": (8, 32, 64)}
    )


def chosen_of(folder, mode, *, core=1, masks=2, **qc):
    image = scene(SHAPES[mode], diameter_px=20)[0]
    path = Path(folder) / "a.tif"
    if not path.exists():
        save_tiff(path, image)
    edges = {"2d": (32, 48), "planes": (32, 48), "3d": (16, 32, 32)}[mode]
    cores = [core * e for e in edges]
    tiles = {"core_px": [1, *cores] if mode == "planes" else cores}
    return experiment(
        folder,
        [{"path": str(path), "axes": "zyx"[-image.ndim :]}],
        segment={"mode": mode, "reach_px": 12},
        tiles={**SAID, **tiles, "batches": {"masks": masks, "paint": 2 if core == 1 else 1}},
        qc=qc,
    )


def store(folder, name, level=0):
    array = zarr.open_array(str(Path(folder) / "out" / "a" / name / str(level)), mode="r")
    return np.asarray(array[...])


def verdicts(folder):
    summary = json.loads((Path(folder) / "out" / "summary.json").read_text())
    found = summary["units"]["a"]["qc"]
    return found, {verdict["about"]: verdict for verdict in found["verdicts"]}


@pytest.mark.parametrize("mode", SHAPES)
def test_whatever_the_tiles(tmp_path, mode):
    """The same blocks, the same cells dropped, the same second label image."""
    seen = []
    for number, (core, masks) in enumerate([(1, 3), (9, 1)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        chosen = chosen_of(folder, mode, core=core, masks=masks, labels=True, drop=DROPPED[mode])
        run(chosen)
        labels, table = published(chosen, "a")
        np.testing.assert_array_equal(
            store(folder, "labels-qc.ome.zarr"),
            np.where(np.isin(labels, table["label"][table["dropped"]]), 0, labels),
        )
        blocks = read_table(folder / "out" / "a" / "qc.parquet")
        seen.append((labels, table, blocks, store(folder, "labels-qc.ome.zarr")))
    assert 0 < seen[0][1]["dropped"].sum() < len(seen[0][1]["dropped"])
    for one, other in zip(*seen, strict=True):
        pairs = [(one, other)] if isinstance(one, np.ndarray) else [(one[k], other[k]) for k in one]
        for left, right in pairs:
            np.testing.assert_array_equal(left, right)


def test_blocks_say_what_lies_in_them(tmp_path):
    chosen = chosen_of(tmp_path, "2d")
    run(chosen)
    labels, table = published(chosen, "a")
    image = scene(SHAPES["2d"], diameter_px=20)[0]
    blocks = read_table(tmp_path / "out" / "a" / "qc.parquet")
    assert len(blocks["n_cells"]) == 5 * 5
    for row in range(25):
        low = [blocks[f"{axis}_start_px"][row] for axis in "yx"]
        high = [blocks[f"{axis}_stop_px"][row] for axis in "yx"]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        assert blocks["foreground"][row] == (labels[box] > 0).mean()
        centre = [np.floor(table[f"{axis}_px"] + 0.5) for axis in "yx"]
        mine = (centre[0] >= low[0]) & (centre[0] < high[0])
        mine &= (centre[1] >= low[1]) & (centre[1] < high[1])
        assert blocks["n_cells"][row] == mine.sum()
        assert blocks["top_0"][row] == image[box].max()
        assert blocks["median_0"][row] == np.median(image[box])
        if mine.any():
            assert blocks["confidence"][row] == pytest.approx(table["confidence"][mine].mean())
            assert blocks["clipped"][row] == table["on_border"][mine].mean()
    assert blocks["n_cells"].sum() == len(table["label"])
    found, said = verdicts(tmp_path)
    assert set(said) == {
        "cells", "diameter", "focus", "brightness", "saturated", "blank", "illumination", "seams"
    }  # fmt: skip
    assert found["seam_score"] == 0 and said["seams"]["level"] == "ok"


def test_parts_with_other_diameters_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(diameters, "LEAST_CELLS", 4)
    small, large = (scene((160, 160), diameter_px=size, seed=3)[0] for size in (12, 24))
    save_tiff(tmp_path / "a.tif", np.concatenate([small, large], axis=1))
    chosen = experiment(
        tmp_path,
        [str(tmp_path / "a.tif")],
        segment={"reach_px": 24},
        tiles=SAID,
        targets={"nuclei": {"diameter_px": 12}},
    )
    run(chosen)
    found, said = verdicts(tmp_path)
    _, table = published(chosen, "a")
    edge = found["diameter_map"]["field_px"]
    inside = ~table["on_border"]
    told = 0
    for place, median in np.ndenumerate(np.array(found["diameter_map"]["median_px"], float)):
        mine = inside.copy()
        for axis, name in enumerate("yx"):
            mine &= np.floor(table[f"{name}_px"] + 0.5) // edge[axis] == place[axis]
        assert np.isfinite(median) == (mine.sum() >= 4)
        if np.isfinite(median):
            sizes = np.sort(table["diameter_px"][mine])
            assert median == pytest.approx(sizes[(len(sizes) - 1) // 2], rel=0.03)
            told += 1
    assert told > 1
    assert said["diameter"]["level"] == "warn"
    assert "the network was told 12 px" in said["diameter"]["text"]


def test_a_lost_block_is_seen(tmp_path):
    image = scene(SHAPES["2d"], diameter_px=20)[0]
    image[64:96, 64:96] = 7
    save_tiff(tmp_path / "a.tif", image)
    run(chosen_of(tmp_path, "2d"))
    found, said = verdicts(tmp_path)
    assert found["level"] == said["blank"]["level"] == "warn"
    assert "1 of them lie inside the image: were they lost?" in said["blank"]["text"]
    blocks = read_table(tmp_path / "out" / "a" / "qc.parquet")
    (lost,) = np.flatnonzero([text == "blank" for text in blocks["suspect"]])
    assert (blocks["y_start_px"][lost], blocks["x_start_px"][lost]) == (64, 64)


def out_of_focus(block):
    return ndimage.gaussian_filter(block.astype(np.float32), 4).astype(block.dtype)


def twice_as_bright(block):
    return np.minimum(block.astype(np.int64) * 2, 65535).astype(block.dtype)


@pytest.mark.parametrize(
    ("about", "fault"), [("focus", out_of_focus), ("brightness", twice_as_bright), ("", np.copy)]
)
def test_a_faulty_block_is_told_with_its_place(tmp_path, monkeypatch, about, fault):
    """As it is in the image's file, through a whole run, to the verdict of the summary."""
    monkeypatch.setitem(_blocks.BLOCK_PX, "2d", (96, 96))
    monkeypatch.setitem(_blocks.LOOK_PX, "2d", (192, 192))
    image = scene((576, 672), diameter_px=20)[0]
    image[192:288, 384:480] = fault(image[192:288, 384:480])
    save_tiff(tmp_path / "a.tif", image)
    run(
        experiment(tmp_path, [str(tmp_path / "a.tif")], segment={"reach_px": 12},
                   tiles={**SAID, "core_px": [160, 192]})
    )  # fmt: skip
    found, said = verdicts(tmp_path)
    blocks = read_table(tmp_path / "out" / "a" / "qc.parquet")
    told = {
        (blocks["y_start_px"][row], blocks["x_start_px"][row]): text
        for row, text in enumerate(blocks["suspect"])
        if text
    }
    warned = {name for name in ("focus", "brightness", "blank") if said[name]["level"] == "warn"}
    if not about:
        assert not told and not warned
        return
    assert list(told) == [(192, 384)] and about in told[192, 384]  # blurred ones lack noise, too
    assert about in warned and found["level"] == "warn"


def test_only_the_region_is_looked_at(tmp_path):
    image = scene((140, 150), diameter_px=20)[0]
    image[:, 100:] = 7  # glass, which nobody asked about
    save_tiff(tmp_path / "a.tif", image)
    said = {"box_px": [[0, 0], [60, 90]]}
    chosen = experiment(
        tmp_path, [{"path": str(tmp_path / "a.tif"), "region": said}],
        segment={"reach_px": 12}, tiles={**SAID, "core_px": [32, 48]},
    )  # fmt: skip
    run(chosen)
    (unit,) = unit_runs(chosen)
    records = Records(unit.stage("qc"), unit.batches["paint"])
    looked = [not records.is_blank(number) for number in range(len(records))]
    assert looked == [True, True, False, False, False, False, False, False, False]
    blocks = read_table(tmp_path / "out" / "a" / "qc.parquet")
    inside = (blocks["y_start_px"] < 60) & (blocks["x_start_px"] < 90)
    for name in ("high_0", "foreground"):
        np.testing.assert_array_equal(np.isfinite(blocks[name]), inside)
    assert not any(text for text in blocks["suspect"][~inside])
    assert verdicts(tmp_path)[1]["blank"]["text"].startswith("0.0 % of the blocks")


def test_a_corner_of_one_value_is_not_lost_in_an_image_of_few_blocks(tmp_path):
    image = scene((64, 64), diameter_px=20)[0]
    image[:32, :32] = 7
    save_tiff(tmp_path / "a.tif", image)
    run(chosen_of(tmp_path, "2d"))
    assert verdicts(tmp_path)[1]["blank"]["level"] == "ok"


def test_a_limit_in_um_needs_the_size_of_a_voxel_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="the rule min_diameter_um needs the size of a voxel"):
        layout_of(chosen_of(tmp_path, "2d", drop={"min_diameter_um": 4.0}))
    assert not (tmp_path / "out").exists()


def test_confidence_is_that_of_the_whole_in_memory(tmp_path):
    chosen = chosen_of(tmp_path, "2d")
    run(chosen)
    whole = segment(scene(SHAPES["2d"], diameter_px=20)[0], reach_px=12, **SAID)
    table = published(chosen, "a")[1]
    np.testing.assert_array_equal(table["confidence"], whole.table["confidence"])
    assert len(np.unique(table["confidence"])) > 3


def test_what_a_rule_makes_again(tmp_path):
    """Never labels or measures; the second label image goes when nobody asks for it."""
    first = chosen_of(tmp_path, "2d", **DROP)
    stages = {stage for _, stage, _ in run(first)}
    assert {"qc", "judge", "sift"} <= stages
    folder, kept = tmp_path / "out" / "a", store(tmp_path, "labels.ome.zarr")
    before = results_of(folder)
    assert run(first) == []
    painted = {k: v for k, v in ages(folder).items() if k.startswith("labels.ome.zarr")}

    other = chosen_of(tmp_path, "2d", drop={"min_size_px": 150}, labels=True)
    assert {stage for _, stage, _ in run(other)} == {"judge", "sift", "audit"}
    table = published(other, "a")[1]
    np.testing.assert_array_equal(table["dropped"], table["area_px"] < 150)
    assert {text for text in table["qc_reason"]} == {"", "drop.min_size_px"}
    assert results_of(folder) != before
    sums = json.loads((tmp_path / "out" / "summary.json").read_text())["units"]["a"]
    assert sums["n_dropped"] == table["dropped"].sum() > 0

    none = chosen_of(tmp_path, "2d", drop={"min_size_px": 150}, maps=False)
    assert {stage for _, stage, _ in run(none)} == {"audit"}
    assert not (folder / "labels-qc.ome.zarr").exists() and not (folder / "qc.parquet").exists()
    assert set(verdicts(tmp_path)[1]) == {"cells", "diameter"}

    assert {stage for _, stage, _ in run(first)} == {"sift", "audit"}
    assert results_of(folder) == before
    assert painted.items() <= ages(folder).items()
    np.testing.assert_array_equal(store(tmp_path, "labels.ome.zarr"), kept)


def test_levels_are_those_of_the_labels_without_dropped_cells(tmp_path):
    chosen = chosen_of(tmp_path, "2d", **DROP)
    run(chosen)
    table = published(chosen, "a")[1]
    dropped = table["label"][table["dropped"]]
    (unit,) = unit_runs(chosen)
    assert unit.n_levels > 1
    for level in range(unit.n_levels):
        labels = store(tmp_path, "labels.ome.zarr", level)
        expected = np.where(np.isin(labels, dropped), 0, labels)
        np.testing.assert_array_equal(store(tmp_path, "labels-qc.ome.zarr", level), expected)
    path = str(tmp_path / "out" / "a" / "labels-qc.ome.zarr")
    assert [f for f in validate(path) if f.level == "error"] == []


def test_killed_in_quality_control(tmp_path):
    """Results are as if nothing had happened."""
    undisturbed = tmp_path / "whole"
    undisturbed.mkdir()
    run(chosen_of(undisturbed, "2d", **DROP))
    expected = results_of(undisturbed / "out" / "a")
    folder = tmp_path / "killed"
    folder.mkdir()
    chosen = chosen_of(undisturbed, "2d", **DROP)
    elsewhere = chosen.output.model_copy(update={"dir": str(folder / "out")})
    config = config_of(chosen.model_copy(update={"output": elsewhere}), folder / "a.yaml")
    killed = 0
    for stage in ("qc", "judge", "sift", "audit", "none"):
        killed += killed_run(config, "", (die_in, stage), str(folder / "log"))
    assert killed == 4
    assert results_of(folder / "out" / "a") == expected


def die_in(stage):
    """Kill the process at the second tile of a stage, or where the only one is kept."""
    import os
    import signal

    from cellseg_pipe.ledger import Batch
    from cellseg_pipe.stages import audit as auditing

    small = {"2d": (32, 32), "planes": (2, 32, 32), "3d": (8, 32, 32)}
    _blocks.BLOCK_PX = small
    _blocks.LOOK_PX = {"2d": (64, 64), "planes": (2, 64, 64), "3d": (8, 32, 64)}
    real, times = Batch.add, []

    def add(self, key, *args, **settings):
        real(self, key, *args, **settings)
        if f" {stage}" in self._title:
            times.append(key)
            if len(times) == (1 if stage == "judge" else 2):
                self.sync()
                os.kill(os.getpid(), signal.SIGKILL)

    Batch.add = add
    if stage == "audit":
        auditing.judge_run = lambda *args, **settings: os.kill(os.getpid(), signal.SIGKILL)


def test_a_changed_second_label_image_is_noticed(tmp_path):
    chosen = chosen_of(tmp_path, "2d", **DROP)
    (unit,) = unit_runs(chosen)
    for job in jobs_of(unit):
        if job.stage != "audit":
            run_job(unit, job.stage, batch=job.batch)
    array = zarr.open_array(str(unit.stage("sift").labels / "0"), mode="r+")
    array[100:110, 100:110] = 3
    with pytest.raises(Corrupt, match="is not what was written. Remove .*sift-"):
        audit.run(unit)
    shutil.rmtree(unit.stage("sift").root)
    run(chosen)
    assert (store(tmp_path, "labels-qc.ome.zarr") <= store(tmp_path, "labels.ome.zarr")).all()


def test_jobs_in_any_order(tmp_path, pool):
    """Batches side by side in other processes, whose blocks are as large as usual."""
    from tests.pipeline.worker import run_in

    chosen = chosen_of(tmp_path, "2d", **DROP)
    run_in(
        pool, chosen, config_of(chosen, tmp_path / "a.yaml"), order=random.Random(1), threads=(1, 2)
    )
    table = published(chosen, "a")[1]
    labels = store(tmp_path, "labels.ome.zarr")
    expected = np.where(np.isin(labels, table["label"][table["dropped"]]), 0, labels)
    np.testing.assert_array_equal(store(tmp_path, "labels-qc.ome.zarr"), expected)


def test_stores_are_scored(tmp_path):
    run(chosen_of(tmp_path, "2d"))
    path = tmp_path / "out" / "a" / "labels.ome.zarr"
    score = score_seams.run(path, 48)
    assert score.score == 0
    assert "cells at seams are as elsewhere" in score_seams.text_of(score)
    np.save(tmp_path / "a.npy", store(tmp_path, "labels.ome.zarr"))
    assert score_seams.run(tmp_path / "a.npy", 48) == score
    with pytest.raises(ValueError, match="Name the label image itself"):
        score_seams.run(tmp_path, 48)
