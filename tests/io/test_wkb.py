"""Outlines as well-known binary, read by a reader of a few lines and painted by scikit-image."""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.draw import polygon2mask

from cellseg_pipe.io.wkb import outlines_of, sort_outlines
from cellseg_pipe.kernels import object_borders

LABELS = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0, 1, 1, 7]),
)


def read_wkb(blob, place=0):
    """Return a list of polygons, each a list of closed rings [x, y], and where they end."""
    order, kind, n = struct.unpack_from("<BII", blob, place)
    place += 9
    assert order == 1 and kind in (3, 6)
    if kind == 6:
        parts = []
        for _ in range(n):
            (part,), place = read_wkb(blob, place)
            parts.append(part)
        return parts, place
    rings = []
    for _ in range(n):
        (count,) = struct.unpack_from("<I", blob, place)
        rings.append(np.frombuffer(blob, "<f8", 2 * count, place + 4).reshape(count, 2))
        place += 4 + 16 * count
    return [rings], place


def painted(blob, shape):
    """Return the pixels whose centre lies in a shape."""
    polygons, end = read_wkb(blob)
    assert end == len(blob)
    mask = np.zeros(shape, int)
    for outer, *holes in polygons:
        for ring, sign in ((outer, 1), *((hole, -1) for hole in holes)):
            np.testing.assert_array_equal(ring[0], ring[-1])
            mask += sign * polygon2mask(shape, ring[:, ::-1] - 0.5)
    return mask


def shapes_of(outlines):
    ends = np.cumsum(outlines.size)
    return [outlines.data[b - n : b].tobytes() for n, b in zip(outlines.size, ends, strict=True)]


@given(LABELS)
def test_shapes_are_the_pixels_of_objects(labels):
    found = outlines_of(object_borders(labels), origin=(0, 0))
    assert found.label.tolist() == np.unique(labels[labels > 0]).tolist()
    for label, blob in zip(found.label, shapes_of(found), strict=True):
        np.testing.assert_array_equal(painted(blob, labels.shape), labels == label)


def test_origin_order_and_planes():
    labels = np.array([[5, 0, 5], [9, 9, 0]])
    parts = [outlines_of(object_borders(labels), origin=(100, 7), plane=z) for z in (3, 1)]
    found = sort_outlines(parts)
    assert found.label.tolist() == [5, 5, 9, 9] and found.plane.tolist() == [1, 3, 1, 3]
    first, second = shapes_of(found)[0], shapes_of(found)[2]
    assert first[1] == 6 and second[1] == 3  # two pieces, and one
    (outer,), _ = read_wkb(second)
    assert sorted(map(tuple, outer[0][:-1])) == [(7, 101), (7, 102), (9, 101), (9, 102)]
    none = outlines_of(object_borders(np.zeros((2, 2), int)), origin=(0, 0))
    assert len(none.label) == len(none.data) == 0
    assert len(sort_outlines([none]).label) == 0
