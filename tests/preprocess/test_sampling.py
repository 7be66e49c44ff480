"""Sampled boxes: disjoint, inside, spread, and the same for ever."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.preprocess import grid_boxes, sample_boxes

SHAPES = st.lists(st.integers(1, 40), min_size=2, max_size=3).map(tuple)


def covered(boxes, shape):
    count = np.zeros(shape, int)
    for box in boxes:
        count[box.slices] += 1
    return count


@given(SHAPES, st.integers(1, 80))
def test_the_grid_covers_each_voxel_once(shape, edge):
    boxes = grid_boxes(shape, edge)
    assert (covered(boxes, shape) == 1).all()
    for box in boxes:
        assert all(min(edge, n) <= m < 2 * edge for m, n in zip(box.shape, shape, strict=True))


@given(SHAPES, st.integers(1, 10**5))
def test_all_of_a_small_image_and_a_part_of_a_large_one(shape, budget):
    edge = (1,) * (len(shape) - 2) + (5, 3)
    boxes = sample_boxes(shape, budget_px=budget, edge_px=edge)
    count = covered(boxes, shape)
    assert count.max() == 1
    if math.prod(shape) <= budget:
        assert count.min() == 1
    else:
        assert len(boxes) <= max(budget // 4 // math.prod(edge), 1)
        assert set(boxes) <= set(grid_boxes(shape, edge))
    assert boxes == sorted(boxes)


@pytest.mark.parametrize("shape", [(100_000, 100_000), (2000, 8000, 8000), (30, 50_000, 200_000)])
def test_a_huge_image_costs_a_quarter_of_the_budget_spread_over_it(shape):
    boxes = sample_boxes(shape)
    total = sum(box.size for box in boxes)
    assert 0.7 * 2**22 < total <= 1.01 * 2**22  # the last box of an axis may be longer
    for axis, n in enumerate(shape):
        middles = np.array([(b.start[axis] + b.stop[axis]) / 2 for b in boxes]) / n
        tenths = np.histogram(middles, 10, (0, 1))[0]
        assert tenths.min() > 0.5 * tenths.mean()


def test_the_places_never_change():
    # Frozen: results of earlier versions could not be reproduced otherwise.
    text = repr([(b.start, b.stop) for b in sample_boxes((100_000, 70_001))])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e78a2c83ab71d050"


def test_small_things():
    assert sample_boxes((0, 5)) == []
    assert sample_boxes((65, 70)) == [Box((0, 0), (65, 70))]
    with pytest.raises(ValueError, match="1 or more"):
        sample_boxes((5, 5), budget_px=0)
