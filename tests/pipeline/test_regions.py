"""Runs that are restricted to regions: the cells of the whole, and no more work than they need."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from cellseg_pipe.config import load_experiment
from cellseg_pipe.io.results import write_labels
from cellseg_pipe.kernels import relabel
from cellseg_pipe.ledger import Records
from cellseg_pipe.stages import forecast
from cellseg_pipe.stages.layout import layout_of
from cellseg_pipe.stages.opened import unit_runs
from cellseg_pipe.stages.summary import SomeFailed
from cellseg_pipe.stages.tiling import read_frozen, read_tiling
from tests.pipeline.conftest import scene
from tests.pipeline.test_tiled_equals_whole import tiles_of
from tests.pipeline.worker import (
    TINY,
    compare,
    config_of,
    experiment,
    published,
    run,
    run_in,
    save_tiff,
    segment,
)

WINDOWS = {"window_px": 64, "overlap_px": 16}
REACH = 10


def feature(*rings, **properties):
    """Rings of corners y, x as a feature of QuPath."""
    closed = [[[x, y] for y, x in [*ring, ring[0]]] for ring in rings]
    geometry = {"type": "Polygon", "coordinates": closed}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def square(y, x, edge):
    return [(y, x), (y, x + edge), (y + edge, x + edge), (y + edge, x)]


def outlines(path):
    """A ring over several tiles, and two areas of one class."""
    two = feature(name="pair", classification={"name": "Stroma"})
    two["geometry"] = {
        "type": "MultiPolygon",
        "coordinates": [
            feature(square(115, 8, 25))["geometry"]["coordinates"],
            feature(square(110, 100, 35))["geometry"]["coordinates"],
        ],
    }
    ring = feature(square(5, 10, 60), square(25, 30, 20), name="ring")
    about = {"type": "FeatureCollection", "features": [ring, two]}
    path.write_text(json.dumps(about))
    return path


def chosen_of(folder, picture, region, *, tiles=None, **sections):
    said = {
        "segment": {"reach_px": REACH},
        "tiles": {**WINDOWS, **(tiles or {})},
        "targets": {"n": {"model": str(TINY), "diameter_px": 16}},
    } | sections
    image = {"path": str(picture), "axes": "zyx"[-tifffile.imread(picture).ndim :]}
    return experiment(folder, [image | ({"region": region} if region else {})], **said)


def only(chosen):
    (unit,) = unit_runs(chosen)
    return unit


def computed(chosen, stage):
    """How many windows or tiles were work."""
    unit = only(chosen)
    n_batches = unit.batches[stage]
    records = Records(unit.stage(stage), n_batches)
    return sum(not records.is_blank(int(key)) for key in records.keys()), len(records)


def test_outlines_over_many_tiles_give_the_cells_of_the_whole(tmp_path, pool):
    image = scene((150, 200), diameter_px=16)[0]
    file = outlines(tmp_path / "tissue.geojson")
    picture = save_tiff(tmp_path / "a.tif", image)
    region = {"file": str(file), "exclude": [{"box_px": [[0, 60], [40, 200]]}]}
    said = {"reach_px": REACH, "diameter_px": 16, **WINDOWS}
    whole = segment(image, **said)
    expected = segment(image, region=region, **said)
    ids = np.unique(whole.labels[expected.labels > 0])
    kept = relabel(whole.labels, ids, np.arange(1, len(ids) + 1, dtype=np.uint32))
    np.testing.assert_array_equal(expected.labels, kept)
    names = expected.table["region"]
    assert set(names) == {"ring", "Stroma"} and 3 < len(names) < whole.n_cells / 2
    for number, (blocks, beyond, n) in enumerate([((1, 1), 0, 1), ((2, 1), 5, 3)]):
        batches = {"predict": n, "masks": n, "paint": n}
        tiles = {**tiles_of("2d", blocks, beyond, REACH), "batches": batches}
        chosen = chosen_of(tmp_path / str(number), picture, region, tiles=tiles)
        if number == 1:
            (tmp_path / "1").mkdir()
            config = config_of(chosen, tmp_path / "1.yaml")
            run_in(pool, chosen, config, order=random.Random(0), threads=(1, 2))
        else:
            run(chosen)
        labels, table = published(chosen, "a")
        assert (table.pop("region") == names).all()
        plain = {name: column for name, column in expected.table.items() if name != "region"}
        compare((labels, table), type("Whole", (), {"labels": expected.labels, "table": plain}))
    summary = json.loads((tmp_path / "0" / "out" / "summary.json").read_text())
    about = summary["units"]["a"]
    assert about["exact"] and about["region"]["n"] == 2
    ring = 60 * 60 - 20 * 20 - 10 * 35  # and what is excluded of it
    assert about["region"]["pixels"] == ring + 25 * 25 + 35 * 35


@pytest.mark.parametrize(
    ("mode", "shape", "sections"),
    [
        ("planes", (3, 50, 80), {}),
        ("3d", (8, 30, 48), {}),
        ("2d", (90, 120), {"stitch": {"seams": "iou"}}),
    ],
)
def test_all_ways_of_joining_cells(tmp_path, mode, shape, sections):
    """A region against the same run without one, whose cells are told by their peaks."""
    image = scene(shape, diameter_px=13 if mode == "planes" else 16)[0]
    picture = save_tiff(tmp_path / "a.tif", image)
    half = [[0] * len(shape), [*shape[:-1], shape[-1] // 2]]
    others = [[0] * (len(shape) - 1) + [shape[-1] // 2], list(shape)]
    found = []
    for name, region in (("all", None), ("one", {"box_px": half}), ("two", {"box_px": others})):
        chosen = chosen_of(
            tmp_path / name,
            picture,
            region,
            segment={"reach_px": REACH, "mode": mode},
            **sections,
        )
        run(chosen)
        found.append(published(chosen, "a"))
    (whole, table), (left, _), (right, _) = found
    # Two halves have each cell of the whole once, with all its pixels.
    assert not ((left > 0) & (right > 0)).any()
    np.testing.assert_array_equal((left > 0) | (right > 0), whole > 0)
    for part in (left, right):
        ids = np.unique(whole[part > 0])
        assert 0 < len(ids) < len(table["label"])
        new = np.arange(1, len(ids) + 1, dtype=np.uint32)
        np.testing.assert_array_equal(relabel(whole, ids, new), part)


def test_an_edited_file_makes_again_what_it_must(tmp_path):
    picture = save_tiff(tmp_path / "a.tif", scene((120, 150), diameter_px=16)[0])
    file = outlines(tmp_path / "tissue.geojson")
    chosen = chosen_of(tmp_path, picture, str(file))
    first = run(chosen)
    assert run(chosen) == []
    file.write_text(file.read_text() + "\n")
    again = run(chosen)
    assert {stage for _, stage, _ in again} == {stage for _, stage, _ in first}
    fewer = chosen_of(tmp_path, picture, str(file), segment={"reach_px": REACH, "min_size_px": 60})
    stages = {stage for _, stage, _ in run(fewer)}
    assert "predict" not in stages and "masks" in stages
    # What a cell may extend to decides which windows are asked for.
    wider = chosen_of(tmp_path, picture, str(file), segment={"reach_px": REACH + 2})
    assert "predict" in {stage for _, stage, _ in run(wider)}


def test_a_mask_that_was_painted_over_makes_again_what_it_must(tmp_path):
    picture = save_tiff(tmp_path / "a.tif", scene((120, 150), diameter_px=16)[0])
    mask = tmp_path / "mask.ome.zarr"
    write_labels(mask, np.ones((60, 75), np.uint32))
    chosen = chosen_of(tmp_path, picture, str(mask))
    run(chosen)
    before = published(chosen, "a")[0]
    assert run(chosen) == []
    zarr.open_group(str(mask))["0"][:, 20:] = 0  # no file of metadata changes
    run(chosen)
    assert 0 < published(chosen, "a")[0].max() < before.max()


def test_a_region_that_cannot_be_read_stops_no_other_image(tmp_path):
    pixels = scene((120, 150), diameter_px=16)[0]
    pictures = [str(save_tiff(tmp_path / f"{name}.tif", pixels)) for name in "ab"]
    images = [{"path": pictures[0], "region": str(tmp_path / "no.geojson")}, {"path": pictures[1]}]
    chosen = experiment(tmp_path, images, segment={"reach_px": REACH}, tiles=WINDOWS)
    with pytest.raises(SomeFailed, match=r"a: .*no\.geojson"):
        run(chosen)
    assert published(chosen, "b")[0].max() > 5


@pytest.mark.parametrize(
    "said", [{"reach_px": 10}, {"reach_px": 45}, {"reach_px": 12, "resample": False}]
)
def test_what_is_planned_follows_the_region(tmp_path, said):
    """Also where cells reach farther than usual: then more windows are asked for."""
    picture = save_tiff(tmp_path / "a.tif", scene((400, 400), diameter_px=16)[0])
    costs = {}
    for name, region in (("all", None), ("part", {"box_px": [[0, 0], [40, 40]]})):
        chosen = chosen_of(tmp_path / name, picture, region, segment=said)
        (tmp_path / name).mkdir()
        config = config_of(chosen, tmp_path / f"{name}.yaml")
        planned = forecast.run(config)
        costs[name] = {cost.stage: cost for _, cost in planned.stages}
        loaded = load_experiment(config)
        unit = only(loaded)
        tiling = read_tiling(unit.stage("tiles"))
        assert (tiling.plan.region is None) == (region is None)
        assert costs[name]["predict"].n_tiles == read_frozen(unit.stage("plan")).facts["n_windows"]
    for stage in ("predict", "masks"):
        assert costs["part"][stage].n_tiles < costs["all"][stage].n_tiles
        assert costs["part"][stage].disk_bytes < costs["all"][stage].disk_bytes
    run(chosen)
    whole = segment(tifffile.imread(picture), region=region, diameter_px=16, **WINDOWS, **said)
    np.testing.assert_array_equal(published(chosen, "a")[0], whole.labels)
    assert whole.n_cells > 1
    assert computed(chosen, "predict")[0] == costs["part"]["predict"].n_tiles
    assert computed(chosen, "masks")[0] <= costs["part"]["masks"].n_tiles


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({"box_px": [[0, 200], [50, 300]]}, r"in the image of shape \(100, 120\)"),
        ({"box_um": [[0, 0], [5, 5]]}, "box_um needs the size of a pixel"),
        ({"box_px": [[0, 0, 0], [5, 5, 5]]}, "two corners of 2 numbers"),
        ("nothing.geojson", "holds nothing"),
        ("line.geojson", "feature 2 needs a Polygon or MultiPolygon, got LineString"),
        ("broken.geojson", "needs to be GeoJSON"),
        ("far.geojson", r"region 1 lies outside the image of shape \(100, 120\)"),
        ("both.geojson", r"region 2 lies outside the image of shape \(100, 120\)"),
        ("colours.tif", "mask of whole numbers in one channel"),
        ("volume.npy", "needs the axes of the image"),
        ("blank.npy", "covers none of its pixels"),
        (
            {"box_px": [[0, 0], [9, 9]], "exclude": [{"box_px": [[0, 0], [9, 9]]}]},
            "leaves none. Check exclude",
        ),
    ],
)
def test_wrong_regions_are_refused_before_any_work(tmp_path, region, message):
    picture = save_tiff(tmp_path / "a.tif", np.ones((100, 120), np.uint16))
    line = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
    files = {
        "nothing": {"type": "FeatureCollection", "features": []},
        "line": [feature(square(1, 1, 9)), {"type": "Feature", "geometry": line}],
        "far": feature(square(500, 500, 20)),
        "both": [feature(square(1, 1, 9)), feature(square(500, 0, 20))],
    }
    for name, content in files.items():
        (tmp_path / f"{name}.geojson").write_text(json.dumps(content))
    (tmp_path / "broken.geojson").write_text("{")
    tifffile.imwrite(tmp_path / "colours.tif", np.ones((9, 9, 3), np.uint8), photometric="rgb")
    np.save(tmp_path / "volume.npy", np.ones((20, 9, 9), np.uint8))
    np.save(tmp_path / "blank.npy", np.zeros((9, 9), np.uint8))
    said = str(tmp_path / region) if isinstance(region, str) else region
    chosen = chosen_of(tmp_path, picture, said)
    with pytest.raises(ValueError, match=message):
        layout_of(chosen)
    assert not Path(chosen.output.dir).exists()
