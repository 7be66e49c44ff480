"""The arithmetic that makes tiled equal to whole: who owns what, whoever asks."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.tiles import (
    Grid,
    Lattice,
    TilePlan,
    block_ranks,
    equal_batches,
    first_ids,
    morton_order,
)


@st.composite
def plans(draw, max_ndim=3):
    """Plans of 1 to 3 axes whose sizes are multiples of nothing, some below one block."""
    ndim = draw(st.integers(1, max_ndim))
    axes = st.lists(st.integers(1, 3), min_size=ndim, max_size=ndim)
    block = [draw(st.integers(1, 4)) for _ in range(ndim)]
    shard = [b * k for b, k in zip(block, draw(axes), strict=True)]
    core = [s * k for s, k in zip(shard, draw(axes), strict=True)]
    shape = [draw(st.integers(1, 14)) for _ in range(ndim)]
    halo = [draw(st.integers(0, 5)) for _ in range(ndim)]
    return TilePlan(tuple(shape), tuple(block), tuple(core), tuple(halo), tuple(shard))


def count_cover(shape, boxes):
    cover = np.zeros(shape, np.int64)
    for box in boxes:
        cover[box.slices] += 1
    return cover


@given(plans())
def test_every_voxel_has_one_core_one_shard_and_one_block(plan):
    for grid in (plan.cores, plan.shards, plan.blocks):
        assert (count_cover(plan.shape, map(grid.box, range(len(grid)))) == 1).all()
    for point in np.ndindex(*plan.shape):
        assert plan.cores.box(plan.cores.owner(point)).holds(point)


@given(plans())
def test_every_shard_and_block_has_one_writer(plan):
    for grid in (plan.shards, plan.blocks):
        for number in range(len(grid)):
            assert len(list(plan.cores.over(grid.box(number)))) == 1


@given(plans())
def test_a_tile_reads_its_core_and_halo_and_nothing_beyond_the_image(plan):
    image = Box.of(plan.shape)
    for number in range(len(plan)):
        tile = plan.tile(number)
        assert tile.number == number
        assert image.contains(tile.outer) and tile.outer.contains(tile.core)
        assert tile.outer == tile.core.grow(plan.halo).clip(image)


@given(plans(max_ndim=2), st.data())
def test_over_yields_the_boxes_that_meet_a_region(plan, data):
    start = [data.draw(st.integers(-3, n)) for n in plan.shape]
    region = Box(tuple(start), tuple(a + data.draw(st.integers(0, 9)) for a in start))
    expected = [n for n in range(len(plan)) if plan.cores.box(n).meets(region)]
    assert list(plan.cores.over(region)) == expected


@given(plans())
def test_owners_of_many_points_are_those_of_each(plan):
    points = np.array(list(np.ndindex(*plan.shape)), np.int64)
    expected = [plan.blocks.owner(point) for point in points]
    assert plan.blocks.owners(points).tolist() == expected


@st.composite
def lattices(draw):
    ndim = draw(st.integers(1, 2))
    divisor = [draw(st.integers(1, 4)) for _ in range(ndim)]
    window = [d * draw(st.integers(1, 4)) for d in divisor]
    overlap = [draw(st.integers(0, w // 2)) for w in window]
    shape = [draw(st.integers(0, 40)) for _ in range(ndim)]
    return Lattice(tuple(shape), tuple(window), tuple(overlap), tuple(divisor))


@given(lattices(), st.randoms(use_true_random=False))
def test_the_size_of_some_windows_is_that_of_their_boxes(lattice, random):
    chosen = np.array([random.random() < 0.5 for _ in range(len(lattice))]).reshape(lattice.counts)
    boxes = [lattice.box(index) for index in np.ndindex(*lattice.counts) if chosen[index]]
    assert lattice.size(chosen) == sum(box.size for box in boxes)


@given(lattices())
def test_windows_cover_the_image_and_start_on_the_stride(lattice):
    indices = list(itertools.product(*map(range, lattice.counts)))
    assert len(indices) == len(lattice)
    cover = np.zeros(lattice.shape, np.int64)
    for index in indices:
        box = lattice.box(index)
        for axis, at in enumerate(index):
            d, beyond = lattice.divisor[axis], box.stop[axis] - lattice.shape[axis]
            assert box.shape[axis] % d == 0 and beyond < d
            if at + 1 < lattice.counts[axis]:
                assert box.shape[axis] == lattice.window[axis] and beyond < 0
        assert all(a % s == 0 for a, s in zip(box.start, lattice.stride, strict=True))
        assert box.meets(Box.of(lattice.shape)), "a window that shows nothing of the image"
        cover[box.clip(Box.of(lattice.shape)).slices] += 1
    assert (cover >= 1).all()
    assert cover.max(initial=0) <= 2 ** len(lattice.shape), "more than two windows on one axis"


@given(lattices(), st.data())
def test_the_windows_over_a_box_are_the_same_whoever_asks(lattice, data):
    start = [data.draw(st.integers(-5, n)) for n in lattice.shape]
    region = Box(tuple(start), tuple(a + data.draw(st.integers(0, 25)) for a in start))
    image = Box.of(lattice.shape)
    everyone = itertools.product(*map(range, lattice.counts))
    expected = [i for i in everyone if lattice.box(i).meets(region.clip(image))]
    assert list(lattice.over(region)) == expected


@given(lattices())
def test_window_edges_fit_the_network(lattice):
    for edge, window, divisor, n in zip(
        lattice.edge, lattice.window, lattice.divisor, lattice.shape, strict=True
    ):
        assert edge % divisor == 0 and edge <= window
        assert edge == window or edge >= n


@given(st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_morton_order_visits_each_box_once(counts):
    order = morton_order(counts)
    assert sorted(order.tolist()) == list(range(int(np.prod(counts))))


def test_morton_order_is_the_z_curve_and_keeps_quadrants_together():
    assert morton_order((4, 4))[:8].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    order = morton_order((8, 8))
    quadrants = [(n // 8 // 4, n % 8 // 4) for n in order]
    assert [key for key, _ in itertools.groupby(quadrants)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with pytest.raises(ValueError, match="at most 2\\^63"):
        morton_order((2**40, 2**40))


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 12))
def test_batches_partition_the_work_in_order_and_nearly_equally(costs, n_batches):
    batch = equal_batches(costs, n_batches)
    assert len(batch) == len(costs)
    assert (np.diff(batch) >= 0).all() and set(batch.tolist()) <= set(range(n_batches))
    weights = costs if sum(costs) else [1] * len(costs)
    sums = np.bincount(batch, weights, minlength=n_batches)
    assert sums.max(initial=0) <= sum(weights) / n_batches + max(weights, default=0)


def test_what_costs_nothing_at_the_end_is_in_the_last_batch():
    assert equal_batches([0, 3, 3, 0, 0], 2).tolist() == [0, 0, 1, 1, 1]


@given(plans(), st.integers(1, 5))
def test_batches_of_a_plan_hold_every_tile_once(plan, n_batches):
    order = morton_order(plan.cores.counts)
    batch = equal_batches(np.ones(len(plan), np.int64), n_batches)
    tiles = [order[batch == b].tolist() for b in range(n_batches)]
    assert sorted(itertools.chain.from_iterable(tiles)) == list(range(len(plan)))


def ids_by_tile(plan, peaks, order):
    """Number the peaks tile by tile, as separate jobs would, in any order."""
    counts = np.zeros(len(plan.blocks), np.int64)
    found = {}
    for number in order:
        core = plan.cores.box(number)
        mine = np.array([p for p in peaks if core.holds(p)], np.int64).reshape(-1, len(plan.shape))
        block, rank = block_ranks(mine, plan.blocks)
        np.add.at(counts, block, 1)
        found.update({tuple(p): (b, r) for p, b, r in zip(mine.tolist(), block, rank, strict=True)})
    first = first_ids(counts)
    return {peak: int(first[b] + r) for peak, (b, r) in found.items()}


@given(plans(), st.data())
def test_ids_are_the_same_for_any_cores_and_order(plan, data):
    core = tuple(block * data.draw(st.integers(1, 4)) for block in plan.block)
    recut = TilePlan(plan.shape, plan.block, core, plan.halo)
    voxels = list(np.ndindex(*plan.shape))
    peaks = data.draw(st.lists(st.sampled_from(voxels), unique=True, max_size=20))
    order = data.draw(st.permutations(range(len(recut))))
    whole = ids_by_tile(plan, peaks, range(len(plan)))
    assert ids_by_tile(recut, peaks[::-1], order) == whole
    assert sorted(whole.values()) == list(range(1, len(peaks) + 1))


def test_too_many_cells_for_uint32_are_refused():
    assert first_ids([2, 0, 3]).tolist() == [1, 3, 3]
    with pytest.raises(ValueError, match="at most 4294967295 cells"):
        first_ids([2**31, 2**31])


def test_a_terabyte_plan_is_made_of_numbers_only():
    plan = TilePlan((100_000, 100_000), (2048, 2048), (4096, 4096), (60, 60))
    assert len(plan) == 25**2 and len(plan.blocks) == 49**2
    assert plan.tile(624).core == Box((98_304, 98_304), (100_000, 100_000))


@pytest.mark.parametrize(
    ("core", "halo", "shard", "message"),
    [
        ((6, 8), 1, (4, 4), "core of whole shards"),
        ((8, 8), 1, (6, 4), "shard of whole blocks"),
        ((8, 8), -1, (4, 4), "halo of 0"),
        ((8,), 1, (4, 4), "one per axis"),
    ],
)
def test_impossible_plans_are_refused(core, halo, shard, message):
    with pytest.raises(ValueError, match=message):
        TilePlan((20, 20), (4, 4), core, halo, shard)


def test_impossible_lattices_and_batches_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        Lattice((100,), (40,), (4,), (16,))
    with pytest.raises(ValueError, match="overlap from 0 to half"):
        Lattice((100,), (32,), (20,), (16,))
    with pytest.raises(ValueError, match="1 or more batches"):
        equal_batches([1, 2], 0)
    with pytest.raises(ValueError, match="pitch >= 1"):
        Grid((4, 4), (0, 2))
    with pytest.raises(IndexError, match="boxes 0 to 3"):
        Grid((4, 4), (2, 2)).box(4)
    with pytest.raises(IndexError, match="asked for voxel"):
        Grid((4, 4), (2, 2)).owner((4, 0))
