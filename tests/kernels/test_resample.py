"""Interpolation against scipy in float64, and boxes against crops of the whole."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import filter_axis, resample, resample_nearest, source_box

RATIOS = st.tuples(st.integers(1, 9), st.integers(1, 9))


def grid_of(shape, num, den):
    return tuple(max(1, n * p // q) for n, p, q in zip(shape, num, den, strict=True))


def exact_place(i, n, p, q):
    """Return the place on the source in exact arithmetic, at most at its borders' centres."""
    return min(max(((2 * i + 1) * q - p) / (2 * p), 0.0), n - 1.0)


def plain_resample(array, grid, num, den):
    axes = [
        [exact_place(i, n, p, q) for i in range(m)]
        for m, n, p, q in zip(grid, array.shape[1:], num, den, strict=True)
    ]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    pixels = array.astype(np.float64)
    return np.stack([ndimage.map_coordinates(c, places, order=1, mode="nearest") for c in pixels])


def noise(index, seed):
    """Return a pixel of an image of any size, from its place alone; zeros of both signs too."""
    mixed = np.uint64(seed)
    for part in index:
        mixed = (mixed ^ part.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    values = (mixed >> np.uint64(40)).astype(np.float32) / 2**20 - 8
    values[mixed % np.uint64(5) == 0] = 0.0
    values[mixed % np.uint64(7) == 0] = -0.0
    return values


def lazy(box, seed=0):
    axes = (np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True))
    index = np.meshgrid(*axes, indexing="ij")
    return np.stack([noise(index, seed), noise(index, seed + 1)])


def computed(box, shape, num, den, margin=0):
    """Return a box of the output, from the source pixels it needs and some more."""
    needed = source_box(box, shape=shape, num=num, den=den).grow(margin).clip(Box.of(shape))
    where = {"box": box, "origin": needed.start, "source_shape": shape, "num": num, "den": den}
    return resample(lazy(needed), threads=1, **where)


@st.composite
def cut_grids(draw, max_side=40):
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, max_side if ndim == 2 else 12)) for _ in range(ndim))
    num, den = zip(*(draw(RATIOS) for _ in range(ndim)), strict=True)
    grid = grid_of(shape, num, den)
    start = tuple(draw(st.integers(0, n - 1)) for n in grid)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, grid, strict=True))
    return shape, num, den, Box(start, stop)


@given(cut_grids(), st.integers(0, 3))
def test_a_box_has_the_bits_of_the_crop_of_the_whole(case, margin):
    shape, num, den, box = case
    whole = computed(Box.of(grid_of(shape, num, den)), shape, num, den)
    part = computed(box, shape, num, den, margin)
    assert part.tobytes() == whole[(slice(None), *box.slices)].tobytes()


@given(cut_grids())
def test_values_are_those_of_an_independent_interpolation(case):
    shape, num, den, _ = case
    grid = grid_of(shape, num, den)
    expected = plain_resample(lazy(Box.of(shape)), grid, num, den)
    np.testing.assert_allclose(computed(Box.of(grid), shape, num, den), expected, atol=1e-5)


@given(
    st.integers(10**5, 10**9),
    st.tuples(st.integers(1, 400), st.integers(1, 400)).map(lambda r: (r[0], min(r[1], 3 * r[0]))),
    st.integers(0, 3),
)
def test_far_from_the_origin_the_fraction_is_as_exact_as_near_it(far, ratio, margin):
    num, den = ((part, part) for part in ratio)
    shape = (4 * 10**11, 4 * 10**11)
    box = Box((far, far + 7), (far + 9, far + 30))
    whole = computed(box.grow(5), shape, num, den)
    part = computed(box, shape, num, den, margin)
    assert part.tobytes() == whole[:, 5:-5, 5:-5].tobytes()
    # The fractions come again after `num` pixels: near the origin, over the same pixels.
    period = far // num[0] - 2
    near = box.shift((-period * num[0],) * 2)
    shift = period * den[0]
    needed = source_box(box, shape=shape, num=num, den=den)
    again = resample(
        lazy(needed.grow(2)),
        box=near,
        origin=tuple(a - 2 - shift for a in needed.start),
        source_shape=shape,
        num=num,
        den=den,
    )
    assert again.tobytes() == part.tobytes()


