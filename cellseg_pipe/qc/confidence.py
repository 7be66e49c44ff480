"""How sure one may be of a cell: a probability from its scores, size and form, calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import diameter_px
from cellseg_pipe.qc._calibration import WEIGHTS

__all__ = ["FEATURES", "confidence", "features_of"]

FEATURES = (
    "one",
    "logit",
    "flow_error",
    "flow_error_squared",
    "too_small",
    "too_large",
    "elongation",
    "dents",
)
DECIMALS = 4  # more is not known
LOGIT_MAX = 8.0
RATIO_MAX = 3.0  # of logarithms: what is larger is as wrong
VOXEL_VARIANCE = 1 / 12  # of the places within one voxel


def confidence(
    area: NDArray[np.int64],
    covariance: NDArray[np.float64],
    *,
    logit: NDArray[np.float64],
    flow_error: NDArray[np.float64],
    typical_px: float | NDArray[np.float64],
    step_px: Sequence[float],
) -> NDArray[np.float64]:
    """Return the probability that a cell is one: that it shares half or more with a true one.

    Parameters
    ----------
    area : int64 array [n]
        Voxels of each cell.
    covariance : float64 array [n, ndim, ndim]
        How they spread round its centre, in px of the last axis.
    logit : float64 array [n]
        Mean over each cell.
    flow_error : float64 array [n]
        Of each cell; nan where it was not asked for, which has a calibration of its own.
    typical_px : float or float64 array [n]
        Diameter of a typical cell, in px of the last axis: one, or that of the part of the image in
        which each cell lies.
    step_px : sequence of float
        Distance of voxels along each axis, in px of the last one.

    Returns
    -------
    float64 array [n]
        From 0 to 1, to four decimals.
    """
    known = np.isfinite(flow_error)
    columns = features_of(
        area,
        covariance,
        logit=logit,
        flow_error=np.where(known, flow_error, 0.0),
        typical_px=typical_px,
        step_px=step_px,
    )
    ndim = len(step_px)
    score = np.where(
        known,
        _weighed(columns, WEIGHTS[f"{ndim}d"]),
        _weighed(columns, WEIGHTS[f"{ndim}d, no flow error"]),
    )
    return np.round(1 / (1 + np.exp(-score)), DECIMALS)


def _weighed(columns: dict[str, NDArray[np.float64]], weights: tuple[float, ...]) -> Any:
    """Return the sum over features, one after the other: a product of matrices may reorder it."""
    total = np.zeros(len(columns["one"]))
    for name, weight in zip(FEATURES, weights, strict=True):
        total = total + weight * columns[name]
    return total


def features_of(
    area: NDArray[np.int64],
    covariance: NDArray[np.float64],
    *,
    logit: NDArray[np.float64],
    flow_error: NDArray[np.float64],
    typical_px: float | NDArray[np.float64],
    step_px: Sequence[float],
) -> dict[str, NDArray[np.float64]]:
    """Return what the confidence of cells is made of.

    Parameters
    ----------
    area : int64 array [n]
        Voxels of each cell.
    covariance : float64 array [n, ndim, ndim]
        How they spread round its centre, in px of the last axis.
    logit, flow_error : float64 array [n]
        Of each cell; errors 0 where they are not known.
    typical_px : float or float64 array [n]
        Diameter of a typical cell, in px of the last axis: one, or that of the part of the image in
        which each cell lies.
    step_px : sequence of float
        Distance of voxels along each axis, in px of the last one.

    Returns
    -------
    dict of str to float64 array [n]
        By the names of `FEATURES`: logarithms of the size over the typical one, below and above
        1; of the longest over the shortest axis; and of the ellipsoid of equal moments over the
        cell itself, which is 0 for an ellipsoid and grows with dents, arms and holes.
    """
    step = np.asarray(step_px, np.float64)
    ndim = len(step)
    ball = diameter_px(area * np.prod(step), ndim)
    size = np.clip(np.log(ball / typical_px), -RATIO_MAX, RATIO_MAX)
    # A voxel is a box, not a point. Each matrix is solved by itself, whatever lies beside it.
    spread = np.linalg.eigvalsh(covariance + VOXEL_VARIANCE * np.diag(step * step))
    spread = np.maximum(spread, VOXEL_VARIANCE * step.min() ** 2)
    # An ellipsoid has half axes of sqrt(ndim + 2) standard deviations.
    ellipsoid = 2 * np.sqrt(ndim + 2) * np.prod(spread, axis=1) ** (0.5 / ndim)
    error = np.minimum(flow_error, RATIO_MAX)
    return {
        "one": np.ones(len(area)),
        "logit": np.clip(logit, -LOGIT_MAX, LOGIT_MAX),
        "flow_error": error,
        "flow_error_squared": error * error,
        "too_small": np.maximum(-size, 0.0),
        "too_large": np.maximum(size, 0.0),
        "elongation": np.minimum(0.5 * np.log(spread[:, -1] / spread[:, 0]), RATIO_MAX),
        "dents": np.clip(np.log(ellipsoid / ball), 0.0, RATIO_MAX),
    }
