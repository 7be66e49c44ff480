"""Fractions against plain rational arithmetic; boxes there and back."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import resample, resample_nearest
from cellseg_pipe.preprocess import Scale

FRACTIONS = st.tuples(st.integers(1, 60), st.integers(1, 60))


@given(st.floats(0.02, 50))
def test_the_fraction_is_near_and_no_simpler_one_is(factor):
    scale = Scale.of([factor])
    part = Fraction(scale.num[0], scale.den[0])
    exact = Fraction(factor)
    assert abs(part - exact) <= exact / 10_000
    for den in range(1, part.denominator):
        nearest = Fraction(round(exact * den), den)
        assert abs(nearest - exact) > exact / 10_000


def test_usual_factors():
    assert Scale.of([1.0, 0.99995]) == Scale((1, 1), (1, 1))
    assert Scale.of([30 / 20, 17 / 12]) == Scale((3, 17), (2, 12))
    assert Scale.of([1 / 3]).den == (3,)
    assert Scale((4, 10), (2, 4)) == Scale((2, 5), (1, 2))
    assert Scale((3, 1), (2, 1)).factors == (1.5, 1.0)
    assert Scale((1, 1), (1, 1)).identity and not Scale((3, 1), (2, 1)).identity


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_factors_are_refused(factor):
    with pytest.raises(ValueError, match="factors above 0"):
        Scale.of([factor, 1.0])


def test_a_factor_that_needs_too_large_a_denominator_is_refused():
    with pytest.raises(ValueError, match="denominator of 100000"):
        Scale.of([1 / 1_234_567])
    with pytest.raises(ValueError, match="1 or more per axis"):
        Scale((0, 1), (1, 1))


@given(FRACTIONS, st.integers(0, 10**7))
def test_the_grid_is_rounded_down_and_never_empty(fraction, n):
    scale = Scale((fraction[0],), (fraction[1],))
    exact = n * Fraction(*fraction)
    (size,) = scale.grid_shape((n,))
    assert size == (0 if n == 0 else max(1, exact.numerator // exact.denominator))


@given(FRACTIONS, st.integers(1, 10**7), st.data())
def test_the_source_box_holds_both_pixels_round_every_place(fraction, n, data):
    scale = Scale((fraction[0],), (fraction[1],))
    factor = Fraction(*fraction)
    (size,) = scale.grid_shape((n,))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    box = scale.source_box(Box((start,), (stop,)), (n,))
    for i, slack in ((start, 0), (stop - 1, 2)):
        place = min(max((i + Fraction(1, 2)) / factor - Fraction(1, 2), 0), n - 1)
        low = place.numerator // place.denominator if isinstance(place, Fraction) else place
        assert box.start[0] <= low and min(low + 2, n) <= box.stop[0]
        edge = box.start[0] if slack == 0 else box.stop[0]
        assert abs(edge - (low + slack)) <= 1 or edge == n


@given(FRACTIONS, st.integers(1, 10**6), st.data())
def test_the_back_box_is_the_source_box_of_the_inverse(fraction, n, data):
    scale = Scale((fraction[0],), (fraction[1],))
    start = data.draw(st.integers(0, n - 1))
    box = Box((start,), (data.draw(st.integers(start + 1, n)),))
    grid = scale.grid_shape((n,))
    back = scale.back_box(box, (n,))
    assert Box.of(grid).contains(back) and back.size > 0
    # A level-0 pixel's own place on the network's grid lies in it.
    for j in (box.start[0], box.stop[0] - 1):
        i = (j + Fraction(1, 2)) * Fraction(*fraction)
        assert back.holds((min(i.numerator // i.denominator, grid[0] - 1),))


def test_flows_and_labels_come_back_to_where_they_were():
    shape, scale = (30, 41), Scale((3, 5), (2, 3))
    grid = scale.grid_shape(shape)
    yx = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    ramp = np.stack(yx)
    whole = {"origin": (0, 0), "num": scale.num, "den": scale.den}
    there = resample(ramp, box=Box.of(grid), source_shape=shape, **whole)
    box = Box((7, 9), (19, 30))
    needed = scale.back_box(box, shape)
    where = {"origin": needed.start, "num": scale.inverse.num, "den": scale.inverse.den}
    where |= {"box": box, "source_shape": grid}
    back = resample(there[(slice(None), *needed.slices)], **where)
    np.testing.assert_allclose(back, ramp[:, 7:19, 9:30], atol=1e-5)
    labels = (np.indices(grid).sum(0) // 4).astype(np.uint32)
    near = resample_nearest(labels[needed.slices], **where)
    j, i = np.indices(shape)
    expected = labels[((2 * j + 1) * 3 // 4), ((2 * i + 1) * 5 // 6)]
    np.testing.assert_array_equal(near, expected[box.slices])


def test_factors_next_to_a_simple_fraction_are_met_too():
    """The fraction itself is just outside the tolerance, and so are all of small denominator."""
    factor = 0.29996994482920986
    scale = Scale.of([factor])
    assert scale.num[0] / scale.den[0] == pytest.approx(factor, rel=1e-4)
