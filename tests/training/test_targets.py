"""Targets: centres of cut cells, weights, unit vectors, classes, and the three classes."""

import numpy as np
import pytest
from scipy import ndimage

from cellseg_pipe.kernels import flows_from_labels, masks_from_classes
from cellseg_pipe.training.augment import Crop
from cellseg_pipe.training.targets import (
    Target,
    batch_of,
    classes_of,
    targets_of,
    three_classes,
)


def disc(shape, centre, radius):
    y, x = np.indices(shape)
    return ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2).astype(np.int32)


def crop_of(labels, margin, classes=(0,)):
    edge = labels.shape[0] - 2 * margin
    return Crop(np.zeros((1, edge, edge), np.float32), labels, np.array(classes, np.int16), "x")


def test_a_cell_that_the_crop_cuts_keeps_its_centre():
    margin = 16
    labels = disc((80, 80), (40, 14), 10)  # its centre lies beyond the crop
    flow, inside, _ = targets_of(labels, margin)
    whole = flows_from_labels(labels)
    np.testing.assert_array_equal(flow, whole[:, margin:-margin, margin:-margin])
    assert inside.sum() and (flow[1][inside > 0] <= 1e-6).all()  # all point out, to the left


def test_a_cell_that_the_image_cuts_points_inside():
    """Beyond the image labels are 0, so a cell that its border cuts has its centre in the image."""
    labels = disc((80, 80), (40, 30), 12)
    labels[:, :32] = 0  # the image begins here, in the crop
    flow, inside, _ = targets_of(labels, 16)
    cut = flow[1][:, 16:18][inside[:, 16:18] > 0]
    assert cut.size and (cut[:3] != 0).any() and cut.mean() > 0.3
    # A margin does not change it, as there is nothing in it.
    np.testing.assert_array_equal(flow, flows_from_labels(labels[16:-16, 16:-16]))


def test_flow_is_of_length_one_inside_and_zero_outside():
    labels = disc((64, 64), (30, 30), 11) + 2 * disc((64, 64), (50, 48), 8)
    flow, inside, weight = targets_of(labels, 8)
    length = np.linalg.norm(flow, axis=0)
    assert not length[inside == 0].any()
    np.testing.assert_allclose(length[(inside > 0) & (length > 0)], 1, atol=1e-5)
    assert np.count_nonzero((inside > 0) & (length == 0)) <= 2  # centres
    np.testing.assert_array_equal(weight, 1)


def test_what_is_ignored_has_no_weight_and_is_no_cell():
    labels = disc((64, 64), (30, 30), 11)
    labels[40:50] = -1
    flow, inside, weight = targets_of(labels, 8)
    np.testing.assert_array_equal(weight[32:42], 0)
    np.testing.assert_array_equal(inside[32:42], 0)
    assert not flow[:, 32:42].any() and weight.sum() == 48 * 48 - 10 * 48


def test_classes_follow_objects():
    labels = np.array([[0, 1, 2], [-1, 3, 3]], np.int32)
    table = np.array([0, 2, 0, 1], np.int16)  # the second object's class is not known
    np.testing.assert_array_equal(classes_of(labels, table), [[-1, 1, -1], [-1, 0, 0]])


def plain_three(labels, depth):
    """Return the three classes, pixel by pixel."""
    found = np.where(labels > 0, 0, 2)
    for y, x in np.argwhere(labels > 0):
        for dy in range(-depth, depth + 1):
            for dx in range(-depth + abs(dy), depth - abs(dy) + 1):
                v, u = y + dy, x + dx
                if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]:
                    found[y, x] |= labels[v, u] != labels[y, x]
    return np.where(labels < 0, -1, found)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_three_classes_are_as_the_plain_rule_says(depth):
    labels = np.zeros((30, 34), np.int32)
    labels[3:15, 4:16], labels[3:15, 16:28], labels[18:27, 8:20], labels[20:24, 24:30] = 1, 2, 3, -1
    labels[20:29, 20:24] = 4
    np.testing.assert_array_equal(
        three_classes(labels, boundary_px=depth), plain_three(labels, depth)
    )


def test_three_classes_give_the_cells_back(make_scene):
    labels = make_scene(3, edge=160, diameter_px=24.0)[1].astype(np.int32)
    scores = np.eye(3)[three_classes(labels, boundary_px=2)].transpose(2, 0, 1)
    found = masks_from_classes(np.ascontiguousarray(scores), min_size_px=1)
    whole = [  # what is cut at the border may be thin, and have no interior
        n for n in np.unique(labels)[1:] if ndimage.binary_erosion(labels == n, iterations=5).any()
    ]
    assert len(whole) > 10
    for n in whole:
        ids, counts = np.unique(found[labels == n], return_counts=True)
        best = counts.argmax()
        assert ids[best] > 0 and counts[best] / np.count_nonzero(labels == n) > 0.9


def test_a_batch_stacks_crops():
    labels = disc((64, 64), (30, 30), 11)
    crops = [crop_of(labels, 8, (0, 1)), crop_of(0 * labels, 8)]
    batch = batch_of(crops, Target(n_classes=2))
    assert batch.pixels.shape == (2, 1, 48, 48) and batch.flow.shape == (2, 2, 48, 48)
    np.testing.assert_array_equal(batch.classes[0], np.where(labels[8:-8, 8:-8] > 0, 0, -1))
    assert (batch.classes[1] == -1).all() and batch.sources == ("x", "x")
    three = batch_of(crops, Target("three-classes"))
    np.testing.assert_array_equal(
        three.classes[0], three_classes(labels, boundary_px=2)[8:-8, 8:-8]
    )
    assert Target("three-classes").n_outputs == 3 and Target(n_classes=2).n_outputs == 5
