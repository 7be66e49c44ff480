"""Images that are restored where they are read: cells as of the image that was restored before."""

import itertools
import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import cellseg_pipe as cs
from cellseg_pipe.config import experiment_of
from cellseg_pipe.geometry import Box
from cellseg_pipe.ledger import passing_over
from cellseg_pipe.nets.checkpoint import load
from cellseg_pipe.nets.engine import Engine
from cellseg_pipe.nets.restore import restored_windows
from cellseg_pipe.nets.windows import Record, view_of
from cellseg_pipe.restoration import RestoreSettings, make_restore_plan
from cellseg_pipe.segmentation.image import source_of
from cellseg_pipe.segmentation.plan import make_plan
from cellseg_pipe.segmentation.settings import Settings
from cellseg_pipe.stages import calibration, forecast, networks
from cellseg_pipe.stages._tried_windows import TimedReading
from cellseg_pipe.stages.jobs import run_job
from cellseg_pipe.stages.networks import checked_networks
from cellseg_pipe.stages.opened import unit_runs
from cellseg_pipe.stages.plan import plan_network
from cellseg_pipe.stages.reading_order import in_reading_order
from cellseg_pipe.stages.restoring_costs import n_restored, reading_bytes
from cellseg_pipe.stages.tiling import read_frozen
from cellseg_pipe.tiles import morton_order
from tests.pipeline.conftest import scene
from tests.pipeline.test_tiled_equals_whole import WINDOWS, tiles_of
from tests.pipeline.worker import (
    TINY,
    ages,
    config_of,
    experiment,
    published,
    run,
    run_in,
    save_tiff,
    segment,
    shards_of,
)

NET = Path(__file__).parents[1] / "golden" / "checkpoints" / "restoration"
SHAPES = {"2d": (111, 157), "planes": (3, 61, 107), "3d": (13, 45, 59)}
SEEN = {"2d": ("2d", 24), "planes": ("planes", 17), "3d": ("3d", 24)}
METHODS = {
    "network": {"diameter_px": 25.0, "window_px": 64, "overlap_px": 16, "offset": 20.0},
    "gaussian": {"method": "gaussian", "sigma_px": 1.5},
    "median": {"method": "median", "size_px": 5},
}
OTHER = ((2, 1, 2), 3, (3, 5, 2))  # blocks per core, what the halo is larger by, batches


def network(folder, name="denoise_nuclei"):
    """A network whose file says by its name what it restores."""
    path = Path(folder) / name
    path.write_bytes(NET.read_bytes())
    return str(path)


def restoring(folder, method, **changes):
    """The section of an experiment."""
    model = {"model": network(folder)} if method == "network" else {}
    return METHODS[method] | model | changes


@cache
def image_of(mode):
    """An image with noise."""
    clear = scene(
        SHAPES[mode], diameter_px=SEEN[mode][1] * {"2d": 1, "planes": 0.8, "3d": 0.6}[mode]
    )
    noise = np.random.default_rng(0).poisson(60.0, clear[0].shape)
    return (clear[0] + noise).astype(np.uint16)


def whole_of(mode, section):
    """The cells of the image that was restored as a whole."""
    image, axes = image_of(mode), "zyx"[-len(SHAPES[mode]) :]
    found = cs.restore(image, axes=axes, device="cpu", **section)
    assert np.abs(found.pixels - image).max() > 1
    said = {"mode": mode, "reach_px": 16}
    diameter = SEEN[mode][1]
    return segment(found.pixels, axes=axes, diameter_px=diameter, **WINDOWS, **said), found


