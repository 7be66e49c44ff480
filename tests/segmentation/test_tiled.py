"""Tiles of any shape, in any order, give the labels and the table of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import boxes_and_areas, overlap_pairs, relabel, sum_pairs
from cellseg_pipe.segmentation import (
    Answer,
    ImageSource,
    Measured,
    Measurer,
    Settings,
    cells_of,
    find_cells,
    halo_px,
    ids_of,
    make_plan,
    paint,
    table_of,
)
from cellseg_pipe.segmentation.cells import chain_cells, join_chains, join_rows, renamed, to_level_0
from cellseg_pipe.segmentation.tiled import BLOCK_PX, counts_of
from cellseg_pipe.tiles import Grid, TilePlan, first_ids
from tests.golden.synthetic import centre_flow, label_field, network_like

SMALL_BLOCKS = {"2d": (16, 24), "planes": (1, 16, 24), "3d": (8, 12, 16)}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for mode, edge in SMALL_BLOCKS.items():
        monkeypatch.setitem(BLOCK_PX, mode, edge)


class Network:
    ndim, n_inputs, n_outputs, divisor = 2, 1, 3, 8


def scene(shape, mode, *, seed, factor=1.0, **changes):
    """A plan and a noisy answer on the grid that particles walk on."""
    source = ImageSource(shape, 1, lambda box: np.zeros((1, *box.shape), np.uint8))
    plan = make_plan(
        source,
        Settings(mode=mode, **{"reach_px": 9, "min_size_px": 9, **changes}),
        network=Network,
        diameter_px=10.0 / factor,
        network_diameter_px=10.0,
    )
    walked = plan.walk_shape
    n = max(8, int(np.prod(walked) // (90 if len(walked) == 2 else 700)))
    if mode == "planes":
        planes = [label_field(walked[1:], n // walked[0] + 3, seed=seed)] * walked[0]
        answers = [
            network_like(centre_flow(plane), plane, seed=seed + z, noise=0.25)
            for z, plane in enumerate(planes)
        ]
        flow = np.stack([flow for flow, _ in answers], axis=1)
        logit = np.stack([logit for _, logit in answers])
    else:
        truth = label_field(walked, n, seed=seed)
        flow, logit = network_like(centre_flow(truth), truth, seed=seed, noise=0.25)
    rng = np.random.default_rng(seed)
    logit = np.where(rng.random(walked) < 0.05, -3, logit).astype(np.float32)  # holes
    spread = rng.random(walked).astype(np.float32)
    nothing = np.zeros((0, *walked), np.float32)
    return plan, Answer(flow, logit, nothing, spread, np.ones(1, np.float32))


def cut(answer, box):
    where = (slice(None), *box.slices)
    flow, logit, classes = answer.flow[where], answer.logit[box.slices], answer.classes[where]
    return Answer(flow, logit, classes, answer.spread[box.slices], answer.style)


def in_tiles(answer, plan, *, core, halo, order, pixels):
    """Labels and table by way of tiles in an order, painted and measured tile by tile."""
    tiles = TilePlan(plan.walk_shape, BLOCK_PX[plan.mode], core, halo)
    numbers = order.permutation(len(tiles))
    found = {}
    for number in numbers:
        tile = tiles.tile(int(number))
        found[number] = find_cells(cut(answer, tile.outer), plan, window=tile.outer, core=tile.core)
    counts = np.zeros(len(Grid(plan.walk_shape, BLOCK_PX[plan.mode])), np.int64)
    for part in found.values():
        block, count = counts_of(part, plan)
        counts[block] += count
    first = first_ids(counts)
    named = [(found[n], ids_of(found[n], first, plan)) for n in numbers]
    walked = np.zeros(plan.walk_shape, np.uint32)
    for number in order.permutation(len(tiles)):
        box = tiles.tile(int(number)).core
        walked[box.slices] = paint(box, named)
    rows = join_rows(named)
    if plan.mode == "planes":
        walked, rows = chained(walked, rows, named, plan, tiles)
    labels = to_level_0(walked, plan, box=Box.of(plan.shape), start=(0,) * len(plan.shape))
    return labels, described(labels, pixels, rows, plan)


def described(labels, pixels, rows, plan):
    measurer = Measurer(plan)
    measured = measurer.image(labels, pixels, ids=rows.id, peaks=rows.peak)
    return table_of(measured, rows, measurer, names=("a",))


def chained(walked, rows, named, plan, tiles):
    """Link planes by tables that are summed over tiles."""
    tables, areas = [], np.zeros(len(rows.id), np.int64)
    for z in range(plan.walk_shape[0]):
        parts = []
        for core in (tiles.tile(n).core for n in range(len(tiles))):
            if not core.start[0] <= z < core.stop[0]:
                continue
            where = core.slices[1:]
            areas += boxes_and_areas(walked[z][where], ids=rows.id).area
            if z + 1 < plan.walk_shape[0]:
                parts.append(overlap_pairs(walked[z][where], walked[z + 1][where]))
        if parts:
            tables.append(sum_pairs(parts))
    ids = np.concatenate([ids for _, ids in named])
    border = np.concatenate([part.on_border for part, _ in named])
    border = border[np.argsort(ids, kind="stable")][: len(rows.id)]
    counts = np.bincount(rows.peak[:, 0], minlength=plan.walk_shape[0])
    inside = np.ones(len(border), bool)
    numbers = chain_cells(counts, tables, plan=plan, area=areas, on_border=border, inside=inside)
    return relabel(walked, rows.id, numbers), join_chains(renamed(rows, numbers))


SHAPES = {
    "2d": st.tuples(st.integers(20, 110), st.integers(20, 110)),
    "planes": st.tuples(st.integers(1, 5), st.integers(20, 60), st.integers(20, 60)),
    "3d": st.tuples(st.integers(6, 24), st.integers(30, 70), st.integers(30, 70)),
}


@pytest.mark.parametrize("mode", ["2d", "planes", "3d"])
@settings(max_examples=10)
@given(data=st.data())
def test_tiles_equal_the_whole(mode, data):
    shape = data.draw(SHAPES[mode])
    seed = data.draw(st.integers(0, 5))
    resample, factor = data.draw(st.sampled_from([(True, 1.0), (False, 0.5), (False, 1.5)]))
    plan, answer = scene(
        shape,
        mode,
        seed=seed,
        factor=factor,
        resample=resample,
        following=data.draw(st.sampled_from(["exact", "fast"])),
        keep_border=data.draw(st.booleans()),
        reach_px=data.draw(st.integers(4, 9)),
    )
    pixels = (
        np.random.default_rng(seed)
        .integers(0, 60000, (1, *shape))
        .astype(data.draw(st.sampled_from([np.uint16, np.float32])))
    )
    core = [edge * data.draw(st.integers(1, 4)) for edge in BLOCK_PX[mode]]
    if mode == "planes":
        core[0] = 1
    extra = data.draw(st.integers(0, 3))
    halo = [h + extra if h else 0 for h in halo_px(plan)]
    order = np.random.default_rng(data.draw(st.integers(0, 9)))
    labels, table = in_tiles(
        answer, plan, core=tuple(core), halo=tuple(halo), order=order, pixels=pixels
    )
    whole = cells_of(answer, plan)
    np.testing.assert_array_equal(labels, whole.labels)
    expected = described(whole.labels, pixels, whole.rows, plan)
    assert list(table) == list(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(table[name], column, err_msg=name)
    ids = np.unique(whole.labels)
    np.testing.assert_array_equal(ids[ids > 0], np.arange(1, len(whole.rows.id) + 1))


def test_a_halo_too_small_is_seen():
    """The property above can fail: with half the halo it does."""
    plan, answer = scene((110, 110), "2d", seed=1)
    pixels = np.zeros((1, 110, 110), np.uint8)
    whole = cells_of(answer, plan)
    assert whole.labels.max() > 20
    labels, _ = in_tiles(
        answer,
        plan,
        core=BLOCK_PX["2d"],
        halo=(4, 4),
        order=np.random.default_rng(0),
        pixels=pixels,
    )
    assert (labels != whole.labels).any()


def test_parts_measured_by_their_owners_add_up():
    plan, answer = scene((90, 100), "2d", seed=2)
    pixels = np.random.default_rng(0).random((2, 90, 100)).astype(np.float32)
    whole = cells_of(answer, plan)
    rows, measurer = whole.rows, Measurer(plan)
    expected = measurer.image(whole.labels, pixels, ids=rows.id, peaks=rows.peak)
    parts = [
        measurer.image(whole.labels, pixels, ids=rows.id[part], peaks=rows.peak[part])
        for part in (slice(0, 30), slice(30, None))
    ]
    found = Measured.add(parts)
    for name in ("convex", "quantiles"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("sums", "contours"):
        for column, values in vars(getattr(expected, name)).items():
            np.testing.assert_array_equal(getattr(getattr(found, name), column), values)
