"""Tiles that see cells differently are joined: by the peers' experiment, and case by case."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import boxes_and_areas, iou_of, overlap_pairs, relabel
from cellseg_pipe.segmentation import (
    Answer,
    ImageSource,
    Settings,
    _seams_link,
    cells_of,
    make_plan,
)
from cellseg_pipe.segmentation._seams_nodes import seen_whole
from cellseg_pipe.segmentation.cells import to_level_0
from cellseg_pipe.segmentation.seams import (
    View,
    nodes_of,
    paint_margin_px,
    paint_seams,
    seam_overlaps,
    see_cells,
)
from cellseg_pipe.segmentation.tiled import BLOCK_PX
from cellseg_pipe.tiles import TilePlan
from tests.golden.synthetic import centre_flow, label_field, network_like
from tests.qc.faults import with_errors
from tests.segmentation.linking import link_views


class Network:
    ndim, n_inputs, n_outputs, divisor = 2, 1, 3, 8


def plan_of(shape, mode=None, **changes):
    source = ImageSource(shape, 1, lambda box: np.zeros((1, *box.shape), np.uint8))
    mode = mode or {2: "2d", 3: "3d"}[len(shape)]
    return make_plan(
        source,
        Settings(mode=mode, **{"min_size_px": 15, **changes}),
        network=Network,
        diameter_px=20.0,
        network_diameter_px=20.0,
    )


def in_order_of_peaks(labels):
    """Labels from 1 by the place of their pixel nearest to the mean, and these pixels."""
    ids = np.unique(labels[labels > 0])
    objects = ndimage.find_objects(relabel(labels, ids, np.arange(1, ids.size + 1)).astype(int))
    peaks = []
    for label, box in zip(ids, objects, strict=True):
        pixels = np.argwhere(labels[box] == label)
        nearest = ((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()
        peaks.append(pixels[nearest] + [axis.start for axis in box])
    peaks = np.array(peaks, np.int64).reshape(-1, labels.ndim)
    order = np.lexsort(peaks.T[::-1])
    return relabel(labels, ids[order], np.arange(1, ids.size + 1)), peaks[order]


def view_of(seen, tile, plan):
    """The view of a tile that sees these labels in its window."""
    labels, peaks = in_order_of_peaks(seen)
    peaks = peaks + tile.outer.start
    whole = seen_whole(labels, peaks, plan=plan, window=tile.outer)
    kept = ~whole | (np.bincount(labels.ravel(), minlength=len(peaks) + 1)[1:] >= 15)
    kept |= plan.settings.min_size_px == 0
    nodes = nodes_of(labels, peaks, plan=plan, tile=tile, kept=kept)
    nothing = np.full(len(peaks), np.nan)
    area = nodes.size
    classes = np.zeros((len(peaks), 0))
    return View(tile, labels, nodes, area, nothing, nothing, classes, nothing, nothing)


def tables_of(views):
    return [
        seam_overlaps(one, other)
        for one, other in itertools.combinations(views, 2)
        if one.tile.outer.meets(other.tile.outer)
    ]


def link(views, plan, **options):
    return link_views([view.nodes for view in views], tables_of(views), plan=plan, **options)


def painted(views, linked, plan, shards=None):
    labels = np.zeros(plan.walk_shape, np.uint32)
    parts = [(view, linked.of(view.tile.number)) for view in views]
    for box in shards or [Box.of(plan.walk_shape)]:
        labels[box.slices] = paint_seams(box, parts, plan=plan)
    return labels


# The peers' experiment: every tile sees the truth bent, or wrongly cut and joined


@dataclass(frozen=True)
class Score:
    """How many cells there are on seams, how many are right; objects by truth and as found."""

    n_seam: int
    right: int
    n_true: int
    n_found: int
    slivers: int
    extra: int


def seam_cells(truth, tiles):
    owners = np.zeros(truth.shape, np.uint32)
    for number in range(len(tiles)):
        owners[tiles.tile(number).core.slices] = number
    pairs = overlap_pairs(truth, owners)
    ids, n = np.unique(pairs.left[pairs.left > 0], return_counts=True)
    return ids[n > 1]


def score_of(labels, truth, tiles):
    pairs = iou_of(overlap_pairs(truth, labels))
    good = pairs.iou >= 0.5
    on_seam = seam_cells(truth, tiles)
    area = boxes_and_areas(labels).area
    usual = np.median(boxes_and_areas(truth).area)
    return Score(
        n_seam=on_seam.size,
        right=int(np.isin(on_seam, pairs.left[good]).sum()),
        n_true=int(np.unique(truth[truth > 0]).size),
        n_found=area.size,
        slivers=int((area < usual / 5).sum()),
        extra=area.size - np.unique(pairs.right[good]).size,
    )


def experiment(truth, tiles, *, seed=0, amplitude_px=0.0, share=0.0):
    plan = plan_of(truth.shape)
    rng = np.random.default_rng(seed)
    views = []
    for number in range(len(tiles)):
        tile = tiles.tile(number)
        seen = with_errors(truth, tile, amplitude_px=amplitude_px, share=share, rng=rng)
        views.append(view_of(seen, tile, plan))
    linked = link(views, plan)
    labels = painted(views, linked, plan)
    assert np.unique(labels[labels > 0]).tolist() == list(range(1, linked.n_cells + 1))
    return labels, views, linked


TRUTH = label_field((720, 720), 620, seed=1)
TILES = TilePlan(TRUTH.shape, (8, 8), (240, 240), (40, 40))


@pytest.mark.parametrize("amplitude_px", [0, 0.7, 1.5])
def test_cells_that_tiles_see_bent_are_counted_once_and_right(amplitude_px):
    for seed in range(3):
        labels, _, linked = experiment(TRUTH, TILES, seed=seed, amplitude_px=amplitude_px)
        score = score_of(labels, TRUTH, TILES)
        assert score.n_true > 600 and score.n_seam > 80
        assert score.right == score.n_seam
        assert score.n_found == score.n_true == linked.n_cells
        assert (score.slivers, score.extra, linked.conflicts.iou.size) == (0, 0, 0)
        if amplitude_px == 0:
            assert_same_cells(labels, TRUTH)


@pytest.mark.slow
@pytest.mark.parametrize("amplitude_px", [0, 0.7])
def test_cells_that_tiles_cut_wrongly_are_no_worse_than_in_the_owners_view(amplitude_px):
    right = owned = seam = extra = 0
    n_seeds = 8
    for seed in range(n_seeds):
        labels, views, _ = experiment(TRUTH, TILES, seed=seed, amplitude_px=amplitude_px, share=0.1)
        score = score_of(labels, TRUTH, TILES)
        seam, right, extra = seam + score.n_seam, right + score.right, extra + score.extra
        owned += owners_right(TRUTH, views, TILES)
    assert owned < 0.99 * seam, "the errors do not matter"
    if amplitude_px == 0:
        assert right >= 0.961 * seam
    assert right >= owned - 0.01 * seam
    assert extra < 0.04 * n_seeds * score.n_true


def owners_right(truth, views, tiles):
    """Seam cells that the tile whose core holds most of them sees rightly."""
    n = int(truth.max()) + 1
    most, right = np.zeros(n, int), np.zeros(n, bool)
    for view in views:
        here = np.bincount(truth[view.tile.core.slices].ravel(), minlength=n)
        seen = np.ascontiguousarray(truth[view.tile.outer.slices])
        pairs = iou_of(overlap_pairs(seen, view.labels))
        best = np.zeros(n)
        np.maximum.at(best, pairs.left, pairs.iou)
        right[here > most] = (best >= 0.5)[here > most]
        most = np.maximum(most, here)
    return int(right[seam_cells(truth, tiles)].sum())


def assert_same_cells(labels, truth):
    """The same labels up to numbering."""
    pairs = overlap_pairs(labels, truth)
    assert ((pairs.left == 0) == (pairs.right == 0)).all()
    assert np.unique(pairs.left).size == np.unique(pairs.right).size == pairs.left.size


@pytest.mark.parametrize("apart_px", [0, 1, 2])
def test_volumes_have_no_slivers_and_nothing_merged(apart_px):
    truth = label_field((48, 140, 140), 160, seed=3)
    tiles = TilePlan(truth.shape, (8, 8, 8), (24, 48, 48), (14, 16, 16))
    # Two tiles are bent along three axes each: so far apart is what they see.
    labels, _, linked = experiment(truth, tiles, amplitude_px=apart_px / 6**0.5)
    score = score_of(labels, truth, tiles)
    assert score.right == score.n_seam > 100
    assert score.n_found == score.n_true
    assert (score.slivers, score.extra, linked.conflicts.iou.size) == (0, 0, 0)
    assert n_merged(labels, truth) == 0
    if apart_px == 0:
        assert_same_cells(labels, truth)


def n_merged(labels, truth):
    """Objects that hold most of two cells or more."""
    pairs = iou_of(overlap_pairs(truth, labels))
    share = pairs.shared / np.bincount(truth.ravel())[pairs.left]
    return int((np.bincount(pairs.right[share > 0.5]) > 1).sum())


# What every joining of tiles has to do


@settings(max_examples=12)
@given(
    halo=st.integers(1, 30),
    core=st.sampled_from([24, 40, 64]),
    seed=st.integers(0, 50),
    ndim=st.sampled_from([2, 2, 3]),
)
def test_tiles_that_agree_give_the_whole(halo, core, seed, ndim):
    shape = (150, 130) if ndim == 2 else (30, 60, 50)
    truth = label_field(shape, 30, seed=seed)
    tiles = TilePlan(shape, (1,) * ndim, (core,) * ndim, (halo,) * ndim)
    labels, _, linked = experiment(truth, tiles)
    assert_same_cells(labels, truth)
    assert linked.hidden.size == linked.conflicts.iou.size == 0


@functools.cache
def quarrel(seed, ndim=2):
    """Views of tiles that disagree much: each pixel counts for something."""
    shape = (90, 84) if ndim == 2 else (24, 40, 36)
    truth = label_field(shape, 40, seed=seed)
    plan = plan_of(shape)
    tiles = TilePlan(shape, (1,) * ndim, (30, 28, 20)[-ndim:], (14, 13, 8)[-ndim:])
    rng = np.random.default_rng(seed)
    views = [
        view_of(
            with_errors(truth, tiles.tile(n), amplitude_px=2.5, share=0.5, rng=rng),
            tiles.tile(n),
            plan,
        )
        for n in range(len(tiles))
    ]
    return plan, views


@settings(max_examples=15)
@given(seed=st.integers(0, 9), ndim=st.sampled_from([2, 3]), data=st.data())
def test_neither_order_nor_shards_matter(seed, ndim, data):
    plan, views = quarrel(seed, ndim)
    linked = link(views, plan)
    labels = painted(views, linked, plan)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    mixed = [views[k] for k in rng.permutation(len(views))]
    tables = tables_of(mixed)  # of some pairs the other tile comes first now
    again = link_views(
        [view.nodes for view in rng.permutation(np.array(mixed, object))],
        [tables[k] for k in rng.permutation(len(tables))],
        plan=plan,
    )
    for name, values in vars(linked.parts).items():
        np.testing.assert_array_equal(getattr(again.parts, name), values)
    np.testing.assert_array_equal(again.conflicts.iou, linked.conflicts.iou)
    edge = data.draw(st.tuples(*[st.integers(7, 60)] * ndim))
    pieces = np.zeros_like(labels)
    grid = TilePlan(plan.walk_shape, (1,) * ndim, edge, (0,) * ndim)
    for number in rng.permutation(len(grid)):
        box = grid.tile(int(number)).core
        margin = box.grow(paint_margin_px(plan))
        near = [view for view in mixed if view.tile.outer.meets(margin)]
        pieces[box.slices] = paint_seams(
            box, [(view, again.of(view.tile.number)) for view in near], plan=plan
        )
    np.testing.assert_array_equal(pieces, labels)


@settings(max_examples=20)
@given(seed=st.integers(0, 9), ndim=st.sampled_from([2, 3]))
def test_every_number_is_painted_and_hardly_any_crumbs_are_left(seed, ndim):
    plan, views = quarrel(seed, ndim)
    linked = link(views, plan)
    labels = painted(views, linked, plan)
    ids, n = np.unique(labels[labels > 0], return_counts=True)
    assert ids.tolist() == list(range(1, linked.n_cells + 1))
    # Two thirds of the cells near seams are wrong in some tile; hardly any is left in crumbs.
    assert (n < 8).mean() < 0.05
    # What a tile paints within its own core without rivals is as it sees it.
    assert np.count_nonzero(labels) > 0.8 * sum(
        np.count_nonzero(view.labels[view.tile.core.relative_to(view.tile.outer.start).slices])
        for view in views
    )


@settings(max_examples=12)
@given(seed=st.integers(0, 3), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.8]))
def test_links_are_those_of_plain_loops(seed, threshold):
    plan, views = quarrel(seed)
    linked = link(views, plan, seam_iou=threshold)
    component, refused = plain_components(tables_of(views), linked, threshold)
    assert linked.component.tolist() == component
    found = linked.conflicts
    rows = [
        (int(a) + first_row(linked, t), int(b) + first_row(linked, u))
        for t, a, u, b in zip(
            found.left_tile, found.left_label, found.right_tile, found.right_label, strict=True
        )
    ]
    assert rows == refused
    same = [linked.component[a] == linked.component[b] for a, b in rows]
    assert not any(same)


def first_row(linked, number):
    return int(linked.first[linked.number.tolist().index(number)]) - 1


def plain_components(tables, linked, threshold):
    """Mutual best pairs, joined one by one unless a tile would be twice in a component."""
    pairs = []
    for table in tables:
        low, high = first_row(linked, table.left_number), first_row(linked, table.right_number)
        found = table.overlaps
        rows = [
            (-Fraction(int(s), int(u)), -int(s), low + int(a), high + int(b))
            for a, b, s, u in zip(found.left, found.right, found.shared, found.union, strict=True)
            if s / u >= threshold
        ]
        rows.sort()
        for row in rows:
            mine = next(r for r in rows if r[2] == row[2])
            theirs = next(r for r in rows if r[3] == row[3])
            pairs += [row] if mine == theirs == row else []
    tile = np.repeat(np.arange(len(linked.number)), np.diff(linked.first)).tolist()
    group = {node: {node} for node in range(len(tile))}
    refused = []
    for *_, a, b in sorted(pairs):
        if group[a] is group[b]:
            continue
        if {tile[n] for n in group[a]} & {tile[n] for n in group[b]}:
            refused.append((a, b))
            continue
        group[a] |= group[b]
        for node in group[b]:
            group[node] = group[a]
    return [min(group[node]) for node in range(len(tile))], refused


# Case by case


def disc(shape, centre, radius):
    return sum((np.ogrid[tuple(map(slice, shape))][k] - c) ** 2 for k, c in enumerate(centre)) <= (
        radius**2
    )


def views_of(seen, tiles, plan):
    """Views of tiles that see these labels of the whole, one array per tile."""
    return [
        view_of(np.ascontiguousarray(labels[tiles.tile(n).outer.slices]), tiles.tile(n), plan)
        for n, labels in enumerate(seen)
    ]


def test_a_link_that_would_join_two_cells_of_a_tile_is_refused_and_listed():
    # The cell lies on the corner of four tiles. The first sees it in two halves, each of which is
    # linked with a neighbour, and these with each other.
    shape = (80, 80)
    plan, tiles = plan_of(shape), TilePlan(shape, (1, 1), (40, 40), (10, 10))
    cell = disc(shape, (40, 40), 24).astype(np.uint32)
    y, x = np.ogrid[:80, :80]
    halves = cell * np.where(x > y, 2, 1).astype(np.uint32)
    views = views_of([halves, cell, cell, cell], tiles, plan)
    linked = link(views, plan)
    found = linked.conflicts
    assert found.iou.size > 0 and (found.left_tile == 0).all()
    assert ((found.iou >= 0.5) & (found.iou < 1)).all()
    own = linked.component[:2]
    assert own[0] != own[1], "two cells of one tile are one"
    for k in range(found.iou.size):
        tile = views[found.left_tile[k]]
        assert tile.nodes.peak[found.left_label[k] - 1].tolist() == found.left_peak[k].tolist()
        other = views[found.right_tile[k]]
        assert other.nodes.peak[found.right_label[k] - 1].tolist() == found.right_peak[k].tolist()


def test_a_cell_wider_than_any_window_is_one_object_painted_in_parts():
    shape = (160, 170)
    tiles = TilePlan(shape, (1, 1), (40, 40), (6, 6))
    truth = disc(shape, (80, 85), 70).astype(np.uint32)
    truth[disc(shape, (15, 10), 7)] = 2
    labels, _, linked = experiment(truth, tiles)
    assert linked.n_cells == 2
    assert_same_cells(labels, truth)
    assert set(linked.parts.paints.tolist()) == {0, 1, 2}


def answer_for(truth, noise=0.1, seed=0):
    flow, logit = network_like(centre_flow(truth), truth, seed=seed, noise=noise)
    nothing = np.zeros((0, *truth.shape), np.float32)
    return Answer(flow, logit, nothing, np.zeros_like(logit), np.ones(1, np.float32))


def cut(answer, box):
    where = (slice(None), *box.slices)
    flow, logit, classes = answer.flow[where], answer.logit[box.slices], answer.classes[where]
    return Answer(flow, logit, classes, answer.spread[box.slices], answer.style)


def seen(answer, plan, tiles):
    return [
        see_cells(cut(answer, tiles.tile(n).outer), plan, tile=tiles.tile(n))
        for n in range(len(tiles))
    ]


def test_a_cell_wider_than_any_window_is_found_in_the_networks_output():
    shape = (200, 210)
    truth = disc(shape, (100, 105), 80).astype(np.uint32)
    for k, centre in enumerate([(10, 10), (12, 195), (188, 30), (185, 190)]):
        truth[disc(shape, centre, 8)] = k + 2
    plan, tiles = plan_of(shape), TilePlan(shape, (1, 1), (64, 64), (24, 24))
    views = seen(answer_for(truth), plan, tiles)
    labels = painted(views, link(views, plan), plan)
    assert np.unique(labels).size == 6
    assert (iou_of(overlap_pairs(truth, labels)).iou > 0.95).sum() == 5


@pytest.mark.parametrize("mode", ["2d", "planes", "3d"])
def test_windows_with_room_give_the_cells_of_the_whole(mode):
    shape = {"2d": (150, 160), "planes": (3, 100, 90), "3d": (30, 70, 60)}[mode]
    truth = label_field(shape[-2:] if mode == "planes" else shape, 40, seed=2)
    plan = plan_of(shape, mode, reach_px=200)
    answer = answer_for(truth)
    if mode == "planes":
        planes = [answer_for(truth, seed=z) for z in range(3)]
        answer = Answer(
            np.stack([plane.flow for plane in planes], axis=1),
            np.stack([plane.logit for plane in planes]),
            np.zeros((0, *shape), np.float32),
            np.zeros(shape, np.float32),
            np.ones(1, np.float32),
        )
    core, halo = {"2d": ((64, 64), 40), "planes": ((1, 50, 50), 40), "3d": ((16, 32, 32), 24)}[mode]
    halos = tuple(0 if mode == "planes" and axis == 0 else halo for axis in range(len(shape)))
    views = seen(answer, plan, TilePlan(shape, (1,) * len(shape), core, halos))
    linked = link(views, plan)
    labels = painted(views, linked, plan)
    whole = view_per_plane(answer, plan) if mode == "planes" else [whole_view(answer, plan)]
    assert linked.n_cells == sum(int(view.nodes.kept.sum()) for view in whole) > 30
    expected = np.zeros(shape, np.uint32)
    for k, view in enumerate(whole):
        ids = np.flatnonzero(view.nodes.kept) + 1
        expected[view.tile.outer.slices] = relabel(view.labels, ids, ids + 10_000 * k)
    assert_same_cells(labels, expected)
    if mode == "planes":
        assert not set(np.unique(labels[0])) & set(np.unique(labels[1])) - {0}


def whole_view(answer, plan):
    return see_cells(
        answer,
        plan,
        tile=TilePlan(plan.shape, (1,) * len(plan.shape), plan.shape, (0,) * len(plan.shape)).tile(
            0
        ),
    )


def view_per_plane(answer, plan):
    tiles = TilePlan(plan.shape, (1, 1, 1), (1, *plan.shape[1:]), (0, 0, 0))
    return seen(answer, plan, tiles)


def test_the_whole_in_one_tile_has_the_cells_of_exact_mode():
    truth = label_field((140, 150), 60, seed=5)
    plan = plan_of(truth.shape, reach_px=200)
    answer = answer_for(truth, noise=0.25)
    view = whole_view(answer, plan)
    labels = painted([view], link([view], plan), plan)
    np.testing.assert_array_equal(labels, cells_of(answer, plan).labels)
    assert labels.max() > 40


@given(
    keys=st.lists(st.integers(0, 40) | st.integers(0, 1 << 60), max_size=60),
    n_lone=st.integers(0, 60),
)
def test_ids_are_the_same_however_many_keys_are_sorted_at_once(keys, n_lone):
    lone, shared = np.split(np.asarray(keys, np.int64), [min(n_lone, len(keys))])
    expected = np.argsort(np.argsort(keys, kind="stable"), kind="stable") + 1
    for at_once, step in ((4, 1), (6, 3), (1 << 22, 1 << 8)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_seams_link, "RANGE_KEYS", at_once)
            patch.setattr(_seams_link, "RANGE_STEP", step)
            found = _seams_link._numbers(lone, shared)
        np.testing.assert_array_equal(np.concatenate(found), expected)


def test_numbers_go_by_block_and_then_by_peak(monkeypatch):
    monkeypatch.setitem(BLOCK_PX, "2d", (40, 56))
    truth = label_field((150, 160), 60, seed=4)
    tiles = TilePlan(truth.shape, (1, 1), (80, 80), (30, 30))
    labels, views, linked = experiment(truth, tiles)
    owners = np.concatenate([view.nodes.peak for view in views])[linked.parts.owner]
    ids = linked.parts.id[linked.parts.owner]
    keys = [(y // 40, x // 56, y, x) for y, x in owners[np.argsort(ids)].tolist()]
    assert len(keys) == linked.n_cells > 50 and keys == sorted(keys)
    for (y, x), label in zip(owners.tolist(), ids.tolist(), strict=True):
        assert labels[y, x] == label


@pytest.mark.parametrize("middle", [44, 47, 52, 55])
def test_the_tile_with_most_of_a_cell_in_its_core_paints_it_as_it_sees_it(middle):
    shape = (60, 100)
    plan, tiles = plan_of(shape), TilePlan(shape, (1, 1), (60, 50), (0, 20))
    seen = [disc(shape, (30, middle), radius).astype(np.uint32) for radius in (9, 8)]
    views = views_of(seen, tiles, plan)
    labels = painted(views, link(views, plan), plan)
    np.testing.assert_array_equal(labels, seen[0 if middle < 50 else 1])


def test_a_cell_that_its_owner_rejects_is_not_painted_by_others():
    shape = (60, 100)
    plan, tiles = plan_of(shape), TilePlan(shape, (1, 1), (60, 50), (0, 16))
    truth = disc(shape, (30, 46), 9).astype(np.uint32)
    views = views_of([truth, truth], tiles, plan)
    assert link(views, plan).n_cells == 1
    views[0].nodes.kept[:] = False
    linked = link(views, plan)
    assert linked.n_cells == 0
    assert not painted(views, linked, plan).any()


def test_a_cell_that_only_a_neighbour_sees_is_painted_where_nothing_else_is():
    shape = (60, 100)
    plan, tiles = plan_of(shape), TilePlan(shape, (1, 1), (60, 50), (0, 30))
    cell = disc(shape, (30, 62), 9).astype(np.uint32)
    views = views_of([cell, 0 * cell], tiles, plan)
    assert views[0].nodes.core_size.tolist() == [0]
    np.testing.assert_array_equal(painted(views, link(views, plan), plan), cell)
    # Where the owner sees two cells instead, these have the place.
    halves = cell * np.where(np.arange(100) < 62, 1, 2).astype(np.uint32)
    views = views_of([cell, halves], tiles, plan)
    linked = link(views, plan, seam_iou=0.9)
    assert_same_cells(painted(views, linked, plan), halves)
    assert linked.hidden.tolist() == [0]
    # What its window cuts there is no cell.
    edge = disc(shape, (30, 78), 9).astype(np.uint32)
    views = views_of([edge, 0 * edge], tiles, plan)
    assert link(views, plan).n_cells == 0


def test_two_sightings_of_one_cell_that_hardly_overlap_are_not_painted_twice():
    shape = (60, 100)
    plan, tiles = plan_of(shape), TilePlan(shape, (1, 1), (60, 50), (0, 25))
    one, other = (disc(shape, (30, x), 9).astype(np.uint32) for x in (47, 52))
    views = views_of([one, other], tiles, plan)
    linked = link(views, plan, seam_iou=0.9)
    labels = painted(views, linked, plan)
    assert linked.n_cells == 1 and linked.hidden.tolist() == [1]
    np.testing.assert_array_equal(labels > 0, one > 0)


def test_pieces_that_are_cut_off_are_removed_and_pieces_of_the_view_are_not():
    shape = (60, 120)
    plan, tiles = plan_of(shape), TilePlan(shape, (1, 1), (60, 60), (0, 50))
    left, right = np.zeros(shape, np.uint32), np.zeros(shape, np.uint32)
    left[20:40, 40:66] = 1  # large: it has what it wants
    right[27:33, 64:100] = 1
    right[27:33, 62:64] = 0
    right[45, 64:70] = 1  # lies apart, but the tile says so
    right[28:30, 36:39] = 1  # beyond the other cell: cut off from the rest
    right[28:30, 39:64] = 1
    views = views_of([left, right], tiles, plan)
    linked = link(views, plan)
    labels = painted(views, linked, plan)
    assert linked.n_cells == 2
    assert (labels[45, 64:70] == labels[30, 90]).all() and labels[30, 90] > 0
    assert not labels[28:30, 36:39].any()


def test_cells_on_the_border_are_dropped_where_that_is_asked_for():
    truth = label_field((150, 160), 60, seed=4)
    plan = plan_of(truth.shape, keep_border=False)
    tiles = TilePlan(truth.shape, (1, 1), (80, 80), (30, 30))
    views = views_of([truth] * 4, tiles, plan)
    labels = painted(views, link(views, plan), plan)
    edge = np.unique(np.concatenate([truth[0], truth[-1], truth[:, 0], truth[:, -1]]))
    inner = np.setdiff1d(np.unique(truth), edge)
    assert 0 < inner.size < truth.max()
    assert_same_cells(labels, relabel(truth, inner, inner))


def test_every_number_survives_on_a_coarser_level_0():
    # One in three pixels of the walked grid is painted from; cells of two pixels fall between.
    truth = np.zeros((48, 48), np.uint32)
    truth[::5, ::5] = np.arange(1, 101).reshape(10, 10)
    truth[1::5, ::5] = np.arange(1, 101).reshape(10, 10)
    source = ImageSource((16, 16), 1, lambda box: np.zeros((1, *box.shape), np.uint8))
    plan = make_plan(
        source,
        Settings(mode="2d", min_size_px=0, resample=False),
        network=Network,
        diameter_px=10.0,
        network_diameter_px=30.0,
    )
    assert plan.walk_shape == (48, 48)
    views = views_of([truth] * 4, TilePlan((48, 48), (1, 1), (24, 24), (8, 8)), plan)
    linked = link(views, plan)
    labels = to_level_0(painted(views, linked, plan), plan, box=Box.of((16, 16)), start=(0, 0))
    assert 0 < linked.n_cells < 100
    assert np.unique(labels[labels > 0]).tolist() == list(range(1, linked.n_cells + 1))


def test_what_does_not_fit_together_is_refused():
    plan, views = quarrel(1)
    nodes, tables = [view.nodes for view in views], tables_of(views)
    with pytest.raises(ValueError, match="each tile once"):
        link_views([*nodes, nodes[0]], tables, plan=plan)
    with pytest.raises(ValueError, match="got some twice"):
        link_views(nodes, [*tables, tables[0]], plan=plan)
    with pytest.raises(ValueError, match="some are missing"):
        link_views(nodes[:-1], tables, plan=plan)
    with pytest.raises(ValueError, match="from 0 to 1"):
        link_views(nodes, tables, plan=plan, seam_iou=1.5)


def test_no_tiles_and_empty_tiles():
    plan, tiles = plan_of((60, 100)), TilePlan((60, 100), (1, 1), (60, 50), (0, 16))
    assert link_views([], [], plan=plan).n_cells == 0
    views = views_of([np.zeros((60, 100), np.uint32)] * 2, tiles, plan)
    linked = link(views, plan)
    assert linked.n_cells == 0
    assert not painted(views, linked, plan).any()
