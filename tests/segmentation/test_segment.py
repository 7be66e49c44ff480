"""One image in memory: right cells, the same for any way to cut, clear words for bad input."""

import itertools
import logging
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellseg_pipe.diameter import Diameter
from cellseg_pipe.geometry import Box
from cellseg_pipe.metrics import evaluate
from cellseg_pipe.nets.checkpoint import load
from cellseg_pipe.nets.engine import Engine, choose_device
from cellseg_pipe.segmentation import (
    ImageSource,
    Settings,
    cells_of,
    make_plan,
    memory,
    network_source,
    on_walked_grid,
    records_of,
    segment,
    segment_many,
)
from cellseg_pipe.segmentation.plan import SURE_FLOW_ERROR
from cellseg_pipe.segmentation.run import Run
from cellseg_pipe.segmentation.tiled import BLOCK_PX
from cellseg_pipe.synth import PRESETS, render

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"


@pytest.fixture(scope="module")
def tiny():
    return Engine(load(TINY), device="cpu", precision="fp32")


def scene(name="nuclei", shape=(300, 340), *, seed=5, **changes):
    spec = replace(PRESETS[name], shape=shape, seed=seed, **changes)
    piece = render(spec, Box.of(spec.shape))
    return piece.image, piece.labels


def changed(engine, **facts):
    """Return the engine, of which some facts are others."""
    other = object.__new__(type("Changed", (Engine,), facts))
    vars(other).update(vars(engine))
    return other


@pytest.mark.parametrize("diameter", [20, 30, 45])
def test_cells_are_found_at_several_scales(tiny, diameter):
    image, truth = scene(diameter_px=diameter)
    found = segment(image[0], model=tiny, diameter_px=diameter)
    assert evaluate(found.labels, truth).ap[0.5] > 0.85
    assert found.labels.dtype == np.uint32 and found.labels.shape == truth.shape
    assert found.flow.shape == (2, *truth.shape) and found.logit.shape == truth.shape


def test_two_channels_and_their_order(tiny):
    image, truth = scene("cells", diameter_px=40)
    right = segment(image, model=tiny, axes="cyx", channels=[1, 0], diameter_px=40)
    named = segment(
        image,
        model=tiny,
        axes="cyx",
        channel_names=("nuclei", "body"),
        channels=["body", "nuclei"],
        diameter_px=40,
    )
    assert evaluate(right.labels, truth).ap[0.5] > 0.75
    np.testing.assert_array_equal(right.labels, named.labels)


def test_the_diameter_is_measured(tiny):
    image, truth = scene(diameter_px=44, shape=(420, 420))
    found = segment(image[0], model=tiny)
    areas = np.bincount(truth.ravel())[1:]
    median = np.median(2 * np.sqrt(areas[areas > 0] / np.pi))
    assert found.diameter_px == pytest.approx(median, rel=0.2)
    assert found.diameter.low_px <= found.diameter_px <= found.diameter.high_px
    assert found.diameter.n_cells > 5
    assert evaluate(found.labels, truth).ap[0.5] > 0.8


def test_a_diameter_in_micrometres(tiny):
    image, _ = scene(diameter_px=24)
    by_px = segment(image[0], model=tiny, diameter_px=24)
    by_um = segment(image[0], model=tiny, diameter_um=12, spacing_um=(0.5, 0.5))
    np.testing.assert_array_equal(by_px.labels, by_um.labels)


def test_where_nothing_was_measured_only_sure_cells_count(tiny, monkeypatch):
    image, _ = scene(diameter_px=24)
    noisy = image[0] + np.random.default_rng(0).normal(0, 300, image[0].shape)
    nothing = Diameter(24.0, 24.0, 24.0, 0)
    monkeypatch.setattr(Run, "measured_diameter", lambda run: nothing)
    found = segment(noisy, model=tiny)
    assert "no cells were found to measure" in " ".join(found.warnings)
    monkeypatch.undo()
    usual = segment(noisy, model=tiny, diameter_px=24)
    sure = segment(noisy, model=tiny, diameter_px=24, flow_threshold=SURE_FLOW_ERROR)
    np.testing.assert_array_equal(found.labels, sure.labels)
    assert 0 < found.n_cells < usual.n_cells


def test_a_style_regression_that_is_not_there_is_refused(tiny):
    with pytest.raises(ValueError, match="needs a model with a size regression, and tiny has none"):
        segment(scene()[0][0], model=tiny, diameter_by="style")


