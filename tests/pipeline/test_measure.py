"""All that is measured: the same in tiles as in one piece, in every mode, in parts, as outlines."""

import json
import random
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import dataset, parquet
from skimage.measure import regionprops_table

import cellseg_pipe as cs
from cellseg_pipe.cost import LEFT_BYTES, measure_bytes
from cellseg_pipe.io.rois import polygons_of, write_geojson
from cellseg_pipe.segmentation import Measuring
from cellseg_pipe.segmentation.memory import BASE_BYTES
from cellseg_pipe.stages import tables
from cellseg_pipe.tiles import TilePlan
from tests.io.test_wkb import painted
from tests.pipeline.test_tiled_equals_whole import CASES, WINDOWS, case, tiles_of
from tests.pipeline.worker import (
    TINY,
    compare,
    config_of,
    experiment,
    published,
    results_of,
    run,
    run_in,
    save_tiff,
    segment,
)

EVERYTHING = {"texture": True, "ring_px": 4}
QUANTILES = {"quantiles": (0.1, 0.5, 0.999)}  # where cells are seen whole
OFF = {"shape": False, "intensity": False, "quantiles": []}


def started(folder, name, *, image=None, batches=None, tiles=None, **sections):
    pixels, said, _ = case(name)
    mode, diameter, _ = CASES[name]
    path = save_tiff(folder / "a.tif", pixels if image is None else image)
    spacing = [2.0, 0.5, 0.5][-pixels.ndim :]
    return experiment(
        folder,
        [{"path": str(path), "axes": "zyx"[-pixels.ndim :], "spacing_um": spacing}],
        targets={"nuclei": {"model": str(TINY), "diameter_px": diameter}},
        segment=said | {"anisotropy": 1.0} if mode == "3d" else said,
        tiles={**WINDOWS, **(tiles or tiles_of(mode, (1, 1, 1), 0)), "batches": batches or {}},
        **sections,
    )


