"""The whole way from a network's output to cells: equal to the peer, and local."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.kernels import (
    HALO_BEYOND_REACH,
    Ends,
    boxes_and_areas,
    find_masks,
    flow_quality,
    masks_from_flows,
    overlap_pairs,
)
from cellseg_pipe.metrics import evaluate
from tests.golden.synthetic import centre_flow, label_field, network_like
from tests.kernels.test_cells_from_ends import plain_cells
from tests.kernels.test_flows_from_labels import plain_diffusion, plain_planes, unit
from tests.kernels.test_follow_flows import plain_ends
from tests.kernels.test_shape import plain_fill

GOLDEN = Path(__file__).parents[1] / "golden"


def same_cells(left, right):
    """Share of pixels on which two label images agree, whatever the numbers."""
    pairs = overlap_pairs(left, right)
    best = {}
    for a, b, n in sorted(
        zip(pairs.left.tolist(), pairs.right.tolist(), pairs.count.tolist(), strict=True),
        key=lambda row: -row[2],
    ):
        if bool(a) == bool(b) and a not in best and b not in [q for q, _ in best.values()]:
            best[a] = (b, n)
    return sum(n for _, n in best.values()) / np.size(left)


CASES = {
    "computed_default": {},
    "computed_no_flow_check": {"flow_threshold": None},
    "computed_logit_minus_1": {"cellprob_threshold": -1},
    "computed_logit_plus_1": {"cellprob_threshold": 1},
    "computed_any_size": {"min_size_px": 0},
    "computed_min_60": {"min_size_px": 60},
}


# The noisiest scene, 0.3 being sigma 1.5 on the scale of the peer's flows: particles that circle a
# sink lose their phase in another arithmetic, and now and then a peak of 10 ends or so comes or
# goes; fast mode ends its paths elsewhere on the way round. 3D: the peer samples up to half a pixel
# beside the particle, so ends at the rim of a sink count otherwise.
SHARES = {"2d_touching": 0.9998, "2d_elongated": 0.9998, "2d_crowded": 0.99, "2d_large": 0.9997}
SHARES |= {"3d": 0.995}
IN_3D = ("computed_default", "computed_any_size")


def golden_scene(scene):
    with np.load(GOLDEN / f"dynamics_{scene}.npz") as file:
        golden = dict(file)
    return golden, golden["flow"].astype(np.float32), golden["logit"].astype(np.float32)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize(
    ("scene", "case"),
    [(scene, case) for scene in SHARES for case in CASES if scene != "3d" or case in IN_3D],
)
def test_masks_are_those_of_cellpose(scene, case, mode):
    golden, flow, logit = golden_scene(scene)
    # The peer drops masks above 40 % of the image, and has no flow check in 3D.
    own = {"max_size_px": int(0.4 * logit.size)} | (
        {"flow_threshold": None} if scene == "3d" else {}
    )
    labels = masks_from_flows(flow, logit, mode=mode, **own, **CASES[case])
    assert labels.dtype == np.uint32
    assert same_cells(labels, golden[case]) > SHARES[scene]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("scene", SHARES)
def test_masks_of_any_size_are_those_of_cellpose(scene, mode):
    golden, flow, logit = golden_scene(scene)
    raw = {"flow_threshold": None, "min_size_px": 0, "fill": False}
    labels = masks_from_flows(flow, logit, mode=mode, **raw)
    assert same_cells(labels, golden["masks_unlimited"]) > SHARES[scene]


@pytest.mark.parametrize("scene", ["2d_touching", "2d_crowded", "3d"])
def test_masks_by_nearest_sampling_are_those_of_cellpose_to_the_last_pixel(scene):
    _, flow, logit = golden_scene(scene)
    raw = {"flow_threshold": None, "min_size_px": 0, "fill": False}
    labels = masks_from_flows(flow, logit, sampling="nearest", **raw)
    expected = np.load(GOLDEN / "dynamics_nearest.npz")[f"{scene}_masks"]
    assert same_cells(labels, expected) == 1


def plain_masks(flow, logit):
    """The whole way with the default settings, from the plain references of each step."""
    foreground = logit > 0
    end = plain_ends(flow, foreground, 200)
    start = np.flatnonzero(foreground)
    ends = Ends(foreground.shape, start, end, np.zeros(start.size, np.uint8))
    labels, _ = plain_cells(ends)
    areas = np.bincount(labels.ravel())
    labels[areas[labels] < 15] = 0
    own = plain_diffusion(labels) if labels.ndim == 2 else unit(plain_planes(labels))
    apart = ((own - flow) ** 2).sum(axis=0)
    for value in np.unique(labels[labels > 0]):
        error = apart[labels == value].mean()
        assert abs(error - 0.4) > 1e-3, "too near to the threshold for other rounding"
        if error > 0.4:
            labels[labels == value] = 0
    return plain_fill(np.unique(labels, return_inverse=True)[1].reshape(labels.shape))


@pytest.mark.parametrize(
    ("shape", "seed", "noise"), [((70, 64), 1, 0.1), ((70, 64), 2, 0.3), ((14, 26, 24), 3, 0.3)]
)
def test_exact_masks_are_those_of_a_plain_program_to_the_last_pixel(shape, seed, noise):
    _, flow, logit = scene(shape, seed=seed, n_cells=16, noise=noise)
    logit[np.random.default_rng(seed).random(shape) < 0.02] = -1  # holes to fill
    expected = plain_masks(flow, logit)
    assert expected.max() > 5
    np.testing.assert_array_equal(find_masks(flow, logit).labels, expected)


def test_fast_masks_differ_from_exact_ones_by_less_than_a_pixel_of_ten_thousand():
    _, flow, logit = scene((600, 600), seed=9, n_cells=180, noise=0.1)
    exact, fast = (masks_from_flows(flow, logit, mode=mode) for mode in ("exact", "fast"))
    assert exact.max() > 150
    assert same_cells(exact, fast) >= 0.9999


def test_size_limits_are_numbers_and_not_shares_of_the_array():
    golden = np.load(GOLDEN / "dynamics_2d_large.npz")
    flow, logit = golden["flow"].astype(np.float32), golden["logit"].astype(np.float32)
    everything = find_masks(flow, logit, flow_threshold=None)
    limit = int(np.sort(everything.area)[-2])
    assert (find_masks(flow, logit, flow_threshold=None, max_size_px=limit).area <= limit).all()
    wide = np.pad(flow, [(0, 0), (0, 50), (0, 50)]), np.pad(logit, (0, 50), constant_values=-9)
    np.testing.assert_array_equal(find_masks(*wide, flow_threshold=None).area, everything.area)


def scene(shape, *, seed, n_cells, noise=0.3):
    """Touching cells under a noisy network: 0.3 is 1.5 on the scale of the peer's flows."""
    labels = label_field(shape, n_cells, seed=seed)
    flow, logit = network_like(centre_flow(labels), labels, seed=seed, noise=noise)
    return labels, flow, logit