class SaysTwenty:
    """A size regression of the tiny network's style."""

    def diameter_px(self, style):
        assert style.size > 1 and style.any()
        return 20.0


def test_a_style_regression_leaves_out_what_has_no_contrast(tiny, caplog):
    net = changed(tiny, size=SaysTwenty())
    image, _ = scene(shape=(950, 950), diameter_px=30)
    image[0, :475, :475] = 7  # as the corner of a mosaic that nobody has imaged
    found = segment(image[0], model=net, diameter_by="style")
    assert 10 < found.diameter_px < 40 and found.diameter.n_cells > 5
    nothing = segment(np.full((64, 64), 9, np.uint16), model=net, diameter_by="style")
    assert nothing.n_cells == 0 == nothing.diameter.n_cells
    assert "no contrast" in " ".join(nothing.warnings)


@pytest.mark.parametrize(
    ("shape", "side", "message"),
    [
        ((64, 64), {}, "for volumes seen from three sides"),
        ((4, 64, 64), {"diameter_px": 17.0}, "needs the axes, inputs, outputs and diameter"),
    ],
)
def test_a_side_model_that_has_no_view_or_does_not_fit_is_refused(tiny, shape, side, message):
    image = np.random.default_rng(0).integers(0, 900, shape).astype(np.uint16)
    with pytest.raises(ValueError, match=message):
        segment(image, model=tiny, side_model=changed(tiny, **side), axes="zyx"[-len(shape) :],
                mode="2d" if len(shape) == 2 else "3d", diameter_px=30)  # fmt: skip


def test_the_diameter_of_a_network_of_three_axes_has_to_be_given(tiny):
    net = changed(tiny, architecture=replace(tiny.architecture, ndim=3))
    image = np.random.default_rng(0).integers(0, 900, (8, 64, 64)).astype(np.uint16)
    with pytest.raises(ValueError, match="Give diameter_px"):
        segment(image, model=net, axes="zyx")


def test_a_last_axis_of_two_holds_channels_and_four_need_not_be_colours(tiny):
    image, _ = scene(shape=(90, 100), diameter_px=30)
    pair = np.stack([image[0], image[0][::-1]], axis=-1)
    found = segment(pair, model=tiny, channels=[1], diameter_px=30)
    want = segment(image[0][::-1].copy(), model=tiny, diameter_px=30)
    np.testing.assert_array_equal(found.labels, want.labels)
    four = np.concatenate([pair * 0, pair], axis=-1)
    found = segment(four, model=tiny, axes="yxc", rgb=False, channels=[3], diameter_px=30)
    np.testing.assert_array_equal(found.labels, want.labels)


def test_an_image_of_many_may_ask_for_another_precision(tiny):
    image, _ = scene(shape=(90, 100), diameter_px=30)
    some = [image[0], (image[0], {"precision": "bf16"})]
    first, second = segment_many(some, model=TINY, device="cpu", precision="fp32", diameter_px=30)
    assert "fp32" in first.numerics and "bf16" in second.numerics


@pytest.mark.parametrize("mode", ["planes", "3d"])
def test_volumes(tiny, mode):
    sharp = {"crowding": 0.6, "photons": 150, "haze": 0, "psf_axial": 1.0, "elongation": 1.1}
    image, truth = scene("volume", (40, 140, 150), anisotropy=1.0, diameter_px=20, **sharp)
    found = segment(image[0], model=tiny, mode=mode, diameter_px=20, axes="zyx")
    assert found.labels.shape == truth.shape and found.plan.mode == mode
    assert evaluate(found.labels, truth).ap[0.5] > 0.5
    n = len(np.unique(truth)) - 1
    assert abs(found.n_cells - n) <= 0.1 * n


GOLDEN = np.load(TINY.parents[1] / "segment.npz")
# name: preset, diameter, our channels, settings
CASES = {
    "nuclei_30": ("nuclei", 30, [0], {}),
    "nuclei_21": ("nuclei", 21, [0], {}),
    "cells_44": ("cells", 44, [1, 0], {}),
    "nuclei_34_net_scale": ("nuclei", 34, [0], {"resample": False}),
}
ONE_WINDOW = {
    "one_window_24": ("nuclei", 24, [0]),
    "one_window_36": ("nuclei", 36, [0]),
    "one_window_cells": ("cells", 40, [1, 0]),
    "one_window_cells_alone": ("cells", 33, [1]),
}


