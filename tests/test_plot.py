"""Pictures: colours that follow from numbers alone, and ranges that stand odd values."""

import colorsys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cellseg_pipe.plot import (
    distinct_colors,
    figure_of,
    fill,
    flow_colors,
    label_colors,
    max_projections,
    orthogonal_slices,
    outlines,
    overlay,
    show,
    to_grey8,
    to_rgb8,
)

GOLDEN = Path(__file__).parent / "golden"


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


def test_colours_of_flows_are_those_of_the_peer():
    golden = np.load(GOLDEN / "colours.npz")
    found = flow_colors(golden["flow"].astype(np.float32))
    assert np.abs(found[..., :3].astype(int) - golden["rgb"]).max() <= 1
    assert (found[..., :3] == golden["rgb"]).mean() > 0.99
    assert (found[..., 3] == 255).all()


def test_hue_is_direction_and_brightness_is_length():
    turns = np.linspace(0, 1, 12, endpoint=False)
    flow = np.stack([np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)])[:, None]
    flow = np.concatenate([flow, flow * 0], axis=2).astype(np.float32)
    full = flow_colors(flow)[0, :12]
    hues = [colorsys.rgb_to_hsv(*pixel[:3].astype(float))[0] for pixel in full]
    assert len(np.unique(np.round(hues, 2))) == 12
    np.testing.assert_allclose(full[:, :3].astype(int).sum(axis=1), 382, atol=2)
    assert not flow_colors(flow)[0, 12:, :3].any()
    volume = np.stack([np.ones_like(flow[0]), *flow])[:, None]  # z is not shown
    np.testing.assert_array_equal(flow_colors(volume)[0], flow_colors(flow))
    assert not flow_colors(flow * 0)[..., :3].any()
    assert flow_colors(flow[:, :0]).shape == (0, 24, 4)


@pytest.mark.parametrize("edge", [2, 3, 7, 20])
def test_neighbours_have_different_colours(edge):
    labels = squares(180, edge=max(edge, 5))
    labels = np.where(labels, labels * 4096, 0).astype(np.uint32)  # of one colour by number
    colours = distinct_colors(labels)
    assert not colours[labels == 0].any() and (colours[labels > 0, 3] == 255).all()
    by_label = {int(i): tuple(colours[labels == i][0]) for i in np.unique(labels)}
    for axis in (0, 1):
        for gap in range(1, 7):
            n = labels.shape[axis]
            first = np.take(labels, np.arange(n - gap), axis=axis)
            second = np.take(labels, np.arange(gap, n), axis=axis)
            for a, b in {*zip(first.ravel().tolist(), second.ravel().tolist(), strict=True)}:
                assert a == b or by_label[a] != by_label[b]


def test_colours_of_neighbours_in_odd_pictures():
    assert distinct_colors(np.zeros((0, 5), np.uint32)).shape == (0, 5, 4)
    assert not distinct_colors(np.zeros((4, 5), np.uint32)).any()
    one = distinct_colors(np.array([[2**32 - 1]], np.uint32))
    assert one[0, 0, 3] == 255
    crowd = np.arange(1, 401, dtype=np.uint32).reshape(20, 20)  # more neighbours than colours
    assert (distinct_colors(crowd)[..., 3] == 255).all()


def test_outlines_and_cells_over_an_image():
    labels = np.zeros((20, 20), np.uint32)
    labels[5:12, 6:14] = 3
    drawn = outlines(labels, color=(1, 2, 3))
    assert (drawn[5, 6:14] == (1, 2, 3, 255)).all() and not drawn[6:11, 7:13].any()
    grey = np.tile(np.arange(20, dtype=np.uint16), (20, 1))
    filled = fill(grey, labels, opacity=1.0)
    np.testing.assert_array_equal(filled[labels > 0], distinct_colors(labels)[labels > 0, :3])
    np.testing.assert_array_equal(filled[labels == 0], to_rgb8(grey)[labels == 0])
    with pytest.raises(ValueError, match=r"labels' shape \(20, 20\), got \(19, 20\)"):
        fill(grey[1:], labels)


def test_four_panels_side_by_side():
    rng = np.random.default_rng(2)
    image, labels = rng.normal(size=(30, 40)), np.zeros((30, 40), np.uint32)
    labels[4:20, 6:30] = 1
    flow = rng.normal(size=(2, 15, 20)).astype(np.float32)  # not resampled
    logit = np.where(labels[::2, ::2] > 0, 9, -9).astype(np.float32)
    picture = show(image, labels, flow=flow, logit=logit)
    assert picture.shape == (30, 4 * 40 + 3 * 8, 3) and picture.dtype == np.uint8
    panels = [picture[:, i * 48 : i * 48 + 40] for i in range(4)]
    np.testing.assert_array_equal(panels[0], to_rgb8(image))
    np.testing.assert_array_equal(panels[1], overlay(image, labels))
    np.testing.assert_array_equal(panels[2][::2, ::2], flow_colors(flow)[..., :3])
    assert (panels[3][labels > 0] > 250).all() and (panels[3][labels == 0] < 5).all()


def test_slices_and_projections_of_a_volume():
    volume = np.zeros((6, 10, 14), np.float32)
    volume[2, 3, 4] = 9
    views = max_projections(volume, anisotropy=2.0)
    assert views.shape == (10 + 8 + 12, 14 + 8 + 12, 3)
    assert views[3, 4, 0] == 255  # along z
    assert (views[18 + 4 : 18 + 6, 4] == 255).all()  # along y, planes twice as far apart
    assert (views[3, 22 + 4 : 22 + 6] == 255).all()  # along x
    slices = orthogonal_slices(volume, at=(2, 3, 4))
    assert (slices[3, 4] == 255).all() and slices[3, 22 + 2, 0] == 255
    labels = (volume > 0).astype(np.uint32)
    drawn = orthogonal_slices(volume, labels, at=(2, 3, 4))
    assert drawn[3, 4].tolist() == [255, 210, 0]
    assert not orthogonal_slices(volume)[:10, :14].any()  # the middle
    with pytest.raises(ValueError, match="needs labels of the volume's shape"):
        orthogonal_slices(volume, labels[1:])


def test_a_figure_for_notebooks():
    labels = np.zeros((3, 16, 20), np.uint32)
    labels[1, 3:9, 4:12] = 5
    flow, logit = np.zeros((3, 3, 8, 10), np.float32), np.zeros((3, 8, 10), np.float32)
    result = SimpleNamespace(labels=labels, flow=flow, logit=logit)
    figure = figure_of(np.zeros((2, 3, 16, 20)), result)
    names = [axes.get_title() for axes in figure.axes]
    assert names == ["image", "outlines", "cells", "flow", "probability"]
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(shown[1], overlay(np.zeros((16, 20)), labels[1]))
    assert {picture.shape for picture in shown} == {(16, 20, 3)}


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
def test_a_large_picture_can_be_drawn():
    labels = squares(2048)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, labels.shape, dtype=np.uint16)
    flow = rng.normal(size=(2, *labels.shape)).astype(np.float32)
    overlay(image[:64, :64], labels[:64, :64])  # compiles
    for draw in (
        lambda: overlay(image, labels),
        lambda: label_colors(labels),
        lambda: distinct_colors(labels),
        lambda: flow_colors(flow),
    ):
        assert draw().shape[:2] == labels.shape
