"""Labels grown by a distance: against the plain definition, scipy, scikit-image, and in tiles."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import expand_labels as skimage_expand

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import expand_labels, expand_margin_px

SPARSE = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 9, 2**32 - 1])
STEPS = st.sampled_from([1.0, 2.0, 0.5, 3.25, 0.3, math.inf])
SHAPES = hnp.array_shapes(max_dims=3, max_side=9)


def plain_expand(labels, distance, steps):
    """Look at every labelled voxel from every other, in fractions."""
    grown = labels.copy()
    finite = [s for s in steps if s != math.inf]
    smallest = min(finite, default=1.0)
    parts = [None if s == math.inf else Fraction(round(s / smallest * 65536), 65536) for s in steps]
    sources = np.argwhere(labels)
    for voxel in np.argwhere(labels == 0):
        best = None
        for source in sources:
            away = [abs(int(a) - int(b)) for a, b in zip(voxel, source, strict=True)]
            if any(n and step is None for n, step in zip(away, parts, strict=True)):
                continue
            square = sum((n * step) ** 2 for n, step in zip(away, parts, strict=True) if n)
            if square <= Fraction(distance / smallest) ** 2:
                found = (square, int(labels[tuple(source)]))
                best = found if best is None else min(best, found)
        if best is not None:
            grown[tuple(voxel)] = best[1]
    return grown


@st.composite
def scenes(draw):
    labels = draw(hnp.arrays(np.uint32, SHAPES, elements=SPARSE))
    steps = tuple(draw(STEPS) for _ in labels.shape)
    return labels, steps


@given(scenes(), st.sampled_from([0.0, 0.4, 1.0, 1.5, 2.0, 3.7, 40.0]), st.sampled_from([1, 3]))
def test_the_nearest_label_wins_and_of_equal_ones_the_lowest(scene, distance, threads):
    labels, steps = scene
    before = labels.copy()
    found = expand_labels(labels, distance, spacing=steps, threads=threads)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, plain_expand(labels, distance, steps))
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize(
    ("shape", "steps", "distance"),
    [((70, 90), (1, 1), 7.3), ((20, 40, 50), (2.5, 1, 1), 6.0), ((40, 60), (0.21, 0.34), 2.0)],
)
def test_distances_are_those_of_scipy(shape, steps, distance):
    rng = np.random.default_rng(1)
    labels = np.zeros(shape, np.uint32)
    places = tuple(rng.integers(0, n, 40) for n in shape)
    labels[places] = np.arange(1, 41)
    found = expand_labels(labels, distance, spacing=steps)
    away = distance_transform_edt(labels == 0, sampling=steps)
    np.testing.assert_array_equal(found > 0, away <= distance)
    # Each voxel lies as far from its own label as from any.
    for label in np.unique(labels[labels > 0]):
        own = distance_transform_edt(labels != label, sampling=steps)
        mine = found == label
        np.testing.assert_allclose(own[mine], away[mine], rtol=1e-5)


def test_scikit_image_agrees_where_nothing_is_equally_near():
    rng = np.random.default_rng(2)
    labels = np.zeros((120, 150), np.uint32)
    labels[rng.integers(0, 120, 60), rng.integers(0, 150, 60)] = rng.permutation(60) + 1
    found, other = expand_labels(labels, 11.5), skimage_expand(labels, 11.5)
    sides = np.stack([distance_transform_edt(labels != k) for k in range(1, 61)])
    first, second = np.sort(sides, axis=0)[:2]
    clear = second - first > 1e-6
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found[clear], other[clear])


@given(scenes(), st.sampled_from([1.0, 2.3, 4.0]), st.data())
def test_a_crop_with_its_margin_gives_what_the_whole_gives(scene, distance, data):
    labels, steps = scene
    whole = expand_labels(labels, distance, spacing=steps)
    cuts = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in labels.shape]
    box = Box(*zip(*cuts, strict=True))
    margin = expand_margin_px(distance, spacing=steps)
    wide = box.grow(margin).clip(Box.of(labels.shape))
    part = expand_labels(np.ascontiguousarray(labels[wide.slices]), distance, spacing=steps)
    inner = part[box.relative_to(wide.start).slices]
    np.testing.assert_array_equal(inner, whole[box.slices])


def test_margins():
    assert expand_margin_px(5, ndim=3) == (5, 5, 5)
    assert expand_margin_px(5, spacing=(2, 1, 0.5)) == (2, 5, 10)
    assert expand_margin_px(0.9, spacing=(math.inf, 1, 1)) == (0, 0, 0)
    assert expand_margin_px(3, spacing=(math.inf, 1, 1.5)) == (0, 3, 2)


def test_a_long_line_and_a_step_beyond_all_bounds():
    labels = np.zeros((2, 1_000_000), np.uint32)
    labels[0, 0] = 7
    found = expand_labels(labels, 16_000, spacing=(1e9, 1))
    assert np.count_nonzero(found) == 16_001 and found[0, 16_000] == 7 and not found[1].any()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"distance_px": -1}, "distance of 0 or more px, got -1"),
        ({"distance_px": math.nan}, "distance of 0 or more px, got nan"),
        ({"distance_px": 3, "spacing": (1,)}, "spacing above 0 for each of 2 axes"),
        ({"distance_px": 3, "spacing": (1, 0)}, "spacing above 0 for each of 2 axes"),
        ({"distance_px": 20_000}, "at most 16384 of the smallest steps"),
        ({"distance_px": 20_000, "spacing": (math.inf, 1)}, "at most 16384"),
    ],
)
def test_what_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        expand_labels(np.zeros((3, 3), np.uint32), **settings)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2, 2)])
def test_nothing_grows_in_nothing(shape):
    assert expand_labels(np.zeros(shape, np.uint32), 3).shape == shape


def test_order_of_axes_does_not_matter():
    rng = np.random.default_rng(3)
    labels = rng.choice([0] * 60 + [1, 2, 3, 4], (11, 17, 13)).astype(np.uint32)
    steps = (2.0, 1.0, 1.5)
    expected = expand_labels(labels, 5.5, spacing=steps)
    for order in itertools.permutations(range(3)):
        turned = expand_labels(
            labels.transpose(order), 5.5, spacing=[steps[axis] for axis in order]
        )
        np.testing.assert_array_equal(turned, expected.transpose(order))
