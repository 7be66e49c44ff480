"""Pictures: colours that follow from numbers alone, and ranges that stand odd values."""

import colorsys
import time

import numpy as np
import pytest

from cellseg_pipe.plot import flow_colors, label_colors, overlay, to_grey8


def squares(n, edge=20):
    labels = np.zeros((n, n), np.uint32)
    rows = np.arange(0, n - edge, edge)
    for i, y in enumerate(rows):
        for j, x in enumerate(rows):
            labels[y : y + edge - 4, x : x + edge - 4] = 1 + i * rows.size + j
    return labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float32, np.float64])
def test_grey_is_linear_between_the_percentiles(dtype):
    ramp = np.arange(121, dtype=dtype).reshape(11, 11)
    grey = to_grey8(ramp, percentiles=(0, 100))
    np.testing.assert_array_equal(grey, np.floor(np.arange(121) / 120 * 255 + 1e-4).reshape(11, 11))


def test_grey_of_odd_values():
    ramp = np.arange(100, dtype=np.float32).reshape(10, 10)
    ramp[0, :3] = np.nan, np.inf, -np.inf
    grey = to_grey8(ramp, percentiles=(0, 100))
    assert grey[0, :3].tolist() == [0, 0, 0] and grey[-1, -1] == 255
    assert not to_grey8(np.full((4, 4), np.nan)).any()
    assert not to_grey8(np.full((4, 4), 7)).any()
    assert to_grey8(np.zeros((0, 4))).shape == (0, 4)
    few = np.zeros((100, 100), bool)
    few[3, 4] = True
    np.testing.assert_array_equal(to_grey8(few), few * np.uint8(255))


def test_colours_of_labels_depend_on_the_label_only_and_neighbours_differ():
    labels = squares(300)
    colours = label_colors(labels)
    np.testing.assert_array_equal(colours[::-1], label_colors(labels[::-1]))
    np.testing.assert_array_equal(colours[labels == 0], 0)
    table = label_colors(np.arange(1, 500, dtype=np.uint32)[None])[0, :, :3].astype(int)
    for step in (1, 2, 3):  # numbers that lie side by side
        assert np.abs(table[step:] - table[:-step]).max(axis=1).min() > 25
    assert label_colors(np.array([[2**32 - 1]], np.uint32))[0, 0, 3] == 255


def test_hue_is_direction_and_brightness_is_length():
    turns = np.linspace(0, 1, 12, endpoint=False)
    flow = np.stack([np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)])[:, None]
    flow = flow.astype(np.float32)
    full, half = flow_colors(flow)[0], flow_colors(flow / 2)[0]
    hues = [colorsys.rgb_to_hsv(*pixel[:3].astype(float))[0] for pixel in full]
    assert (np.diff(hues) > 0).all() and hues[0] == pytest.approx(0, abs=0.01)
    np.testing.assert_allclose(half[:, :3], full[:, :3] / 2, atol=1)
    np.testing.assert_array_equal(flow_colors(flow * 9), flow_colors(flow))
    volume = np.stack([np.ones_like(flow[0]), *flow])[:, None]  # z is not shown
    np.testing.assert_array_equal(flow_colors(volume)[0, 0], full)


def test_overlay_draws_outlines_only():
    labels = np.zeros((20, 20), np.uint32)
    labels[5:12, 6:14] = 3
    colours = np.random.default_rng(0).integers(0, 250, (3, 20, 20), dtype=np.uint8)
    drawn = overlay(colours, labels)
    edge = np.zeros((20, 20), bool)
    edge[5:12, 6:14] = True
    edge[6:11, 7:13] = False
    assert (drawn[edge] == (255, 210, 0)).all()
    np.testing.assert_array_equal(drawn[~edge], np.moveaxis(colours, 0, -1)[~edge])
    assert not (colours[:, edge] == [[255], [210], [0]]).all()  # the image itself stays


@pytest.mark.slow
def test_a_large_picture_takes_seconds_at_most():
    labels = squares(2048)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, labels.shape, dtype=np.uint16)
    flow = rng.normal(size=(2, *labels.shape)).astype(np.float32)
    overlay(image[:64, :64], labels[:64, :64])  # compiles
    for draw in (
        lambda: overlay(image, labels),
        lambda: label_colors(labels),
        lambda: flow_colors(flow),
    ):
        began = time.perf_counter()
        assert draw().shape[:2] == labels.shape
        assert time.perf_counter() - began < 10  # 0.2-0.7 s where nothing else runs
