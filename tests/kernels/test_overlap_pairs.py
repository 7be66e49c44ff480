"""Pair counts against a dictionary."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.kernels import Pairs, overlap_pairs, sum_pairs

VALUES = st.sampled_from([0, 1, 2, 3, 70_000, 2**32 - 1])


def plain_pairs(left, right):
    return Counter(zip(left.ravel().tolist(), right.ravel().tolist(), strict=True))


def as_counter(pairs):
    keys = zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
    return Counter(dict(zip(keys, pairs.count.tolist(), strict=True)))


@st.composite
def label_pairs(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6))
    arrays = hnp.arrays(np.uint32, shape, elements=VALUES)
    return draw(arrays), draw(arrays)


@given(label_pairs(), st.sampled_from([1, 2]))
def test_pairs_are_those_of_a_plain_count(arrays, threads):
    left, right = arrays
    pairs = overlap_pairs(left, right, threads=threads)
    assert as_counter(pairs) == plain_pairs(left, right)
    keys = pairs.left.astype(np.uint64) << np.uint64(32) | pairs.right
    assert (np.diff(keys.astype(object)) > 0).all(), "not ascending"


@given(label_pairs(), st.integers(0, 6))
def test_tables_of_blocks_add_up_to_the_table_of_the_whole(arrays, cut):
    left, right = arrays
    whole = overlap_pairs(left, right)
    parts = [overlap_pairs(left[s], right[s]) for s in (slice(None, cut), slice(cut, None))]
    total = sum_pairs(parts)
    for name in ("left", "right", "count"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))
        assert getattr(total, name).dtype == getattr(whole, name).dtype


def test_more_open_pairs_than_slots_and_more_than_one_chunk():
    rng = np.random.default_rng(0)
    left = rng.integers(0, 40_000, (3, 700_000)).astype(np.uint32)
    right = np.roll(left, 1, axis=1)
    keys = left.astype(np.uint64) << np.uint64(32) | right
    expected, counts = np.unique(keys, return_counts=True)
    for threads in (1, 2):
        pairs = overlap_pairs(left, right, threads=threads)
        found = pairs.left.astype(np.uint64) << np.uint64(32) | pairs.right
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(pairs.count, counts)


def test_no_tables_make_an_empty_one():
    total = sum_pairs([])
    assert isinstance(total, Pairs) and total.count.size == 0


def test_views_and_read_only_arrays_are_counted_as_they_are():
    labels = np.arange(24, dtype=np.int16).reshape(4, 6)
    labels.flags.writeable = False
    pairs = overlap_pairs(labels[::2, ::-1], labels.T.reshape(6, 4).T[::2])
    assert as_counter(pairs) == plain_pairs(labels[::2, ::-1], labels.T.reshape(6, 4).T[::2])


@pytest.mark.parametrize(
    ("left", "right", "error", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), ValueError, "Crop both to the same Box"),
        (np.zeros(3), np.zeros(3, int), TypeError, "left needs an array of integers"),
        (np.zeros(3, bool), np.zeros(3, int), TypeError, "Label the objects of a mask first"),
        (np.array([0, -1]), np.zeros(2, int), ValueError, "labels from 0 to 4294967295, got -1"),
        (np.array([0, 2**32]), np.zeros(2, int), ValueError, "Renumber them first"),
        (np.int64(3), np.int64(3), ValueError, "1 or more axes"),
    ],
)
def test_what_is_no_label_array_is_refused(left, right, error, message):
    with pytest.raises(error, match=message):
        overlap_pairs(left, right)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend needs to be one of numba"):
        overlap_pairs(np.zeros(3, int), np.zeros(3, int), backend="fortran")
