"""What a network says of one window of noise, and how long it takes: no image is read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.restore import restored_windows
from cellseg_pipe.nets.windows import Record, View, predict
from cellseg_pipe.restoration import RestorePlan
from cellseg_pipe.segmentation.plan import Plan

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import AnyEngine, Engine

__all__ = ["canary", "restoring_canary", "restoring_window_s", "window_s"]


def canary(engine: AnyEngine, plan: Plan) -> str:
    """Return a checksum of what a network says of noise: it tells machines apart that differ.

    Parameters
    ----------
    engine : AnyEngine
        The network.
    plan : Plan
        Gives the size of a window.

    Returns
    -------
    str
        The same where windows come out the same to the last bit.
    """
    view = plan.views[0]
    noise, index = _noise(view, engine.architecture.n_inputs)
    return _hash(predict(engine, lambda _box: noise, view, indices=[index]))


def restoring_canary(engine: Engine, plan: RestorePlan) -> str:
    """Return the same checksum of a network that restores.

    Parameters
    ----------
    engine : Engine
        The network.
    plan : RestorePlan
        Gives the size of a window.

    Returns
    -------
    str
        The same where windows come out the same to the last bit.
    """
    view = plan.views[0]
    noise, index = _noise(view, engine.architecture.n_inputs)
    return _hash(restored_windows(engine, lambda _box: noise, view, indices=[index]))


def _noise(view: View, n_inputs: int) -> tuple[Any, tuple[int, ...]]:
    """Return the pixels of the first window, and its index."""
    index = (0,) * len(view.shape)
    edge = view.box(index).clip(Box.of(view.shape)).shape
    return np.random.default_rng(0).random((n_inputs, *edge), np.float32), index


def _hash(records: Iterable[Record]) -> str:
    (record,) = records
    return hashlib.sha256(record.values.tobytes()).hexdigest()[:16]


def window_s(engine: AnyEngine, plan: Plan) -> float:
    """Return what one window takes, the first one aside, which waits for what is compiled.

    Parameters
    ----------
    engine : AnyEngine
        The network; it has run before.
    plan : Plan
        Gives the size of a window.

    Returns
    -------
    float
        Seconds.
    """
    began = time.monotonic()
    canary(engine, plan)
    n_views = (2**engine.architecture.ndim) ** bool(plan.settings.augment)
    return (time.monotonic() - began) * n_views


def restoring_window_s(engine: Engine, plan: RestorePlan) -> float:
    """Return what restoring one window takes, all channels, as `window_s`.

    Parameters
    ----------
    engine : Engine
        The network; it has run before.
    plan : RestorePlan
        Gives the size of a window.

    Returns
    -------
    float
        Seconds.
    """
    began = time.monotonic()
    restoring_canary(engine, plan)
    return (time.monotonic() - began) * len(plan.channels)
