"""Borders by Crofton's formula and Euler numbers: counted pair by pair, and by scikit-image."""

import itertools
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import euler_number, perimeter_crofton

from cellseg_pipe.kernels import Tally, crofton, directions, object_contours
from cellseg_pipe.kernels.contours import crofton_weights

VALUES = st.sampled_from([0, 0, 1, 2, 70_000])
LABELS = hnp.arrays(
    np.uint32, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6), elements=VALUES
)


def plain_crossings(mask):
    """Compare each voxel with its neighbours, one direction after the other."""
    framed = np.pad(mask, 1)
    for step in directions(mask.ndim).tolist():
        count = 0
        for place in itertools.product(*(range(n) for n in framed.shape)):
            other = tuple(a + s for a, s in zip(place, step, strict=True))
            if all(0 <= o < n for o, n in zip(other, framed.shape, strict=True)):
                count += framed[place] != framed[other]
        yield count


@given(LABELS, st.sampled_from([1, 2, 7]))
def test_counts_are_those_of_single_voxels(labels, threads):
    found = object_contours(np.pad(labels, 1), threads=threads)
    assert found.label.tolist() == np.unique(labels[labels > 0]).tolist()
    for label, counts in zip(found.label, found.values.tolist(), strict=True):
        mask = labels == label
        assert counts[:-1] == list(plain_crossings(mask))
        assert counts[-1] == euler_number(mask)
        if labels.ndim == 2:
            perimeter = crofton(np.array([counts[:-1]]), (1.0, 1.0))
            np.testing.assert_allclose(perimeter, perimeter_crofton(mask), rtol=1e-12)


@given(LABELS, st.data())
def test_blocks_that_share_a_layer_add_up(labels, data):
    framed = np.pad(labels, 1)
    axis = data.draw(st.integers(0, labels.ndim - 1))
    last = framed.shape[axis]
    cuts = sorted({1, last, *data.draw(st.sets(st.integers(1, last), max_size=3))})
    parts = [
        object_contours(np.take(framed, range(low - 1, high), axis)) for low, high in pairwise(cuts)
    ]
    whole, found = object_contours(framed), Tally.add(data.draw(st.permutations(parts)))
    np.testing.assert_array_equal(found.label, whole.label)
    np.testing.assert_array_equal(found.values, whole.values)


def test_weights_are_the_published_ones():
    """Of 13 directions: Lang, Ohser and Hilfer 2001, as MorphoLibJ has them."""
    share = {1: 0.04577789120476, 2: 0.03698062787608, 3: 0.03519563978232}
    expected = [
        2 * 2 * share[int(np.abs(step).sum())] / np.linalg.norm(step) for step in directions(3)
    ]
    np.testing.assert_allclose(crofton_weights((1.0, 1.0, 1.0)), expected, rtol=1e-6)


@pytest.mark.parametrize("edges", [(1, 1, 1), (2, 1, 1), (5, 1, 1), (1.0, 0.5, 2.0)])
def test_the_surface_of_a_ball_in_any_proportions(edges):
    z, y, x = (edge * (np.indices((61, 61, 61))[i] - 30) for i, edge in enumerate(edges))
    radius = 14.0
    labels = (z**2 + y**2 + x**2 <= radius**2).astype(np.uint8)
    counts = object_contours(np.pad(labels, 1)).values
    surface = crofton(counts[:, :-1], edges)
    np.testing.assert_allclose(surface, 4 * np.pi * radius**2, rtol=0.03)
    assert counts[:, -1].tolist() == [1]


@pytest.mark.parametrize("edges", [(1.0, 1.0), (2.0, 1.0), (0.3, 1.0)])
def test_the_perimeter_of_a_disc_in_any_proportions(edges):
    y, x = (edge * (np.indices((201, 201))[i] - 100) for i, edge in enumerate(edges))
    labels = (y**2 + x**2 <= 25.0**2).astype(np.uint8)
    counts = object_contours(np.pad(labels, 1)).values
    np.testing.assert_allclose(crofton(counts[:, :-1], edges), 50 * np.pi, rtol=0.02)


def test_objects_that_are_asked_for_and_not_there():
    found = object_contours(np.pad([[5, 0, 7]], 1), ids=[5, 6])
    assert found.label.tolist() == [5, 6] and not found.values[1].any()
    assert found.of(np.array([6], np.uint32)).shape == (1, 5)
    assert found.only(np.array([6, 9], np.uint32)).label.tolist() == [6]
    assert object_contours(np.zeros((3, 4), int)).values.shape == (0, 5)
    with pytest.raises(ValueError, match="2 or 3 axes"):
        object_contours(np.zeros(3, int))