def chosen_of(folder, mode, section, *, tiling=((1, 1, 1), 0, (1, 1, 1)), **more):
    """The same as an experiment."""
    blocks, beyond, (predict, masks, paint) = tiling
    path = Path(folder) / "a.tif"
    if not path.exists():
        save_tiff(path, image_of(mode))
    return experiment(
        folder,
        [{"path": str(path), "axes": "zyx"[-len(SHAPES[mode]) :]}],
        targets={"nuclei": {"model": str(TINY), "diameter_px": SEEN[mode][1]}},
        segment={"mode": mode, "reach_px": 16},
        restore=section,
        tiles={
            **WINDOWS,
            **tiles_of(mode, blocks, beyond),
            "batches": {"predict": predict, "masks": masks, "paint": paint},
        },
        **more,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", SHAPES)
def test_cells_are_those_of_the_restored_image(tmp_path, pool, mode, method):
    section = restoring(tmp_path, method)
    whole, before = whole_of(mode, section)
    assert whole.n_cells > 2
    first = chosen_of(tmp_path, mode, section, tiling=((1, 1, 1), 0, (2, 3, 1)))
    run(first)
    labels, table = published(first, "a")
    np.testing.assert_array_equal(labels, whole.labels)
    # Intensities are those of the light, not of what was made of it.
    image = image_of(mode)
    means = [image[labels == label].mean() for label in table["label"]]
    np.testing.assert_allclose(table["mean_0"], means, rtol=1e-5)
    said = json.loads((tmp_path / "out" / "summary.json").read_text())["units"]["a"]["restore"]
    assert (said["method"], said["channels"]) == (method, [0])
    if method == "network":
        assert said["model"]["name"] == before.model and said["numerics"] == before.numerics
        stored = shards_of(tmp_path / "out" / "a")
        other = chosen_of(tmp_path, mode, section, tiling=OTHER)
        config = config_of(other, tmp_path / "other.yaml")
        run_in(pool, other, config, order=random.Random(1), threads=(1, 2))
        assert shards_of(tmp_path / "out" / "a") == stored


def kind_of_image(kind):
    """Pixels with their axes, what is said of them, and how they are written."""
    image, rng = image_of("2d"), np.random.default_rng(1)
    if kind == "series":
        return np.stack([image, image[::-1], image[:, ::-1]]), "tyx", {}, {}
    if kind == "channel":
        both = np.stack([rng.poisson(50.0, image.shape).astype(np.uint16), image])
        return both, "cyx", {"channels": [1]}, {"channels": [1]}
    if kind == "colours":
        light = image / image.max()
        dyes = np.stack([255 * light, 200 * light**2, rng.poisson(9.0, light.shape)], axis=-1)
        return dyes.clip(0, 255).astype(np.uint8), "yxc", {}, {"channels": "grey"}
    if kind == "stains":
        amount = np.clip(image.astype(float) - 60, 0, None) / image.max()
        density = np.array([0.65, 0.70, 0.29])
        light = 10 ** (-1.5 * amount[..., None] * density) * rng.normal(1, 0.02, (*image.shape, 3))
        pixels = np.rint(light.clip(0, 1) * 255).astype(np.uint8)
        return pixels, "yxc", {}, {"channels": ["hematoxylin"]}
    return image, "yx", {}, {}


@pytest.mark.parametrize("method", ["network", "gaussian"])
@pytest.mark.parametrize("kind", ["series", "channel", "colours", "stains", "region"])
def test_images_of_any_kind(tmp_path, kind, method):
    image, axes, restores, target = kind_of_image(kind)
    section = restoring(tmp_path, method) | restores
    pixels = cs.restore(image, axes=axes, device="cpu", **section).pixels
    if kind == "stains":
        pixels = pixels / 255  # as shares of the light
    region = {"box_px": [[10, 20], [60, 90]]} if kind == "region" else None
    said = {"diameter_px": 24, "reach_px": 16, **WINDOWS, **target}
    whole = segment(pixels, axes=axes, region=region, **said)
    assert whole.n_cells > 1
    photometric = "rgb" if kind in ("colours", "stains") else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", image, photometric=photometric)
    about = {"path": str(tmp_path / "a.tif")}
    if kind != "stains":  # whose file tells that they are colours
        about["axes"] = axes
    chosen = experiment(
        tmp_path,
        [about | ({"region": region} if region else {})],
        targets={"nuclei": {"model": str(TINY), "diameter_px": 24, **target}},
        segment={"reach_px": 16},
        restore=section,
        tiles={**WINDOWS, "batches": {"predict": 3, "masks": 2}},
    )
    run(chosen)
    np.testing.assert_array_equal(published(chosen, "a")[0], whole.labels)


@pytest.mark.parametrize("bundle_px", [0, 1 << 20])
def test_a_clear_image_is_segmented_as_it_is(tmp_path, caplog, bundle_px):
    chosen = chosen_of(tmp_path, "2d", restoring(tmp_path, "network", clear_below=5.0, save=True))
    tiles = chosen.tiles.model_copy(update={"bundle_px": bundle_px})
    run(chosen.model_copy(update={"tiles": tiles}))
    plain = segment(image_of("2d"), diameter_px=SEEN["2d"][1], reach_px=16, **WINDOWS)
    np.testing.assert_array_equal(published(chosen, "a")[0], plain.labels)
    said = summary_of(tmp_path)["a"]["restore"]
    assert (said["channels"], said["clear"], said["offset"]) == ([], [0], [])
    assert "a: channels 0 are clear" in caplog.text and "names none" not in caplog.text
    stored = cs.open_result(chosen.output.dir).folder / "a" / "restored.ome.zarr"
    np.testing.assert_array_equal(zarr.open_array(stored / "0", mode="r")[0], image_of("2d"))


@pytest.mark.parametrize("bundle_px", [0, 1 << 20])
def test_channels_that_no_network_sees_are_not_restored(tmp_path, monkeypatch, bundle_px):
    image, rng = image_of("2d"), np.random.default_rng(1)
    others = [rng.poisson(50.0, image.shape).astype(np.uint16) for _ in range(2)]
    pixels, counted = np.stack([others[0], image, others[1]]), []

    def counting(net, source, view, *, indices):
        for record in restored_windows(net, source, view, indices=indices):
            counted.append(len(record.values))
            yield record

    monkeypatch.setattr("cellseg_pipe.restoration.source.restored_windows", counting)
    said = {"diameter_px": 24, "reach_px": 16, **WINDOWS, "channels": [1]}
    section = restoring(tmp_path, "network", offset=[1.0, 20.0, 3.0])
    restored = cs.restore(pixels, axes="cyx", device="cpu", **section).pixels
    whole = segment(restored, axes="cyx", **said)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    target = {"model": str(TINY), "diameter_px": 24, "channels": [1]}

    def chosen_with(section):
        return experiment(
            tmp_path,
            [{"path": str(tmp_path / "a.tif"), "axes": "cyx"}],
            targets={"nuclei": target},
            segment={"reach_px": 16},
            restore=section,
            tiles={**WINDOWS, "bundle_px": bundle_px},
        )

    chosen = chosen_with(section)
    run(chosen)
    np.testing.assert_array_equal(published(chosen, "a")[0], whole.labels)
    assert set(counted) == {1}
    said = summary_of(tmp_path)["a"]["restore"]
    assert (said["channels"], said["n_channels"], said["offset"]) == ([1], 3, [20.0])
    counted.clear()
    elsewhere = chosen_with(section | {"channels": [0, 2], "offset": 5.0})
    run(elsewhere)
    plain = segment(pixels, axes="cyx", diameter_px=24, reach_px=16, channels=[1], **WINDOWS)
    np.testing.assert_array_equal(published(elsewhere, "a")[0], plain.labels)
    assert not counted and summary_of(tmp_path)["a"]["restore"]["channels"] == []


def test_the_diameter_is_that_of_the_restored_image(tmp_path):
    section = METHODS["gaussian"] | {"sigma_px": 3.0}
    image = image_of("2d")
    restored = cs.restore(image, **section).pixels
    said = {"reach_px": 16, "diameter_px": None, **WINDOWS}
    whole = segment(restored, **said)
    assert whole.diameter_px != segment(image, **said).diameter_px
    chosen = experiment(
        tmp_path,
        [save_tiff(tmp_path / "a.tif", image)],
        targets={"nuclei": {"model": str(TINY)}},
        segment={"reach_px": 16},
        restore=section,
        tiles=WINDOWS,
    )
    run(chosen)
    np.testing.assert_array_equal(published(chosen, "a")[0], whole.labels)
    assert summary_of(tmp_path)["a"]["diameter_px"] == whole.diameter_px


def summary_of(folder):
    return json.loads((Path(folder) / "out" / "summary.json").read_text())["units"]


@pytest.mark.parametrize("method", METHODS)
def test_a_bundle_gives_what_the_stages_give(tmp_path, method):
    section = restoring(tmp_path, method)
    found = []
    for folder, bundle_px in (("stages", 0), ("bundle", 1 << 20)):
        (tmp_path / folder).mkdir()
        chosen = chosen_of(tmp_path / folder, "2d", section)
        chosen = experiment_of(chosen.model_dump() | {"tiles": {**WINDOWS, "bundle_px": bundle_px}})
        jobs = {stage for _, stage, _ in run(chosen)}
        assert ("predict" in jobs) == (bundle_px == 0)
        found.append((published(chosen, "a"), summary_of(tmp_path / folder)["a"]["restore"]))
    (one, said), (other, also) = found
    np.testing.assert_array_equal(one[0], other[0])
    for name, column in one[1].items():
        np.testing.assert_array_equal(column, other[1][name], err_msg=name)
    assert said == also and one[0].max() > 2


def test_what_is_set_of_restoring_runs_again_and_nothing_else_does(tmp_path):
    section = {"method": "median", "size_px": 3}
    first = chosen_of(tmp_path, "2d", section)
    run(first)
    before = ages(tmp_path / "out")
    assert not run(chosen_of(tmp_path, "2d", section)) and ages(tmp_path / "out") == before
    digests = [
        next(iter(unit_runs(chosen_of(tmp_path, "2d", said)))).digests
        for said in (
            section,
            section | {"size_px": 5},
            section | {"offset": 3},
            {"method": "gaussian"},
            {"model": network(tmp_path)},
            {"model": network(tmp_path, "deblur_nuclei")},
            {"model": network(tmp_path), "diameter_px": 20.0},
            None,
        )
    ]
    assert len({found["predict"] for found in digests}) == len(digests)
    assert len({found["prepare"] for found in digests}) == 1
    stages = {stage for _, stage, _ in run(chosen_of(tmp_path, "2d", section | {"size_px": 5}))}
    assert {"plan", "predict", "masks", "paint", "measure", "audit"} <= stages
    whole, _ = whole_of("2d", section | {"size_px": 5})
    np.testing.assert_array_equal(published(first, "a")[0], whole.labels)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"model": "upsample_nuclei"}, "gives an image other pixels .upsample.*cellseg restore"),
        ({"model": "aniso_nuclei"}, "gives an image other pixels .aniso"),
        ({"model": str(TINY)}, "needs a network that restores, got tiny, which is for segm"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"method": "median", "channels": ["DAPI"]}, "a: restore: there is no channel 'DAPI'"),
        ({"method": "median", "offset": [1, 2]}, "offset needs a grey value, or one for each of 1"),
        ({"model": "denoise_nuclei", "diameter_um": 9.0}, "restore.diameter_um needs the size of"),
    ],
)
def test_what_cannot_restore_is_refused_before_work(tmp_path, section, words):
    if section.get("model", "").endswith("_nuclei"):
        section = section | {"model": network(tmp_path, section["model"])}
    chosen = chosen_of(tmp_path, "2d", section)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        run(chosen)
    assert not list((tmp_path / "out").rglob("plan.json"))