@pytest.mark.parametrize("following", ["exact", "fast"])
@pytest.mark.parametrize("case", CASES)
def test_cells_are_those_of_the_peer_with_the_same_network(tiny, case, following):
    preset, diameter, channels, settings = CASES[case]
    image, truth = scene(preset, (768, 800), seed=11, diameter_px=diameter)
    found = segment(
        image,
        axes="cyx",
        model=tiny,
        channels=channels,
        diameter_px=diameter,
        following=following,
        **settings,
    )
    peer = GOLDEN[case].astype(np.uint32)
    same = evaluate(found.labels, peer)
    # Slivers on the border and cells that windows of another size judge otherwise make the rest.
    assert same.ap[0.75] >= (0.99 if case == "nuclei_30" else 0.97)
    assert abs(found.n_cells - int(peer.max())) <= 0.01 * peer.max()
    assert evaluate(found.labels, truth).ap[0.5] >= evaluate(peer, truth).ap[0.5] - 0.01


def parts_of_a_run(engine, image, settings, diameter):
    source = ImageSource(image.shape[1:], len(image), lambda box: image[(slice(None), *box.slices)])
    plan = make_plan(
        source,
        settings,
        network=engine.architecture,
        diameter_px=diameter,
        network_diameter_px=engine.diameter_px,
    )
    return plan, records_of((engine,), network_source(source, plan), plan)


@pytest.mark.parametrize("case", ONE_WINDOW)
def test_cells_of_one_window_are_those_of_the_peer(tiny, case):
    """Nothing but the network and its cells: both see the image in one window."""
    preset, diameter, channels = ONE_WINDOW[case]
    edge = 495 * diameter // 30
    image, _ = scene(preset, (edge, edge), seed=11, diameter_px=diameter)
    found = segment(
        image, axes="cyx", model=tiny, channels=channels, diameter_px=diameter, following="exact"
    )
    peer = GOLDEN[case].astype(np.uint32)
    assert peer.max() > 90
    assert evaluate(found.labels, peer).ap[0.75] >= 0.99
    assert abs(found.n_cells - int(peer.max())) <= 0.01 * peer.max()


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((203, 251), {}),
        ((203, 251), {"resample": False}),
        ((203, 251), {"smooth_px": 1.0, "sharpen_px": 6.0, "invert": True}),
        ((203, 251), {"normalise": "local", "local_px": 64}),
        ((11, 70, 93), {"mode": "planes"}),
        ((17, 60, 75), {"mode": "3d", "anisotropy": 1.7, "flow_smooth_px": 1.0}),
    ],
)
def test_the_network_says_the_same_of_a_box_and_of_the_whole(tiny, shape, settings):
    image, _ = scene("volume" if len(shape) == 3 else "nuclei", shape, diameter_px=20)
    given = Settings(window_px=96, overlap_px=32, **settings)
    plan, records = parts_of_a_run(tiny, image, given, 20.0)
    grid = plan.shape if given.resample else plan.grid_shape
    whole = on_walked_grid(records, plan, Box.of(grid))
    rng = np.random.default_rng(0)
    for _ in range(3):
        start = tuple(int(rng.integers(0, n - 4)) for n in grid)
        stop = tuple(int(rng.integers(a + 1, n + 1)) for a, n in zip(start, grid, strict=True))
        box = Box(start, stop)
        part = on_walked_grid(records, plan, box)
        np.testing.assert_array_equal(part.flow, whole.flow[(slice(None), *box.slices)])
        np.testing.assert_array_equal(part.logit, whole.logit[box.slices])


