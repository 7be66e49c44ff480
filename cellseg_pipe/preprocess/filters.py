"""Gaussian filters of finite reach, reflected at the image's borders and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import filter_axis
from cellseg_pipe.preprocess.scale import Scale

__all__ = ["Filters", "antialias_sigma_px", "gaussian", "gaussian_halo_px"]

REACH = 4  # standard deviations after which a filter ends: what is left out weighs 6e-5


def gaussian_halo_px(sigma_px: Sequence[float]) -> tuple[int, ...]:
    """Return how far `gaussian` looks per axis.

    Parameters
    ----------
    sigma_px : sequence of float
        Standard deviation per axis, 0 for none.

    Returns
    -------
    tuple of int
        Pixels needed on both sides of a box.
    """
    if not all(0 <= sigma < math.inf for sigma in sigma_px):
        raise ValueError(f"gaussian needs a sigma of 0 or more per axis, got {tuple(sigma_px)}.")
    return tuple(math.ceil(REACH * sigma) for sigma in sigma_px)


def gaussian(
    inputs: NDArray[np.float32],
    sigma_px: Sequence[float],
    *,
    box: Box,
    origin: Sequence[int],
    shape: Sequence[int],
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Smooth a box of an image.

    Parameters
    ----------
    inputs : float32 array [C, *spatial]
        Pixels of a part of the image: at least `box` and the halo, as far as it lies in the image.
    sigma_px : sequence of float
        Standard deviation per axis, 0 for none.
    box : Box
        Which pixels of the image to compute.
    origin : sequence of int
        Where in the image the part starts.
    shape : sequence of int
        Shape of the whole image; beyond its borders it is mirrored, border pixels twice.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.

    Returns
    -------
    float32 array [C, *box.shape]
        The smoothed box, axis by axis in their order.
    """
    halo = gaussian_halo_px(sigma_px)
    result = _cut(inputs, box.grow(halo).clip(Box.of(shape)), origin)
    for axis, (sigma, reach) in enumerate(zip(sigma_px, halo, strict=True)):
        if reach == 0:
            continue
        first = max(0, box.start[axis] - reach)  # where the cut starts on this axis
        place = np.arange(box.start[axis] - reach, box.stop[axis] + reach, dtype=np.int64)
        n = shape[axis]
        place %= 2 * n
        place = np.minimum(place, 2 * n - 1 - place) - first
        result = filter_axis(result, _taps(sigma), index=place, axis=axis + 1, threads=threads)
    return result


@dataclass(frozen=True)
class Filters:
    """What is done to the inputs before their ranges are taken: smoothed, and less a background.

    Parameters
    ----------
    smooth_px : tuple of float
        Sigma per axis of the gaussian that takes out noise; zeros for none.
    sharpen_px : tuple of float
        Sigma per axis of the gaussian that is taken away; zeros for none.
    """

    smooth_px: tuple[float, ...]
    sharpen_px: tuple[float, ...]

    @property
    def support_px(self) -> tuple[int, ...]:
        """Pixels needed on both sides of a box, per axis."""
        halos = (gaussian_halo_px(self.smooth_px), gaussian_halo_px(self.sharpen_px))
        return tuple(max(pair) for pair in zip(*halos, strict=True))

    def apply(
        self,
        inputs: NDArray[np.float32],
        *,
        box: Box,
        origin: Sequence[int],
        shape: Sequence[int],
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Filter a box of an image.

        Parameters
        ----------
        inputs : float32 array [C, *spatial]
            Pixels of a part of the image: at least `box` and the support, inside the image.
        box : Box
            Which pixels of the image to compute.
        origin : sequence of int
            Where in the image the part starts.
        shape : sequence of int
            Shape of the whole image.
        threads : int, optional
            Threads to use; all that the process may use by default.

        Returns
        -------
        float32 array [C, *box.shape]
            The filtered box.
        """
        run = partial(gaussian, inputs, box=box, origin=origin, shape=shape, threads=threads)
        smooth = run(sigma_px=self.smooth_px)
        if any(self.sharpen_px):
            smooth = np.subtract(smooth, run(sigma_px=self.sharpen_px))
        return smooth


def antialias_sigma_px(scale: Scale) -> tuple[float, ...]:
    """Return how much to smooth level 0 before it is made smaller.

    Parameters
    ----------
    scale : Scale
        Network pixels over level-0 pixels.

    Returns
    -------
    tuple of float
        Half of the extra pixels that fall into one, per axis; 0 where the image grows.
    """
    return tuple(max(0.0, (q / p - 1) / 2) for p, q in zip(scale.num, scale.den, strict=True))


def _cut(inputs: NDArray[np.float32], box: Box, origin: Sequence[int]) -> NDArray[np.float32]:
    """Return the box out of a part that starts at `origin`."""
    inner = box.relative_to(origin)
    if not Box.of(inputs.shape[1:]).contains(inner):
        raise ValueError(
            f"the filter needs pixels {box.start} to {box.stop}, got an array of shape"
            f" {inputs.shape[1:]} at {tuple(origin)}. Read the box with its halo first."
        )
    if inner.size == 0:
        return inputs[(slice(None), *(slice(0, n) for n in inner.shape))]
    return inputs[(slice(None), *inner.slices)]


def _taps(sigma: float) -> NDArray[np.float32]:
    """Return the weights of a pixel and of those on one side of it; all of them sum to 1."""
    spread = 2 * sigma * sigma
    # The square of a sigma that is next to nothing may be nothing: then no neighbour has weight.
    weights = [
        math.exp(-(k * k) / spread) if spread else float(k == 0)
        for k in range(math.ceil(REACH * sigma) + 1)
    ]
    total = weights[0] + 2 * math.fsum(weights[1:])
    return np.array([weight / total for weight in weights], np.float32)
