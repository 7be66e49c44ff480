"""Flows of labels against plain numpy, files of another program, and themselves elsewhere."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.kernels.flows import flows_from_labels

GOLDEN = Path(__file__).parents[1] / "golden"
BLOB = np.hypot(*(np.indices((19, 23)) - np.array([8.6, 11.3])[:, None, None])) < 8.8
BLOB[12:, 15:] = False


def centre_of(mask):
    """The voxel nearest the mean, the first of them, by whole numbers."""
    points = np.argwhere(mask)
    far = ((points * len(points) - points.sum(0)) ** 2).sum(1)
    return tuple(points[far.argmin()])


def shifted(heat, step, axis):
    return np.roll(heat, -step, axis)


def plain_heat(mask, steps):
    """Heat from the centre, averaged over 3 x 3 pixels in 2D and over 7 voxels in 3D."""
    heat, centre = np.zeros(mask.shape), centre_of(mask)
    for _ in range(steps):
        heat[centre] += 1
        if mask.ndim == 2:
            rows = shifted(heat, -1, 0) + heat + shifted(heat, 1, 0)
            total, parts = shifted(rows, -1, 1) + rows + shifted(rows, 1, 1), 9
        else:
            total, parts = heat.copy(), 7
            for axis in range(3):
                total += shifted(heat, -1, axis) + shifted(heat, 1, axis)
        heat = np.where(mask, total / parts, 0)
    return heat


def plain_diffusion(labels, steps=None):
    """Flow of a 2D image or, by heat in three dimensions, of a volume."""
    flow = np.zeros((labels.ndim, *labels.shape))
    for value in np.unique(labels[labels > 0]):
        where = np.argwhere(labels == value)
        box = tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
        mask = np.pad(labels[box] == value, 1)
        sides = np.array(mask.shape) - 2
        own_steps = 2 * (sides + 2).sum() if labels.ndim == 2 else 6 * (sides + 1).sum()
        heat = plain_heat(mask, steps or own_steps)
        slope = np.stack([shifted(heat, 1, a) - shifted(heat, -1, a) for a in range(labels.ndim)])
        inner = (slice(None), *(slice(1, -1) for _ in range(labels.ndim)))
        slope = unit(slope * mask)[inner]
        flow[(slice(None), *box)] += slope
    return flow


def plain_planes(labels):
    """Unit vectors along the sum of the flows of all planes."""
    total = np.zeros((3, *labels.shape))
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for k in range(labels.shape[axis]):
            plane = (slice(None),) * axis + (k,)
            for a, part in zip(others, plain_diffusion(labels[plane]), strict=True):
                total[(a, *plane)] += part
    return unit(total)


def unit(vectors):
    length = np.sqrt((vectors**2).sum(0))
    return vectors / np.where(length > 0, length, 1)


def assert_agree(flow, expected, labels, atol=1e-4):
    """Equal within atol; nothing outside the objects."""
    assert flow.dtype == np.float32 and flow.shape == (labels.ndim, *labels.shape)
    assert not flow[:, labels == 0].any()
    np.testing.assert_allclose(flow, expected, rtol=0, atol=atol)


# Another program


@pytest.mark.parametrize("case", ["touching", "gaps", "elongated", "borders", "tiny"])
def test_2d_flow_is_the_peers(case):
    with np.load(GOLDEN / "flows_2d.npz") as golden:
        labels, expected = golden[f"{case}_labels"], golden[f"{case}_flow"]
    flow = flows_from_labels(labels)
    assert_agree(flow, expected, labels, atol=1e-5)
    moving = np.abs(expected).max(0) > 1e-6
    assert (flow * expected).sum(0)[moving].min() > 0.99999


def test_3d_flow_of_planes_has_the_direction_of_the_peers_sum():
    with np.load(GOLDEN / "flows_3d_planes.npz") as golden:
        labels, total = golden["labels"], golden["flow_sum"]
    flow = flows_from_labels(labels, method="planes")
    off = np.abs(flow - unit(total)).max(0) > 1e-4
    # The peer makes a unit vector of rounding errors in the middle of a symmetric section.
    assert off.sum() <= 4 and (labels > 0).sum() > 7000
    length = np.sqrt((flow**2).sum(0))[labels > 0]
    np.testing.assert_allclose(length[length > 0], 1, atol=1e-6)


def test_3d_diffusion_is_the_peers_where_cells_do_not_touch():
    with np.load(GOLDEN / "flows_3d_diffusion.npz") as golden:
        labels, expected = golden["apart_labels"], golden["apart_flow"]
    assert_agree(flows_from_labels(labels, method="diffusion"), expected, labels, atol=1e-5)


# The plain reference


@given(
    hnp.arrays(
        np.uint32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7),
        elements=st.sampled_from([0, 1, 1, 2, 70_000]),
    ),
    st.sampled_from([1, 2]),
)
@settings(max_examples=60)
def test_any_2d_labels_have_the_plain_flow(labels, threads):
    flow = flows_from_labels(labels, threads=threads)
    expected = plain_diffusion(labels)
    sure = np.abs(plain_slopes(labels)).max(0) > 1e-9
    np.testing.assert_allclose(flow[:, sure], expected[:, sure], rtol=0, atol=1e-5)


def plain_slopes(labels):
    """Differences of heat relative to heat, to tell rounding errors from a direction."""
    slopes = np.zeros((2, *labels.shape))
    for value in np.unique(labels[labels > 0]):
        where = np.argwhere(labels == value)
        low, high = where.min(0), where.max(0) + 1
        mask = np.pad(labels[low[0] : high[0], low[1] : high[1]] == value, 1)
        heat = plain_heat(mask, 2 * (high - low + 2).sum())
        scale = np.where(mask & (heat > 0), heat, 1)
        for axis in (0, 1):
            slope = (shifted(heat, 1, axis) - shifted(heat, -1, axis)) / scale * mask
            slopes[axis, low[0] : high[0], low[1] : high[1]] += slope[1:-1, 1:-1]
    return slopes


@given(st.integers(0, 2**32 - 1), st.sampled_from(["planes", "diffusion"]))
@settings(max_examples=8)
def test_3d_labels_have_the_plain_flow(seed, method):
    labels = np.random.default_rng(seed).choice([0, 3, 3, 9], (5, 7, 6)).astype(np.uint32)
    labels[:, 3:] = 9 * (labels[:, 3:] > 0)
    plain = plain_planes if method == "planes" else plain_diffusion
    off = np.abs(flows_from_labels(labels, method=method) - plain(labels)).max(0) > 1e-4
    assert off.mean() < 0.02  # symmetric sections only


def test_touching_cells_do_not_leak():
    labels = np.zeros((14, 20, 22), np.uint32)
    labels[2:12, 3:17, 2:11] = 1
    labels[2:12, 3:17, 11:20] = 2
    for method in ("planes", "diffusion"):
        both = flows_from_labels(labels, method=method)
        for value in (1, 2):
            alone = flows_from_labels(np.where(labels == value, value, 0), method=method)
            np.testing.assert_array_equal(both * (labels == value), alone)


# Large and thin cells


def test_large_cell_points_to_its_centre_everywhere():
    y, x = np.indices((204, 204)) - np.array([101.3, 100.6])[:, None, None]
    labels = (np.hypot(y, x) < 100).astype(np.uint32)
    flow = flows_from_labels(labels)
    away = (labels > 0) & (np.hypot(y, x) > 2)
    inward = -(flow[0] * y + flow[1] * x)[away] / np.hypot(y, x)[away]
    assert inward.min() > 0.9
    assert inward.mean() > 0.999


def test_long_thin_cell_points_to_its_centre_up_to_its_ends():
    labels = np.zeros((8, 402), np.uint32)
    labels[1:7, 1:401] = 5
    flow = flows_from_labels(labels)
    toward = flow[1, 1:7, 1:401] * np.sign(199.0 - np.arange(400))
    assert np.delete(toward, 199, axis=1).min() > 0.1 and toward[2:4].mean() > 0.7
    assert_agree(flow, plain_diffusion(labels), labels)


@pytest.mark.parametrize("length_px", [600, 1200])
def test_line_of_single_pixels_keeps_its_direction(length_px):
    labels = np.zeros((1, length_px + 2), np.uint32)
    labels[0, 1:-1] = 1
    expected = np.sign((length_px + 1) // 2 - np.arange(length_px + 2))
    np.testing.assert_array_equal(flows_from_labels(labels)[1], expected * labels[0] + 0.0 * labels)


# Bits that stay


@pytest.mark.parametrize("origin", [(y, x) for y in (0, 1, 2, 5) for x in (0, 1, 3, 4)])
def test_flow_does_not_depend_on_where_the_object_lies(origin):
    alone = flows_from_labels(BLOB.astype(np.uint32))
    rng = np.random.default_rng(0)
    image = rng.integers(2, 6, (30, 32)).astype(np.uint32)
    window = tuple(slice(o, o + s) for o, s in zip(origin, BLOB.shape, strict=True))
    image[window] = np.where(BLOB, 1, image[window])
    crop = flows_from_labels(image)[(slice(None), *window)]
    np.testing.assert_array_equal(crop * BLOB, alone)


@pytest.mark.parametrize("method", ["planes", "diffusion"])
def test_3d_flow_does_not_depend_on_where_the_object_lies(method):
    thick = np.stack([BLOB, BLOB[::-1], BLOB[:, ::-1]])
    alone = flows_from_labels(thick.astype(np.uint32), method=method)
    volume = np.full((6, 25, 30), 4, np.uint32)
    volume[2:5, 3:22, 5:28][thick] = 1
    crop = flows_from_labels(volume, method=method)[:, 2:5, 3:22, 5:28]
    np.testing.assert_array_equal(crop * thick, alone)


@pytest.mark.parametrize("method", ["planes", "diffusion"])
@pytest.mark.parametrize("shape", [(60, 70), (9, 30, 33)])
def test_threads_do_not_change_a_bit(shape, method):
    labels = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint32)
    labels = np.where(
        labels > 0,
        1
        + sum(
            np.indices(shape)
            // 8
            * np.array([1, 9, 81][: len(shape)]).reshape(-1, *(1,) * len(shape))
        ),
        0,
    )
    one = flows_from_labels(labels, threads=1, method=method)
    for threads in (2, 5):
        np.testing.assert_array_equal(
            flows_from_labels(labels, threads=threads, method=method), one
        )


def test_mirrored_object_has_the_mirrored_flow_but_for_its_steps():
    square = np.ones((9, 13), np.uint32)
    flow = flows_from_labels(square)
    np.testing.assert_array_equal(flow[0], -flow[0, ::-1])
    np.testing.assert_array_equal(flow[1], -flow[1, :, ::-1])
    assert not flow[:, 4, 6].any()


# Values and layouts


def test_labels_of_any_value_and_number_give_one_flow():
    cells = np.arange(1, 260 * 260 + 1).reshape(260, 260).repeat(2, 0).repeat(2, 1)
    flow = flows_from_labels(cells)
    pair = flows_from_labels(np.ones((2, 2), np.uint32))
    np.testing.assert_array_equal(flow, np.tile(pair, (1, 260, 260)))
    high = (2**32 - 1 - cells * 7).astype(np.uint32)
    np.testing.assert_array_equal(flows_from_labels(high), flow)


def test_layout_of_the_labels_does_not_matter():
    labels = np.zeros((40, 46), np.int64)
    labels[::2, ::2] = BLOB[:20:1].repeat(2, 0)[:20, :23] * 3
    expected = flows_from_labels(labels[::2, ::2].copy())
    np.testing.assert_array_equal(flows_from_labels(labels[::2, ::2]), expected)
    np.testing.assert_array_equal(flows_from_labels(np.asfortranarray(labels[::2, ::2])), expected)
    fixed = labels[::2, ::2].astype(np.uint32)
    fixed.flags.writeable = False
    np.testing.assert_array_equal(flows_from_labels(fixed), expected)


@pytest.mark.parametrize("method", ["planes", "diffusion"])
@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (3, 4), (0, 2, 2), (2, 3, 4)])
def test_no_object_has_no_flow(shape, method):
    flow = flows_from_labels(np.zeros(shape, np.uint32), method=method)
    assert flow.shape == (len(shape), *shape) and flow.dtype == np.float32 and not flow.any()


@pytest.mark.parametrize("method", ["planes", "diffusion"])
@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6)])
def test_single_pixel_has_no_flow(shape, method):
    labels = np.zeros(shape, np.uint32)
    labels[(2,) * len(shape)] = 8
    assert not flows_from_labels(labels, method=method).any()


def test_one_object_over_the_whole_image_is_bounded_by_it():
    labels = np.full((12, 17), 4, np.uint32)
    assert_agree(flows_from_labels(labels), plain_diffusion(labels), labels, atol=1e-5)


# Spacing


def test_spacing_counts_by_its_ratios_only():
    labels = BLOB.astype(np.uint32)
    plain = flows_from_labels(labels)
    np.testing.assert_array_equal(flows_from_labels(labels, spacing=(0.5, 0.5)), plain)
    np.testing.assert_array_equal(
        flows_from_labels(labels, spacing=(2, 1)), flows_from_labels(labels, spacing=(4, 2))
    )


@pytest.mark.parametrize("method", ["planes", "diffusion"])
def test_flow_of_a_ball_in_flat_voxels_points_to_its_centre(method):
    grid = np.indices((9, 25, 25)) - np.array([4, 12, 12])[:, None, None, None]
    place = grid * np.array([3.0, 1.0, 1.0])[:, None, None, None]
    ball = np.sqrt((place**2).sum(0)) < 12
    flow = flows_from_labels(ball.astype(np.uint32), method=method, spacing=(3, 1, 1))
    away = ball & (np.sqrt((place**2).sum(0)) > 2)
    inward = -(flow * unit(place)).sum(0)[away]
    ignored = flows_from_labels(ball.astype(np.uint32), method=method)
    assert inward.mean() > 0.97
    assert inward.mean() > -(ignored * unit(place)).sum(0)[away].mean()


# Refusals


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"labels": np.ones((3, 3))}, TypeError, "array of integers"),
        ({"labels": np.ones(3, int)}, ValueError, "2 or 3 axes, got shape"),
        ({"labels": np.ones((2, 2, 2, 2), int)}, ValueError, "2 or 3 axes"),
        ({"labels": np.ones((3, 3), int), "method": "heat"}, ValueError, "planes, diffusion"),
        ({"labels": np.ones((3, 3), int), "spacing": (1, 1, 1)}, ValueError, "per axis, 2 in all"),
        ({"labels": np.ones((3, 3), int), "spacing": (1, 0)}, ValueError, "positive"),
        ({"labels": np.ones((3, 3), int), "spacing": (1, np.nan)}, ValueError, "positive"),
        ({"labels": np.ones((3, 3), int), "spacing": (1, 1001)}, ValueError, "1000 times"),
        ({"labels": np.ones((3, 3), int), "backend": "abacus"}, ValueError, "numba"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, words):
    labels = arguments.pop("labels")
    with pytest.raises(error, match=words):
        flows_from_labels(labels, **arguments)


@pytest.mark.parametrize("method", ["planes", "diffusion"])
@pytest.mark.parametrize("shape", [(40, 44), (14, 15, 16)])
def test_pieces_apart_from_the_centre_have_no_flow_and_change_none(shape, method):
    labels = np.zeros(shape, np.uint32)
    blob, stray = (slice(2, 9),) * len(shape), (-1,) * len(shape)
    labels[blob] = labels[stray] = 1
    flow = flows_from_labels(labels, method=method)
    if method == "planes" and labels.ndim == 3:
        expected = plain_planes(labels)
    else:
        expected = plain_diffusion(labels)
    assert_agree(flow, expected, labels)
    assert not flow[(slice(None), *stray)].any()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", ["planes", "diffusion"])
def test_pieces_of_any_shape_have_the_plain_flow(seed, method):
    # Forks, rings, combs and islands: runs that join late, early or never.
    rng = np.random.default_rng(seed)
    shape = (26, 31) if method == "planes" else (8, 10, 12)
    labels = (rng.random(shape) < (0.35, 0.45, 0.55)[seed % 3]).astype(np.uint32)
    labels[labels > 0] += rng.random(np.count_nonzero(labels)) < 0.1
    assert_agree(flows_from_labels(labels, method=method), plain_diffusion(labels), labels)


def test_time_grows_with_the_object_and_not_with_its_box():
    # Two blocks in the corners of 1000 x 1000 px took 14 s: heat was spread over the whole box.
    labels = np.zeros((1000, 1000), np.uint32)
    labels[:3, :3] = labels[-3:, -3:] = 1
    flows_from_labels(labels[:9, :9])
    begin = time.process_time()
    flow = flows_from_labels(labels, threads=1)
    assert time.process_time() - begin < 2
    length = np.hypot(*flow)
    np.testing.assert_allclose(length[:3, :3], 1, atol=1e-6)  # of two as near, the first block
    assert not length[-3:, -3:].any()
