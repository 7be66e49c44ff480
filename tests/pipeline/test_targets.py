"""Nuclei and cells of one image, related and grown: whatever the tiles, as arrays in memory."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

import cellseg_pipe as cs
from cellseg_pipe.engines import process
from cellseg_pipe.io.tables import read_table
from cellseg_pipe.segmentation.tiled import BLOCK_PX
from cellseg_pipe.stages.jobs import all_jobs
from cellseg_pipe.stages.layout import layout_of
from cellseg_pipe.stages.named_jobs import finish
from cellseg_pipe.stages.opened import unit_runs
from cellseg_pipe.stages.summary import SomeFailed
from tests.pipeline.conftest import scene
from tests.pipeline.worker import (
    TINY,
    ages,
    config_of,
    experiment,
    killed_run,
    one_job,
    published,
    results_of,
    run,
    save_tiff,
    shards_of,
)

WINDOWS = {"window_px": 96, "overlap_px": 16}
SHAPES = {"2d": (90, 120), "planes": (3, 50, 90), "3d": (13, 40, 50)}
SCENE_PX = {"2d": 24, "planes": 14, "3d": 15}
MODEL = {"model": str(TINY), "diameter_px": 24}
NETWORKS = {"nuclei": MODEL, "cells": {"model": str(TINY), "diameter_px": 34}}
GROWN = {"nuclei": MODEL, "cells": {"expand": "nuclei", "expand_px": 4.5}}
RELATE = {"nuclei": "nuclei", "cells": "cells"}
TILINGS = [((9, 9, 9), (1, 1, 2)), ((1, 1, 1), (2, 5, 3))]


def tiles_of(mode, blocks, batches):
    edge = BLOCK_PX[mode]
    core = [b * e for b, e in zip(blocks, edge[-2:] if mode == "planes" else edge, strict=False)]
    cut = dict(zip(("predict", "masks", "paint"), batches, strict=True))
    return {**WINDOWS, "core_px": [1, *core] if mode == "planes" else core, "batches": cut}


def chosen_of(folder, path, mode, **sections):
    said = {"mode": mode, "reach_px": 14, "flow_threshold": None, **sections.pop("segment", {})}
    image = {"path": str(path), "axes": "zyx"[-len(SHAPES[mode]) :]} | sections.pop("image", {})
    usual = {"relate": {**RELATE, "labels": True}, "targets": NETWORKS, "tiles": WINDOWS}
    return experiment(folder, [image], segment=said, **(usual | sections))


def picture(folder, mode, dtype=np.uint16):
    image = scene(SHAPES[mode], diameter_px=SCENE_PX[mode])[0]
    return save_tiff(folder / "a.tif", image.astype(dtype)), image.astype(dtype)


def run_in(pool, chosen, config, *, order):
    """Run jobs that do not need each other side by side."""
    layout_of(chosen)
    jobs = list(all_jobs(unit_runs(chosen)))
    for unit, stage in dict.fromkeys((unit.name, job.stage) for unit, job in jobs):
        batches = [j.batch for u, j in jobs if (u.name, j.stage) == (unit, stage)]
        order.shuffle(batches)
        calls = [pool.apply_async(one_job, (str(config), unit, stage, b, 1)) for b in batches]
        for call in calls:
            call.get(timeout=600)
    finish(layout_of(chosen).config)


def same_tables(left, right):
    assert list(left) == list(right)
    for name, column in left.items():
        assert column.dtype == right[name].dtype, name
        np.testing.assert_array_equal(column, right[name], err_msg=name)


def columns_in(table, expected):
    for name, column in expected.items():
        assert table[name].dtype == column.dtype, name
        np.testing.assert_array_equal(table[name], column, err_msg=name)


def check_related(chosen, image, **settings):
    """Columns and cytoplasm are those of arrays in memory; return the number of matches."""
    nuclei, nuclei_table = published(chosen, "a-nuclei")
    cells, cells_table = published(chosen, "a-cells")
    found = cs.relate(nuclei, cells, image=image[None], **settings)
    columns_in(nuclei_table, found.nuclei)
    columns_in(cells_table, found.cells)
    cytoplasm, table = published(chosen, "a-cytoplasm")
    np.testing.assert_array_equal(cytoplasm, found.cytoplasm)
    size = "area_px" if image.ndim == 2 else "volume_px"
    there = found.cells[f"cytoplasm_{size}"] > 0
    np.testing.assert_array_equal(table["label"], cells_table["label"][there])
    np.testing.assert_array_equal(table[size], found.cells[f"cytoplasm_{size}"][there])
    np.testing.assert_array_equal(table["mean_0"], found.cells["mean_cytoplasm_0"][there])
    for name in ("probability", "flow_error", "agreement"):
        np.testing.assert_array_equal(table[name], cells_table[name][there])
    return int((found.nuclei["cell_id"] > 0).sum())


def test_a_target_that_fails_stops_no_other_and_the_table_says_which(tmp_path, monkeypatch):
    path = save_tiff(tmp_path / "a.tif", scene((90, 100), diameter_px=16)[0])
    chosen = chosen_of(tmp_path, path, "2d", targets=NETWORKS, relate=None)
    real = process.run_job

    def failing(unit, stage, **more):
        if unit.name == "a-cells":
            raise ValueError("no such thing")
        return real(unit, stage, **more)

    monkeypatch.setattr(process, "run_job", failing)
    with pytest.raises(SomeFailed, match="a-cells: no such thing"):
        run(chosen)
    out = Path(chosen.output.dir)
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["units"]) == ["a-nuclei"] and list(summary["failed"]) == ["a-cells"]
    table = read_table(out / "cells.parquet")
    assert set(table["image"]) == {"a"} and set(table["target"]) == {"nuclei"}


@pytest.mark.parametrize("mode", SHAPES)
def test_two_networks_in_every_tiling(tmp_path, pool, mode):
    path, image = picture(tmp_path, mode)
    results = []
    for number, (blocks, batches) in enumerate(TILINGS):
        tiles = tiles_of(mode, blocks, batches)
        measure = {"texture": True, "ring_px": 2, "outlines": True}
        chosen = chosen_of(tmp_path, path, mode, tiles=tiles, measure=measure)
        if number == 1:
            config = config_of(chosen, tmp_path / "a.yaml")
            run_in(pool, chosen, config, order=random.Random(number))
        else:
            run(chosen)
        assert check_related(chosen, image) >= 3
        units = ("a-nuclei", "a-cells", "a-cytoplasm")
        for unit in units:
            shapes = read_table(tmp_path / "out" / unit / "outlines.parquet")
            assert set(shapes["label"]) == set(published(chosen, unit)[1]["label"])
        stored = [shards_of(tmp_path / "out" / unit) for unit in units]
        results.append((stored, [published(chosen, unit)[1] for unit in units]))
    for stored, tables in results[1:]:
        assert stored == results[0][0]
        for table, expected in zip(tables, results[0][1], strict=True):
            same_tables(table, expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("mode", SHAPES)
def test_grown_labels_in_every_tiling(tmp_path, mode, dtype):
    path, image = picture(tmp_path, mode, dtype)
    results = []
    for blocks, batches in TILINGS:
        tiles = tiles_of(mode, blocks, batches)
        chosen = chosen_of(tmp_path, path, mode, targets=GROWN, tiles=tiles)
        run(chosen)
        nuclei, nuclei_table = published(chosen, "a-nuclei")
        cells, table = published(chosen, "a-cells")
        spacing = {"2d": (1, 1), "planes": (np.inf, 1, 1), "3d": (1, 1, 1)}[mode]
        expected = cs.expand_labels(nuclei, 4.5, spacing=spacing)
        np.testing.assert_array_equal(cells, expected)
        assert np.count_nonzero(cells != nuclei) > 1000
        # The ids are those of the nuclei, and so are the scores.
        for name in ("label", "probability", "flow_error", "agreement"):
            np.testing.assert_array_equal(table[name], nuclei_table[name])
        np.testing.assert_array_equal(table["nucleus_id"], table["label"])
        np.testing.assert_array_equal(nuclei_table["cell_id"], nuclei_table["label"])
        assert not table["no_nucleus"].any()
        said = json.loads((tmp_path / "out" / "summary.json").read_text())["units"]
        about = {name: [v["about"] for v in said[name]["qc"]["verdicts"]] for name in said}
        assert "diameter" in about["a-nuclei"]  # and grown cells are larger than any network knows
        assert "diameter" not in about["a-cells"] + about["a-cytoplasm"]
        size = "area_px" if mode == "2d" else "volume_px"
        counts = np.bincount(expected.ravel())[table["label"]]
        np.testing.assert_array_equal(table[size], counts)
        np.testing.assert_array_equal(table[f"nucleus_{size}"], nuclei_table[size])
        results.append([published(chosen, unit)[1] for unit in ("a-cells", "a-cytoplasm")])
        if dtype == np.uint16:
            check_related(chosen, image)
    for tables in results[1:]:
        for found, first in zip(tables, results[0], strict=True):
            same_tables(found, first)


def test_voxels_that_are_no_cubes_and_micrometres(tmp_path):
    path, image = picture(tmp_path, "3d")
    chosen = chosen_of(
        tmp_path,
        path,
        "3d",
        image={"spacing_um": [0.8, 0.4, 0.4]},
        targets={"nuclei": MODEL, "cells": {"expand": "nuclei", "expand_um": 1.7}},
        tiles=tiles_of("3d", (1, 1, 1), (1, 2, 2)),
    )
    run(chosen)
    nuclei, cells = published(chosen, "a-nuclei")[0], published(chosen, "a-cells")[0]
    expected = cs.expand_labels(nuclei, 1.7, spacing=(0.8, 0.4, 0.4))
    np.testing.assert_array_equal(cells, expected)
    assert (expected != cs.expand_labels(nuclei, 1.7 / 0.4)).any()
    table = published(chosen, "a-cells")[1]
    voxel = 0.8 * 0.4 * 0.4
    np.testing.assert_allclose(table["nucleus_volume_um3"], table["nucleus_volume_px"] * voxel)
    np.testing.assert_allclose(table["cytoplasm_volume_um3"], table["cytoplasm_volume_px"] * voxel)


def test_cells_of_a_region_are_grown_and_related(tmp_path):
    path, image = picture(tmp_path, "2d")
    image_entry = {"region": {"box_px": [[10, 20], [70, 90]]}}
    chosen = chosen_of(
        tmp_path,
        path,
        "2d",
        image=image_entry,
        targets=GROWN,
        measure={"intensity": False, "shape": False},
        tiles=tiles_of("2d", (1, 1), (1, 2, 2)),
    )
    run(chosen)
    nuclei, cells = published(chosen, "a-nuclei")[0], published(chosen, "a-cells")[0]
    np.testing.assert_array_equal(cells, cs.expand_labels(nuclei, 4.5))
    whole = chosen_of(tmp_path, path, "2d", targets=GROWN, output={"dir": str(tmp_path / "all")})
    run(whole)
    assert 0 < nuclei.max() < published(whole, "a-nuclei")[0].max()
    table = published(chosen, "a-cells")[1]
    columns_in(table, cs.relate(nuclei, cells).cells)
    assert [name for name in table if name.startswith("mean")] == []


def test_tiles_joined_by_iou(tmp_path):
    path, image = picture(tmp_path, "2d")
    chosen = chosen_of(
        tmp_path, path, "2d",
        stitch={"seams": "iou"},
        tiles={**WINDOWS, "core_px": [40, 50], "halo_px": 12, "batches": {"masks": 2}},
    )  # fmt: skip
    run(chosen)
    assert check_related(chosen, image) > 3
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["units"]["a-cytoplasm"]["made_from"] == ["a-cells", "a-nuclei"]
    assert "made_from" not in summary["units"]["a-cells"]
    related = {name: summary["units"][name]["related"] for name in ("a-cells", "a-nuclei")}
    matched = (published(chosen, "a-nuclei")[1]["cell_id"] > 0).sum()
    assert related["a-nuclei"] == {"to": "a-cells", "n_matched": matched}
    assert related["a-cells"]["n_matched"] == (~published(chosen, "a-cells")[1]["no_nucleus"]).sum()


def test_what_a_change_makes_again(tmp_path):
    path, image = picture(tmp_path, "2d")

    def made(**relate):
        chosen = chosen_of(tmp_path, path, "2d", relate={**RELATE, "labels": True, **relate})
        return chosen, {(unit, stage) for unit, stage, _ in run(chosen)}

    first, jobs = made()
    assert {("a-cells", "overlap"), ("a-cytoplasm", "paint"), ("a-nuclei", "audit")} <= jobs
    before, done = [published(first, f"a-{name}") for name in NETWORKS], ages(tmp_path / "out")
    assert run(first) == [] and ages(tmp_path / "out") == done

    audits = {("a-nuclei", "audit"), ("a-cells", "audit")}
    again = {("a-cells", "match"), ("a-cells", "compartments")}
    stricter, jobs = made(min_overlap=0.9)
    assert jobs == again | audits
    check_related(stricter, image, min_overlap=0.9)
    assert (published(stricter, "a-nuclei")[1]["cell_id"] != before[0][1]["cell_id"]).any()

    unmeasured, jobs = made(min_overlap=0.9, cytoplasm=False)
    assert jobs == audits
    table = published(unmeasured, "a-cells")[1]
    assert "nucleus_id" in table and "mean_nucleus_0" not in table

    assert made()[1] == audits
    for name, (labels, expected) in zip(NETWORKS, before, strict=True):
        found = published(first, f"a-{name}")
        np.testing.assert_array_equal(found[0], labels)
        same_tables(found[1], expected)

    # Without the relation the labels stay; the cytoplasm that was published is left as it is.
    alone = chosen_of(tmp_path, path, "2d", relate=None)
    assert {(unit, stage) for unit, stage, _ in run(alone)} == audits
    assert "cell_id" not in published(alone, "a-nuclei")[1]


def test_going_back_to_labels_that_were_replaced(tmp_path):
    path, image = picture(tmp_path, "2d")
    first = chosen_of(tmp_path, path, "2d", targets=GROWN)
    run(first)
    units = ("a-nuclei", "a-cells", "a-cytoplasm")
    before = {unit: results_of(tmp_path / "out" / unit) for unit in units}
    other = chosen_of(tmp_path, path, "2d", targets=GROWN, segment={"min_size_px": 150})
    run(other)
    check_related(other, image)
    assert all(results_of(tmp_path / "out" / unit) != before[unit] for unit in units)
    farther = {**GROWN, "cells": {"expand": "nuclei", "expand_px": 2}}
    jobs = {(u, s) for u, s, _ in run(chosen_of(tmp_path, path, "2d", targets=farther))}
    assert ("a-nuclei", "paint") in jobs and ("a-nuclei", "masks") not in jobs
    run(first)
    assert {unit: results_of(tmp_path / "out" / unit) for unit in units} == before


def test_killed_anywhere(tmp_path):
    """At steps of the protocol that every stage passes: the results are as if nothing happened."""
    path, _ = picture(tmp_path, "2d")
    tiles = {**WINDOWS, "batches": {"masks": 2, "paint": 2}}
    (tmp_path / "calm").mkdir()
    run(chosen_of(tmp_path / "calm", path, "2d", targets=GROWN, tiles=tiles))
    chosen = chosen_of(tmp_path, path, "2d", targets=GROWN, tiles=tiles)
    config, log, n_killed = config_of(chosen, tmp_path / "a.yaml"), str(tmp_path / "log"), 0
    # Each life ends when its 6th batch is written and not yet known to be done.
    while killed_run(config, "done-written:6", None, log):
        n_killed += 1
        assert n_killed < 40
    for unit in ("a-nuclei", "a-cells", "a-cytoplasm"):
        calm = results_of(tmp_path / "calm" / "out" / unit)
        assert results_of(tmp_path / "out" / unit) == calm
    assert n_killed > 2
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"]


@pytest.mark.parametrize("content", ["blank", "one side"])
def test_images_without_cells(tmp_path, content):
    image = np.full((40, 60), 7, np.uint16) if content == "blank" else scene((40, 60))[0]
    path = save_tiff(tmp_path / "a.tif", image)
    targets = {**NETWORKS, "cells": {**NETWORKS["cells"], "model": str(TINY)}}
    chosen = chosen_of(
        tmp_path, path, "2d", targets=targets, segment={"max_size_px": 40, "min_size_px": 1}
    )
    run(chosen)
    check_related(chosen, image)
    assert len(published(chosen, "a-cells")[1]["label"]) == 0 or content != "blank"


def test_the_size_of_a_pixel_is_needed_for_micrometres(tmp_path):
    path, _ = picture(tmp_path, "2d")
    targets = {"nuclei": MODEL, "cells": {"expand": "nuclei", "expand_um": 3}}
    with pytest.raises(ValueError, match="a-cells: expand_um needs the size of a pixel"):
        run(chosen_of(tmp_path, path, "2d", targets=targets))
    assert not (Path(tmp_path) / "out" / "runs" / "a-nuclei").exists()
