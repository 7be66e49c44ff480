"""Percentiles against numpy; what is applied, in float32."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.geometry import Box
from cellseg_pipe.preprocess import (
    LocalRanges,
    Pick,
    Range,
    apply_ranges,
    input_ranges,
    is_blank,
    local_boxes,
    local_ranges,
    percentile_range,
    sample_boxes,
)
from cellseg_pipe.preprocess.local import _nearest_good

FINITE = st.floats(-1e6, 1e6, width=32)
PIXELS = hnp.arrays(np.float32, st.integers(2, 300), elements=FINITE)
PERCENTILES = st.tuples(st.floats(0, 100), st.floats(0, 100)).map(lambda p: tuple(sorted(p)))


@given(PIXELS, PERCENTILES, st.integers(1, 5))
def test_percentiles_are_those_of_numpy(values, percentiles, cuts):
    blocks = [b for b in np.array_split(values, cuts) if np.ptp(b) > 0] or [values]
    kept = np.concatenate(blocks)
    expected = np.percentile(kept.astype(np.float64), percentiles).astype(np.float32)
    found = percentile_range(np.array_split(values, cuts), percentiles)
    assert (found.low, found.high) == (float(expected[0]), float(expected[1]))


def test_all_of_a_sampled_image_gives_the_percentiles_of_the_image():
    image = np.random.default_rng(0).gamma(2, 300, (517, 393)).astype(np.float32)
    found = percentile_range(image[box.slices] for box in sample_boxes(image.shape))
    expected = np.percentile(image.astype(np.float64), [1, 99]).astype(np.float32)
    assert [found.low, found.high] == expected.tolist()


def test_regions_that_were_never_acquired_do_not_shift_the_range():
    image = np.random.default_rng(1).normal(500, 50, (256, 256)).astype(np.float32)
    wide = np.zeros((1024, 1024), np.float32)
    wide[256:512, 512:768] = image
    found = percentile_range(wide[box.slices] for box in sample_boxes(wide.shape))
    assert found == percentile_range([image])
    assert percentile_range([np.zeros((4, 4)), np.full((4, 4), 3)]).high == 3
    assert percentile_range([]).flat and percentile_range([np.full(9, 7)]).flat


def test_ranges_of_inputs():
    blocks = [np.stack([np.arange(101), np.full(101, 5), np.zeros(101)]).astype(np.float32)]
    picks = (Pick("channel", 0), Pick("channel", 1), Pick("zero"))
    found = input_ranges(blocks, picks)
    assert found == (Range(1, 99), Range(5, 5), Range(0, 0))
    assert [r.flat for r in found] == [False, True, True]
    given = input_ranges(blocks, picks, given=(10, 20))
    assert given == (Range(10, 20), Range(10, 20), Range(0, 0))
    with pytest.raises(ValueError, match="lower one first"):
        input_ranges(blocks, picks, given=(20, 10))


def test_what_is_applied_is_not_clipped_and_zeros_stay_zeros():
    inputs = np.stack([np.float32([0, 10, 20, 40]), np.float32([5, 5, 5, 6]), np.zeros(4)])
    inputs = inputs.astype(np.float32)[:, None]
    ranges = (Range(10, 20), Range(5, 5), Range(0, 0))
    found = apply_ranges(inputs, ranges)
    np.testing.assert_array_equal(found[:, 0], [[-1, 0, 1, 3], [0] * 4, [0] * 4])
    inverted = apply_ranges(inputs, ranges, invert=True)
    np.testing.assert_array_equal(inverted[:, 0], [[2, 1, 0, -2], [0] * 4, [0] * 4])
    # Nothing is remembered: the peer's settings leaked into later calls.
    np.testing.assert_array_equal(apply_ranges(inputs, ranges), found)


@example(np.float32([4, 0]), 0.0, 1.1754943508222875e-38)
@given(PIXELS, FINITE, FINITE)
def test_the_formula(values, a, b):
    span = Range(min(a, b), max(a, b))
    found = apply_ranges(values[None], (span,))[0]
    if span.flat:
        np.testing.assert_array_equal(found, 0)
    else:
        factor = np.float32(1 / (span.high - span.low))
        with np.errstate(over="ignore"):
            exact = (values - np.float32(span.low)) * factor
        np.testing.assert_array_equal(found, np.clip(exact, -1e6, 1e6))


@pytest.mark.parametrize("ends", [(2, 1), (0, float("nan")), (0, 1e39), (float("-inf"), 0)])
def test_impossible_ranges_are_refused(ends):
    with pytest.raises(ValueError, match="Range needs"):
        Range(*ends)


def test_percentiles_and_pixels_are_checked():
    with pytest.raises(ValueError, match="0 to 100"):
        percentile_range([np.arange(4)], (99, 1))
    with pytest.raises(ValueError, match="check_finite"):
        percentile_range([np.float32([1, np.nan, 2])])


def test_a_tiny_contrast_that_float32_cannot_divide_by_is_flat():
    assert Range(0, 1e-40).flat and Range(0, 1e-40).factor == 0
    assert not Range(0, 1e-30).flat


def test_blank():
    inputs = np.zeros((2, 3, 3), np.float32)
    inputs[1] = 4
    assert is_blank(inputs) and is_blank(np.zeros((1, 0, 3), np.float32))
    inputs[1, 2, 2] = 5
    assert not is_blank(inputs)


# Local ranges


def sampled(image, edge):
    boxes = local_boxes(image.shape[1:], edge)
    return [[image[(slice(None), *box.slices)] for box in block] for block in boxes]


def local_of(image, edge, **settings):
    return local_ranges(sampled(image, edge), shape=image.shape[1:], edge_px=edge, **settings)


def plain_nearest(good, edges):
    where = np.argwhere(good)
    result = np.empty(good.shape, int)
    for place in np.ndindex(good.shape):
        squared = (((where - place) * np.asarray(edges)) ** 2).sum(1)
        result[place] = np.ravel_multi_index(tuple(where[np.argmin(squared)]), good.shape)
    return result


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6)), st.integers(1, 3))
def test_the_nearest_good_block_and_of_ties_the_first(good, edge):
    good.flat[-1] = True
    edges = (edge,) + (2,) * (good.ndim - 1)
    np.testing.assert_array_equal(_nearest_good(good, edges), plain_nearest(good, edges))


@given(st.data())
def test_local_ranges_of_a_box_have_the_bits_of_the_whole(data):
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = tuple(data.draw(st.integers(1, 40 if ndim == 2 else 14)) for _ in range(ndim))
    image = np.random.default_rng(3).gamma(2, 50, (2, *shape)).astype(np.float32)
    image[1] = 0
    edge = data.draw(st.integers(1, 12))
    ranges = local_of(image, edge)
    assert ranges.flat[1]
    invert = data.draw(st.booleans())
    whole = ranges.apply(image, origin=(0,) * ndim, invert=invert)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    cut = (slice(None), *Box(start, stop).slices)
    part = ranges.apply(image[cut], origin=start, invert=invert)
    assert part.tobytes() == np.ascontiguousarray(whole[cut]).tobytes()
    assert not whole[1].any()


def test_a_shaded_image_becomes_even_and_a_uniform_one_is_as_with_one_range():
    y, x = np.indices((320, 320))
    cells = ((y // 8 + x // 8) % 2).astype(np.float32)
    shaded = (cells * (20 + x) + 100)[None].astype(np.float32)
    even = local_of(shaded, 32).apply(shaded, origin=(0, 0))[0]
    inside = np.s_[64:-64, 64:-64]  # at the border the last blocks' values are held
    bright = even[inside][cells[inside] > 0]
    assert 0.75 < bright.min() and bright.max() < 1.1
    once = apply_ranges(shaded, (percentile_range(shaded),))[0]
    assert once[inside][cells[inside] > 0].min() < 0.3
    plain = (cells * 50 + 100)[None]
    np.testing.assert_allclose(local_of(plain, 32).apply(plain, origin=(0, 0))[0], cells, atol=1e-5)


def test_a_weak_block_takes_its_neighbours_range():
    image = np.random.default_rng(0).normal(100, 30, (1, 64, 64)).astype(np.float32)
    image[0, :32, :32] = 100 + image[0, :32, :32] * 1e-5  # noise, not cells
    ranges = local_of(image, 32)
    assert np.abs(ranges.apply(image, origin=(0, 0))[0, :32, :32] - 0.5).max() < 0.1
    assert isinstance(ranges, LocalRanges) and ranges.low.shape == (1, 2, 2)
    empty = local_of(np.zeros((1, 64, 64), np.float32), 32)
    assert empty.flat == (True,)


def test_missing_samples_are_refused():
    with pytest.raises(ValueError, match="all 4 blocks"):
        local_ranges([[np.zeros((1, 32, 32))]], shape=(64, 64), edge_px=32)
