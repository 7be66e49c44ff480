"""Confidence is a calibrated probability of scores, size and form, the same in any company."""

import numpy as np
import pytest

from cellseg_pipe.kernels import Sums, object_sums
from cellseg_pipe.qc import confidence
from cellseg_pipe.qc._calibration import WEIGHTS
from cellseg_pipe.qc.confidence import FEATURES, features_of
from cellseg_pipe.segmentation.form import covariances
from tests.qc import faults


def ellipse(half_axes, shape=(80, 80)):
    place = np.indices(shape) - np.reshape(np.array(shape) / 2 - 0.5, (-1, *(1,) * len(shape)))
    axes = np.reshape(half_axes, (-1, *(1,) * len(shape)))
    return (((place / axes) ** 2).sum(axis=0) <= 1).astype(np.uint32)


def sure(labels, *, logit=5.0, error=0.05, typical=20.0):
    sums = object_sums(labels)
    n = len(sums.label)
    step = (1.0,) * labels.ndim
    return confidence(
        sums.area,
        covariances(sums, step),
        logit=np.full(n, logit),
        flow_error=np.full(n, error),
        typical_px=typical,
        step_px=step,
    )


def form(labels, step=None):
    sums = object_sums(labels)
    zeros = np.zeros(len(sums.label))
    step = step or (1.0,) * labels.ndim
    spread = covariances(sums, step)
    return features_of(
        sums.area, spread, logit=zeros, flow_error=zeros, typical_px=20.0, step_px=step
    )


def test_weights_belong_to_features():
    assert all(len(weights) == len(FEATURES) for weights in WEIGHTS.values())
    for name, weights in WEIGHTS.items():
        by_name = dict(zip(FEATURES, weights, strict=True))
        assert by_name["logit"] > 0 and by_name["dents"] < 0
        assert (by_name["flow_error"] < 0) != name.endswith("no flow error")


def test_good_cells_are_trusted_and_bad_ones_are_not():
    disc = ellipse((10, 10))
    assert sure(disc)[0] > 0.95
    assert sure(disc, error=0.9)[0] < 0.3
    assert sure(disc, logit=0.2, error=0.35)[0] < 0.7
    halves = disc * (np.indices(disc.shape)[1] % 4 < 2).astype(np.uint32)
    assert sure(halves)[0] < sure(disc)[0]
    known, unknown = sure(disc), sure(disc, error=np.nan)
    assert np.isfinite(unknown).all() and known[0] != unknown[0]


@pytest.mark.parametrize("half_axes", [(10, 10), (7, 21), (9, 12, 15)])
def test_forms_of_ellipsoids(half_axes):
    found = form(ellipse(half_axes, (80,) * len(half_axes)))
    expected = np.log(max(half_axes) / min(half_axes))
    assert abs(found["elongation"][0] - expected) < 0.02
    assert found["dents"][0] < 0.01
    size = np.log(np.prod(half_axes) ** (1 / len(half_axes)) / 10)
    assert abs(found["too_large"][0] - found["too_small"][0] - size) < 0.02


def test_forms_against_scikit_image():
    measure = pytest.importorskip("skimage.measure")
    labels = faults.field((200, 220), seed=3)
    labels = np.where(np.indices(labels.shape)[0] % 23 < 18, labels, 0).astype(np.uint32)
    found = form(labels)
    rows = measure.regionprops_table(
        labels.astype(int), properties=("label", "axis_major_length", "axis_minor_length", "area")
    )
    large = rows["area"] > 60
    # A pixel is a point there; here it is a square, which has a spread of 1/12.
    major, minor = (rows[f"axis_{name}_length"] ** 2 / 16 + 1 / 12 for name in ("major", "minor"))
    ratio = 0.5 * np.log(major / minor)
    np.testing.assert_allclose(found["elongation"][large], ratio[large], atol=1e-6)
    area = 4 * np.pi * np.sqrt(major * minor)
    dents = np.maximum(0.5 * np.log(area / rows["area"]), 0)
    np.testing.assert_allclose(found["dents"][large], dents[large], atol=1e-6)


def test_planes_that_are_far_apart_count_as_far():
    ball = ellipse((10, 10, 10), (40, 40, 40))
    flat = ball[::4]
    tall = form(flat, (4.0, 1.0, 1.0))
    assert tall["elongation"][0] < 0.1 and abs(tall["too_small"][0]) < 0.06
    assert form(flat)["elongation"][0] > 1


def test_a_row_does_not_depend_on_the_rows_beside_it():
    """In any number and order of rows the same bits."""
    labels = faults.field((300, 300), seed=1)
    sums = object_sums(labels)
    n = len(sums.label)
    rng = np.random.default_rng(0)
    logit, error = rng.normal(3, 2, n), rng.random(n)
    error[::7] = np.nan

    def of(rows):
        part = Sums(**{name: column[rows] for name, column in vars(sums).items()})
        said = {"logit": logit[rows], "flow_error": error[rows]}
        spread = covariances(part, (1.0, 1.0))
        return confidence(part.area, spread, **said, typical_px=20.0, step_px=(1.0, 1.0))

    whole = of(np.arange(n))
    assert len(np.unique(whole)) > n // 2 and (whole >= 0).all() and (whole <= 1).all()
    for size in (1, 2, 3, 7, 33):
        rows = rng.permutation(n)[:size]
        np.testing.assert_array_equal(of(rows), whole[rows])
    assert of(np.arange(0)).shape == (0,)
