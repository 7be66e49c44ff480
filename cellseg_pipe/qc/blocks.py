"""Figures of one block of an image: sharpness, noise, grey levels. They know no other block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FIGURES", "block_figures"]

FIGURES = ("focus", "noise", "spread", "low", "median", "high", "top", "at_top")
PERCENTILES = (5, 50, 99)
FINE, COARSE = 1, 3  # halvings of the resolution: details of some 4 and 16 px
LAPLACIAN = 20.0  # power that it gives white noise of power 1
ABOVE_NOISE = 1.5  # that coarse details must be, or there is nothing that could be sharp
LEAST_EDGE = 4  # of a picture whose details are looked at


def block_figures(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Describe the pixels of a block.

    Parameters
    ----------
    pixels : real array [c, *block]
        Grey values; planes of a volume are looked at one by one.

    Returns
    -------
    float64 array [c, len(FIGURES)]
        `focus`: amplitude of details of some 4 px over that of 16 px, both without the noise; nan
        where there are none, or the block is smaller than 32 px. `noise`: amplitude of the finest
        details, 0 in a block below 4 px. `spread`: standard deviation. `low`, `median`, `high`:
        percentiles 5, 50 and 99. `top`: the highest value, `at_top` how many pixels have it.
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

    White noise has the same power in the Laplacian at each resolution, times 4 for each halving,
    and the finest one of a picture holds little else: what it has is taken from the others.
    """
    power = []
    for level in range(COARSE + 1):
        if min(values.shape[-2:]) < LEAST_EDGE:
            break
        middle = values[..., 1:-1, 1:-1]
        beside = values[..., 1:-1, :-2] + values[..., 1:-1, 2:]
        above = values[..., :-2, 1:-1] + values[..., 2:, 1:-1]
        power.append(float(np.mean((4 * middle - beside - above) ** 2)) * 4**level / LAPLACIAN)
        height, width = (n - n % 2 for n in values.shape[-2:])
        values = values[..., :height, :width]
        values = (values[..., 0::2, :] + values[..., 1::2, :]) / 2
        values = (values[..., 0::2] + values[..., 1::2]) / 2
    noise = power[0] if power else 0.0
    focus = float("nan")
    if len(power) > COARSE and power[COARSE] > ABOVE_NOISE * noise:
        focus = float(np.sqrt(max(power[FINE] - noise, 0.0) / (power[COARSE] - noise)))
    return float(np.sqrt(noise)), focus