def cells_with_peaks_in(masks, start, stop, origin):
    """Each cell whose peak lies in a core, as {peak: (pixels, error)} in global coordinates."""
    found = {}
    for k, peak in enumerate(masks.peak + origin):
        if (peak >= start).all() and (peak < stop).all():
            pixels = np.argwhere(masks.labels == k + 1) + origin
            found[tuple(peak.tolist())] = (pixels.tolist(), masks.flow_error[k], masks.logit[k])
    return found


@pytest.mark.parametrize("mode", ["exact", "fast"])
@settings(max_examples=25)
@given(data=st.data())
def test_a_window_gives_the_cells_of_its_core_as_the_whole_does(mode, data):
    ndim = data.draw(st.sampled_from([2, 2, 3]))
    shape = {2: (150, 140), 3: (26, 70, 60)}[ndim]
    n_cells = {2: 90, 3: 60}[ndim]
    # The smallest reach is below what most cells need, so that many particles are dropped.
    reach = data.draw(st.sampled_from([3, 8, 12]))
    _, flow, logit = scene(shape, seed=data.draw(st.integers(0, 20)), n_cells=n_cells)
    settings_ = {"reach_px": reach, "mode": mode, "fill": False, "min_size_px": 5}
    settings_ |= {"flow_threshold": data.draw(st.sampled_from([0.4, 2.0]))}
    whole = find_masks(flow, logit, **settings_)
    halo = reach + HALO_BEYOND_REACH
    start = np.array([data.draw(st.integers(0, n - 1)) for n in shape])
    stop = np.array([data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)])
    low = np.maximum(start - halo, 0)
    high = np.minimum(stop + halo, shape)
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    edges = [(a > 0, b < n) for a, b, n in zip(low, high, shape, strict=True)]
    part = find_masks(flow[(slice(None), *cut)], logit[cut], open_edges=edges, **settings_)
    assert cells_with_peaks_in(part, start, stop, low) == cells_with_peaks_in(whole, start, stop, 0)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_cells_on_faces_edges_and_corners_of_cores_are_owned_once(mode):
    _, flow, logit = scene((20, 64, 64), seed=5, n_cells=90, noise=0.2)
    reach, core = 8, np.array([10, 32, 32])
    whole = find_masks(flow, logit, reach_px=reach, mode=mode, fill=False)
    painted = np.zeros(logit.shape, np.uint32)
    numbers = {tuple(peak.tolist()): k + 1 for k, peak in enumerate(whole.peak)}
    for corner in np.ndindex(2, 2, 2):
        start = core * corner
        stop = start + core
        low = np.maximum(start - reach - HALO_BEYOND_REACH, 0)
        high = np.minimum(stop + reach + HALO_BEYOND_REACH, logit.shape)
        cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        edges = [(a > 0, b < n) for a, b, n in zip(low, high, logit.shape, strict=True)]
        part = find_masks(
            flow[(slice(None), *cut)],
            logit[cut],
            reach_px=reach,
            mode=mode,
            open_edges=edges,
            fill=False,
        )
        for peak, (pixels, *_) in cells_with_peaks_in(part, start, stop, low).items():
            where = tuple(np.array(pixels).T)
            assert not painted[where].any(), "two cores own one pixel"
            painted[where] = numbers[peak]
    np.testing.assert_array_equal(painted, whole.labels)


