"""How noisy the light of an image is, told by pixels that stand out from their neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import ceil_div

__all__ = ["noise_of"]

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
        Boxes of the image; of those of less than three pixels along y or x nothing is known.

    Returns
    -------
    float64 array [C]
        Standard deviation in grey values; nan if nothing is known.
    """
    blocks = [_of_blocks(part) for part in parts if min(part.shape[-2:]) > 2]
    if not blocks:
        return np.full(1, np.nan)
    return np.asarray(np.percentile(np.concatenate(blocks, axis=1), PERCENTILE, axis=1))


def _of_blocks(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the noise of each block of about 16 x 16 pixels of a box [C, n blocks]."""
    rough = np.abs(np.diff(np.diff(pixels.astype(np.float64), 2, axis=-1), 2, axis=-2))
    sizes = np.ones_like(rough[:1])
    for axis in (-1, -2):
        n = rough.shape[axis]
        starts = np.arange(n_blocks := ceil_div(n, BLOCK_PX)) * n // n_blocks
        rough = np.add.reduceat(rough, starts, axis=axis)
        sizes = np.add.reduceat(sizes, starts, axis=axis)
    return np.asarray(TO_SIGMA * (rough / sizes).reshape(len(rough), -1))
