"""Outlines and their agreement against brute force and skimage."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe import metrics
from cellseg_pipe.metrics import boundaries

GOLDEN = Path(__file__).parents[1] / "golden"


def slow_near(mask, tolerance_px, spacing_px):
    """Measure the distance from each voxel to each voxel of the mask."""
    marked = np.argwhere(mask) * spacing_px
    result = np.zeros_like(mask)
    for position in itertools.product(*map(range, mask.shape)):
        offsets = marked - np.array(position) * spacing_px
        result[position] = ((offsets**2).sum(axis=1) <= tolerance_px**2).any()
    return result


def slow_outlines(labels):
    result = np.zeros(labels.shape, bool)
    for position in np.argwhere(labels > 0):
        for axis, step in itertools.product(range(labels.ndim), (-1, 1)):
            other = position.copy()
            other[axis] += step
            if 0 <= other[axis] < labels.shape[axis]:
                result[tuple(position)] |= labels[tuple(other)] != labels[tuple(position)]
    return result


label_images = hnp.arrays(
    np.uint32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=5),
    elements=st.sampled_from([0, 2, 70_000]),
)


@given(label_images)
def test_outlines_equal_the_slow_reference(labels):
    assert np.array_equal(boundaries.outlines(labels), slow_outlines(labels))


@given(label_images, st.sampled_from([0, 0.9, 1, 1.5, 2, 5, 40]), st.data())
def test_near_equals_all_distances(labels, tolerance_px, data):
    spacing = data.draw(st.tuples(*[st.sampled_from([1.0, 0.5, 3.0])] * labels.ndim))
    mask = labels > 0
    expected = slow_near(mask, tolerance_px, spacing)
    found = boundaries.near(mask, tolerance_px=tolerance_px, spacing_px=spacing)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("case", ["close_2d", "rough_2d", "dense_2d", "shifted_2d", "rough_3d"])
@pytest.mark.parametrize("slab_voxels", [1, 3000, 1 << 24])
def test_counts_equal_skimage_in_slabs_of_any_size(case, slab_voxels, monkeypatch):
    monkeypatch.setattr(boundaries, "SLAB_VOXELS", slab_voxels)
    images = np.load(GOLDEN / "metrics.npz")
    for expected in json.loads((GOLDEN / "metrics.json").read_text())["outlines"][case]:
        found = boundaries.count_outlines(
            images[f"{case}_pred"], images[f"{case}_true"], tolerance_px=expected["tolerance_px"]
        )
        assert {"tolerance_px": expected["tolerance_px"], **vars(found)} == expected


def test_evaluate_reports_boundary_scores():
    true = np.zeros((20, 20), np.uint8)
    true[4:12, 4:12] = 1
    pred = np.roll(true, 1, axis=1)
    strict = metrics.evaluate(pred, true, boundary_tolerance_px=0)
    kind = metrics.evaluate(pred, true, boundary_tolerance_px=1)
    assert strict.boundary_precision == strict.boundary_recall == 14 / 28
    assert kind.boundary_f1 == 1
    ignored = metrics.evaluate(pred, true, ignore=true == 1, boundary_tolerance_px=0)
    assert (ignored.boundary_precision, ignored.boundary_f1) == (0, 0)
    missed = metrics.evaluate(np.zeros_like(true), true, boundary_tolerance_px=1)
    assert (missed.boundary_recall, missed.boundary_f1) == (0, 0)


def test_wrong_tolerance_and_spacing_are_refused():
    labels = np.eye(4, dtype=np.uint8)
    with pytest.raises(ValueError, match="tolerance_px needs to be 0 or above"):
        boundaries.count_outlines(labels, labels, tolerance_px=-1)
    with pytest.raises(ValueError, match="spacing_px needs 2 positive numbers"):
        boundaries.count_outlines(labels, labels, tolerance_px=1, spacing_px=(1,))