def test_every_row_belongs_to_its_cell():
    truth, flow, logit = scene((160, 150), seed=3, n_cells=40, noise=0.1)
    masks = find_masks(flow, logit)
    objects = boxes_and_areas(masks.labels)
    assert objects.label.tolist() == list(range(1, len(masks.peak) + 1))
    assert (masks.labels[tuple(masks.peak.T)] == objects.label).all()
    order = np.ravel_multi_index(tuple(masks.peak.T), truth.shape)
    assert (np.diff(order) > 0).all(), "ids are not in C order of the peaks"
    unfilled = find_masks(flow, logit, fill=False)
    quality = flow_quality(unfilled.labels, flow)
    np.testing.assert_array_equal(masks.flow_error, quality.error)
    np.testing.assert_array_equal(boxes_and_areas(unfilled.labels).area, masks.area)
    means = [logit[unfilled.labels == k].mean(dtype=np.float64) for k in objects.label]
    np.testing.assert_allclose(masks.logit, means, rtol=1e-6)
    assert ((masks.probability > 0.9) & (masks.probability < 1)).all()
    assert evaluate(masks.labels, truth).ap[0.75] > 0.97


def test_three_dimensions_and_the_flow_check_in_them():
    truth, flow, logit = scene((24, 70, 70), seed=1, n_cells=30, noise=0.1)
    masks = find_masks(flow, logit)
    assert evaluate(masks.labels, truth).ap[0.75] == 1
    spoiled = np.where(truth == 5, -flow[0], flow[0])
    inverted = np.stack([spoiled, flow[1], flow[2]])
    errors = flow_quality(truth, inverted).error
    assert np.argmax(errors) == 4