def test_jobs_run_the_network_of_the_plan(tmp_path, monkeypatch):
    path = network(tmp_path)
    chosen = chosen_of(tmp_path, "2d", {"model": path})
    unit = next(iter(unit_runs(chosen)))
    run_job(unit, "plan", batch=0)
    frozen = read_frozen(unit.stage("plan"))
    assert frozen.facts["window_s"] > frozen.facts["restoring_window_s"] > 0
    assert checked_networks(frozen).other == ""
    monkeypatch.setattr(networks, "restoring_canary", lambda engine, plan: "another")
    with pytest.raises(ValueError, match="gives other bits than the plan"):
        checked_networks(frozen)
    assert (
        checked_networks(frozen, numerics="relaxed").other == frozen.facts["restorer"]["numerics"]
    )
    monkeypatch.undo()
    Path(path).write_bytes((NET.parent / "segmentation").read_bytes())
    with pytest.raises(ValueError, match="restoring needs a 2D network"):
        checked_networks(frozen)


def test_a_window_that_has_ended_an_attempt_comes_last(tmp_path, monkeypatch):
    chosen = chosen_of(tmp_path, "3d", restoring(tmp_path, "network"))
    unit = next(iter(unit_runs(chosen)))
    plan_network(unit)
    frozen, asked = read_frozen(unit.stage("plan")), []

    def recording(engine, make, view, *, indices, augment):
        asked.append((view, indices))
        for index in indices:
            yield Record(index, np.zeros(0, np.float16), np.zeros(0, np.float32))

    monkeypatch.setattr("cellseg_pipe.stages.predict.predict", recording)
    first, side = frozen.plan.views[:2]
    with passing_over(len(first.lattice) + 1):
        run_job(unit, "predict", batch=0)
    view, indices = asked[1]
    places = [int(np.ravel_multi_index(index, view.lattice.counts)) for index in indices]
    order = in_reading_order(
        side, np.arange(len(side.lattice)), plan=frozen.plan, restoring=frozen.restoring
    )
    assert view == side and len(places) > 2
    assert places == [*order[1:], order[0]]


