"""Any box of a restored image equals the same box of the whole, bit for bit."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.checkpoint import ModelInfo
from cellseg_pipe.nets.cpnet import Architecture
from cellseg_pipe.preprocess import percentile_range, sample_boxes
from cellseg_pipe.restoration import (
    RestoreSettings,
    as_type,
    make_restore_plan,
    restore_plan_from_json,
    restore_plan_to_json,
    restored_box,
    restored_records,
    restored_source,
)
from cellseg_pipe.segmentation.plan import ImageSource


class Smoothing:
    """A stand-in for a network: each pixel depends on its neighbours and on the whole window."""

    device = "cpu"
    n_outputs = 1

    def __call__(self, x):
        y = torch.nn.functional.avg_pool2d(x, 3, 1, 1) * 0.9 + 0.01 * x.mean((2, 3), keepdim=True)
        return y, x.flatten(1)[:, :2]


class Counting(Smoothing):
    """The same, that counts its windows."""

    n_windows = 0

    def __call__(self, x):
        self.n_windows += len(x)
        return super().__call__(x)


def info(kind="denoise", diameter_px=20.0):
    form = Architecture(n_inputs=1, n_outputs=1, widths=(4, 8))
    return ModelInfo("net", form, diameter_px=diameter_px, target="image", restores=kind)


def source_of(pixels, **more):
    return ImageSource(
        pixels.shape[1:],
        len(pixels),
        lambda box: pixels[(slice(None), *box.slices)],
        **more,
    )


def noisy(shape, seed=0, dtype=np.uint16):
    rng = np.random.default_rng(seed)
    places = np.meshgrid(*(np.arange(n) for n in shape[1:]), indexing="ij")
    light = sum(np.sin(p / 5.0) for p in places) + len(shape)
    return rng.poisson(30 * light[None] + 100, shape).astype(dtype)


def box_of(source, plan, box):
    records = restored_records(Smoothing(), source, plan) if plan.views else None
    return restored_box(source, plan, box, records=records)


CASES = {
    "plain": ((2, 90, 131), "denoise", {}),
    "smaller": ((1, 90, 131), "deblur", {"diameter_px": 33.0, "offset": 100.0}),
    "larger": ((1, 61, 75), "denoise", {"diameter_px": 13.0}),
    "upsampled": ((2, 41, 53), "upsample", {"diameter_px": 7.0, "channels": [1]}),
    "planes": ((1, 3, 70, 61), "one-click", {"diameter_px": 17.0}),
    "planes up": ((2, 2, 31, 40), "upsample", {"diameter_px": 12.0}),
    "coarse planes": ((1, 9, 50, 45), "aniso", {"diameter_px": 24.0, "anisotropy": 3.3}),
    "coarse rows": ((1, 30, 64), "aniso", {"anisotropy": 2.5}),
    "gaussian": ((2, 40, 51), None, {"method": "gaussian", "sigma_px": 1.7}),
    "median": ((1, 3, 40, 51), None, {"method": "median", "size_px": 5, "offset": 110.0}),
}


def case(name):
    shape, kind, given = CASES[name]
    chosen = RestoreSettings(**{"window_px": 64, "overlap_px": 16, **given})
    source = source_of(noisy(shape))
    return source, make_restore_plan(source, chosen, model=info(kind) if kind else None)


@pytest.fixture(scope="module")
def wholes():
    """Return each case with all of its result."""
    made = {}
    for name in CASES:
        source, plan = case(name)
        made[name] = source, plan, box_of(source, plan, Box.of(plan.out_shape))
    return made


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_box_equals_the_same_box_of_the_whole(wholes, name, data):
    source, plan, whole = wholes[name]
    start = [data.draw(st.integers(0, n - 1)) for n in plan.out_shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, plan.out_shape, strict=True)]
    box = Box(tuple(start), tuple(stop))
    frozen = restore_plan_from_json(json.loads(json.dumps(restore_plan_to_json(plan))))
    assert frozen == plan
    found = box_of(source, frozen, box)
    np.testing.assert_array_equal(found, whole[(slice(None), *box.slices)])


@pytest.mark.parametrize("name", ["plain", "upsampled", "planes", "coarse planes", "median"])
def test_tiles_make_up_the_whole(wholes, name):
    source, plan, whole = wholes[name]
    pitch = tuple(1 + n // 3 for n in plan.out_shape)
    found = np.full_like(whole, np.nan)
    for index in Box.of(plan.out_shape).cells(pitch).points():
        start = tuple(i * p for i, p in zip(index, pitch, strict=True))
        box = Box(start, tuple(a + p for a, p in zip(start, pitch, strict=True)))
        box = box.clip(Box.of(plan.out_shape))
        found[(slice(None), *box.slices)] = box_of(source, plan, box)
    np.testing.assert_array_equal(found, whole)


def test_a_box_reads_no_more_than_it_needs(wholes):
    _, plan, whole = wholes["plain"]
    pixels = noisy(CASES["plain"][0])
    read = []

    def reading(box):
        read.append(box)
        return pixels[(slice(None), *box.slices)]

    source = replace(source_of(pixels), read=reading)
    box = Box((0, 0), (10, 12))
    found = box_of(source, plan, box)
    np.testing.assert_array_equal(found, whole[:, :10, :12])
    assert all(part.stop[1] <= 64 for part in read)


@pytest.mark.parametrize("kept_bytes", [0, 2 * 64 * 64, 1 << 30])
@pytest.mark.parametrize("name", ["smaller", "larger", "planes", "gaussian", "median"])
def test_an_image_is_restored_where_it_is_read(wholes, name, kept_bytes):
    source, plan, whole = wholes[name]
    net = Counting() if plan.views else None
    seen = restored_source(source, plan, net=net, kept_bytes=kept_bytes)
    assert (seen.shape, seen.n_channels) == (source.shape, source.n_channels)
    rng = np.random.default_rng(0)
    for _ in range(8):
        start = [int(rng.integers(n)) for n in plan.shape]
        stop = [int(rng.integers(a, n)) + 1 for a, n in zip(start, plan.shape, strict=True)]
        box = Box(tuple(start), tuple(stop))
        np.testing.assert_array_equal(seen.read(box), whole[(slice(None), *box.slices)])
    np.testing.assert_array_equal(seen.read(Box.of(plan.shape)), whole)
    if net is not None:
        n = len(plan.views[0].lattice)
        assert net.n_windows == n if kept_bytes == 1 << 30 else net.n_windows >= n
        assert kept_bytes or net.n_windows > 2 * n


def test_what_is_no_part_of_an_image_cannot_be_read(wholes):
    source, plan, _ = wholes["upsampled"]
    with pytest.raises(ValueError, match=r"\(41, 53\) to \(117, 151\) px.*cellseg restore"):
        restored_source(source, plan, net=Smoothing())
    for name, net in (("plain", None), ("median", Smoothing())):
        source, plan, _ = wholes[name]
        with pytest.raises(ValueError, match="network"):
            restored_source(source, plan, net=net)


def test_grids_and_pixel_sizes_follow_the_fractions_exactly(wholes):
    plan = wholes["upsampled"][1]
    assert plan.out == plan.scale and plan.out.num == (20, 20) and plan.out.den == (7, 7)
    assert plan.out_shape == (41 * 20 // 7, 53 * 20 // 7)
    assert plan.pixel_factor == (7 / 20, 7 / 20)
    planes = wholes["planes up"][1]
    assert planes.out_shape == (2, 31 * 20 // 12, 40 * 20 // 12)
    assert planes.pixel_factor[0] == 1 and all(view.axes == (1, 2) for view in planes.views)
    coarse = wholes["coarse planes"][1]
    assert coarse.out_shape == (29, 50, 45) and coarse.pixel_factor == (1 / 3.3, 1.0, 1.0)
    assert [view.axes for view in coarse.views] == [(0, 1), (0, 2)]
    assert wholes["coarse rows"][1].out_shape == (75, 64)
    for name in ("plain", "smaller", "larger", "planes", "median"):
        assert wholes[name][1].out.identity and wholes[name][1].pixel_factor[-1] == 1


class Accelerator(Smoothing):
    """A network on a device where the bits of a window depend on how many are computed with it."""

    device = "cpu:0"  # not that of a CPU for who asks, and one for torch

    def __init__(self):
        self.sizes = set()

    def __call__(self, x):
        self.sizes.add(len(x))
        y, style = super().__call__(x)
        return y + 1e-3 * len(x), style


def test_batches_are_of_one_size_wherever_a_box_begins():
    """With any number of channels, also for the last windows of a box."""
    pixels, net = noisy((3, 150, 150)), Accelerator()
    source = source_of(pixels)
    settings = RestoreSettings(diameter_px=20.0, window_px=64, overlap_px=16)
    plan = make_restore_plan(source, settings, model=info())
    whole = Box.of((150, 150))

    def found(box):
        return restored_box(source, plan, box, records=restored_records(net, source, plan))

    halves = [found(Box((a, 0), (b, 150))) for a, b in ((0, 70), (70, 150))]
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), found(whole))
    assert len(net.sizes) == 1


def test_an_upsample_model_never_makes_an_image_smaller():
    source = source_of(noisy((1, 40, 50)))
    plan = make_restore_plan(source, RestoreSettings(diameter_px=40.0), model=info("upsample"))
    assert plan.out.identity and plan.scale.factors == (0.5, 0.5)


def test_what_changes_nothing_is_said(caplog):
    source = source_of(noisy((1, 40, 50)))
    make_restore_plan(source, RestoreSettings(diameter_px=40.0), model=info("upsample"))
    assert "the image keeps its pixels" in caplog.text
    make_restore_plan(source, RestoreSettings(), model=info())
    assert "knows cells of 20 px" in caplog.text


def test_grey_values_come_back(wholes):
    """Means stay with a stand-in that keeps them, whatever the grid."""
    for name in ("plain", "smaller", "larger", "upsampled", "planes", "gaussian"):
        source, plan, whole = wholes[name]
        image = source.read(Box.of(source.shape))
        for channel in plan.channels:
            mean, sd = image[channel].mean(), image[channel].std()
            assert abs(whole[channel].mean() - mean) < 0.35 * sd, name
            assert whole[channel].std() < sd


def test_channels_that_are_not_restored_stay(wholes):
    source, plan, whole = wholes["upsampled"]
    kept = source.read(Box.of(source.shape))[0]
    assert plan.channels == (1,)
    assert kept.min() <= whole[0].min() and whole[0].max() <= kept.max()
    assert abs(whole[0].mean() - kept.mean()) < 1
    same = make_restore_plan(source, RestoreSettings(channels=0), model=info())
    found = box_of(source, same, Box.of(same.out_shape))
    np.testing.assert_array_equal(found[1], source.read(Box.of(source.shape))[1])
    assert (found[0] != found[1]).any()


def test_a_channel_without_contrast_stays():
    pixels = np.zeros((1, 50, 60), np.uint16)
    pixels[0, 20, 20] = 900
    source = source_of(pixels)
    plan = make_restore_plan(source, RestoreSettings(), model=info())
    assert plan.ranges[0].flat
    np.testing.assert_array_equal(box_of(source, plan, Box.of((50, 60))), pixels)


def test_a_clear_channel_stays_to_the_last_bit(caplog):
    """By the model's own limit, or by the user's; beside it a noisy one is restored."""
    caplog.set_level("INFO")
    rows = np.linspace(0, 900, 90)
    clear = np.add.outer(rows, np.linspace(0, 80, 110)).astype(np.uint16)
    source = source_of(np.stack([noisy((1, 90, 110))[0], clear, np.zeros_like(clear)]))
    knows = replace(info(), clear_below=0.08)
    cases = (
        (RestoreSettings(), (0, 2), (1,)),
        (RestoreSettings(clear_below=0), (0, 1, 2), ()),
        (RestoreSettings(channels=[1]), (), (1,)),
        (RestoreSettings(channels=[2, 0], clear_below=9.0, offset=[1.0, 2.0]), (2,), (0,)),
    )
    for chosen, channels, still in cases:
        plan = make_restore_plan(source, chosen, model=knows)
        assert (plan.channels, plan.clear) == (channels, still)
        assert len(plan.ranges) == len(channels) and len(plan.floors) in (0, len(channels))
        assert restore_plan_from_json(restore_plan_to_json(plan)) == plan
        found = box_of(source, plan, Box.of(plan.out_shape))
        for channel in still:
            np.testing.assert_array_equal(found[channel], source.read(Box.of((90, 110)))[channel])
    assert "channel 1 is clear and stays as it is" in caplog.text
    assert plan.floors == (1.0,)
    assert make_restore_plan(source, RestoreSettings(), model=info()).channels == (0, 1, 2)


@pytest.mark.parametrize("diameter_px", [None, 33.0, 13.0])
@pytest.mark.parametrize("shape", [(2, 500, 330), (1, 2, 400, 330)])
def test_background_that_nobody_acquired_stays_of_one_value(shape, diameter_px):
    pixels = noisy(shape)
    pixels[0, ..., 150:, :] = 150
    pixels[0, ..., :, 170:] = 150
    pixels[-1, ..., 170:] = 150
    source = source_of(pixels)
    chosen = RestoreSettings(window_px=64, overlap_px=16, diameter_px=diameter_px)
    plan = make_restore_plan(source, chosen, model=info())
    whole = box_of(source, plan, Box.of(plan.shape))
    # Beyond the windows that see cells, down to the image's own border.
    far = 170 + int(64 * (diameter_px or 20) / 20) + 2
    assert (whole[..., far:] == 150).all() and (whole[0, ..., far:, :] == 150).all()
    assert np.abs(whole[..., :140, :160] - pixels[..., :140, :160]).max() > 1
    seen = restored_source(source, plan, net=Smoothing())
    for box in (Box.of(shape[1:]), Box((0,) * (len(shape) - 3) + (100, 110), shape[1:])):
        found = seen.read(box)
        np.testing.assert_array_equal(found, whole[(slice(None), *box.slices)])


def test_blank_boxes_are_those_of_the_image_as_it_is():
    pixels = noisy((1, 300, 300))
    pixels[:, 40:] = 150
    source = source_of(pixels)
    chosen = RestoreSettings(window_px=64, overlap_px=16)
    plan = make_restore_plan(source, chosen, model=info())
    assert plan.views[0].box((1, 0)).start[0] == 40  # the first window that sees no cells
    seen = restored_source(source, plan, net=Smoothing())
    boxes = sample_boxes(plan.shape)
    blank = [[np.ptp(of.read(box)) == 0 for box in boxes] for of in (source, seen)]
    assert blank[0] == blank[1] and sum(blank[0]) == 12
    varied = [seen.read(box) for box, constant in zip(boxes, blank[0], strict=True) if not constant]
    assert percentile_range(seen.read(box) for box in boxes) == percentile_range(varied)


def test_what_lies_below_no_light_is_no_light():
    low = noisy((1, 64, 64))
    low[0, :, :8] = 0  # a defect of the camera
    given = RestoreSettings(offset=100.0)
    for chosen, model in ((given, info()), (replace(given, method="gaussian"), None)):

        def found(image, chosen=chosen, model=model):
            source = source_of(image)
            return box_of(source, make_restore_plan(source, chosen, model=model), Box.of((64, 64)))

        np.testing.assert_array_equal(found(low), found(np.maximum(low, 100)))
        assert (found(low) != found(low, replace(chosen, offset=None))).any()


def test_the_value_of_no_light_is_that_of_the_channel_it_is_given_for():
    pixels = np.random.default_rng(0).poisson(50.0, (3, 20, 20)).astype(np.uint16)
    names = ("red", "green", "blue")
    for channels in ([2, 0], ["blue", "red"]):
        settings = RestoreSettings(method="median", channels=channels, offset=[100, 40])
        plan = make_restore_plan(source_of(pixels, names=names), settings)
        assert (plan.channels, plan.floors) == ((0, 2), (40.0, 100.0))
        found = restored_box(source_of(pixels), plan, Box.of(plan.shape))
        assert found[2].min() == 100 and 40 <= found[0].min() < 50
    one = RestoreSettings(method="median", channels=[2, 0], offset=7.0)
    assert make_restore_plan(source_of(pixels), one).floors == (7.0, 7.0)


def test_filters_are_those_of_scipy(wholes):
    from scipy import ndimage

    source, plan, whole = wholes["gaussian"]
    image = source.read(Box.of(source.shape)).astype(np.float64)
    wanted = ndimage.gaussian_filter(image, (0, 1.7, 1.7), truncate=4.2)
    np.testing.assert_allclose(whole, wanted, rtol=1e-4)
    source, plan, whole = wholes["median"]
    image = np.maximum(source.read(Box.of(source.shape)), 110)
    np.testing.assert_array_equal(whole, ndimage.median_filter(image, (1, 1, 5, 5)))


def test_types_come_back_rounded_and_within_their_limits():
    values = np.array([-3.0, 0.4, 0.6, 254.7, 300.0], np.float32)
    np.testing.assert_array_equal(as_type(values, np.uint8), [0, 0, 1, 255, 255])
    np.testing.assert_array_equal(as_type(values, np.int16), [-3, 0, 1, 255, 300])
    assert as_type(values, np.float16).dtype == np.float16
    np.testing.assert_array_equal(as_type(values, bool), [False, False, True, True, True])
    assert as_type(np.array([5e9], np.float32), np.uint32)[0] == 2**32 - 1


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("aniso", {}, "aniso|coarse"),
        ("aniso", {"anisotropy": 1.0}, r"how coarse \(more than 1\), got 1"),
        ("aniso", {"anisotropy": 0.5}, r"how coarse \(more than 1\), got 0.5"),
        ("upsample", {}, "how large they are: give a diameter"),
        ("denoise", {"channels": "grey"}, "channels of the image itself"),
        ("denoise", {"channels": 3}, "no channel 3"),
        ("denoise", {"offset": [1.0, 2.0, 3.0]}, "for each of 2"),
        (None, {}, "needs a model for method 'network'"),
        ("denoise", {"method": "median"}, "none for a filter"),
        ("denoise", {"method": "mean"}, "network, gaussian, median"),
        ("denoise", {"size_px": 4}, "odd number"),
        ("denoise", {"clear_below": -0.1}, "clear_below needs a number from 0"),
        ("denoise", {"clear_below": float("nan")}, "clear_below needs a number from 0"),
        ("denoise", {"diameter_px": 0.0}, "above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind, given, said):
    with pytest.raises(ValueError, match=said):
        make_restore_plan(
            source_of(noisy((2, 20, 20))),
            RestoreSettings(**given),
            model=info(kind) if kind else None,
        )


def test_a_plan_of_something_else_is_refused():
    with pytest.raises(TypeError, match="Plan again"):
        restore_plan_from_json([1, 2])