def test_class_of_a_cell_is_the_one_with_the_largest_mean():
    truth, flow, logit = scene((90, 90), seed=2, n_cells=16, noise=0.05)
    classes = np.random.default_rng(0).integers(0, 3, truth.max() + 1)
    outputs = np.stack([(classes[truth] == k) * 2.0 - 1 for k in range(3)])
    masks = find_masks(flow, logit, class_logits=outputs)
    expected = classes[truth[tuple(masks.peak.T)]]
    np.testing.assert_array_equal(masks.class_index, expected)
    with pytest.raises(ValueError, match="class_logits"):
        find_masks(flow, logit, class_logits=outputs[:1])


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (5, 6), (2, 3, 4)])
@pytest.mark.parametrize("value", [-5.0, 5.0])
def test_smallest_images_and_all_or_no_foreground(shape, value, mode):
    flow = np.zeros((len(shape), *shape), np.float32)
    logit = np.full(shape, value, np.float32)
    masks = find_masks(flow, logit, mode=mode)
    assert masks.labels.shape == shape and masks.labels.dtype == np.uint32
    assert not masks.labels.any() and masks.peak.shape == (0, len(shape))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logit": np.full((4, 5), np.nan, np.float32)}, ValueError, "logit without NaN"),
        ({"logit": np.full((4, 5), np.inf, np.float32)}, ValueError, "NaN or infinity"),
        ({"logit": np.full((4, 5), -np.inf, np.float32)}, ValueError, "NaN or infinity"),
        ({"logit": np.full((4, 5), 1e39)}, ValueError, "NaN or infinity"),
        ({"logit": np.zeros((4, 5), int)}, TypeError, "logit of floats"),
        ({"min_size_px": -1}, ValueError, "min_size_px needs a whole number of 0 or more"),
        ({"min_size_px": 1.5}, TypeError, "min_size_px needs a whole number"),
        ({"max_size_px": -3}, ValueError, "max_size_px needs a whole number of 0 or more"),
        ({"niter": 2.9}, TypeError, "niter needs a whole number, got 2.9"),
        ({"cellprob_threshold": np.nan}, ValueError, "finite cellprob_threshold"),
        ({"cellprob_threshold": -1e39}, ValueError, "finite cellprob_threshold"),
        ({"flow_threshold": np.nan}, ValueError, "flow_threshold of 0 or more"),
        ({"spacing": (1, 2, 3, -4)}, ValueError, "spacing needs one positive number per axis"),
        ({"spacing": (1, np.nan)}, ValueError, "spacing needs"),
        ({"class_logits": np.zeros((2, 3, 3))}, ValueError, "class_logits .n_classes"),
        ({"class_logits": np.full((2, 4, 5), np.nan)}, ValueError, "class_logits without NaN"),
        ({"class_logits": np.zeros((2, 4, 5), int)}, TypeError, "class_logits of floats"),
        ({"open_edges": [(False, True), (False, False)]}, ValueError, "needs fill=False"),
        ({"flow_threshold": -0.1}, ValueError, "flow_threshold"),
        ({"logit": np.zeros((5, 4), np.float32)}, ValueError, "got shapes"),
    ],
)
def test_wrong_input_is_refused(change, error, message):
    arguments = {"logit": np.zeros((4, 5), np.float32), **change}
    with pytest.raises(error, match=message):
        find_masks(np.zeros((2, 4, 5), np.float32), **arguments)


def test_open_edges_that_are_all_closed_may_be_filled():
    truth, flow, logit = scene((60, 60), seed=3, n_cells=6, noise=0.05)
    closed = find_masks(flow, logit, open_edges=[(False, False)] * 2)
    np.testing.assert_array_equal(closed.labels, find_masks(flow, logit).labels)
    assert len(closed.peak) == truth.max()


@pytest.mark.parametrize("value", [-800, 0, 800])
def test_probability_is_that_of_any_logit(value):
    flow = np.stack([10 - np.indices((20, 20))[k] for k in range(2)]).astype(np.float32)
    logit = np.full((20, 20), value, np.float64)
    masks = find_masks(flow, logit, flow_threshold=None, cellprob_threshold=-1000)
    assert masks.logit.tolist() == [value]
    assert masks.probability.tolist() == [{-800: 0, 0: 0.5, 800: 1}[value]]