def test_costs_count_what_jobs_restore(tmp_path):
    facts = {}
    for name, section in (("plain", None), ("restored", restoring(tmp_path, "network"))):
        for jobs in (1, 4):
            chosen = chosen_of(tmp_path, "3d", section, tiling=((1, 1, 1), 0, (jobs, 1, 1)))
            unit = next(iter(unit_runs(chosen)))
            plan_network(unit)
            facts[name, jobs] = read_frozen(unit.stage("plan"))
    assert facts["restored", 1].facts["predict_bytes"] > facts["plain", 1].facts["predict_bytes"]
    counts = [
        n_restored(frozen.plan, frozen.restoring, jobs)
        for (name, jobs), frozen in facts.items()
        if name == "restored"
    ]
    n_windows = len(facts["restored", 1].restoring.views[0].lattice)
    # From three sides, and more where jobs share what they restore.
    assert 3 * n_windows <= counts[0] < counts[1] <= 4 * counts[0]


def test_memory_counts_what_a_window_of_the_restoring_network_reads():
    pixels = np.random.default_rng(0).poisson(9.0, (3, 600, 600)).astype(np.float32)
    source, engine = source_of(pixels, (), rgb=False), Engine(load(TINY), device="cpu")
    info = load(NET).info
    plan = make_plan(
        source,
        Settings(channels="grey", **WINDOWS),
        network=engine.architecture,
        diameter_px=engine.diameter_px,
        network_diameter_px=engine.diameter_px,
    )
    found = {}
    for times in (1, 4):  # cells are as large, or as many times as large, as those that it knows
        said = RestoreSettings(window_px=128, overlap_px=16, diameter_px=times * info.diameter_px)
        restoring = make_restore_plan(source, said, model=info)
        found[times] = reading_bytes(plan, restoring, None)
    assert found[4] > 4 * 4 * 3 * (4 * 128) ** 2 > found[1]