def test_threads_change_nothing(tiny):
    image, _ = scene(diameter_px=26)
    one = segment(image[0], model=load(TINY), diameter_px=26, threads=1, precision="fp32")
    two = segment(image[0], model=load(TINY), diameter_px=26, threads=2, precision="fp32")
    for name in ("labels", "flow", "logit", "style"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert all(np.array_equal(one.table[k], two.table[k], equal_nan=True) for k in one.table)


def test_inverted_and_scaled_images_give_nearly_the_same(tiny):
    image, truth = scene(diameter_px=30)
    plain = segment(image[0], model=tiny, diameter_px=30)
    bright = segment(image[0].astype(np.uint16) * 7 + 300, model=tiny, diameter_px=30)
    dark = segment(60000 - image[0].astype(np.int64), model=tiny, diameter_px=30, invert=True)
    for other in (bright, dark):
        assert evaluate(other.labels, plain.labels).ap[0.75] > 0.9


def test_settings_of_cells(tiny):
    image, _ = scene(diameter_px=30)
    every = segment(image[0], model=tiny, diameter_px=30, min_size_px=0)
    areas = every.table["area_px"]
    least = int(np.median(areas))
    large = segment(image[0], model=tiny, diameter_px=30, min_size_px=least)
    assert 0 < large.n_cells < every.n_cells
    inner = segment(image[0], model=tiny, diameter_px=30, min_size_px=0, keep_border=False)
    assert inner.n_cells == np.count_nonzero(~every.table["on_border"])
    assert not inner.table["on_border"].any()
    strict = segment(image[0], model=tiny, diameter_px=30, flow_threshold=0.05)
    assert strict.n_cells < every.n_cells
    assert (strict.table["flow_error"] <= 0.05).all()


def test_the_table_measures_the_labels(tiny):
    image, _ = scene(diameter_px=30)
    found = segment(image[0], model=tiny, diameter_px=30)
    table = found.table
    assert table["label"].tolist() == list(range(1, found.labels.max() + 1))
    k = 3
    inside = found.labels == k
    y, x = np.nonzero(inside)
    row = k - 1
    assert table["area_px"][row] == inside.sum()
    assert (table["y_px"][row], table["x_px"][row]) == pytest.approx((y.mean(), x.mean()))
    assert table["mean_0"][row] == pytest.approx(image[0][inside].mean())
    assert 0.5 < table["probability"][row] <= 1


def test_many_images_with_settings_of_their_own(tiny):
    first, second = scene(diameter_px=30)[0][0], scene(diameter_px=20, seed=8)[0][0]
    many = list(segment_many([first, (second, {"diameter_px": 20})], model=tiny, diameter_px=30))
    for image, diameter, found in ((first, 30, many[0]), (second, 20, many[1])):
        alone = segment(image, model=tiny, diameter_px=diameter)
        np.testing.assert_array_equal(found.labels, alone.labels)


@pytest.mark.parametrize("value", [0, 7.5])
def test_a_constant_image_has_no_cells_and_a_warning(tiny, value, caplog):
    with caplog.at_level(logging.WARNING):
        found = segment(np.full((90, 80), value, np.float32), model=tiny, diameter_px=30)
    assert found.n_cells == 0 and not found.labels.any()
    assert "no contrast" in caplog.text and "no contrast" in found.warnings[0]
    plain = segment(np.full((90, 80), value), model=tiny, diameter_px=30, normalise="off")
    assert plain.n_cells == 0 and "of one grey value" in plain.warnings[0]


def test_pixels_that_are_not_square_are_said(tiny):
    found = segment(scene()[0][0], model=tiny, diameter_um=15, spacing_um=(0.6, 0.5))
    assert found.diameter_px == 30 and "pixels are not square" in found.warnings[0]


@pytest.mark.parametrize(
    ("image", "settings", "error", "message"),
    [
        (np.zeros((0, 5)), {}, ValueError, "image with pixels"),
        (np.zeros(5), {}, ValueError, "2 to 4 axes"),
        (np.zeros((2, 2, 9, 9, 9)), {}, ValueError, "2 to 4 axes"),
        (np.zeros((9, 9), complex), {}, TypeError, "real numbers"),
        (np.full((9, 9), np.nan), {}, ValueError, "finite pixels"),
        (np.ones((9, 9)), {"diameter_px": 0}, ValueError, "diameter_px needs a number above 0"),
        (np.ones((9, 9)), {"window_px": 64}, ValueError, r"at most half of window_px \(64\), got"),
        (np.ones((9, 9)), {"diameter_px": -3}, ValueError, "diameter_px needs a number above 0"),
        (np.ones((9, 9)), {"diameter_um": 3}, ValueError, "needs the size of a pixel"),
        (np.ones((9, 9)), {"diameter_um": 0}, ValueError, "diameter_um needs a number above 0"),
        (np.ones((9, 9)), {"local_px": 64}, ValueError, "local_px needs normalise='local'"),
        (np.ones((9, 9)), {"mode": "2d", "flow_smooth_px": 1}, ValueError, "needs mode '3d'"),
        (np.ones((9, 9)), {"channels": 4}, ValueError, "no channel 4"),
        (np.ones((9, 9)), {"channels": ["DAPI"]}, ValueError, "no channel 'DAPI'"),
        (np.ones((3, 9, 9)), {"axes": "cyx"}, ValueError, "the image has 3 channels"),
        (np.ones((9, 9)), {"channels": [0, 0, 0]}, ValueError, "1 to 2 entries"),
        (np.ones((9, 9)), {"mode": "3d"}, ValueError, "volume z, y, x"),
        (np.ones((9, 9)), {"mode": "4d"}, ValueError, "mode needs to be one of"),
        (np.ones((9, 9)), {"axes": "xyz"}, ValueError, "axes needs a letter"),
        (np.ones((9, 9)), {"device": "tpu"}, ValueError, "device needs to be"),
    ],
)
def test_bad_input_is_refused_before_any_work(tiny, image, settings, error, message):
    model = load(TINY) if "device" in settings else tiny
    with pytest.raises(error, match=message):
        segment(
            image,
            model=model,
            **{"diameter_px": 30, **settings} if "diameter_um" not in settings else settings,
        )


def test_a_gpu_that_is_not_there_is_an_error():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="needs a GPU that torch sees, got 0"):
        choose_device("cuda")
    assert choose_device("auto") == "cpu"


