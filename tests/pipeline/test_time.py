"""Series in time: each time is an image under one plan, tiled as whole, linked if asked."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import cellseg_pipe as cs
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.stages.jobs import jobs_of
from cellseg_pipe.stages.opened import open_unit
from tests.pipeline.conftest import scene
from tests.pipeline.worker import (
    TINY,
    compare,
    experiment,
    published,
    results_of,
    run,
    segment,
    shards_of,
)

N_TIMES, SHAPE = 4, (61, 107)
WINDOWS = {"window_px": 96, "overlap_px": 16}
SAID = {"reach_px": 16}
TILINGS = [((1, 1), {"predict": 1, "masks": 1}), ((2, 1), {"predict": 3, "masks": 5, "paint": 2})]


def movie():
    """Cells that move by 3 px from time to time, the third one brighter."""
    frame = scene((SHAPE[0], SHAPE[1] + 12))[0]
    frames = [frame[:, 3 * t : 3 * t + SHAPE[1]] for t in range(N_TIMES)]
    return np.stack(frames) * np.array([1, 1, 2, 1], frame.dtype)[:, None, None]


@pytest.fixture(scope="module")
def images():
    return movie()


@pytest.fixture
def file(tmp_path, images):
    tifffile.imwrite(tmp_path / "a.tif", images, photometric="minisblack")
    return tmp_path / "a.tif"


def chosen_of(file, *, core=(1, 1), batches=None, **sections):
    core_px = [1, 32 * core[0], 48 * core[1]]
    tiles = {**WINDOWS, "core_px": core_px, "batches": batches or {}, "bundle_px": 0}
    given = {"segment": SAID, "tiles": tiles} | sections
    image = {"path": str(file), "axes": "tyx"} | given.pop("image", {})
    return experiment(file.parent, [image], **given)


def whole_of(images, **settings):
    return segment(images, axes="tyx", **WINDOWS, **SAID, **settings)


def test_a_time_is_an_image_by_itself(images):
    """With the grey values of all times: labels of each as if it were alone, but for numbers."""
    whole = whole_of(images)
    ranges = whole.plan.ranges[0]
    value_range = (ranges.low, ranges.high)
    first = 0
    table = whole.table
    for time, image in enumerate(images):
        alone = segment(image, axes="yx", value_range=value_range, **WINDOWS, **SAID)
        here = table["t"] == time
        expected = np.where(alone.labels > 0, alone.labels + first, 0)
        np.testing.assert_array_equal(whole.labels[time], expected)
        np.testing.assert_array_equal(table["label"][here], alone.table["label"] + first)
        for name in set(alone.table) - {"label"}:
            np.testing.assert_array_equal(table[name][here], alone.table[name], err_msg=name)
        first += alone.n_cells
    assert whole.n_cells == first > 20 and list(table)[:2] == ["label", "t"]
    assert "z_px" not in table and "area_px" in table


@pytest.mark.parametrize(
    "settings",
    [{}, {"time_iou": 0.3}, {"keep_border": False, "resample": False, "time_iou": 0.5}],
    ids=["alone", "linked", "linked, another grid"],
)
def test_every_tiling_gives_the_whole(file, images, settings):
    diameter = 24 if "resample" not in settings else 30
    whole = whole_of(images, diameter_px=diameter, **settings)
    rest = {k: v for k, v in settings.items() if k != "time_iou"}
    kept = []
    for core, batches in TILINGS:
        chosen = chosen_of(
            file,
            core=core,
            batches=batches,
            segment=SAID | rest,
            stitch={"time_iou": settings.get("time_iou")},
            targets={"nuclei": {"model": str(TINY), "diameter_px": diameter}},
        )
        run(chosen)
        compare(published(chosen, "a"), whole)
        kept.append(shards_of(file.parent / "out" / "a"))
    assert kept[0] == kept[1]
    assert cs.open_result(file.parent / "out").summary["exact"]


def test_links_follow_the_planes_rule(file, images):
    alone, linked = whole_of(images), whole_of(images, time_iou=0.3)
    np.testing.assert_array_equal(alone.labels > 0, linked.labels > 0)
    np.testing.assert_array_equal(cs.stitch_planes(alone.labels, 0.3), linked.labels)
    tracks = linked.table["label"]
    lengths = np.bincount(tracks)[1:]
    assert linked.n_cells == tracks.max() < alone.n_cells == len(tracks)
    assert (lengths == N_TIMES).sum() > 3  # cells that are seen all the time
    pairs = list(zip(tracks, linked.table["t"], strict=True))
    assert len(set(pairs)) == len(pairs)


def test_stages_metadata_and_levels(file, images):
    chosen = chosen_of(file, image={"spacing_um": [0.5, 0.5]})
    unit = open_unit(chosen, "a")
    stages = {job.stage for job in jobs_of(unit)}
    assert not stages & {"link", "chain"} and "level1" in stages
    linked = chosen_of(file, stitch={"time_iou": 0.3})
    assert {"link", "chain"} <= {job.stage for job in jobs_of(open_unit(linked, "a"))}
    run(chosen)
    store = zarr.open_group(str(Path(chosen.output.dir) / "a" / "labels.ome.zarr"), mode="r")
    (scale,) = store.attrs["multiscales"]
    assert scale["axes"][0] == {"name": "t", "type": "time"}
    assert [axis["name"] for axis in scale["axes"]] == ["t", "y", "x"]
    first, second = (d["coordinateTransformations"][0]["scale"] for d in scale["datasets"][:2])
    assert (first, second) == ([1.0, 0.5, 0.5], [1.0, 1.0, 1.0])
    assert store["0"].shape == (N_TIMES, *SHAPE) and store["1"].shape == (N_TIMES, 31, 54)
    back = open_image(Path(chosen.output.dir) / "a" / "labels.ome.zarr")
    assert (back.n_times, back.shape) == (N_TIMES, SHAPE)
    table = published(chosen, "a")[1]
    np.testing.assert_array_equal(table["x_um"], table["x_px"] * 0.5)
    assert "z_um" not in table and {"area_um2", "t"} <= set(table)
    facts = json.loads((Path(chosen.output.dir) / "summary.json").read_text())["units"]["a"]
    assert facts["axes"] == "tyx" and facts["shape"] == [N_TIMES, *SHAPE]


def test_channels_come_first_or_after_the_times(images):
    both = np.stack([images, images[::-1]])  # c, t
    a = segment(both, axes="ctyx", channels=[0], **WINDOWS, **SAID)
    b = segment(both.swapaxes(0, 1), axes="tcyx", channels=[0], **WINDOWS, **SAID)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert {"mean_0", "mean_1"} <= set(a.table)


def test_a_small_series_is_segmented_whole_too(file):
    kept = []
    for name, limit in (("stages", 0), ("whole", 100_000)):
        chosen = chosen_of(
            file,
            stitch={"time_iou": 0.3},
            tiles=WINDOWS | {"bundle_px": limit},
            output={"dir": str(file.parent / name)},
        )
        ran = run(chosen)
        assert (ran == []) == (limit > 0)
        kept.append(results_of(file.parent / name / "a"))
    assert kept[0] == kept[1]


def test_an_image_without_cells(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 40, 50), np.uint16))
    chosen = chosen_of(tmp_path / "a.tif", stitch={"time_iou": 0.3})
    run(chosen)
    labels, table = published(chosen, "a")
    assert labels.shape == (2, 40, 50) and not labels.any()
    assert list(table)[:2] == ["label", "t"] and len(table["t"]) == 0


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"stitch": {"seams": "iou"}}, "cannot have stitch.seams: iou"),
        ({"output": {"dir": "out", "export": ["geojson"]}}, "cannot have output.export of geojson"),
        ({"segment": {"mode": "3d"}}, "needs a volume z, y, x"),
    ],
)
def test_what_a_series_cannot_have_is_refused_at_once(file, sections, said):
    with pytest.raises(ValueError, match=said):
        _ = open_unit(chosen_of(file, **sections), "a").mode


def test_volumes_of_several_times_are_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((2, 3, 40, 50), np.uint16), photometric="minisblack"
    )
    chosen = experiment(tmp_path, [{"path": str(tmp_path / "a.tif"), "axes": "tzyx"}])
    with pytest.raises(ValueError, match="has 2 times of volumes, and one is needed"):
        open_unit(chosen, "a")
    with pytest.raises(ValueError, match="axes needs a letter"):
        cs.segment(np.zeros((2, 3, 40, 50)), axes="tzyx", model=TINY)
