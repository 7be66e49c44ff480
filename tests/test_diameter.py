"""Where a volume is sampled to measure its cells, and how the measure is refined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.diameter import (
    Sample,
    measure_diameter,
    measure_near,
    region_edge,
    sample_regions,
    sorted_into_classes,
)


@pytest.mark.parametrize(
    "shape", [(96, 100, 100), (96, 384, 384), (96, 384, 1200), (8, 2000, 2000)]
)
def test_no_plane_of_a_volume_is_left_out(shape):
    boxes = sample_regions(shape, 300)
    assert {box.start[0] for box in boxes} == {shape[0] // 4, shape[0] // 2, 3 * shape[0] // 4}
    assert all(box.shape[0] == 1 and box.shape[1:] <= (300, 300) for box in boxes)
    assert len(set(boxes)) == len(boxes)


def test_a_plane_has_one_region_in_its_middle_or_four():
    assert [box.start for box in sample_regions((400, 400), 200)] == [(100, 100)]
    assert len(sample_regions((2000, 2000), 200)) == 4
    assert [box.shape for box in sample_regions((90, 90), 200)] == [(90, 90)]


def test_the_measure_is_refined_on_no_less_than_it_began_with():
    asked = []

    def sample_at(trial_px, edge_px):
        asked.append((trial_px, edge_px))
        n = (edge_px // 20) ** 2  # as many as fit
        return Sample(np.full(n, 20.0), np.full(n, 1.0 if trial_px == 36 else 0.1), edge_px**2)

    found = measure_diameter(sample_at, 18.0)
    assert found.px == 20 and found.n_cells == (region_edge(36) // 20) ** 2
    assert asked[-2:] == [(20, region_edge(36))] * 2


def test_a_trial_is_not_better_for_its_larger_regions():
    def sample_at(trial_px, edge_px):
        """Cells of 20 px fill the image; above 100 px, a fifth of it seems cells of that size."""
        size, share = (20.0, 1.0) if trial_px in (18, 20) else (float(trial_px), 0.2)
        n = int(share * edge_px**2 / size**2) if size == 20 or trial_px > 100 else 0
        return Sample(np.full(n, size), np.ones(n), edge_px**2)

    assert measure_diameter(sample_at, 18.0).px == 20


def test_a_part_with_few_cells_does_not_tell_their_diameter():
    def sample_of(n):
        def sample_at(_trial_px, edge_px):
            return Sample(np.full(n, 30.0), np.ones(n), edge_px**2)

        return sample_at

    assert measure_near(sample_of(20), 15.0).px == 30
    assert measure_near(sample_of(5), 15.0) is None
    assert measure_near(sample_of(0), 15.0) is None


@given(st.lists(st.floats(4, 200), min_size=1, max_size=30), st.integers(1, 4), st.randoms())
def test_classes_of_diameters(sizes, most, order):
    found = sorted_into_classes(np.array(sizes), most=most)
    assert set(found) == set(range(found.max() + 1)) and found.max() < most
    turned = list(range(len(sizes)))
    order.shuffle(turned)
    again = sorted_into_classes(np.array(sizes)[turned], most=most)
    np.testing.assert_array_equal(again, found[turned])
    ascending = np.argsort(sizes)
    assert (np.diff(found[ascending]) >= 0).all()
    means = [np.mean(np.log2(np.array(sizes)[found == k])) for k in range(found.max() + 1)]
    assert (np.diff(means) > np.log2(1.4) - 1e-9).all()


def test_one_wrong_diameter_is_no_class_where_there_are_two():
    sizes = np.array([14, 13.5, 14.2, 15, 14.6, 40, 41, 38, 4.0])
    assert sorted_into_classes(sizes, most=2).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0]
    assert sorted_into_classes(sizes, most=3).tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 0]
    assert sorted_into_classes(np.array([10, 13.0, 12]), most=4).tolist() == [0, 0, 0]