def test_too_large_for_the_memory_is_refused(tiny, monkeypatch):
    monkeypatch.setattr("cellseg_pipe.segmentation.memory.available_bytes", lambda: 10**8)
    with pytest.raises(MemoryError, match="needs about .* GB, got 0.1 GB"):
        segment(scene()[0][0], model=tiny, diameter_px=30)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((24, 96, 96), {"mode": "3d", "anisotropy": 2.0, "diameter_px": 12}),
        ((24, 96, 96), {"mode": "3d", "anisotropy": 4.0, "diameter_px": 24}),
        ((400, 400), {"diameter_px": 10}),
    ],
)
def test_no_more_memory_is_taken_than_foreseen(tiny, monkeypatch, shape, settings):
    """Of arrays; cells smaller than the network knows make its grid, which is held, large."""
    image, foreseen = np.random.default_rng(0).poisson(20, shape).astype(np.uint16), []

    def begin(plan):
        window = max(math.prod(view.lattice.edge) for view in plan.views)
        libraries = memory.BASE_BYTES + memory.NETWORK_BYTES_PER_PX * window
        foreseen.append(memory.needed_bytes(plan) - libraries)
        tracemalloc.start()

    monkeypatch.setattr("cellseg_pipe.segmentation.whole.check_memory", begin)
    try:
        segment(image, model=tiny, **settings)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 * foreseen[0] < taken < 1.05 * foreseen[0]


def test_a_threshold_of_planes_is_a_wish_for_planes(tiny):
    volume = np.random.default_rng(0).poisson(20, (4, 64, 64)).astype(np.uint16)
    said = {"axes": "zyx", "model": tiny, "diameter_px": 24}
    assert segment(volume, stitch_threshold=0.3, **said).plan.mode == "planes"
    with pytest.raises(ValueError, match="stitch_threshold joins cells of planes"):
        segment(volume, stitch_threshold=0.3, mode="3d", **said)
    with pytest.raises(ValueError, match="mode '2d' needs an image y, x"):
        segment(volume, stitch_threshold=0.3, mode="2d", **said)
    deep = segment(volume, **said)
    assert deep.plan.mode == "3d" and "as far apart as pixels" in deep.warnings[-1]
    known = segment(volume, spacing_um=(0.5, 0.5, 0.5), **said)
    assert not [text for text in known.warnings if "as far apart" in text]


@pytest.mark.parametrize(
    ("shape", "axes", "names", "said"),
    [
        ((1, 64, 64), "cyx", ["DAPI", "GFP"], "for each of 1 channels"),
        ((2, 64, 64), "cyx", ["DAPI"], "for each of 2 channels"),
        ((64, 64, 4), "yxc", ["a", "b", "c", "d"], "rgb=False makes it a channel"),
    ],
)
def test_names_are_as_many_as_channels(tiny, shape, axes, names, said):
    with pytest.raises(ValueError, match=said):
        segment(np.zeros(shape, np.uint8), model=tiny, axes=axes, channel_names=names)


def test_cells_too_large_for_the_reach_are_said(tiny, caplog):
    image, _ = scene(diameter_px=30)
    found = segment(image[0], model=tiny, diameter_px=30, reach_px=6)
    assert found.n_too_far > 0 and "lead farther than the reach" in found.warnings[0]


