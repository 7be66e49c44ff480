"""Matchings of bipartite graphs against scipy's dense assignment."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from cellseg_pipe.kernels.assign import heaviest_edges


def greatest_sum(left, right, weight):
    """The weight of a heaviest matching, by the whole matrix."""
    dense = np.zeros((left.max(initial=0) + 1, right.max(initial=0) + 1))
    dense[left, right] = weight
    return dense[linear_sum_assignment(dense, maximize=True)].sum()


def shifted_lattice(side):
    """Objects that each overlap four of a lattice moved by half a cell, which no edge decides."""
    y, x = np.divmod(np.arange(side * side), side)
    left, right = [], []
    for down, along in ((0, 0), (0, 1), (1, 0), (1, 1)):
        inside = (y + down < side) & (x + along < side)
        left.append(np.flatnonzero(inside))
        right.append(((y + down) * side + x + along)[inside])
    return np.concatenate(left), np.concatenate(right)


def lattice_weights(kind, n):
    noise = np.random.default_rng(0).random(n)
    return {
        "ties": np.full(n, 1 / 7),
        "nearly ties": 1 / 7 + 1e-6 * noise,
        "noise": 1 / 7 + 0.02 * noise,
        "any": noise + 1e-3,
    }[kind]


KINDS = ["ties", "nearly ties", "noise", "any"]


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), unique=True, max_size=30), st.data()
)
def test_the_sum_is_the_greatest(edges, data):
    values = st.sampled_from([0.1, 0.2, 0.3, 0.7]) | st.floats(1e-9, 1)
    weight = np.array(data.draw(st.lists(values, min_size=len(edges), max_size=len(edges))))
    left, right = np.array(edges, np.int64).reshape(-1, 2).T
    chosen = heaviest_edges(left, right, weight)
    assert (np.diff(chosen) > 0).all()
    assert np.unique(left[chosen]).size == np.unique(right[chosen]).size == chosen.size
    assert weight[chosen].sum() == pytest.approx(greatest_sum(left, right, weight), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [0, 60], ids=["as many", "fewer on the right"])
def test_the_sum_is_the_greatest_on_a_lattice_that_nothing_decides(kind, missing):
    left, right = shifted_lattice(24)
    kept = right >= missing
    left, right = left[kept], right[kept]
    weight = lattice_weights(kind, left.size)
    chosen = heaviest_edges(left, right, weight)
    assert np.unique(left[chosen]).size == np.unique(right[chosen]).size == chosen.size
    assert weight[chosen].sum() == pytest.approx(greatest_sum(left, right, weight), rel=1e-12)


@pytest.mark.parametrize(("kind", "at_least"), [("ties", 63_504), ("noise", 63_000)])
def test_64000_undecided_objects_are_matched_soon(kind, at_least):
    left, right = shifted_lattice(253)  # a search that resets all nodes takes 10 s and more
    weight = lattice_weights(kind, left.size)
    chosen = heaviest_edges(left, right, weight)
    assert np.unique(left[chosen]).size == np.unique(right[chosen]).size == chosen.size
    assert chosen.size >= at_least


def test_the_order_of_the_edges_and_gaps_in_the_nodes_change_nothing():
    left, right = shifted_lattice(12)
    weight = lattice_weights("ties", left.size)
    order = np.random.default_rng(1).permutation(left.size)
    chosen = heaviest_edges(left, right, weight)
    shuffled = order[heaviest_edges(left[order] * 10**9, right[order] + 10**12, weight[order])]
    np.testing.assert_array_equal(np.sort(shuffled), chosen)


@pytest.mark.parametrize(
    ("left", "weight", "error", "message"),
    [
        ([0, 1], [1.0], ValueError, "two nodes and one weight per edge"),
        ([0.5], [1.0], TypeError, "needs integers for nodes"),
        ([0], [0.0], ValueError, "weights above 0 and finite"),
        ([0], [np.nan], ValueError, "weights above 0 and finite"),
    ],
)
def test_what_is_no_weighted_graph_is_refused(left, weight, error, message):
    with pytest.raises(error, match=message):
        heaviest_edges(np.array(left), np.zeros(len(left), int), np.array(weight))
