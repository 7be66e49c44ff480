"""Tiles joined by IoU: cells wider than halos, numbered, painted, measured and listed."""

import json
import random
from functools import cache

import numpy as np
import pytest

from cellseg_pipe.io.tables import read_table
from cellseg_pipe.kernels import iou_of, overlap_pairs
from tests.pipeline.test_tiled_equals_whole import CASES, WINDOWS, case
from tests.pipeline.worker import (
    TINY,
    config_of,
    experiment,
    published,
    run,
    run_in,
    save_tiff,
    segment,
    shards_of,
)

IOU = {"seams": "iou"}
# Edge of cores in px and halo, batches, processes: halos narrower than cells, and wider ones.
NARROW = {"2d": (40, 14), "planes": ([1, 30, 40], [0, 14, 14]), "3d": ([9, 20, 30], 10)}


@cache
def farther(name):
    """A case where no reach keeps a particle from its cell: windows know of none."""
    image, said, _ = case(name)
    axes, diameter = "zyx"[-image.ndim :], CASES[name][1]
    return segment(image, axes=axes, diameter_px=diameter, **WINDOWS, **said | {"reach_px": 64})


def started(tmp_path, name, tiles, **sections):
    image, said, _ = case(name)
    diameter = CASES[name][1]
    return experiment(
        tmp_path,
        [{"path": str(save_tiff(tmp_path / "a.tif", image)), "axes": "zyx"[-image.ndim :]}],
        targets={"nuclei": {"model": str(TINY), "diameter_px": diameter}},
        segment=said,
        tiles={**WINDOWS, **tiles},
        stitch=IOU,
        **sections,
    )


def check_table(labels, table):
    """Each cell of the labels has its row, and its sizes are those of its pixels."""
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    np.testing.assert_array_equal(table["label"], ids)
    np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
    size = "area_px" if labels.ndim == 2 else "volume_px"
    np.testing.assert_array_equal(table[size], areas)
    for axis, index in zip("zyx"[-labels.ndim :], np.indices(labels.shape), strict=True):
        middle = np.bincount(labels.ravel(), index.ravel())[1:] / areas
        np.testing.assert_allclose(table[f"{axis}_px"], middle, rtol=1e-12)


@pytest.mark.parametrize("name", ["2d", "2d, on a finer grid", "planes", "3d"])
def test_with_wide_halos_cells_are_those_of_the_whole(tmp_path, name):
    whole = farther(name)
    assert whole.n_too_far == 0
    halo = [0, 48, 48] if whole.plan.mode == "planes" else 48
    core = {"core_px": [1, 32, 48] if whole.plan.mode == "planes" else 32, "halo_px": halo}
    chosen = started(tmp_path, name, {**core, "batches": {"masks": 3}})
    run(chosen)
    labels, table = published(chosen, "a")
    check_table(labels, table)
    pairs = iou_of(overlap_pairs(labels, whole.labels))
    same = pairs[pairs.shared == pairs.union]
    assert len(same.left) == whole.n_cells == len(table["label"])
    if name == "2d":
        np.testing.assert_array_equal(labels, whole.labels)


@pytest.mark.parametrize("name", ["2d", "2d, on a coarser grid", "planes", "3d"])
def test_narrow_halos_duplicate_nothing(tmp_path, pool, name):
    whole = farther(name)
    core, halo = NARROW[whole.plan.mode]
    stored, tables = [], []
    for number, (batches, together) in enumerate(
        [({"masks": 1, "paint": 1}, False), ({"masks": 4, "paint": 3, "predict": 2}, True)]
    ):
        tiles = {"core_px": core, "halo_px": halo, "batches": batches}
        chosen = started(tmp_path, name, tiles, output={"dir": str(tmp_path / f"out{number}")})
        if together:
            config = config_of(chosen, tmp_path / f"{number}.yaml")
            run_in(pool, chosen, config, order=random.Random(number), threads=(1, 2))
        else:
            run(chosen)
        labels, table = published(chosen, "a")
        check_table(labels, table)
        stored.append(shards_of(tmp_path / f"out{number}" / "a"))
        tables.append(table)
    assert stored[0] == stored[1]
    for column, values in tables[0].items():
        np.testing.assert_array_equal(values, tables[1][column], err_msg=column)
    pairs = iou_of(overlap_pairs(labels, whole.labels))
    found = np.unique(pairs[pairs.iou >= 0.5].right)
    assert len(found) >= 0.8 * whole.n_cells
    assert len(table["label"]) <= 1.1 * whole.n_cells + 1


def test_refused_links_are_listed_where_they_lie(tmp_path):
    core, halo = NARROW["planes"]
    chosen = started(tmp_path, "planes", {"core_px": core, "halo_px": halo})
    run(chosen)
    said = json.loads((tmp_path / "out" / "summary.json").read_text())["units"]["a"]["joined"]
    found = read_table(tmp_path / "out" / "a" / "conflicts.parquet")
    assert len(found["iou"]) == said["conflicts"] > 0
    assert (np.diff(found["iou"]) <= 0).all() and found["iou"].min() >= 0.5  # the best first
    assert (found["tile_a"] != found["tile_b"]).all()
    labels, _ = published(chosen, "a")
    for side in "ab":
        place = np.stack([found[f"{axis}_{side}_px"] for axis in "zyx"], axis=1).astype(int)
        assert (place >= 0).all() and (place < labels.shape).all()
        painted = found[f"label_{side}"] > 0
        assert painted.any()
        for label, (z, y, x) in zip(found[f"label_{side}"][painted], place[painted], strict=True):
            near = labels[z, max(y - 9, 0) : y + 10, max(x - 9, 0) : x + 10]
            assert label in near


def test_a_run_with_nothing_to_join_lists_nothing(tmp_path):
    chosen = started(tmp_path, "2d", {"core_px": 40, "halo_px": 14})
    run(chosen)
    found = read_table(tmp_path / "out" / "a" / "conflicts.parquet")
    assert list(found)[:2] == ["tile_a", "label_a"] and len(found["iou"]) == 0
