"""Where cells lie on level 0, and in which region: a cell lies where its peak is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.segmentation.plan import Plan

__all__ = ["in_region", "pixels_of"]


def pixels_of(peak: NDArray[np.int64], plan: Plan) -> NDArray[np.int64]:
    """Return the pixel of level 0 that holds the middle of each peak.

    Parameters
    ----------
    peak : int64 array [n, ndim]
        On the grid that particles walk on.
    plan : Plan
        Of the image.

    Returns
    -------
    int64 array [n, ndim]
        Whole arithmetic: the same on every machine.
    """
    if plan.walks_level_0:
        return peak
    num, den = (np.asarray(part, np.int64) for part in (plan.scale.num, plan.scale.den))
    # A grid is rounded down, so that the image may end before the last pixel of it does.
    return np.minimum((2 * peak + 1) * den // (2 * num), np.asarray(plan.shape) - 1)


def in_region(peak: NDArray[np.int64], plan: Plan) -> NDArray[np.bool_]:
    """Return which peaks lie in the region; all where there is none.

    Parameters
    ----------
    peak : int64 array [n, ndim]
        On the grid that particles walk on.
    plan : Plan
        Of the image.

    Returns
    -------
    bool array [n]
        Cells that are meant.
    """
    if plan.region is None:
        return np.ones(len(peak), bool)
    return plan.region.numbers_at(pixels_of(peak, plan)) > 0
