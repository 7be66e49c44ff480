"""Boxes against sets of points."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box, ceil_div, per_axis


def points_of(box):
    return set(itertools.product(*(range(a, b) for a, b in zip(box.start, box.stop, strict=True))))


@st.composite
def boxes(draw, ndim=2):
    start = [draw(st.integers(-6, 6)) for _ in range(ndim)]
    return Box(tuple(start), tuple(a + draw(st.integers(0, 5)) for a in start))


@given(boxes(), boxes())
def test_clip_meets_and_contains_are_those_of_point_sets(left, right):
    shared = points_of(left) & points_of(right)
    assert points_of(left.clip(right)) == shared
    assert left.meets(right) == bool(shared)
    assert left.contains(right) == (points_of(right) <= points_of(left))
    assert right.contains(left.clip(right)) or left.clip(right).size == 0


@given(boxes(ndim=3), st.tuples(*[st.integers(-9, 9)] * 3))
def test_shift_and_relative_to_undo_each_other(box, offset):
    assert box.shift(offset).relative_to(offset) == box
    assert points_of(box) == set(box.points())
    assert box.size == len(points_of(box))


@given(boxes(), st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_cells_are_those_that_hold_a_point(box, pitch):
    expected = {tuple(x // p for x, p in zip(point, pitch, strict=True)) for point in box.points()}
    assert set(box.cells(pitch).points()) == expected


def test_grow_takes_one_number_or_one_per_axis():
    box = Box((2, 3), (4, 5))
    assert box.grow(1) == Box((1, 2), (5, 6))
    assert box.grow((0, 2)) == Box((2, 1), (4, 7))
    with pytest.raises(ValueError, match="one per axis"):
        box.grow((1, 2, 3))


def test_sizes_are_exact_beyond_64_bits():
    assert Box.of((2**40, 2**40)).size == 2**80
    assert ceil_div(2**80 + 1, 2**40) == 2**40 + 1
    assert ceil_div(-3, 2) == -1
    assert per_axis(5, 3, "halo") == (5, 5, 5)


def test_slices_refuse_to_wrap_round():
    assert Box((1, 2), (3, 4)).slices == (slice(1, 3), slice(2, 4))
    with pytest.raises(ValueError, match="Clip it first"):
        _ = Box((-1, 0), (3, 4)).slices


@pytest.mark.parametrize("ends", [((0, 0), (1,)), ((2,), (1,))])
def test_impossible_boxes_are_refused(ends):
    with pytest.raises(ValueError, match="Box needs"):
        Box(*ends)


def test_boxes_take_integers_only():
    with pytest.raises(TypeError):
        Box((0.5,), (2,))