@pytest.mark.parametrize("name", ["2d", "2d, on a finer grid", "planes", "3d"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_tiles_measure_as_the_whole(tmp_path, pool, name, dtype):
    pixels, said, _ = case(name)
    pixels = pixels.astype(dtype)
    mode, diameter, _ = CASES[name]
    axes = "zyx"[-pixels.ndim :]
    wanted = EVERYTHING | (QUANTILES if mode != "planes" else {})
    about = said | {"anisotropy": 1.0} if mode == "3d" else said
    spacing = (2.0, 0.5, 0.5)[-pixels.ndim :]
    about = WINDOWS | about | {"spacing_um": spacing, "measuring": Measuring(**wanted)}
    whole = segment(pixels, axes=axes, diameter_px=diameter, **about)
    assert whole.n_cells > 2
    chosen = started(tmp_path, name, image=pixels, measure=wanted, batches={"masks": 3, "paint": 2})
    config = config_of(chosen, tmp_path / "a.yaml")
    run_in(pool, chosen, config, order=random.Random(1), threads=(1, 2))
    labels, table = published(chosen, "a")
    compare((labels, table), whole)
    assert ("p99.9_0" in table) == (mode != "planes")
    assert {"texture_0", "ring_mean_0", "ring_area_px", "std_0", "solidity", "euler"} <= set(table)
    np.testing.assert_array_equal(table["axis_major_um"], table["axis_major_px"] * 0.5)


def test_what_tiles_joined_by_iou_see_adds_up(tmp_path):
    """Cells wider than a tile's halo: all but quantiles, hulls and outlines is there, and right."""
    pixels, _, _ = case("2d")
    chosen = started(
        tmp_path,
        "2d",
        tiles={"core_px": [40, 40], "halo_px": 14},
        batches={"masks": 3},
        stitch={"seams": "iou"},
        measure={"texture": True, "ring_px": 3},
    )
    run(chosen)
    labels, table = published(chosen, "a")
    wanted = {"label": "label", "area": "area_px", "perimeter_crofton": "perimeter_px"}
    wanted |= {"euler_number": "euler", "axis_major_length": "axis_major_px"}
    wanted |= {"intensity_std": "std_0", "extent": "extent", "intensity_max": "max_0"}
    expected = regionprops_table(labels.astype(int), pixels, properties=list(wanted))
    for theirs, ours in wanted.items():
        np.testing.assert_allclose(table[ours], expected[theirs], rtol=1e-6, err_msg=ours)
    assert not {"solidity", "convexity", "p50_0"} & set(table)
    ring = (labels == 0) & near(labels == table["label"][0], 3)
    assert table["ring_area_px"][0] == ring.sum()
    np.testing.assert_allclose(table["ring_mean_0"][0], pixels[ring].mean())
    mine = labels == table["label"][0]
    steps = []
    for axis in (0, 1):
        both = np.moveaxis(mine, axis, 0)
        values = np.diff(np.moveaxis(pixels.astype(float), axis, 0), axis=0)
        steps.append(values[both[1:] & both[:-1]])
    texture = np.sqrt((np.concatenate(steps) ** 2).mean())
    np.testing.assert_allclose(table["texture_0"][0], texture)


def near(mask, distance):
    """Return pixels within a distance of a mask."""
    places = np.indices(mask.shape).reshape(2, -1).T
    away = ((places[:, None] - np.argwhere(mask)) ** 2).sum(axis=2).min(axis=1)
    return (away <= distance**2).reshape(mask.shape)


@pytest.mark.parametrize("name", ["2d", "planes", "3d"])
def test_outlines_are_the_pixels_of_cells(tmp_path, pool, name):
    results = []
    for number, blocks in enumerate([(1, 1, 1), (9, 9, 9)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        chosen = started(
            folder,
            name,
            tiles=tiles_of(CASES[name][0], blocks, 0),
            batches={"masks": 3 - number},
            measure=OFF | {"outlines": True},
        )
        run(chosen)
        results.append(results_of(folder / "out" / "a"))
    # Whatever the tiles: the same bytes of table and outlines.
    for file in ("cells.parquet/part-00000.parquet", "outlines.parquet"):
        assert results[0][file] == results[1][file]
    labels, table = published(chosen, "a")
    found = parquet.read_table(Path(chosen.output.dir) / "a" / "outlines.parquet")
    about = json.loads(found.schema.metadata[b"geo"])
    assert about["columns"]["geometry"]["crs"] is None and about["primary_column"] == "geometry"
    volume = labels.ndim == 3
    again = np.zeros_like(labels)
    for row in found.to_pylist():
        plane = again[row["z"]] if volume else again
        mask = painted(row["geometry"], plane.shape)
        assert set(np.unique(mask)) <= {0, 1} and not plane[mask == 1].any()
        plane[mask == 1] = row["label"]
    np.testing.assert_array_equal(again, labels)
    place = [name for name in table if name.endswith(("_px", "_um", "_um2", "_um3"))]
    others = {"label", "probability", "flow_error", "agreement", "confidence", "on_border"}
    others |= {"flagged", "dropped", "qc_reason"}
    assert set(table) == others | set(place)
    # Asked for no more, they go.
    run(started(folder, name, tiles=tiles_of(CASES[name][0], blocks, 0), measure=OFF))
    assert not (folder / "out" / "a" / "outlines.parquet").exists()


@pytest.mark.parametrize("seams", ["exact", "iou"])
def test_geojson_has_the_polygons_of_the_whole(tmp_path, seams):
    chosen = started(
        tmp_path,
        "2d",
        tiles={"core_px": [64, 48], "halo_px": 40},
        stitch={"seams": seams},
        output={"dir": str(tmp_path / "out"), "export": ["geojson"]},
    )
    run(chosen)
    labels, table = published(chosen, "a")
    found = json.loads((tmp_path / "out" / "a" / "cells.geojson").read_text())
    write_geojson(tmp_path / "whole.geojson", polygons_of(labels))
    expected = json.loads((tmp_path / "whole.geojson").read_text())
    features = {one["properties"]["label"]: one for one in found["features"]}
    assert list(features) != sorted(features)  # they were traced part by part
    assert len(found["features"]) == len(features) == len(table["label"]) > 2
    assert [features[label] for label in sorted(features)] == expected["features"]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_table_in_parts_is_one_table_to_readers(tmp_path, monkeypatch, groups):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(tables, "GROUPS_IN_FILE", groups)
    chosen = started(tmp_path, "2d")
    run(chosen)
    folder = tmp_path / "out" / "a" / "cells.parquet"
    n_parts = len(list(folder.iterdir()))
    whole = case("2d")[2]
    assert n_parts == -(-whole.n_cells // (3 * groups)) > 1
    for read in (
        pd.read_parquet(folder),
        dataset.dataset(folder).to_table().to_pandas(),
        cs.open_result(tmp_path / "out").table().to_pandas(),
    ):
        assert read["label"].tolist() == whole.table["label"].tolist()
    # A table of one file, as of earlier versions, is replaced; a cut publication is completed.
    before = results_of(folder)
    aside = folder.with_name(".old-cells.parquet")
    for spoil in (
        lambda: folder.rename(aside),
        lambda: (folder.rename(aside), folder.write_bytes(b"one file")),
    ):
        spoil()
        (tmp_path / "out" / "summary.json").unlink()
        for path in (tmp_path / "out" / "runs").rglob("audit.json"):
            path.unlink()
        for path in (tmp_path / "out" / "runs").glob("finished-*"):
            path.unlink()
        run(chosen)
        assert results_of(folder) == before and not aside.exists()


MEMORY = """
import sys
from types import SimpleNamespace
import numpy as np
from cellseg_pipe.geometry import Box
from cellseg_pipe.segmentation import Measurer, Measuring, View

def peak(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1000 for line in file if line.startswith(what))

def measure(shape):
    labels = np.zeros(shape, np.uint32)
    grid = tuple(slice(2, None, 9) for _ in shape)
    n = labels[grid].size
    for step in np.ndindex((6,) * len(shape)):  # cubes, 3 px apart
        part = labels[tuple(slice(2 + s, None, 9) for s in step)]
        part[...] = np.arange(1, n + 1).reshape(labels[grid].shape)[tuple(map(slice, part.shape))]
    image = np.ones((2, *shape), np.uint16)
    plan = SimpleNamespace(
        shape=shape, mode=f"{len(shape)}d", settings=SimpleNamespace(anisotropy=1.0)
    )
    inner = Box.of(shape).grow(-3)
    measurer = Measurer(plan, Measuring(texture=True, ring_px=3), 1)
    view = View(Box.of(shape), labels, image, inner, inner)
    found = measurer.view(view, np.unique(labels[inner.slices])[1:])
    assert len(found.sums.label) > 30

shape = tuple(map(int, sys.argv[1].split(",")))
measure((60,) * len(shape))  # compiles, loads
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forgets the peak
before = peak("VmRSS")
measure(shape)
print(peak("VmHWM") - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs the peak that Linux tells"
)
@pytest.mark.parametrize("shape", [(2000, 1800), (60, 200, 200)])
def test_memory_is_what_the_plan_says(shape):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, ",".join(map(str, shape))],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    tiles = TilePlan(shape, shape, shape, (0,) * len(shape))
    plan = types.SimpleNamespace(walks_level_0=True)
    predicted = measure_bytes(plan, tiles, voxel_bytes=4) - BASE_BYTES - LEFT_BYTES
    assert int(done.stdout) <= predicted <= 4 * int(done.stdout)


@pytest.mark.parametrize("mode", ["2d", "planes", "3d"])
def test_no_cells_have_all_columns(tmp_path, mode):
    image = np.full((60, 70) if mode == "2d" else (4, 40, 50), 7, np.uint16)
    axes = "zyx"[-image.ndim :]
    chosen = experiment(
        tmp_path,
        [{"path": str(save_tiff(tmp_path / "a.tif", image)), "axes": axes}],
        segment={"mode": mode},
        measure=EVERYTHING | {"outlines": True},
    )
    run(chosen)
    whole = segment(image, axes=axes, mode=mode, measuring=Measuring(**EVERYTHING))
    _, table = published(chosen, "a")
    compare(published(chosen, "a"), whole)
    assert "solidity" in table and len(table["label"]) == 0
    assert parquet.read_table(tmp_path / "out" / "a" / "outlines.parquet").num_rows == 0
