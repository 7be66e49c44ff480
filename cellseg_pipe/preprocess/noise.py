"""How noisy the light of an image is, told by pixels that stand out from their neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import ceil_div

__all__ = ["noise_of"]

# Every other pixel: neighbours share their noise where an image was enlarged, moved or smoothed.
STEP_PX = 2
BLOCK_PX = 16
# Noise of photons is that of the brightest places; by the very brightest a hot pixel would decide.
PERCENTILE = 98.0
# The second difference along y and x of noise of standard deviation 1: 6 times as wide. Edges and
# slopes have nearly none, and of a normal law the mean of absolute values is sqrt(2 / pi).
TO_SIGMA = math.sqrt(math.pi / 2) / 6


def noise_of(parts: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the noise of the places of an image that have most of it.

    Parameters
    ----------
    parts : iterable of float32 array [C, ..., y, x]
        Boxes of the image; of those of less than five pixels along y or x nothing is known.

    Returns
    -------
    float64 array [C]
        Standard deviation in grey values; nan if nothing is known.
    """
    blocks = [_of_blocks(part) for part in parts if min(part.shape[-2:]) > 2 * STEP_PX]
    if not blocks:
        return np.full(1, np.nan)
    found = [_of_channel(channel) for channel in np.concatenate(blocks, axis=1)]
    return np.array(found)


def _of_channel(blocks: NDArray[np.float64]) -> float:
    """Return the noise of a channel; what nobody acquired is of one value and says nothing."""
    blocks = blocks[blocks > 0]
    return float(np.percentile(blocks, PERCENTILE)) if len(blocks) else 0.0


def _of_blocks(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the noise of each block of about 16 x 16 pixels of a box [C, n blocks]."""
    rough = np.abs(_bent(_bent(pixels.astype(np.float64), -1), -2))
    sizes = np.ones_like(rough[:1])
    for axis in (-1, -2):
        n = rough.shape[axis]
        starts = np.arange(n_blocks := ceil_div(n, BLOCK_PX)) * n // n_blocks
        rough = np.add.reduceat(rough, starts, axis=axis)
        sizes = np.add.reduceat(sizes, starts, axis=axis)
    return np.asarray(TO_SIGMA * (rough / sizes).reshape(len(rough), -1))


def _bent(pixels: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the second difference along an axis, of pixels two steps apart."""
    moved = np.moveaxis(pixels, axis, 0)
    bent = moved[: -2 * STEP_PX] - 2 * moved[STEP_PX:-STEP_PX] + moved[2 * STEP_PX :]
    return np.moveaxis(bent, 0, axis)
