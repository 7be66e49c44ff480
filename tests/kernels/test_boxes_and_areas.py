"""Boxes and areas against numpy masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.kernels import boxes_and_areas

VALUES = st.sampled_from([0, 1, 2, 5, 6, 70_000, 2**32 - 1])


def plain_objects(labels):
    for value in np.unique(labels[labels > 0]):
        where = np.argwhere(labels == value)
        yield value, where.min(0), where.max(0) + 1, len(where)


@given(
    hnp.arrays(np.uint32, hnp.array_shapes(max_dims=4, min_side=0, max_side=5), elements=VALUES),
    st.sampled_from([1, 2, 7]),
)
def test_objects_are_those_of_plain_masks(labels, threads):
    objects = boxes_and_areas(labels, threads=threads)
    expected = list(plain_objects(labels))
    assert objects.label.tolist() == [row[0] for row in expected]
    for k, (_, start, stop, area) in enumerate(expected):
        assert objects.start[k].tolist() == start.tolist()
        assert objects.stop[k].tolist() == stop.tolist()
        assert objects.area[k] == area


def test_no_object_gives_no_row():
    objects = boxes_and_areas(np.zeros((3, 4), np.uint32))
    assert objects.label.size == objects.area.size == 0 and objects.start.shape == (0, 2)


def test_five_axes_are_refused():
    with pytest.raises(ValueError, match="1 to 4 axes"):
        boxes_and_areas(np.zeros((1, 1, 1, 1, 1), int))


@pytest.mark.parametrize(
    ("ids", "areas"),
    [
        ([1, 9], [0, 0]),
        ([1], [0]),
        ([], []),
        ([5, 9], [12, 0]),
        ([1, 5], [0, 12]),
        ([2, 7], [4, 0]),
    ],
)
def test_labels_that_are_not_listed_are_left_out(ids, areas):
    labels = np.zeros((4, 5), np.uint32)
    labels[:3, :4], labels[3, :4] = 5, 2
    objects = boxes_and_areas(labels, ids=np.array(ids, np.uint32))
    assert objects.label.tolist() == ids and objects.area.tolist() == areas
    if ids == [5, 9]:
        assert objects.start[0].tolist() == [0, 0] and objects.stop[0].tolist() == [3, 4]


@pytest.mark.parametrize("ids", [[5, 1], [1, 1], [0, 5], [[1, 5]]])
def test_ids_that_do_not_ascend_are_refused(ids):
    with pytest.raises(ValueError, match="ids needs ascending labels"):
        boxes_and_areas(np.ones((4, 5), np.uint32), ids=ids)
