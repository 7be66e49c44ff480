"""Flow errors against plain numpy, files of another program, and themselves elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.kernels.flows import flows_from_labels
from cellseg_pipe.kernels.quality import flow_quality

GOLDEN = Path(__file__).parents[1] / "golden"


def plain_errors(labels, flow, **settings_):
    """The same from the whole flow array, object after object."""
    squares = ((flows_from_labels(labels, **settings_).astype(float) - flow) ** 2).sum(0)
    return [squares[labels == value].mean() for value in np.unique(labels[labels > 0])]


def noisy_scene(shape, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    for k, corner in enumerate(np.ndindex(*(s // 8 for s in shape)), start=1):
        window = tuple(slice(8 * c, 8 * c + rng.integers(3, 9)) for c in corner)
        labels[window] = k
    labels[rng.random(shape) < 0.1] = 0
    return labels, rng.normal(size=(len(shape), *shape)).astype(np.float32)


@pytest.mark.parametrize("scene", ["touching", "elongated", "crowded", "large"])
@pytest.mark.parametrize(
    ("masks", "errors"), [("masks_unlimited", "flow_errors"), ("truth", "truth_flow_errors")]
)
def test_error_is_the_peers(scene, masks, errors):
    with np.load(GOLDEN / f"dynamics_2d_{scene}.npz") as golden:
        labels, expected = golden[masks], golden[errors]
        flow = golden["flow"].astype(np.float32)
    quality = flow_quality(labels, flow)
    assert quality.label.tolist() == list(range(1, len(expected) + 1))
    assert quality.label.dtype == np.uint32 and quality.error.dtype == np.float64
    off = np.abs(quality.error - expected)
    # The hottest pixel of a nearly symmetric cell: the peer's direction is rounding errors there.
    area = np.bincount(labels.ravel())[1:]
    assert (off <= 4 / area).all() and (off > 1e-6).sum() <= 1


@given(
    hnp.arrays(
        np.uint32,
        hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=6),
        elements=st.sampled_from([0, 1, 2, 70_000, 2**32 - 1]),
    ),
    st.sampled_from([1, 2]),
    st.sampled_from(["planes", "diffusion"]),
)
@settings(max_examples=60)
def test_error_is_that_of_the_whole_flow(labels, threads, method):
    shape = (labels.ndim, *labels.shape)
    flow = np.random.default_rng(labels.size).normal(size=shape).astype(np.float32)
    quality = flow_quality(labels, flow, threads=threads, method=method)
    assert quality.label.tolist() == np.unique(labels[labels > 0]).tolist()
    np.testing.assert_allclose(quality.error, plain_errors(labels, flow, method=method), rtol=1e-12)


@pytest.mark.parametrize("method", ["planes", "diffusion"])
@pytest.mark.parametrize("shape", [(50, 60), (16, 24, 24)])
def test_an_objects_own_flow_has_no_error_and_its_opposite_four(shape, method):
    labels, _ = noisy_scene(shape)
    flow = flows_from_labels(labels, method=method)
    np.testing.assert_array_equal(flow_quality(labels, flow, method=method).error, 0)
    opposite = flow_quality(labels, -flow, method=method)
    moving = (np.abs(flow).max(0) > 0)[labels > 0]
    share = np.bincount(labels[labels > 0], moving)[opposite.label]
    share /= np.bincount(labels.ravel())[opposite.label]
    np.testing.assert_allclose(opposite.error, 4 * share, rtol=1e-6)


@pytest.mark.parametrize("method", ["planes", "diffusion"])
@pytest.mark.parametrize("shape", [(50, 60), (16, 24, 24)])
def test_threads_do_not_change_a_bit(shape, method):
    labels, flow = noisy_scene(shape)
    one = flow_quality(labels, flow, method=method, threads=1)
    for threads in (2, 5):
        many = flow_quality(labels, flow, method=method, threads=threads)
        np.testing.assert_array_equal(many.error, one.error)


@pytest.mark.parametrize("shape", [(24, 32), (16, 16, 24)])
def test_a_crop_that_holds_the_object_gives_its_bits(shape):
    labels, flow = noisy_scene(shape)
    whole = flow_quality(labels, flow)
    for value, error in zip(whole.label, whole.error, strict=True):
        where = np.argwhere(labels == value)
        crop = tuple(slice(a, b + 2) for a, b in zip(where.min(0), where.max(0), strict=True))
        part = flow_quality(labels[crop], flow[(slice(None), *crop)], ids=[value])
        assert part.label.tolist() == [value] and part.error[0] == error


def test_chosen_labels_are_judged_in_ascending_order():
    labels, flow = noisy_scene((40, 40))
    every = flow_quality(labels, flow)
    chosen = flow_quality(labels, flow, ids=np.array([9, 2, 9, 5]))
    assert chosen.label.tolist() == [2, 5, 9]
    np.testing.assert_array_equal(chosen.error, every.error[[1, 4, 8]])
    assert flow_quality(labels, flow, ids=np.array([], int)).error.size == 0


def test_spacing_is_that_of_the_flow():
    labels, _ = noisy_scene((16, 24, 24))
    flow = flows_from_labels(labels, spacing=(3, 1, 1))
    assert not flow_quality(labels, flow, spacing=(6, 2, 2)).error.any()
    assert flow_quality(labels, flow).error.max() > 0.01


def test_layout_of_the_arrays_does_not_matter():
    labels, flow = noisy_scene((24, 32))
    expected = flow_quality(labels, flow).error
    flow.flags.writeable = labels.flags.writeable = False
    np.testing.assert_array_equal(flow_quality(labels, flow).error, expected)
    turned = np.asfortranarray(labels), np.asfortranarray(flow)
    np.testing.assert_array_equal(flow_quality(*turned).error, expected)
    np.testing.assert_array_equal(flow_quality(labels, flow.astype(float)).error, expected)


@pytest.mark.parametrize("shape", [(0, 4), (5, 5), (2, 0, 3)])
def test_no_object_gives_no_row(shape):
    quality = flow_quality(np.zeros(shape, np.uint32), np.zeros((len(shape), *shape), np.float32))
    assert quality.label.size == quality.error.size == 0


def test_one_pixel_counts_the_given_flow():
    flow = np.full((2, 3, 3), 0.5, np.float32)
    labels = np.zeros((3, 3), np.uint32)
    labels[1, 1] = 7
    assert flow_quality(labels, flow).error.tolist() == [0.5]


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_flow_that_is_not_finite_is_refused_with_the_label(broken):
    labels, flow = noisy_scene((24, 32))
    flow[1][labels == 0] = broken
    assert np.isfinite(flow_quality(labels, flow).error).all()
    flow[0][tuple(np.argwhere(labels == 6)[2])] = broken
    with pytest.raises(ValueError, match="finite flow at every object, got NaN or .* at label 6"):
        flow_quality(labels, flow)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"flow": np.zeros((2, 4, 4), int)}, TypeError, "floating point"),
        ({"flow": np.zeros((4, 4))}, ValueError, r"shape \(2, 4, 4\), components first"),
        ({"flow": np.zeros((2, 4, 5))}, ValueError, "Crop both"),
        ({"ids": [1, 3]}, ValueError, "labels that occur, got 3"),
        ({"ids": [0.5]}, TypeError, "ids needs an array of integers"),
        ({"labels": np.ones(4, int)}, ValueError, "flow_quality needs labels of 2 or 3 axes"),
        ({"method": "sum"}, ValueError, "method needs to be one of"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, words):
    given_ = {"labels": np.ones((4, 4), np.uint32), "flow": np.zeros((2, 4, 4))} | arguments
    with pytest.raises(error, match=words):
        flow_quality(given_.pop("labels"), given_.pop("flow"), **given_)
