"""How far windows agree on cells: against every pair of windows, and alike in any box."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.blending import ramps
from cellseg_pipe.nets.windows import Record
from cellseg_pipe.segmentation import ImageSource, Settings, cells_of, make_plan, table_of
from cellseg_pipe.segmentation.agreement import agreement, seen_again
from cellseg_pipe.segmentation.measuring import Measurer
from cellseg_pipe.segmentation.predict import answer_of, on_walked_grid

SHAPES = {"2d": (70, 95), "planes": (3, 70, 64), "3d": (10, 12, 70)}


class Network:
    ndim, n_inputs, n_outputs, divisor = 2, 1, 3, 8


def plan_of(shape, mode, *, factor=1.0, overlap_px=12, **changes):
    source = ImageSource(shape, 1, lambda box: np.zeros((1, *box.shape), np.uint8))
    return make_plan(
        source,
        Settings(mode=mode, window_px=64, overlap_px=overlap_px, **changes),
        network=Network,
        diameter_px=10.0 / factor,
        network_diameter_px=10.0,
    )


def said_at_random(view, index, seed):
    """What a network might say of a window: no flow, and any logit."""
    logit = np.random.default_rng((seed, *view.axes, *index)).normal(
        scale=3, size=view.lattice.box(index).shape
    )
    return np.stack([np.zeros_like(logit), np.zeros_like(logit), logit])


def records_with(said):
    """Records of windows, computed when they are asked for."""

    def read(view, box):
        for index in view.over(box):
            yield Record(index, said(view, index).astype(np.float16), np.ones(1, np.float32))

    return read


def compared(plan, said, shape):
    """For each pixel the sum over all pairs of windows: weights, and squared differences."""
    weight, distance = np.zeros(shape), np.zeros(shape)
    heard = []  # weight and probability of each window, over the whole image
    for view in plan.views:
        for index in Box.of(view.lattice.counts).points():
            own = np.ones(())
            for ramp in ramps(view.lattice, index):
                own = np.multiply.outer(own, ramp)
            box = view.box(index)
            inside = box.clip(Box.of(shape))
            cut = inside.relative_to(box.start).slices
            w, value = np.zeros(shape), np.zeros(shape)
            w[inside.slices] = own[cut] / len(plan.views)
            logit = said(view, index)[2].astype(np.float16).astype(float)
            value[inside.slices] = expit(logit[cut])
            heard.append((w, value))
    for (a, one), (b, other) in itertools.combinations(heard, 2):
        weight += 2 * a * b
        distance += 2 * a * b * (one - other) ** 2
    return weight, distance


@pytest.mark.parametrize("mode", SHAPES)
def test_each_pair_of_windows_is_compared(mode):
    shape = SHAPES[mode]
    plan = plan_of(shape, mode)

    def said(view, index):
        return said_at_random(view, index, 0)

    weight, distance = compared(plan, said, shape)
    answer = answer_of(records_with(said), plan, Box.of(shape))
    again = seen_again(plan, Box.of(shape))
    np.testing.assert_allclose(again, weight, atol=2e-6)
    np.testing.assert_allclose(answer.spread, distance / 2, atol=2e-6)
    alone = weight == 0
    assert (again[alone] == 0).all() and (answer.spread[alone] == 0).all()
    assert (mode == "3d") == (not alone.any()) and (weight > 0.2).any()


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_box_has_the_bits_of_the_whole(data):
    mode = data.draw(st.sampled_from(list(SHAPES)))
    changes = {"resample": data.draw(st.booleans())}
    changes |= {"flow_smooth_px": 0.7} if mode == "3d" else {}
    factor = data.draw(st.sampled_from([1.0, 0.7, 1.6]))
    plan = plan_of(SHAPES[mode], mode, factor=factor, **changes)
    walked = plan.walk_shape
    start = [data.draw(st.integers(0, n - 1)) for n in walked]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, walked, strict=True)]
    box = Box(tuple(start), tuple(stop))
    records = records_with(lambda view, index: said_at_random(view, index, 1))
    whole = on_walked_grid(records, plan, Box.of(walked)).spread
    np.testing.assert_array_equal(on_walked_grid(records, plan, box).spread, whole[box.slices])
    np.testing.assert_array_equal(
        seen_again(plan, box), seen_again(plan, Box.of(walked))[box.slices]
    )


def cells_along(plan, logit_of):
    """The table of an image of discs, where each window says of them what it is told to."""
    shape = plan.shape
    centres = np.stack(np.meshgrid(*(np.arange(12, n - 8, 20) for n in shape), indexing="ij"), -1)
    at = np.stack(np.indices(shape), -1).reshape(-1, 2)
    centres = centres.reshape(-1, 2)
    nearest = centres[((at[:, None] - centres) ** 2).sum(2).argmin(1)]
    to = (nearest - at).astype(float)
    length = np.sqrt((to**2).sum(1))
    flow = (to / np.maximum(length, 1)[:, None]).T.reshape(2, *shape)
    logit = np.where(length < 8, 5.0, -5.0).reshape(shape)
    whole = np.concatenate([flow, logit[None]])

    def said(view, index):
        box = view.box(index)
        inside = box.clip(Box.of(shape))
        values = np.zeros((3, *box.shape))
        values[2] = -5
        part = whole[(slice(None), *inside.slices)].copy()
        part[2] = logit_of(part[2], index)
        values[(slice(None), *inside.relative_to(box.start).slices)] = part
        return values

    cells = cells_of(on_walked_grid(records_with(said), plan, Box.of(shape)), plan)
    measurer = Measurer(plan)
    image = np.zeros((1, *shape), np.uint8)
    measured = measurer.image(cells.labels, image, ids=cells.rows.id, peaks=cells.rows.peak)
    return table_of(measured, cells.rows, measurer, names=("a",))


def test_windows_that_say_the_same_agree_and_others_do_not():
    plan = plan_of((60, 150), "2d", reach_px=20, flow_threshold=None)
    same = cells_along(plan, lambda logit, index: logit)
    again = seen_again(plan, Box.of(plan.shape))
    twice = np.array(
        [
            again[a:b, c:d].max() > 0
            for a, b, c, d in zip(
                *(same[f"{axis}_{end}_px"] for axis in "yx" for end in ("start", "stop")),
                strict=True,
            )
        ]
    )
    assert twice.any() and not twice.all()
    np.testing.assert_array_equal(np.isnan(same["agreement"]), ~twice)
    np.testing.assert_allclose(same["agreement"][twice], 1, atol=1e-3)

    def unsure(logit, index):  # a probability of .6 in every second window
        return logit if index[1] % 2 else np.minimum(logit, np.log(0.6 / 0.4))

    other = cells_along(plan, unsure)
    known = other["agreement"][np.isfinite(other["agreement"])]
    assert known.size > 3
    np.testing.assert_allclose(known.min(), 1 - (1 / (1 + np.exp(-5)) - 0.6) ** 2, atol=1e-3)


def test_without_overlap_nothing_is_known():
    plan = plan_of((60, 150), "2d", overlap_px=0, reach_px=20)
    table = cells_along(plan, lambda logit, index: logit)
    assert len(table["label"]) > 5 and np.isnan(table["agreement"]).all()


def test_a_chain_is_compared_over_all_of_its_planes():
    from cellseg_pipe.segmentation import Rows
    from cellseg_pipe.segmentation.cells import join_chains

    area = np.array([10, 30, 5])
    said, spread, again = np.zeros(3), np.array([0.0, 0.05, 0.0]), np.array([0.0, 0.2, 0.0])
    peak = np.zeros((3, 3), np.int64)
    ids = np.array([1, 1, 2], np.uint32)
    rows = Rows(ids, area, said, said, np.zeros((3, 0)), spread, again, peak)
    chains = join_chains(rows)
    np.testing.assert_allclose(chains.agreement, [0.5, np.nan])
    assert dataclasses.astuple(chains)[0].tolist() == [1, 2]


def test_the_mean_squared_difference_is_what_is_missing():
    np.testing.assert_allclose(
        agreement(np.array([0.0, 0.125, 0.25, 0.0]), np.array([0.5, 0.5, 0.5, 0.0])),
        [1, 0.5, 0, np.nan],
    )
