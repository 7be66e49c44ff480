"""Gaussians against scipy, boxes against crops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.preprocess import Filters, Scale, antialias_sigma_px, gaussian, gaussian_halo_px

SIGMAS = st.sampled_from([0.0, 0.3, 1.0, 2.2])


def plain_gaussian(inputs, sigma, radius):
    return np.stack(
        [
            ndimage.gaussian_filter(c.astype(np.float64), sigma, mode="reflect", radius=radius)
            for c in inputs
        ]
    )


@st.composite
def cases(draw):
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, 40 if ndim == 2 else 12)) for _ in range(ndim))
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    inputs = np.random.default_rng(draw(st.integers(0, 99))).normal(100, 30, (2, *shape))
    sigmas = [tuple(draw(SIGMAS) for _ in range(ndim)) for _ in range(2)]
    return inputs.astype(np.float32), Box(start, stop), Filters(*sigmas)


@given(cases(), st.integers(0, 2))
def test_a_box_with_its_halo_has_the_bits_of_the_whole(case, margin):
    inputs, box, filters = case
    shape = inputs.shape[1:]
    all_of_it = Box.of(shape)
    whole = filters.apply(inputs, box=all_of_it, origin=all_of_it.start, shape=shape, threads=2)
    outer = box.grow(filters.support_px).grow(margin).clip(all_of_it)
    read = inputs[(slice(None), *outer.slices)]
    part = filters.apply(read, box=box, origin=outer.start, shape=shape, threads=1)
    assert part.tobytes() == np.ascontiguousarray(whole[(slice(None), *box.slices)]).tobytes()


@given(cases())
def test_values_are_those_of_scipy(case):
    inputs, _, filters = case
    shape = inputs.shape[1:]
    box = Box.of(shape)
    where = {"box": box, "origin": box.start, "shape": shape}
    smooth, sharp = (
        plain_gaussian(inputs, sigma, gaussian_halo_px(sigma))
        for sigma in (filters.smooth_px, filters.sharpen_px)
    )
    np.testing.assert_allclose(gaussian(inputs, filters.smooth_px, **where), smooth, rtol=2e-6)
    expected = smooth - sharp if any(filters.sharpen_px) else smooth
    np.testing.assert_allclose(filters.apply(inputs, **where), expected, atol=1e-4)


def test_the_support_is_what_is_looked_at():
    filters = Filters((0.0, 1.0, 1.0), (0.0, 2.2, 0.5))
    assert filters.support_px == (0, 9, 4)
    point = np.zeros((1, 3, 41, 41), np.float32)
    point[0, 1, 20, 20] = 1
    box = Box.of(point.shape[1:])
    seen = np.argwhere(filters.apply(point, box=box, origin=box.start, shape=box.shape)[0])
    np.testing.assert_array_equal(seen.min(0), [1, 11, 16])
    np.testing.assert_array_equal(seen.max(0), [1, 29, 24])


def test_sharpening_takes_a_constant_to_nothing_and_no_sigma_changes_nothing():
    inputs = np.full((1, 20, 20), 7, np.float32)
    where = {"box": Box.of((20, 20)), "origin": (0, 0), "shape": (20, 20)}
    sharp = Filters((0.0, 0.0), (3.0, 3.0)).apply(inputs, **where)
    np.testing.assert_allclose(sharp, 0, atol=1e-5)
    same = Filters((0.0, 0.0), (0.0, 0.0)).apply(inputs, **where)
    np.testing.assert_array_equal(same, inputs)


def test_smoothing_before_shrinking():
    assert antialias_sigma_px(Scale((1, 3, 1), (1, 2, 4))) == (0.0, 0.0, 1.5)


def test_a_missing_halo_and_an_impossible_sigma_are_refused():
    inputs = np.zeros((1, 10, 10), np.float32)
    where = {"origin": (5, 5), "shape": (99, 99)}
    with pytest.raises(ValueError, match="with its halo"):
        gaussian(inputs, (1.0, 1.0), box=Box((5, 5), (15, 15)), **where)
    with pytest.raises(ValueError, match="sigma of 0 or more"):
        gaussian(inputs, (-1.0, 1.0), box=Box((5, 5), (15, 15)), **where)
