"""Following against a walk in plain numpy, to the bit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.kernels import follow_flows
from tests.golden.synthetic import centre_flow, label_field, network_like

GOLDEN = Path(__file__).parents[1] / "golden"
ONE = 4096


def plain_steps(flow, foreground, n_steps, *, linear=True):
    """Every position [n_steps + 1, n, ndim] of every particle, before it is cut to the array."""
    shape = foreground.shape
    field = np.pad(flow * foreground, [(0, 0)] + [(0, 1)] * len(shape)).astype(np.float32)
    upper = (np.array(shape) - 1) * ONE
    position = np.argwhere(foreground) * ONE
    path = [position]
    for _ in range(n_steps):
        position = np.clip(position, 0, upper)
        pixel, fraction = position >> 12, (position & (ONE - 1)).astype(np.float32) / ONE * linear

        def between(axis, corner, pixel=pixel, fraction=fraction):
            if axis == len(shape):
                return np.stack([part[tuple((pixel + corner).T)] for part in field], -1)
            near = between(axis + 1, corner)
            step = np.eye(len(shape), dtype=int)[axis]
            far = between(axis + 1, corner + step)
            return near + fraction[:, axis : axis + 1] * (far - near)

        move = between(0, np.zeros(len(shape), int)) * np.float32(ONE)
        position = position + np.trunc(move).astype(np.int64)
        path.append(position)
    return np.array(path)


def plain_ends(flow, foreground, n_steps, **sampling):
    upper = (np.array(foreground.shape) - 1) * ONE
    return np.clip(plain_steps(flow, foreground, n_steps, **sampling)[-1], 0, upper)


def noisy_scene(shape, *, seed, noise=0.3, n_cells=12):
    labels = label_field(shape, n_cells, seed=seed)
    flow, logit = network_like(centre_flow(labels), labels, seed=seed, noise=noise)
    return flow, logit > 0


@pytest.mark.parametrize("shape", [(40, 47), (14, 17, 19)])
@pytest.mark.parametrize("n_steps", [0, 1, 5, 12, 13, 24, 100, 203])
def test_exact_ends_are_those_of_a_walk_without_stopping(shape, n_steps):
    flow, foreground = noisy_scene(shape, seed=n_steps)
    ends = follow_flows(flow, foreground, n_steps=n_steps)
    np.testing.assert_array_equal(ends.end, plain_ends(flow, foreground, n_steps))
    np.testing.assert_array_equal(ends.start, np.flatnonzero(foreground))
    assert not ends.verdict.any()
    np.testing.assert_array_equal(ends.position * ONE, ends.end)


@pytest.mark.parametrize("shape", [(40, 47), (14, 17, 19)])
def test_nearest_sampling_reads_the_pixel_that_holds_the_particle(shape):
    flow, foreground = noisy_scene(shape, seed=3)
    ends = follow_flows(flow, foreground, n_steps=60, sampling="nearest")
    np.testing.assert_array_equal(ends.end, plain_ends(flow, foreground, 60, linear=False))
    fast = follow_flows(flow, foreground, n_steps=60, sampling="nearest", mode="fast")
    other = follow_flows(flow, foreground, n_steps=60, mode="fast")
    near = np.abs(fast.end - ends.end).max(axis=1) <= 3 * ONE
    assert near.mean() > 0.9
    assert (fast.end != other.end).any()


@settings(max_examples=60)
@given(st.data())
def test_any_field_is_walked_to_the_bit(data):
    shape = data.draw(st.sampled_from([(1, 1), (1, 9), (6, 5), (3, 4, 5), (1, 1, 7)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    flow = rng.normal(0, data.draw(st.sampled_from([0.1, 1, 7])), (len(shape), *shape))
    foreground = rng.random(shape) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    n_steps = data.draw(st.integers(0, 50))
    flow = flow.astype(np.float32)
    ends = follow_flows(flow, foreground, n_steps=n_steps, threads=data.draw(st.integers(1, 2)))
    np.testing.assert_array_equal(ends.end, plain_ends(flow, foreground, n_steps))


@pytest.mark.parametrize(
    ("scene", "share"),
    [("touching", 0.99), ("elongated", 0.99), ("large", 0.99), ("crowded", 0.95)],
)
def test_ends_are_those_of_cellpose(scene, share):
    golden = np.load(GOLDEN / f"dynamics_2d_{scene}.npz")
    flow, foreground = golden["flow"].astype(np.float32), golden["logit"].astype(np.float32) > 0
    ends = follow_flows(flow, foreground).position.T
    distance = np.abs(ends - golden["end_points"]).max(0)
    assert np.median(distance) < 1e-3
    # Particles that circle a sink for ever lose their phase in any arithmetic but their own: the
    # peer itself moves single ends by 1.8 px when it computes weights in another precision. In the
    # crowded scene, where the flow is noisiest, more of them do. They stay round the same sink.
    assert (distance < 0.1).mean() > share
    assert (distance < 3).mean() > 0.998


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("shape", [(90, 80), (20, 30, 30)])
def test_threads_do_not_matter(shape, mode):
    flow, foreground = noisy_scene(shape, seed=1)
    one, two, seven = (
        follow_flows(flow, foreground, mode=mode, reach_px=9, threads=n) for n in (1, 2, 7)
    )
    for other in (two, seven):
        np.testing.assert_array_equal(one.end, other.end)
        np.testing.assert_array_equal(one.verdict, other.verdict)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_sixteen_origins_give_the_same_bits(mode):
    flow, foreground = noisy_scene((40, 40), seed=2)
    ends = follow_flows(flow, foreground, mode=mode, reach_px=12)
    for k in range(16):
        before, after = (3 * k, 7 * (k % 5)), (k % 3, 1)
        margins = list(zip(before, after, strict=True))
        moved = follow_flows(
            np.pad(flow, [(0, 0), *margins]), np.pad(foreground, margins), mode=mode, reach_px=12
        )
        # Particles at the old border may now pass it; the others do not know of it.
        path_inside = (ends.end > 0).all(1) & (ends.end < 39 * ONE).all(1) & (ends.verdict == 0)
        same = (moved.end - np.array(before) * ONE == ends.end).all(1)
        assert same[path_inside].mean() > 0.99
        inner = moved.verdict == ends.verdict
        assert inner[path_inside].mean() > 0.99


def line(length, *, ndim=2):
    """A cell one pixel thick whose particles all travel along the last axis to its far end."""
    shape = (3,) * (ndim - 1) + (length + 2,)
    flow = np.zeros((ndim, *shape), np.float32)
    foreground = np.zeros(shape, bool)
    foreground[(1,) * (ndim - 1) + (slice(1, length + 1),)] = True
    flow[-1][foreground] = 1
    flow[(-1,) + (1,) * (ndim - 1) + (length,)] = 0
    return flow, foreground


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("reach_px", [6, 7, 8])
def test_a_path_counts_up_to_the_reach_and_no_farther(mode, ndim, reach_px):
    flow, foreground = line(20, ndim=ndim)
    ends = follow_flows(flow, foreground, mode=mode, reach_px=reach_px)
    travel = 19 - np.arange(20)
    np.testing.assert_array_equal(ends.verdict, travel > reach_px)
    assert ends.n_too_far == (travel > reach_px).sum() and ends.n_over_edge == 0
    along_others = follow_flows(flow, foreground, mode=mode, reach_px=(0,) * (ndim - 1) + (19,))
    assert not along_others.verdict.any()


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_path_over_an_open_edge_does_not_count(mode):
    flow = np.zeros((2, 5, 30), np.float32)
    flow[1] = np.where(np.arange(30) < 15, -1, 1)
    foreground = np.ones((5, 30), bool)
    closed = follow_flows(flow, foreground, mode=mode)
    assert not closed.verdict.any()
    left = follow_flows(flow, foreground, mode=mode, open_edges=[(False, False), (True, False)])
    goes_left = np.tile(np.arange(30) < 15, 5)
    np.testing.assert_array_equal(left.verdict, np.where(goes_left, 2, 0))
    both = follow_flows(flow, foreground, mode=mode, open_edges=[(False, False), (True, True)])
    assert both.n_over_edge == foreground.size


def test_views_and_read_only_arrays_give_the_same():
    flow, foreground = noisy_scene((30, 30), seed=3)
    expected = follow_flows(flow, foreground).end
    strided = np.repeat(flow, 2, axis=-1)[..., ::2]
    strided.flags.writeable = False
    fortran = np.asfortranarray(foreground)
    fortran.flags.writeable = False
    np.testing.assert_array_equal(follow_flows(strided, fortran).end, expected)
    np.testing.assert_array_equal(follow_flows(flow.astype(np.float64), foreground).end, expected)


def test_flow_outside_the_foreground_is_never_read():
    flow, foreground = noisy_scene((30, 30), seed=4)
    expected = follow_flows(flow, foreground).end
    damaged = np.where(foreground, flow, np.nan).astype(np.float32)
    np.testing.assert_array_equal(follow_flows(damaged, foreground).end, expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"flow": np.full((2, 4, 5), np.nan, np.float32)}, ValueError, "finite flow"),
        ({"flow": np.full((2, 4, 5), np.inf, np.float32)}, ValueError, "component 0"),
        ({"flow": np.zeros((3, 4, 5), np.float32)}, ValueError, r"flow \[ndim, \*spatial\]"),
        ({"flow": np.zeros((2, 4, 5), np.int32)}, TypeError, "flow of floats"),
        ({"foreground": np.ones((4, 5), np.uint8)}, TypeError, "foreground of bool"),
        ({"flow": np.full((2, 4, 5), 1024.1, np.float32)}, ValueError, "at most 1024 px per step"),
        ({"flow": np.full((2, 4, 5), -1e30, np.float32)}, ValueError, "or more in component 0"),
        ({"n_steps": -1}, ValueError, "n_steps needs a whole number of 0 or more"),
        ({"n_steps": 2.9}, TypeError, "n_steps needs a whole number, got 2.9"),
        ({"mode": "slow"}, ValueError, "mode exact or fast"),
        ({"sampling": "cubic"}, ValueError, "sampling linear or nearest"),
        ({"reach_px": -2}, ValueError, "reach of 0 or more"),
        ({"reach_px": 7.9}, ValueError, "whole px"),
        ({"reach_px": 32_767}, ValueError, "at most 32766"),
        ({"reach_px": (3,)}, ValueError, "one for each of 2 axes"),
        ({"reach_px": (3, 3, 3)}, ValueError, "one for each of 2 axes"),
        ({"open_edges": [(2.5, 0), (0, 256)]}, ValueError, "True or False"),
        ({"open_edges": [(0, 1), (0, 1)]}, ValueError, "True or False"),
        (
            {"open_edges": [(True, False)]},
            ValueError,
            "two open_edges, True or False, for each of 2 axes",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(change, error, message):
    good = {"flow": np.zeros((2, 4, 5), np.float32), "foreground": np.ones((4, 5), bool)}
    arguments = {**good, **change}
    with pytest.raises(error, match=message):
        follow_flows(arguments.pop("flow"), arguments.pop("foreground"), **arguments)


def test_an_axis_beyond_the_range_of_positions_is_refused():
    shape = (1, 523_263)
    flow = np.broadcast_to(np.float32(0), (2, *shape))
    with pytest.raises(ValueError, match="at most 523262 px .* Cut the image into tiles"):
        follow_flows(flow, np.zeros(shape, bool))


def test_the_largest_step_from_the_end_of_the_longest_axis_stays_in_range():
    # Unbounded, a step of 4 px from here ended at the other side of the image.
    length = 523_262
    flow = np.zeros((2, 1, length), np.float32)
    flow[1] = 1024
    foreground = np.zeros((1, length), bool)
    foreground[0, [0, -1]] = True
    edges = [(False, False), (False, True)]
    ends = follow_flows(flow, foreground, n_steps=40, open_edges=edges)
    # The first one comes to background, where no flow is.
    assert ends.position[:, 1].tolist() == [1024, length - 1]
    assert ends.verdict.tolist() == [0, 2]
    back = follow_flows(-flow, foreground, n_steps=40, open_edges=[(False, False), (True, False)])
    assert back.position[:, 1].tolist() == [0, length - 1 - 1024]
    assert back.verdict.tolist() == [2, 0]


def test_more_particles_than_31_bits_count_are_refused(monkeypatch):
    monkeypatch.setattr(np, "count_nonzero", lambda array: 2**31)
    with pytest.raises(ValueError, match="fewer than 2.31 foreground"):
        follow_flows(np.zeros((2, 3, 3), np.float32), np.ones((3, 3), bool))


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_without_a_reach_no_path_is_too_long(mode):
    # Distances are kept in 16 bits where there is a reach; a path of 40,000 px was dropped.
    length = 40_000
    flow = np.zeros((2, 1, length), np.float32)
    flow[1, 0, ::1000] = 1000
    flow[1, 0, -1000:] = 0
    foreground = np.zeros((1, length), bool)
    foreground[0, ::1000] = True
    ends = follow_flows(flow, foreground, n_steps=50, mode=mode)
    assert not ends.verdict.any() and (ends.position[:, 1] == 39_000).all()
    longest = follow_flows(flow, foreground, n_steps=50, mode=mode, reach_px=32_766)
    np.testing.assert_array_equal(longest.verdict, 39_000 - 1000 * np.arange(40) > 32_766)
    edges = [(False, False), (True, True)]
    if mode == "fast":
        with pytest.raises(ValueError, match="needs a reach where edges are open"):
            follow_flows(flow, foreground, n_steps=50, mode=mode, open_edges=edges)
    else:
        assert not follow_flows(flow, foreground, n_steps=50, open_edges=edges).verdict.any()


@pytest.mark.parametrize("scene", ["2d_touching", "2d_crowded", "3d"])
def test_nearest_ends_are_those_of_cellpose_to_the_bit(scene):
    # The peer's flows without interpolation are multiples of 1/256 px, and so are all positions:
    # its float32 sums are exact, like ours.
    golden = np.load(GOLDEN / f"dynamics_{scene}.npz")
    flow, foreground = golden["flow"].astype(np.float32), golden["logit"].astype(np.float32) > 0
    expected = np.load(GOLDEN / "dynamics_nearest.npz")[f"{scene}_end_points"].astype(int)
    ends = follow_flows(flow, foreground, sampling="nearest")
    np.testing.assert_array_equal(ends.end.T, expected * (ONE // 256))


def test_ends_in_three_dimensions_are_those_of_cellpose():
    # The peer samples with grid_sample at x L / (L - 1) - 1/2, up to half a pixel beside the
    # particle, so that all of its ends lie up to half a pixel off.
    golden = np.load(GOLDEN / "dynamics_3d.npz")
    flow, foreground = golden["flow"].astype(np.float32), golden["logit"].astype(np.float32) > 0
    ends = follow_flows(flow, foreground).position.T
    distance = np.abs(ends - golden["end_points"]).max(axis=0)
    assert (distance < 0.5).mean() > 0.99


@pytest.mark.parametrize("n_steps", [0, 1, 8, 23])
def test_fast_mode_walks_exactly_where_jumps_would_go_too_far(n_steps):
    # A jump of 8 steps and a walk of n_steps are more than n_steps: 2 of 1, in the worst case.
    flow, foreground = noisy_scene((60, 60), seed=8, noise=0.1)
    fast = follow_flows(flow, foreground, n_steps=n_steps, mode="fast", reach_px=5)
    exact = follow_flows(flow, foreground, n_steps=n_steps, reach_px=5)
    np.testing.assert_array_equal(fast.end, exact.end)
    np.testing.assert_array_equal(fast.verdict, exact.verdict)


@pytest.mark.parametrize("shape", [(0, 5), (4, 5), (2, 0, 3)])
def test_no_foreground_has_no_ends(shape):
    for mode in ("exact", "fast"):
        ends = follow_flows(
            np.zeros((len(shape), *shape), np.float32), np.zeros(shape, bool), mode=mode
        )
        assert ends.end.shape == (0, len(shape)) and ends.start.size == ends.verdict.size == 0
