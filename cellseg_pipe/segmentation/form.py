"""The form of cells from sums over their voxels. Arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import Sums

__all__ = [
    "axis_lengths",
    "covariances",
    "distance_to_border",
    "eccentricity",
    "orientation",
    "spreads",
]


def covariances(sums: Sums, proportions: Sequence[float]) -> NDArray[np.float64]:
    """Return how the voxels of cells spread round their centres.

    Parameters
    ----------
    sums : Sums
        Of the cells.
    proportions : sequence of float
        Edges of a voxel.

    Returns
    -------
    float64 array [n, ndim, ndim]
        The same whatever the moments count from: they are moved next to the centre in int64, whose
        overflows on the way cancel out.
    """
    area, first, second = sums.area[:, None], sums.first, sums.second
    step = (2 * first + area) // (2 * area)
    rest = (first - area * step).astype(np.float64)
    cross = step[:, :, None] * first[:, None]
    near = second - cross - cross.transpose(0, 2, 1)
    near += area[:, :, None] * step[:, :, None] * step[:, None]
    edges = np.asarray(proportions, np.float64)
    count = area[:, :, None].astype(np.float64)
    spread = (near - rest[:, :, None] * rest[:, None] / count) / count
    return np.asarray(spread * np.outer(edges, edges))


def axis_lengths(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lengths of the axes of the ellipses, or ellipsoids, that spread alike.

    Parameters
    ----------
    covariance : float64 array [n, ndim, ndim]
        Of the cells.

    Returns
    -------
    float64 array [n, ndim]
        The longest first.
    """
    spread = np.linalg.eigvalsh(covariance)[:, ::-1].clip(0)
    return np.asarray(2 * np.sqrt((2 + covariance.shape[-1]) * spread))


def orientation(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angle from the first axis to the major axis of cells y, x, as scikit-image does.

    Parameters
    ----------
    covariance : float64 array [n, 2, 2]
        Of the cells.

    Returns
    -------
    float64 array [n]
        From -pi/2 to pi/2; of cells that spread alike along both axes pi/4 or -pi/4.
    """
    along, across, mixed = covariance[:, 0, 0], covariance[:, 1, 1], covariance[:, 0, 1]
    angle = 0.5 * np.arctan2(2 * mixed, along - across)
    round_ones = np.where(mixed > 0, np.pi / 4, -np.pi / 4)
    return np.asarray(np.where(along == across, round_ones, angle))


def eccentricity(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far ellipses are from circles.

    Parameters
    ----------
    lengths : float64 array [n, 2]
        Of their axes.

    Returns
    -------
    float64 array [n]
        0 for a circle and for a point, 1 for a line.
    """
    long, short = lengths[:, 0], lengths[:, 1]
    ratio = np.divide(short, long, out=np.ones(len(long)), where=long > 0)
    return np.sqrt(1 - ratio**2)


def distance_to_border(
    sums: Sums, shape: Sequence[int], proportions: Sequence[float]
) -> NDArray[np.float64]:
    """Return how far the boxes of cells are from the nearest face of the image.

    Parameters
    ----------
    sums : Sums
        Of the cells.
    shape : sequence of int
        Of the image.
    proportions : sequence of float
        Edges of a voxel.

    Returns
    -------
    float64 array [n]
        0 for those that touch one.
    """
    gap = np.minimum(sums.start, np.asarray(shape) - sums.stop)
    return np.asarray((gap * np.asarray(proportions, np.float64)).min(axis=1))


def spreads(sums: Sums) -> NDArray[np.float64]:
    """Return the standard deviation of the values of cells.

    Parameters
    ----------
    sums : Sums
        Of the cells.

    Returns
    -------
    float64 array [n, C]
        Over all voxels of a cell, as numpy's.
    """
    area: NDArray[Any] = sums.area[:, None]
    middle: NDArray[Any] = sums.total / area
    if sums.total.dtype == np.int64:  # about a whole number near the mean all is exact
        middle = (2 * sums.total + area) // (2 * area)
    rest = (sums.total - area * middle).astype(np.float64)
    square = sums.square - 2 * middle * sums.total + area * middle * middle
    return np.asarray(np.sqrt(np.maximum((square - rest**2 / area) / area, 0)))
