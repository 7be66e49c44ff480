"""Plans as JSON and back: equal to the last bit, and of the same types, whatever is set."""

import json
import math
from dataclasses import asdict, fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.preprocess import LocalRanges
from cellseg_pipe.segmentation import ImageSource, Settings, make_plan
from cellseg_pipe.segmentation.frozen import plan_from_json, plan_to_json
from cellseg_pipe.segmentation.settings import CHOICES


class Network:
    ndim, n_inputs, n_outputs, divisor = 2, 2, 3, 8


def some(low, high):
    return st.floats(low, high, allow_nan=False)


CHANNELS = st.none() | st.integers(0, 1) | st.just("grey")
SETTINGS = {
    "channels": CHANNELS | st.tuples(CHANNELS, CHANNELS),
    "mode": st.sampled_from(CHOICES["mode"]),
    "diameter_px": st.none() | some(1, 300),
    "diameter_by": st.sampled_from(CHOICES["diameter_by"]),
    "diameter_classes": st.integers(1, 4),
    "anisotropy": some(0.2, 9),
    "normalise": st.sampled_from(CHOICES["normalise"]),
    "percentiles": st.none() | st.just((1.5, 98.5)),
    "value_range": st.none() | st.tuples(some(-9, 0), some(1, 9e4)),
    "local_px": st.integers(16, 300),
    "invert": st.booleans(),
    "smooth_px": some(0, 3),
    "sharpen_px": some(0, 3),
    "antialias": st.booleans(),
    "augment": st.booleans(),
    "window_px": st.integers(64, 1024),
    "overlap_px": st.integers(0, 32),
    "cellprob_threshold": some(-6, 6),
    "flow_threshold": st.none() | some(0, 3),
    "min_size_px": st.integers(0, 10**6),
    "max_size_px": st.none() | st.integers(1, 2**40),
    "niter": st.none() | st.integers(1, 5000),
    "following": st.sampled_from(CHOICES["following"]),
    "sampling": st.sampled_from(CHOICES["sampling"]),
    "reach_px": st.none() | st.integers(1, 500) | st.tuples(st.integers(1, 9), st.integers(1, 9)),
    "resample": st.booleans(),
    "fill": st.booleans(),
    "keep_border": st.booleans(),
    "flow_smooth_px": some(0, 4),
    "stitch_threshold": some(0.01, 1),
    "time_iou": st.none() | some(0.01, 1),
}


def same(left, right):
    """Equal to the last bit, and of one type, all the way down."""
    assert type(left) is type(right), (left, right)
    if is_dataclass(left):
        for field in fields(left):
            same(getattr(left, field.name), getattr(right, field.name))
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for pair in zip(left, right, strict=True):
            same(*pair)
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype and left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    elif isinstance(left, float):
        assert math.copysign(1, left) == math.copysign(1, right) and left == right
    else:
        assert left == right


def test_no_setting_is_left_out():
    assert set(SETTINGS) == {field.name for field in fields(Settings)}


@given(
    settings=st.fixed_dictionaries({}, optional=SETTINGS),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90))
    | st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)),
    diameter=some(3, 90),
)
def test_there_and_back(settings, shape, diameter):
    flat = settings.get("mode", "auto") in ("2d", "auto" if len(shape) == 2 else "2d")
    if flat != (len(shape) == 2):
        settings["mode"] = "auto"
    settings.setdefault("overlap_px", 16)
    # What nothing would come of is refused.
    if (settings.get("max_size_px") or 2**40) < settings.get("min_size_px", 15):
        settings["min_size_px"] = 0
    if settings.get("normalise", "global") != "local":
        settings.pop("local_px", None)
    if settings.get("normalise", "global") != "global":
        settings.pop("value_range", None)
    if settings.get("mode", "auto") in ("2d", "planes"):
        settings.pop("flow_smooth_px", None)
    if settings.get("diameter_classes", 1) > 1:
        settings |= {"diameter_px": None, "diameter_by": "samples", "resample": True}
    image = np.random.default_rng(0).integers(0, 999, (2, *shape)).astype(np.uint16)
    source = ImageSource(shape, 2, lambda box: image[(slice(None), *box.slices)])
    plan = make_plan(
        source,
        Settings(**settings),
        network=Network,
        diameter_px=diameter,
        network_diameter_px=30.0,
    )
    text = json.dumps(plan_to_json(plan))
    found = plan_from_json(json.loads(text))
    same(found, plan)
    assert found.views == plan.views and found.settings == plan.settings
    assert found.walk_shape == plan.walk_shape
    assert json.dumps(plan_to_json(found)) == text


def test_a_grid_of_ranges_keeps_its_bits():
    low = np.array([[[0.1, 1e-42], [np.float32(1) / 3, 3e38]]], np.float32)
    source = ImageSource((40, 40), 1, lambda box: np.zeros((1, *box.shape), np.uint8))
    network = type("One", (Network,), {"n_inputs": 1})
    plan = make_plan(
        source,
        Settings(normalise="local"),
        network=network,
        diameter_px=30.0,
        network_diameter_px=30.0,
    )
    plan = replace(plan, ranges=LocalRanges((20, 20), low, low * 0))
    same(plan_from_json(json.loads(json.dumps(plan_to_json(plan)))), plan)


def test_what_is_no_plan_is_refused():
    with pytest.raises(TypeError, match="expected a stored plan, found Settings. Plan again."):
        plan_from_json(plan_to_json(Settings()))
    with pytest.raises(ValueError, match="a stored plan names 'Secret'"):
        plan_from_json({"is a": "Secret"})
    assert asdict(Settings())["channels"] is None
