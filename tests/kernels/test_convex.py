"""Convex hulls in pixels: as scikit-image has them, and by linear programs where it has none."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linprog
from skimage.measure import perimeter_crofton
from skimage.morphology import convex_hull_image

from cellseg_pipe.kernels import Corners, convex_sizes, convex_volumes, crofton, plane_hulls

VALUES = st.sampled_from([0, 0, 0, 1, 2])
IMAGES = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=13), elements=VALUES
)
VOLUMES = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=VALUES
)


def plain_volume(mask):
    """Ask of each voxel whether it is a mean of the middles of the object's faces."""
    faces = np.concatenate([np.eye(3), -np.eye(3)]) / 2
    points = (np.argwhere(mask)[:, None] + faces).reshape(-1, 3)
    sides = np.vstack([points.T, np.ones(len(points))])
    return sum(
        linprog(np.zeros(len(points)), A_eq=sides, b_eq=[*place, 1]).status == 0
        for place in itertools.product(*map(range, mask.shape))
    )


def skimage_volume(mask):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells that it has no hull of flat objects
        return int(convex_hull_image(mask).sum())


@given(IMAGES, st.sampled_from([1, 3]))
def test_images_have_the_hulls_of_scikit_image(labels, threads):
    ids = np.unique(labels[labels > 0])
    area, crossings = convex_sizes(labels, ids=ids, threads=threads)
    for k, label in enumerate(ids):
        hull = np.pad(convex_hull_image(labels == label), 1)
        assert area[k] == hull.sum()
        found = crofton(crossings[k : k + 1], (1.0, 1.0))[0]
        np.testing.assert_allclose(found, perimeter_crofton(hull), rtol=1e-12)


@settings(max_examples=40)
@given(VOLUMES)
def test_volumes_have_the_hulls_of_scikit_image(labels):
    corners = plane_hulls(labels, origin=(5, 7, 9))
    ids = np.unique(labels[labels > 0]).astype(np.uint32)
    for label, found in zip(ids, convex_volumes(corners, ids), strict=True):
        expected = skimage_volume(labels == label) or plain_volume(labels == label)
        assert found == expected


def test_flat_long_and_single_objects():
    shapes = [np.ones((1, 1, 1)), np.ones((1, 1, 7)), np.ones((4, 1, 1)), np.eye(5)[None]]
    shapes += [np.eye(4)[:, :, None], np.eye(3)[:, None] * np.eye(3)[:, :, None]]
    for mask in shapes:
        corners = plane_hulls(mask.astype(int))
        assert convex_volumes(corners, np.array([1], np.uint32)) == [plain_volume(mask > 0)]


@settings(max_examples=20)
@given(VOLUMES, st.randoms())
def test_planes_may_come_one_by_one_in_any_order(labels, random):
    whole = plane_hulls(labels)
    parts = [plane_hulls(labels[z : z + 1], origin=(z, 0, 0)) for z in range(len(labels))]
    random.shuffle(parts)
    found = Corners.add(parts)
    np.testing.assert_array_equal(found.label, whole.label)
    np.testing.assert_array_equal(found.place, whole.place)


def test_a_large_smooth_cell():
    place = np.indices((40, 44, 48)) - np.array([20, 22, 24]).reshape(3, 1, 1, 1)
    labels = ((place / np.array([17, 15, 20]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) <= 1
    volume = convex_volumes(plane_hulls(labels.astype(int)), np.array([1], np.uint32))
    none = convex_volumes(plane_hulls(labels.astype(int)), np.array([1, 7], np.uint32))
    assert none.tolist() == [volume[0], 0]
    assert volume.tolist() == [skimage_volume(labels)]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="needs a label image of 2 axes"):
        convex_sizes(np.zeros((2, 2, 2), int))
    with pytest.raises(ValueError, match="needs a volume of 3 axes"):
        plane_hulls(np.zeros((2, 2), int))
    area, crossings = convex_sizes([[4, 4], [0, 4]], ids=[3, 4])
    assert area.tolist() == [0, 3] and not crossings[0].any()
