"""Parts of an image that are seen at diameters of their own: whatever the tiles, as in memory."""

import json
import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import cellseg_pipe as cs
from cellseg_pipe.ledger import Records
from cellseg_pipe.segmentation import joining
from cellseg_pipe.segmentation.fields import Fields
from cellseg_pipe.segmentation.joining import settle
from cellseg_pipe.segmentation.run import Run
from cellseg_pipe.stages._digests import OF_CLASSES
from cellseg_pipe.stages.opened import unit_runs
from cellseg_pipe.stages.tiling import Tiling
from cellseg_pipe.stages.verdicts import _of_diameters
from cellseg_pipe.tiles import Grid, TilePlan
from tests.pipeline.conftest import scene
from tests.pipeline.test_tiled_equals_whole import tiles_of
from tests.pipeline.worker import (
    TINY,
    ages,
    compare,
    config_of,
    experiment,
    killed_run,
    published,
    results_of,
    run,
    run_in,
    save_tiff,
)

SHAPE = (260, 400)
WINDOWS = {"window_px": 96, "overlap_px": 16}
CLASSES = {"nuclei": {"model": "nuclei", "diameter_classes": 3}}


@cache
def picture():
    """Small nuclei on the left, large ones on the right."""
    small, large = (scene(SHAPE, diameter_px=px, seed=px)[0] for px in (10, 32))
    return np.where(np.arange(SHAPE[1]) < SHAPE[1] // 2, small, large)


@cache
def whole():
    return cs.segment(picture(), diameter_classes=3, **WINDOWS)


def chosen_of(folder, **sections):
    folder.mkdir(exist_ok=True)
    path = folder / "a.tif"
    if not path.exists():
        save_tiff(path, picture())
    image = {"path": str(path)} | sections.pop("image", {})
    return experiment(folder, [image], **({"targets": CLASSES, "tiles": WINDOWS} | sections))


def test_every_tiling_gives_the_whole(tmp_path, pool):
    assert len(whole().plan.fields.diameter_px) == 2  # of three that were asked for
    for number, (blocks, n) in enumerate([((9, 9), 1), ((2, 3), 3)]):
        batches = {"predict": n, "masks": n, "paint": n}
        tiles = {**WINDOWS, "core_px": tiles_of("2d", blocks, 0)["core_px"], "batches": batches}
        chosen = chosen_of(tmp_path / str(number), tiles=tiles)
        if number == 1:
            config = config_of(chosen, tmp_path / "1.yaml")
            run_in(pool, chosen, config, order=random.Random(0), threads=(1, 2))
        else:
            run(chosen)
        compare(published(chosen, "a"), whole())
    about = json.loads((tmp_path / "0" / "out" / "summary.json").read_text())["units"]["a"]
    assert about["exact"] and about["diameter_px"] == whole().diameter_px
    assert about["diameter_classes"] == whole().plan.fields.facts
    diameter = next(v for v in about["qc"]["verdicts"] if v["about"] == "diameter")
    assert diameter["level"] == "ok"


def test_killed_anywhere(tmp_path):
    """Each life ends when its 9th batch is written and not yet known to be done."""
    tiles = {**WINDOWS, "batches": {"masks": 2, "paint": 2}}
    image = {"path": str(save_tiff(tmp_path / "one.tif", picture()))}
    calm, chosen = (
        chosen_of(tmp_path / name, image=dict(image), tiles=tiles) for name in ("calm", "killed")
    )
    run(calm)
    config, log, n_killed = config_of(chosen, tmp_path / "a.yaml"), str(tmp_path / "log"), 0
    while killed_run(config, "done-written:9", None, log):
        n_killed += 1
        assert n_killed < 20
    assert n_killed > 1
    found, expected = (results_of(tmp_path / name / "out" / "a") for name in ("killed", "calm"))
    assert found == expected


def test_what_a_change_makes_again(tmp_path):
    def made(n_classes, **sections):
        targets = {"nuclei": {"model": "nuclei", "diameter_classes": n_classes}}
        chosen = chosen_of(tmp_path, targets=targets, **sections)
        return {stage for _, stage, _ in run(chosen)}, chosen

    first, chosen = made(2)
    of_classes = {f"{stage}{k}" for stage in OF_CLASSES for k in (1, 2)}
    assert of_classes < first and "plan3" not in first
    before = ages(tmp_path / "out")
    assert run(chosen) == [] and ages(tmp_path / "out") == before

    third, _ = made(3)
    assert {"plan", *(f"{stage}{k}" for stage in OF_CLASSES for k in (1, 2, 3))} < third
    compare(published(chosen, "a"), whole())

    stricter, _ = made(3, segment={"min_size_px": 40})
    assert {"masks1", "masks3", "rivals", "number", "paint", "tiles"} < stricter
    assert not {"plan", "plan1", "predict1", "predict2"} & stricter
    compare(
        published(chosen, "a"),
        cs.segment(picture(), diameter_classes=3, min_size_px=40, **WINDOWS),
    )
    one, _ = made(1)
    assert "masks" in one and not {"rivals", "plan1", "masks1"} & one


def test_a_region_and_grown_labels(tmp_path):
    region = {"box_px": [[40, 120], [230, 290]]}
    targets = CLASSES | {"cells": {"expand": "nuclei", "expand_px": 3}}
    relate = {"nuclei": "nuclei", "cells": "cells", "labels": True}
    chosen = chosen_of(tmp_path, image={"region": region}, targets=targets, relate=relate)
    run(chosen)
    expected = cs.segment(picture(), diameter_classes=3, region=region, **WINDOWS)
    assert 0 < expected.n_cells < whole().n_cells
    nuclei, table = published(chosen, "a-nuclei")
    np.testing.assert_array_equal(nuclei, expected.labels)
    for name in ("confidence", "probability", "area_px", "region"):
        np.testing.assert_array_equal(table[name], expected.table[name])
    cells, grown = published(chosen, "a-cells")
    np.testing.assert_array_equal(cells, cs.expand_labels(nuclei, 3))
    np.testing.assert_array_equal(grown["confidence"].shape, table["confidence"].shape)
    np.testing.assert_array_equal(grown["nucleus_id"], grown["label"])
    rest, _ = published(chosen, "a-cytoplasm")
    np.testing.assert_array_equal(rest, np.where(nuclei > 0, 0, cells))


def test_small_images_in_one_job(tmp_path):
    chosen = chosen_of(tmp_path, tiles={**WINDOWS, "bundle_px": 10**6})
    assert {stage for _, stage, _ in run(chosen)} == set()  # none of their own
    compare(published(chosen, "a"), whole())
    about = json.loads((tmp_path / "out" / "summary.json").read_text())["units"]["a"]
    assert about["diameter_classes"] == whole().plan.fields.facts


def test_an_image_whose_parts_are_alike(tmp_path):
    """Classes that are not found cost no windows, and results are those of one diameter."""
    image = scene((120, 150), diameter_px=14)[0]
    path = save_tiff(tmp_path / "a.tif", image)
    said = {"tiles": {**WINDOWS, "batches": {"masks": 2}}, "targets": CLASSES}
    chosen = experiment(tmp_path, [path], **said)
    run(chosen)
    expected = cs.segment(image, **WINDOWS)
    assert expected.n_cells > 5
    compare(published(chosen, "a"), expected)
    (unit,) = unit_runs(chosen)
    windows = [Records(unit.stage(f"predict{k}"), unit.batches["predict"]) for k in (1, 2, 3)]
    computed = [sum(not r.is_blank(int(key)) for key in r.keys()) for r in windows]
    assert computed[0] > 0 and computed[1:] == [0, 0]


def test_images_without_cells(tmp_path):
    path = save_tiff(tmp_path / "a.tif", np.full((90, 120), 7, np.uint16))
    chosen = experiment(tmp_path, [path], targets=CLASSES, tiles=WINDOWS)
    run(chosen)
    labels, table = published(chosen, "a")
    assert labels.max() == 0 and len(table["label"]) == 0


def test_volumes(tmp_path):
    image = scene((20, 70, 80), diameter_px=24)[0]
    path = save_tiff(tmp_path / "a.tif", image)
    targets = {"nuclei": {"model": "nuclei", "diameter_classes": 2}}
    entry = {"path": str(path), "axes": "zyx"}
    said = {"segment": {"mode": "3d"}, "targets": targets, "tiles": WINDOWS}
    chosen = experiment(tmp_path, [entry], **said)
    run(chosen)
    expected = cs.segment(image, mode="3d", diameter_classes=2, **WINDOWS)
    assert expected.n_cells > 2
    compare(published(chosen, "a"), expected)


@pytest.mark.parametrize(("axes", "words"), [("tyx", "a series in time"), ("zyx", "mode planes")])
def test_planes_that_are_seen_by_themselves(tmp_path, axes, words):
    path = save_tiff(tmp_path / "a.tif", np.zeros((3, 40, 50), np.uint16))
    entry = {"path": str(path), "axes": axes}
    if axes == "zyx":
        entry["spacing_um"] = [9, 1, 1]
    with pytest.raises(ValueError, match=f"a: diameter_classes needs .* got {words}"):
        run(experiment(tmp_path, [entry], targets=CLASSES))


def test_the_verdict_names_the_setting():
    """Where parts differ from what the network was told, and no classes were asked for."""
    plan = whole().plan
    medians, fields = np.array([[10.5, 29.0]]), Grid(SHAPE, (260, 200))
    tiles = TilePlan(SHAPE, (32, 48), (32, 48), (0, 0))
    asked = _of_diameters(medians, fields, Tiling(plan, tiles, 1, 1, "exact"))
    assert asked.level == "ok" and "10.5 to 29 px" in asked.text
    alone = Tiling(replace(plan, fields=None), tiles, 1, 1, "exact")
    found = _of_diameters(medians, fields, alone)
    assert found.level == "warn" and "diameter_classes: 2 of the target" in found.text
    told = f"was told {plan.diameter_px:.3g} px, and 29 is typical in"
    assert told in found.text
    joined = _of_diameters(medians, fields, replace(alone, seams="iou"))
    assert "images of their own" in joined.text


def test_cells_that_several_classes_claim(tmp_path, monkeypatch):
    """On a chessboard of small fields of wrong diameters many cells are rivals."""
    image = scene((150, 220), diameter_px=20, seed=8)[0]
    grid = Grid(image.shape, (9, 9))
    board = tuple(sum(grid.index(n)) % 3 for n in range(len(grid)))
    fields = Fields(grid.shape, grid.pitch, (None,) * len(grid), board, (8.0, 14.0, 22.0))
    monkeypatch.setattr(Run, "fields", lambda self, measured: fields)
    decided = []

    def settled(*args, **settings):
        decided.append(settle(*args, **settings))
        return decided[-1]

    monkeypatch.setattr(joining, "settle", settled)
    said = {"diameter_classes": 3, "flow_threshold": None}
    expected = cs.segment(image, model=TINY, **said, **WINDOWS)
    assert len(decided[0].gone) > 10 and len(decided[0].key) > len(decided[0].gone) + 10
    path = save_tiff(tmp_path / "a.tif", image)
    for blocks, n in [((1, 1), 2), ((3, 2), 1)]:
        batches = {"predict": n, "masks": n, "paint": n}
        tiles = {**WINDOWS, "core_px": tiles_of("2d", blocks, 0)["core_px"], "batches": batches}
        targets = {"nuclei": {"model": str(TINY), "diameter_classes": 3}}
        loose = {"flow_threshold": None}
        chosen = experiment(tmp_path, [path], targets=targets, tiles=tiles, segment=loose)
        run(chosen)
        compare(published(chosen, "a"), expected)
        for name in ("gone", "key", "rank"):
            np.testing.assert_array_equal(getattr(decided[-1], name), getattr(decided[0], name))
