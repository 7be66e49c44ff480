"""Exchanged labels against a dictionary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.kernels import relabel

VALUES = st.sampled_from([0, 1, 2, 3, 70_000, 2**32 - 1])


@given(
    hnp.arrays(np.uint32, hnp.array_shapes(max_dims=3, min_side=0, max_side=6), elements=VALUES),
    st.dictionaries(VALUES, VALUES),
    st.sampled_from([1, 2]),
)
def test_labels_are_exchanged_as_a_dictionary_would(labels, table, threads):
    result = relabel(labels, list(table), list(table.values()), threads=threads) if table else None
    if result is None:
        result = relabel(labels, np.empty(0, int), np.empty(0, int))
    expected = [table.get(v, 0) if v else 0 for v in labels.ravel().tolist()]
    assert result.dtype == np.uint32 and result.shape == labels.shape
    assert result.ravel().tolist() == expected


def test_the_input_stays_as_it_was():
    labels = np.array([[0, 3], [4, 3]], np.uint32)
    labels.flags.writeable = False
    assert relabel(labels, [3], [9]).tolist() == [[0, 9], [0, 9]]
    assert labels.tolist() == [[0, 3], [4, 3]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [([1, 2], [3], "one new value per old one"), ([1, 1], [3, 4], "each old value once, got 1")],
)
def test_impossible_tables_are_refused(old, new, message):
    with pytest.raises(ValueError, match=message):
        relabel(np.zeros(3, int), old, new)
