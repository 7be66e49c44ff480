"""All borders of objects: they are simple, run the right way, and enclose what scipy labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cellseg_pipe.kernels import object_borders

LABELS = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0, 1, 1, 7]),
)


def signed_area(vertex):
    y, x = vertex.T.astype(float)
    return 0.5 * (x * np.roll(y, -1) - y * np.roll(x, -1)).sum()


@given(LABELS, st.sampled_from([1, 3]))
def test_pieces_and_holes_are_those_of_scipy(labels, threads):
    found = object_borders(labels, threads=threads)
    for label in np.unique(labels[labels > 0]):
        pieces, n = ndimage.label(labels == label)
        rows = np.flatnonzero(found.label == label)
        assert sorted(set(found.piece[rows])) == list(range(n))
        for number in range(n):
            mask = pieces == number + 1
            _, n_outside = ndimage.label(np.pad(~mask, 1, constant_values=True))
            lines = [
                found.vertex[found.offset[k] : found.offset[k + 1]]
                for k in rows[found.piece[rows] == number]
            ]
            areas = [signed_area(line) for line in lines]
            assert len(lines) == n_outside  # the outer border, and one for each hole
            assert areas[0] > 0 and all(area < 0 for area in areas[1:])
            assert sum(areas) == mask.sum()
            for line in lines:
                assert len(np.unique(line, axis=0)) == len(line)  # touches itself nowhere
                step = np.diff(line, axis=0, append=line[:1])
                assert ((step != 0).sum(axis=1) == 1).all()
                turned = np.roll(step, 1, axis=0)
                assert ((step != 0) != (turned != 0)).all()  # a corner at each vertex


def test_an_island_in_a_hole_is_a_piece():
    labels = np.ones((5, 5), int)
    labels[1:4, 1:4] = 0
    labels[2, 2] = 1
    found = object_borders(labels)
    assert found.piece.tolist() == [0, 0, 1]
    island = found.vertex[found.offset[2] :]
    assert sorted(map(tuple, island.tolist())) == [(2, 2), (2, 3), (3, 2), (3, 3)]


def test_ids_and_volumes():
    assert object_borders([[4, 5]], ids=[5, 6]).label.tolist() == [5]
    with pytest.raises(ValueError, match="Take one plane at a time"):
        object_borders(np.zeros((2, 2, 2), int))
