"""Slices of a volume along each axis, with square pixels; arrays only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Slice", "slices_of"]

STEP_PX = 4  # every so many slices are kept along each axis: neighbours are alike
SLIVER = 0.25  # objects of a slice below this share of the volume's median diameter are left out
IGNORED = -1


@dataclass(frozen=True)
class Slice:
    """One plane of a volume.

    Parameters
    ----------
    pixels : float16 array [n_inputs, y, x]
        Normalised.
    labels : int32 array [y, x]
        Objects from 1, -1 for slivers and what is ignored.
    kept : int64 array [n]
        Which of the volume's objects they are.
    """

    pixels: NDArray[Any]
    labels: NDArray[np.int32]
    kept: NDArray[np.int64]


def slices_of(
    pixels: NDArray[Any], labels: NDArray[np.int32], *, ratio: float, diameter_px: float
) -> Iterator[Slice]:
    """Yield slices along each axis that hold an object.

    Parameters
    ----------
    pixels : float16 array [n_inputs, z, y, x]
        Normalised.
    labels : int32 array [z, y, x]
        Objects from 1, -1 for what is ignored.
    ratio : float
        Distance of planes over the edge of a pixel.
    diameter_px : float
        Of the objects, in pixels of x.

    Yields
    ------
    Slice
        Along z, then y, then x.
    """
    for axis in range(3):
        for at in range(STEP_PX // 2, labels.shape[axis], STEP_PX):
            here = (slice(None),) * axis + (at,)
            plane, truth = pixels[(slice(None), *here)], labels[here]
            if axis:
                plane, truth = _stretched(plane, truth, ratio)
            truth, kept = _without_slivers(truth, SLIVER * diameter_px)
            if kept.size:
                yield Slice(plane, truth, kept)


def _stretched(
    plane: NDArray[Any], truth: NDArray[np.int32], ratio: float
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    zoom = (ratio, 1.0)
    channels = [ndimage.zoom(channel.astype(np.float32), zoom, order=1) for channel in plane]
    return np.stack(channels).astype(np.float16), ndimage.zoom(truth, zoom, order=0)


def _without_slivers(
    truth: NDArray[np.int32], least_px: float
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return labels of which the smallest, cut near their poles, are ignored, and those kept."""
    ids, inverse, counts = np.unique(truth, return_inverse=True, return_counts=True)
    large = (ids > 0) & (2 * np.sqrt(counts / np.pi) >= least_px)
    numbers = np.where(large, np.cumsum(large), np.where(ids == 0, 0, IGNORED))
    return numbers[inverse].reshape(truth.shape).astype(np.int32), ids[large].astype(np.int64)