def test_settings_without_effect_are_said(tiny):
    image = scene()[0][0]
    found = segment(image, model=tiny, diameter_px=30, anisotropy=2.0, stitch_threshold=0.3)
    said = [f"{name} has no effect in mode 2d" for name in ("anisotropy", "stitch_threshold")]
    assert list(found.warnings) == said


@pytest.mark.parametrize("wrong", [{"device": "cuda"}, {"precision": "bf16"}])
def test_a_network_that_is_loaded_stays_as_it_is(tiny, wrong):
    assert "fp32" in tiny.numerics
    with pytest.raises(ValueError, match="is loaded and runs as cpu fp32"):
        segment(scene()[0][0], model=tiny, diameter_px=30, **wrong)
    segment(scene()[0][0][:64, :64], model=tiny, diameter_px=30, device="cpu", precision="fp32")


def test_ids_go_by_block_then_by_peak(tiny, monkeypatch):
    image, _ = scene(diameter_px=22)
    plan, records = parts_of_a_run(tiny, image, Settings(), 22.0)
    answer = on_walked_grid(records, plan, Box.of(plan.shape))
    usual = cells_of(answer, plan)
    monkeypatch.setitem(BLOCK_PX, "2d", (100, 100))
    blocked = cells_of(answer, plan)
    np.testing.assert_array_equal(usual.labels > 0, blocked.labels > 0)
    top_left = np.unique(blocked.labels[:60, :60])
    assert top_left[1:].max() < np.unique(blocked.labels[240:, 280:])[1:].min()


def test_bf16_finds_the_cells_of_fp32(tiny):
    image, _ = scene(shape=(360, 380), diameter_px=30)
    half = segment(image[0], model=load(TINY), device="cpu", precision="bf16", diameter_px=30)
    full = segment(image[0], model=tiny, diameter_px=30)
    assert "bf16" in half.numerics and "fp32" in full.numerics
    same = evaluate(half.labels, full.labels)
    assert same.ap[0.75] >= 0.97 and abs(half.n_cells - full.n_cells) <= 1


def test_bf16_of_the_shipped_model_finds_the_cells_of_fp32():
    matched = n = 0.0  # cells that are in both at IoU .9, of all: many, as one in 400 differs
    scenes = ("nuclei", [0], 24), ("cells", [1, 0], 36)
    for (preset, channels, diameter), seed in itertools.product(scenes, range(2, 6)):
        image, _ = scene(preset, (640, 640), seed=seed, diameter_px=diameter)
        half, full = (
            segment(
                image, axes="cyx", channels=channels, device="cpu", precision=precision,
                diameter_px=diameter,
            )
            for precision in ("bf16", "fp32")
        )  # fmt: skip
        most = max(half.n_cells, full.n_cells)
        assert abs(half.n_cells - full.n_cells) <= 0.01 * full.n_cells
        matched, n = matched + evaluate(half.labels, full.labels).ap[0.9] * most, n + most
    assert n > 1500 and matched / n >= 0.995


def test_a_side_model_is_asked_for_the_views_from_the_side(tiny):
    image, _ = scene("volume", (10, 48, 56), anisotropy=1.0, diameter_px=24)
    silent = load(TINY)
    silent.net.output[2].weight.data[:] = 0
    silent.net.output[2].bias.data[:] = 0
    given = {"model": tiny, "mode": "3d", "diameter_px": 24, "axes": "zyx"}
    usual, sides = segment(image[0], **given), segment(image[0], side_model=silent, **given)
    # Seen from above only: no flow along z, half of it along y and x.
    assert (sides.flow[0] == 0).all() and np.abs(usual.flow[0]).max() > 0.1
    assert (sides.flow[1] != 0).any() and (sides.logit != usual.logit).any()


def test_antialiasing_smooths_before_the_image_shrinks(tiny):
    image, _ = scene(diameter_px=60)
    noisy = image[0] + np.random.default_rng(0).normal(0, 400, image[0].shape).clip(-900, 900)
    plain = segment(noisy, model=tiny, diameter_px=60)
    smooth = segment(noisy, model=tiny, diameter_px=60, antialias=True)
    assert plain.plan.filters is None and smooth.plan.filters.smooth_px == (0.5, 0.5)
    assert (plain.logit != smooth.logit).any()
