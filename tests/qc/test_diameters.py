"""Typical diameters of the parts of an image."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.qc import DiameterMap, field_grid
from cellseg_pipe.qc.diameters import LEAST_CELLS, PER_OCTAVE
from cellseg_pipe.tiles import Grid

WIDTH = 2 ** (1 / PER_OCTAVE)


@given(
    st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))
    | st.tuples(*[st.integers(1, 900)] * 3),
    st.floats(1, 300),
)
def test_fields_are_few_and_hold_some_cells(shape, typical):
    fields = field_grid(shape, typical)
    assert all(n <= 8 for n in fields.counts)
    assert all(edge >= 10 * typical for edge in fields.pitch)


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.floats(2, 200))
def test_medians_are_those_of_the_cells_whatever_their_order(seed, n, typical):
    random = np.random.default_rng(seed)
    centre = random.integers(0, (90, 140), (n, 2))
    diameter = typical * random.lognormal(0, 0.4, n)
    found = DiameterMap(Grid((90, 140), (50, 50)))
    order = random.permutation(n)
    for part in np.array_split(order, 3):
        found.add(centre[part], diameter[part])
    medians = found.medians()
    assert medians.shape == (2, 3)
    for (row, column), median in np.ndenumerate(medians):
        inside = (centre // 50 == (row, column)).all(axis=1)
        if inside.sum() < LEAST_CELLS:
            assert np.isnan(median)
            continue
        lower = np.sort(diameter[inside])[(inside.sum() - 1) // 2]
        assert max(lower, 1) / WIDTH <= median <= max(lower, 1) * WIDTH


def test_cells_beyond_the_last_bin_are_counted():
    found = DiameterMap(Grid((10, 10), (10, 10)))
    found.add(np.zeros((LEAST_CELLS, 2), int), np.full(LEAST_CELLS, 1e9))
    assert found.medians().item() > 2**13