def test_what_does_not_fit_restored_says_what_helps(tmp_path, monkeypatch):
    monkeypatch.setattr("cellseg_pipe.stages.plan.memory_limit", lambda unit: 1)
    for section, words in ((restoring(tmp_path, "median"), "cellseg restore"), (None, "reach_px")):
        unit = next(iter(unit_runs(chosen_of(tmp_path, "2d", section))))
        with pytest.raises(MemoryError, match=words):
            plan_network(unit)


def test_a_trial_adds_what_jobs_take_to_restore(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "_starting_s", lambda code: 1.0)
    chosen = chosen_of(tmp_path, "2d", restoring(tmp_path, "network"))
    forecast.run(config_of(chosen, tmp_path / "a.yaml"), calibrate=True)
    said = json.loads((tmp_path / "out" / "runs" / "a" / "rates.json").read_text())
    unit = next(iter(unit_runs(chosen)))
    facts = read_frozen(unit.stage("plan")).facts
    assert facts["restoring_window_s"] < said["window_s"] < facts["restoring_window_s"] + 10


def test_a_trial_leaves_out_what_restoring_takes_and_no_reading(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("cellseg_pipe.stages._tried_windows.time.monotonic", lambda: now[0])
    pixels = np.zeros((1, 8, 8), np.float32)
    source = source_of(pixels, (), rgb=False)

    def after(seconds, read):
        def reading(box):
            now[0] += seconds
            return read(box)

        return reading

    files = TimedReading(replace(source, read=after(5.0, source.read)))
    seen = TimedReading(replace(source, read=after(2.0, files.read)), files)
    for _ in range(2):
        seen.read(Box.of((8, 8)))
    assert (seen.seconds, seen.own_s, files.own_s) == (14.0, 4.0, 10.0)


def test_columns_of_one_restored_window_follow_each_other():
    model = load(NET)
    pixels = np.random.default_rng(0).poisson(9.0, (1, 6, 130, 90)).astype(np.float32)
    source = source_of(pixels, (), rgb=False)
    restoring = make_restore_plan(
        source, RestoreSettings(window_px=64, overlap_px=16), model=model.info
    )
    engine = Engine(load(TINY), device="cpu", precision="fp32")
    plan = make_plan(
        source,
        Settings(mode="3d", **WINDOWS),
        network=engine.architecture,
        diameter_px=engine.diameter_px,
        network_diameter_px=engine.diameter_px,
    )
    for view in plan.views[1:]:
        places = morton_order(view.lattice.counts)
        ordered = in_reading_order(view, places, plan=plan, restoring=restoring)
        assert sorted(ordered) == list(range(len(view.lattice)))
        thin = ({1, 2} - set(view.axes)).pop()
        index = np.unravel_index(ordered, view.lattice.counts)
        seen = [
            (
                index[thin][n] // restoring.views[0].lattice.stride[thin],
                *(index[a][n] for a in view.axes),
            )
            for n in range(len(ordered))
        ]
        # Each group is left for good: what it restored is needed no more.
        assert len([key for key, _ in itertools.groupby(seen)]) == len(set(seen))
    cubes = view_of((6, 130, 90), (0, 1, 2), window_px=16, overlap_px=4, divisor=4)
    places = morton_order(cubes.lattice.counts)
    ordered = in_reading_order(cubes, places, plan=plan, restoring=restoring)
    z, *near = np.unravel_index(ordered, cubes.lattice.counts)
    blocks = [
        (n * 12 / plan.scale.factors[-1] * restoring.scale.factors[-1] // 48).astype(int)
        for n in near
    ]
    seen = list(zip(z, *blocks, strict=True))
    assert len([key for key, _ in itertools.groupby(seen)]) == len(set(seen)) < len(ordered) / 4
    first = plan.views[0]
    places = morton_order(first.lattice.counts)
    same = in_reading_order(first, places, plan=plan, restoring=restoring)
    np.testing.assert_array_equal(same, places)
