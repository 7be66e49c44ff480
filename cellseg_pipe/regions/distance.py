"""How far pixels lie from the border of their region."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.regions.region import Region

__all__ = ["border_distance_px"]


def border_distance_px(
    region: Region, points: NDArray[np.int64], *, most_px: int, row_px: float = 1.0
) -> NDArray[np.float64]:
    """Return how far pixels of a region lie from the nearest one outside, in their own plane.

    Where two regions touch there is no border. Beyond the image nothing is outside.

    Parameters
    ----------
    region : Region
        The region.
    points : int64 array [n, ndim]
        Pixels of level 0.
    most_px : int
        What is farther is not searched.
    row_px : float
        Distance of two rows, in px of a row.

    Returns
    -------
    float64 array [n]
        Between centres; 0 for pixels that lie outside, `most_px` where the border is farther.
    """
    alone = _joined(region)
    points = np.asarray(points, np.int64).reshape(-1, len(region.shape))
    best = np.full(len(points), float(most_px) ** 2)
    height = region.shape[-2]
    for step in range(math.ceil(most_px / row_px) + 1):
        near = np.flatnonzero(best > (step * row_px) ** 2)
        if not near.size:
            break
        for way in (-step, step) if step else (0,):
            at = points[near].copy()
            at[:, -2] += way
            seen = (at[:, -2] >= 0) & (at[:, -2] < height)
            across = _across(alone, at[seen])
            rows = near[seen]
            best[rows] = np.minimum(best[rows], across**2 + (step * row_px) ** 2)
    return np.sqrt(best)


def _joined(region: Region) -> Region:
    """Return the same pixels as one region, so that only its border ends runs."""
    width = region.shape[-1]
    begins = np.ones(len(region.start), bool)
    begins[1:] = (region.start[1:] != region.stop[:-1]) | (region.start[1:] % width == 0)
    first = np.flatnonzero(begins)
    last = np.append(first, len(region.start))[1:] - 1
    number = np.ones(len(first), np.uint32)
    return dataclasses.replace(
        region, start=region.start[first], stop=region.stop[last], number=number, names=("",)
    )


def _across(region: Region, points: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the distance along the last axis to the nearest pixel outside."""
    row = np.zeros(len(points), np.int64)
    inside = region.numbers_at(points) > 0
    for line, place in zip(region.breaks, points.T, strict=False):
        row = row * (len(line) - 1) + np.searchsorted(line, place, "right") - 1
    width = region.shape[-1]
    run = np.searchsorted(region.start, row * width + points[:, -1], "right") - 1
    run = np.where(inside, run, 0)
    found = np.zeros(len(points))
    if inside.any():
        start, stop = region.start[run] - row * width, region.stop[run] - row * width
        left = np.where(start > 0, points[:, -1] - start + 1, np.inf)
        right = np.where(stop < width, stop - points[:, -1], np.inf)
        found = np.where(inside, np.minimum(left, right), 0.0)
    return found