def test_a_ramp_far_out_gives_its_places():
    # 10^6 px out float32 has steps of 0.06 px; the fraction 1/4 must come out all the same.
    box = Box((1_000_000, 1_000_000), (1_000_002, 1_000_004))
    needed = source_box(box, shape=(10**7, 10**7), num=(2, 2), den=(1, 1))
    assert needed == Box((499_999, 499_999), (500_002, 500_003))
    ramp = np.broadcast_to(np.arange(needed.shape[1], dtype=np.float32), (1, *needed.shape))
    where = {"box": box, "origin": needed.start, "source_shape": (10**7, 10**7)}
    row = resample(ramp, num=(2, 2), den=(1, 1), **where)[0, 0]
    np.testing.assert_array_equal(row, np.float32([0.75, 1.25, 1.75, 2.25]))


@pytest.mark.parametrize("shape", [(5, 300), (3, 4, 300)])
def test_scale_one_copies(shape):
    array = lazy(Box.of(shape))
    one = (1,) * len(shape)
    where = {"box": Box.of(shape), "origin": (0,) * len(shape), "source_shape": shape}
    assert resample(array, num=one, den=one, **where).tobytes() == array.tobytes()


def test_threads_and_storage_do_not_matter():
    shape, grid = (900, 1100), (1350, 1650)
    array = lazy(Box.of(shape))
    where = {"box": Box.of(grid), "origin": (0, 0), "source_shape": shape}
    one = resample(array, num=(3, 3), den=(2, 2), threads=1, **where)
    array.setflags(write=False)
    fortran = np.asfortranarray(array)
    for source in (array, fortran, array.astype(np.float64)):
        two = resample(source, num=(3, 3), den=(2, 2), threads=2, **where)
        assert two.tobytes() == one.tobytes()


@given(cut_grids())
def test_nearest_takes_the_pixel_that_holds_the_centre(case):
    shape, num, den, box = case
    labels = np.arange(math.prod(shape), dtype=np.uint32).reshape(shape) + np.uint32(2**32 - 10**6)
    index = [
        [min(((2 * i + 1) * q) // (2 * p), n - 1) for i in range(a, b)]
        for a, b, n, p, q in zip(box.start, box.stop, shape, num, den, strict=True)
    ]
    needed = source_box(box, shape=shape, num=num, den=den)
    where = {"box": box, "origin": needed.start, "source_shape": shape}
    found = resample_nearest(labels[needed.slices], num=num, den=den, **where)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, labels[np.ix_(*index)])


@given(cut_grids(), st.integers(0, 3))
def test_filter_matches_a_plain_sum_in_order(case, reach):
    shape, _, _, box = case
    array = lazy(Box.of(shape))
    taps = np.float32([0.5, 0.25, -0.125, 0.1])[: reach + 1]
    for axis in range(1, array.ndim):
        n = array.shape[axis]
        index = np.clip(
            np.arange(box.start[axis - 1] - reach, box.stop[axis - 1] + reach), 0, n - 1
        )
        line = np.moveaxis(array, axis, 0)[index]
        m = index.size - 2 * reach
        expected = taps[0] * line[reach : reach + m]
        for k in range(1, reach + 1):
            expected += taps[k] * (
                line[reach - k : reach - k + m] + line[reach + k : reach + k + m]
            )
        found = filter_axis(array, taps, index=index, axis=axis, threads=1)
        np.testing.assert_array_equal(np.moveaxis(found, axis, 0), expected)


def test_empty_boxes_give_empty_arrays():
    where = {"box": Box((3, 3), (3, 5)), "origin": (0, 0), "source_shape": (9, 9)}
    found = resample(np.zeros((2, 0, 0), np.float32), num=(1, 1), den=(2, 2), **where)
    assert found.shape == (2, 0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": (1, 0)}, "Read the source_box first"),
        ({"num": (0, 1)}, "whole numbers above 0"),
        ({"num": (2**40 + 1, 1), "den": (2**62, 1)}, "simpler fraction"),
        ({"origin": (0, 0, 0)}, "2 or 3 spatial axes"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    where = {"box": Box.of((4, 4)), "origin": (0, 0), "source_shape": (4, 4)}
    where |= {"num": (1, 1), "den": (1, 1)} | change
    with pytest.raises(ValueError, match=message):
        resample(np.zeros((1, 4, 4), np.float32), **where)


def test_a_filter_without_its_neighbours_is_refused():
    line = np.zeros((1, 4, 4), np.float32)
    with pytest.raises(ValueError, match="reflect at the border"):
        filter_axis(line, [0.5, 0.25], index=np.arange(-1, 5), axis=1)
    with pytest.raises(ValueError, match="an axis from 0 to 2"):
        filter_axis(line, [0.5], index=np.arange(4), axis=3)