def test_dropped_particles_are_counted_by_reason():
    flow = np.zeros((2, 5, 30), np.float32)
    flow[1, :, :20] = -1
    logit = np.ones((5, 30), np.float32)
    edges = {"open_edges": [(False, False), (True, False)], "fill": False}
    masks = find_masks(flow, logit, reach_px=9, **edges)
    assert (masks.n_too_far, masks.n_over_edge) == (0, 100)
    whole = find_masks(flow, logit, reach_px=9)
    assert (whole.n_too_far, whole.n_over_edge) == (50, 0)


HASHES = """
import hashlib, numpy as np
from cellseg_pipe.kernels import find_masks, flows_from_labels, flow_quality
from tests.golden.synthetic import centre_flow, label_field, network_like
for shape in ((120, 110), (18, 40, 40)):
    labels = label_field(shape, 14, seed=1)
    flow, logit = network_like(centre_flow(labels), labels, seed=1, noise=0.3)
    for mode in ("exact", "fast"):
        masks = find_masks(flow, logit, mode=mode, reach_px=14)
        rows = (masks.labels, masks.peak, masks.flow_error, masks.logit)
        print(mode, [hashlib.sha256(np.ascontiguousarray(r)).hexdigest()[:12] for r in rows])
    near = find_masks(flow, logit, sampling="nearest")
    apart = (1.0, 2.5, 1.5)[-len(shape):]
    flat = find_masks(flow, logit, spacing=apart, mode="fast", flow_threshold=2.0)
    for masks in (near, flat):
        rows = (masks.labels, masks.peak, masks.flow_error, masks.logit)
        print(len(masks.peak), [hashlib.sha256(np.ascontiguousarray(r)).hexdigest() for r in rows])
    for method in ("planes", "diffusion"):
        for spacing in (None, apart):
            flows = flows_from_labels(labels, method=method, spacing=spacing)
            errors = flow_quality(labels, flow, method=method, spacing=spacing).error
            print(method, [hashlib.sha256(a).hexdigest()[:12] for a in (flows, errors)])
"""


@pytest.mark.slow
def test_bits_are_the_same_on_every_kind_of_cpu(tmp_path):
    def run(**cpu):
        env = {**os.environ, "CELLSEG_CACHE": str(tmp_path), "PYTHONPATH": str(Path.cwd()), **cpu}
        done = subprocess.run(
            [sys.executable, "-c", HASHES], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    host = run()
    assert "\n0 [" not in host, "no cells to compare"
    assert host == run(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert host == run(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx2,+fma,+bmi2")
    assert len(list(tmp_path.iterdir())) == 3


def test_spacing_makes_particles_walk_fewer_voxels_along_the_coarse_axis():
    # One ball, seen with voxels three times as high as wide: a unit step is a third of a voxel.
    z, y, x = np.mgrid[-3:4, -10:11, -10:11].astype(np.float32)
    way = np.stack([-3 * z, -y, -x])
    length = np.sqrt((way**2).sum(axis=0))
    flow = (way / np.maximum(length, 1)).astype(np.float32)
    logit = np.where(length <= 10, 3, -3).astype(np.float32)
    found = find_masks(flow, logit, spacing=(3, 1, 1), flow_threshold=None)
    assert found.peak.tolist() == [[3, 10, 10]]
    np.testing.assert_array_equal(found.labels > 0, logit > 0)
    voxels = np.array([1 / 3, 1, 1], np.float32).reshape(-1, 1, 1, 1)
    same = find_masks(flow * voxels, logit, flow_threshold=None)
    np.testing.assert_array_equal(found.labels, same.labels)
    with pytest.raises(ValueError, match="spacing needs one positive number per axis, 3 in all"):
        find_masks(flow, logit, spacing=(3, 1))
