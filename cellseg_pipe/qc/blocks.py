"""Figures of one block of an image: sharpness, noise, grey levels. They know no other block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FIGURES", "block_figures"]

FIGURES = ("focus", "noise", "spread", "low", "median", "high", "top", "at_top")
PERCENTILES = (5, 50, 99)
BANDS = 5  # details of 1, 2, 4, 8 and 16 px
FINE, COARSE = (1, 2), (3, 4)
ABOVE_NOISE = 1.5  # that coarse details must be, or there is nothing that could be sharp
LEAST_PX = 1 << BANDS  # edge of a block that has all details


def block_figures(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Describe the pixels of a block.

    Parameters
    ----------
    pixels : real array [c, *block]
        Grey values; planes of a volume are looked at one by one.

    Returns
    -------
    float64 array [c, len(FIGURES)]
        `focus`: amplitude of details of 2 to 4 px over that of 8 to 16 px, without the noise; nan
        where there is none of either, or the block is smaller than 32 px. `noise`: amplitude of
        details of 1 px. `spread`: standard deviation. `low`, `median`, `high`: percentiles 5, 50
        and 99. `top`: the highest value, and `at_top` how many pixels have it.
    """
    return np.stack([_figures(np.ascontiguousarray(channel)) for channel in pixels])


def _figures(block: NDArray[np.generic]) -> NDArray[np.float64]:
    values = block.astype(np.float64)
    top = values.max()
    low, median, high = np.percentile(values, PERCENTILES)
    noise, focus = _sharpness(values)
    at_top = np.count_nonzero(values == top)
    return np.array([focus, noise, values.std(), low, median, high, top, at_top])


def _sharpness(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return noise and focus.

    White noise has the same power in each band of an orthonormal transform, and the finest band of
    a picture holds little else: so what it has is taken from the others.
    """
    power = []
    for _ in range(BANDS):
        if min(values.shape[-2:]) < 2:
            break
        height, width = (n - n % 2 for n in values.shape[-2:])
        values = values[..., :height, :width]
        upper, lower = values[..., 0::2, :], values[..., 1::2, :]
        rows = upper + lower, upper - lower
        (smooth, right), (down, both) = (
            (side[..., 0::2] + side[..., 1::2], side[..., 0::2] - side[..., 1::2]) for side in rows
        )
        power.append(sum(float(np.mean(detail * detail)) for detail in (right, down, both)) / 12)
        values = smooth / 2
    noise = power[0] if power else 0.0
    if len(power) < BANDS:
        return float(np.sqrt(noise)), float("nan")
    fine, coarse = (sum(max(power[k] - noise, 0.0) for k in band) for band in (FINE, COARSE))
    if coarse <= ABOVE_NOISE * noise or coarse <= 0:
        return float(np.sqrt(noise)), float("nan")
    return float(np.sqrt(noise)), float(np.sqrt(fine / coarse))
