"""Linking labels of two views against plain loops over fractions, and components against scipy."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cellseg_pipe.kernels import Pairs, overlap_pairs, sum_pairs
from cellseg_pipe.kernels.link import (
    Overlaps,
    iou_of,
    mutual_best,
    pick_links,
    union_find,
)
from cellseg_pipe.kernels.planes import chain_planes


def plain_overlaps(left, right):
    """(left, right) -> (shared, union), from sets of voxels."""
    voxels = [
        {label: set(np.flatnonzero(side == label)) for label in np.unique(side[side > 0]).tolist()}
        for side in (left, right)
    ]
    return {
        (a, b): (len(ours & theirs), len(ours | theirs))
        for a, ours in voxels[0].items()
        for b, theirs in voxels[1].items()
        if ours & theirs
    }


def best_first(overlaps, threshold):
    reached = [(pair, n) for pair, n in overlaps.items() if n[0] / n[1] >= threshold]
    return [pair for pair, n in sorted(reached, key=lambda row: (-Fraction(*row[1]), -row[1][0]))]


def plain_mutual_best(overlaps, threshold):
    ranked = best_first(dict(sorted(overlaps.items())), threshold)
    left = {a: next(p for p in ranked if p[0] == a) for a, _ in ranked}
    right = {b: next(p for p in ranked if p[1] == b) for _, b in ranked}
    return [pair for pair in ranked if left[pair[0]] == right[pair[1]] == pair]


def plain_pick_links(overlaps, threshold):
    ranked = best_first(dict(sorted(overlaps.items())), threshold)
    picked = [pair for pair in ranked if pair == next(p for p in ranked if p[0] == pair[0])]
    return [pair for pair in picked if pair == next(p for p in picked if p[1] == pair[1])]


def pairs_of(chosen):
    left, right = chosen
    assert left.dtype == right.dtype == np.uint32
    return list(zip(left.tolist(), right.tolist(), strict=True))


def table(rows):
    """A table of (left, right, count) rows."""
    left, right, count = zip(*sorted(rows), strict=True)
    return Pairs(np.array(left, np.uint32), np.array(right, np.uint32), np.array(count, np.int64))


@st.composite
def two_views(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=7))
    arrays = hnp.arrays(np.uint32, shape, elements=st.sampled_from([0, 1, 2, 3, 70_000, 2**32 - 1]))
    return draw(arrays), draw(arrays)


THRESHOLDS = st.sampled_from([0.0, 0.1, 0.2, 0.25, 1 / 3, 0.5, 1.0])


@given(two_views())
def test_iou_is_that_of_the_sets_of_voxels(views):
    overlaps = iou_of(overlap_pairs(*views))
    counts = zip(overlaps.shared.tolist(), overlaps.union.tolist(), strict=True)
    pairs = zip(overlaps.left.tolist(), overlaps.right.tolist(), strict=True)
    expected = plain_overlaps(*views)
    assert dict(zip(pairs, counts, strict=True)) == expected
    assert overlaps.iou.tolist() == [n / union for n, union in expected.values()]
    assert overlaps.shared.dtype == overlaps.union.dtype == np.int64


@given(two_views(), THRESHOLDS)
def test_mutual_best_are_those_of_plain_loops(views, threshold):
    chosen = mutual_best(iou_of(overlap_pairs(*views)), iou_threshold=threshold)
    assert pairs_of(chosen) == plain_mutual_best(plain_overlaps(*views), threshold)


@given(two_views(), THRESHOLDS)
def test_picked_links_are_those_of_plain_loops(views, threshold):
    chosen = pick_links(iou_of(overlap_pairs(*views)), iou_threshold=threshold)
    assert pairs_of(chosen) == plain_pick_links(plain_overlaps(*views), threshold)


def test_a_new_cell_takes_its_second_best_where_the_best_went_elsewhere():
    overlaps = iou_of(
        table([(1, 1, 80), (1, 2, 50), (2, 2, 40), (2, 0, 60), (0, 1, 20), (0, 2, 10)])
    )
    assert pairs_of(mutual_best(overlaps, iou_threshold=0.2)) == [(1, 1)]
    assert pairs_of(pick_links(overlaps, iou_threshold=0.2)) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("link", [mutual_best, pick_links])
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([(1, 1, 4), (1, 2, 4)], (1, 1), id="lower right label"),
        pytest.param([(1, 1, 4), (2, 1, 4)], (1, 1), id="lower left label"),
        # 2 of 6 and 3 of 9: the same IoU with more voxels.
        pytest.param([(1, 1, 2), (1, 2, 3), (0, 1, 1), (0, 2, 4)], (1, 2), id="more voxels"),
    ],
)
def test_exact_ties(link, rows, expected):
    assert pairs_of(link(iou_of(table(rows)), iou_threshold=0.25)) == [expected]


def two_fractions(first, second):
    shared, union = zip(first, second, strict=True)
    one, two = np.array([1, 1], np.uint32), np.array([1, 2], np.uint32)
    return Overlaps(one, two, np.array(shared), np.array(union))


@given(st.data())
def test_fractions_are_compared_exactly(data):
    fractions = []
    for _ in range(2):
        union = data.draw(st.integers(1, 2**32))
        fractions.append((data.draw(st.integers(1, union)), union))
    exact = [Fraction(*fraction) for fraction in fractions]
    if exact[0] == exact[1]:
        expected = 1 if fractions[0][0] >= fractions[1][0] else 2
    else:
        expected = 1 if exact[0] > exact[1] else 2
    chosen = pick_links(two_fractions(*fractions), iou_threshold=0)
    assert pairs_of(chosen) == [(1, expected)]


@pytest.mark.parametrize("n", [2**26 + 1, 2**31, 2**32 - 1])
def test_neighbouring_fractions_that_float64_confuses(n):
    smaller, larger = (n - 2, n - 1), (n - 1, n)
    assert pairs_of(pick_links(two_fractions(smaller, larger), iou_threshold=0)) == [(1, 2)]
    assert pairs_of(pick_links(two_fractions(larger, smaller), iou_threshold=0)) == [(1, 1)]
    whole = (n, n)
    assert pairs_of(pick_links(two_fractions(larger, whole), iou_threshold=0)) == [(1, 2)]


def test_equal_fractions_up_to_2_to_32_are_equal():
    third = (1_431_655_765, 4_294_967_295)
    assert pairs_of(pick_links(two_fractions((1, 3), third), iou_threshold=0)) == [(1, 2)]
    assert pairs_of(pick_links(two_fractions(third, (1, 3)), iou_threshold=0)) == [(1, 1)]


@pytest.mark.parametrize("link", [mutual_best, pick_links])
@pytest.mark.parametrize("parts", [3, 7, 10, 49])
def test_a_pair_that_reaches_the_threshold_exactly_is_kept(link, parts):
    overlaps = iou_of(table([(5, 6, 1), (5, 0, parts - 1)]))
    assert pairs_of(link(overlaps, iou_threshold=1 / parts)) == [(5, 6)]
    assert pairs_of(link(overlaps, iou_threshold=np.nextafter(1 / parts, 1))) == []


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_iou_is_refused(threshold):
    overlaps = iou_of(table([(1, 1, 1)]))
    with pytest.raises(ValueError, match="iou_threshold needs to be from 0 to 1"):
        mutual_best(overlaps, iou_threshold=threshold)
    with pytest.raises(ValueError, match="iou_threshold needs to be from 0 to 1"):
        chain_planes([], [], iou_threshold=threshold)


def test_a_union_beyond_exact_comparison_is_refused():
    with pytest.raises(ValueError, match="Is the background labelled"):
        pick_links(two_fractions((1, 2), (1, 2**32 + 1)), iou_threshold=0)


# Components


def scipy_components(n, left, right):
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(n, n))
    _, names = connected_components(graph, directed=False)
    return np.unique(names, return_index=True)[1][names]


@given(st.integers(1, 40), st.data())
def test_components_carry_their_lowest_node(n, data):
    nodes = st.integers(0, n - 1)
    edges = data.draw(st.lists(st.tuples(nodes, nodes), max_size=60))
    left, right = np.array(edges, np.int64).reshape(-1, 2).T
    names = union_find(n, left, right)
    assert names.dtype == np.uint32
    np.testing.assert_array_equal(names, scipy_components(n, left, right))


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled", "star"])
def test_long_chains_take_no_longer_than_short_ones(order):
    n = 1_000_000
    left, right = np.arange(n - 1), np.arange(1, n)
    if order == "descending":
        left, right = left[::-1], right[::-1]
    elif order == "shuffled":
        at = np.random.default_rng(0).permutation(n - 1)
        left, right = left[at], right[at]
    elif order == "star":
        left = np.full(n - 1, n - 1)
        right = np.arange(n - 1)[::-1]
    assert not union_find(n, left, right).any()


def test_random_graphs_have_scipys_components():
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, 200_000, (2, 90_000))
    names = union_find(200_000, left, right)
    np.testing.assert_array_equal(names, scipy_components(200_000, left, right))


def test_no_nodes_and_no_edges():
    nothing = np.empty(0, np.uint32)
    assert union_find(0, nothing, nothing).size == 0
    assert union_find(3, nothing, nothing).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("n", "left", "right", "message"),
    [
        (3, [0], [3], "nodes below n = 3, got node 3"),
        (3, [0, 1], [2], "two nodes per edge"),
        (3, [-1], [2], "got -1 to -1"),
        (2**32 + 1, [0], [1], "0 to 4294967296 nodes"),
    ],
)
def test_what_is_no_graph_is_refused(n, left, right, message):
    with pytest.raises(ValueError, match=message):
        union_find(n, np.array(left), np.array(right))


# Chains from tables


def test_tables_of_tiles_give_the_chains_of_the_whole():
    rng = np.random.default_rng(2)
    planes = rng.integers(0, 9, (4, 24, 20)).repeat(3, axis=1).repeat(2, axis=2).astype(np.uint32)
    planes[1:, 5:] = planes[:-1, :-5]
    ids = [np.unique(plane[plane > 0]) for plane in planes]
    tiles = [np.s_[:31, :], np.s_[31:, :17], np.s_[31:, 17:]]
    whole = [overlap_pairs(old, new) for old, new in zip(planes, planes[1:], strict=False)]
    summed = [
        sum_pairs(overlap_pairs(old[tile], new[tile]) for tile in tiles)
        for old, new in zip(planes, planes[1:], strict=False)
    ]
    expected = list(chain_planes(ids, whole, iou_threshold=0.1))
    assert max(chained.chain.max() for chained in expected) < sum(map(len, ids)), "nothing linked"
    for ours, theirs in zip(chain_planes(ids, summed, iou_threshold=0.1), expected, strict=True):
        np.testing.assert_array_equal(ours.label, theirs.label)
        np.testing.assert_array_equal(ours.chain, theirs.chain)


def test_chains_are_read_one_plane_at_a_time():
    def endless_tables():
        while True:
            yield table([(7, 7, 3)])

    def endless_labels():
        while True:
            yield np.array([7], np.uint32)

    chains = chain_planes(endless_labels(), endless_tables())
    assert [next(chains).chain.tolist() for _ in range(5)] == [[1]] * 5


def test_no_planes_make_no_chains():
    assert list(chain_planes([], [])) == []


@pytest.mark.parametrize(
    ("labels", "tables", "message"),
    [
        ([[1], [1]], [], "one table for each plane but the last, got a different number at plane"),
        ([[1]], [table([(1, 1, 2)])], "Give an empty plane an empty list"),
        ([[1], [2]], [table([(1, 1, 2)])], "got one without label 1 of the table"),
        ([[2], [1]], [table([(1, 1, 2)])], "ascending list of all labels of each plane"),
    ],
)
def test_tables_that_do_not_fit_the_labels_are_refused(labels, tables, message):
    with pytest.raises(ValueError, match=message):
        list(chain_planes(labels, tables))
