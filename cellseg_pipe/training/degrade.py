"""Makes images worse as microscopes do: few photons, blur, large pixels. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import resample

__all__ = [
    "CLEAR",
    "LAWS",
    "Law",
    "as_light",
    "blurred",
    "coarse",
    "degraded",
    "enlarged",
    "with_photons",
]

PHOTONS_SHAPE = 4.0  # of the gamma law of photons
BLUR_DIAMETER_PX = 30.0  # of the cells that a sigma is told for
FACTORS = (2, 7)  # by how much pixels are larger
ACROSS = 0.1  # share of the blur along the axis that is not coarse
SPREAD = (0.3, 1.5)  # blur along the coarse axis, times the factor


@dataclass(frozen=True)
class Law:
    """How often, and how much, images are made worse.

    Parameters
    ----------
    p_poisson, p_blur, p_coarse : float
        How often there are few photons, blur, and large pixels (which always come with blur).
    photons_rate : float
        Rate of the gamma law, of shape 4, of the photons at full brightness: their mean is four
        over it, and they are at least 1.
    blur_px : float
        Largest sigma, for cells of 30 px; the smallest is 1.
    one_axis : bool
        Pixels are large, and blurred, along the first axis alone.
    """

    p_poisson: float
    p_blur: float
    p_coarse: float
    photons_rate: float
    blur_px: float = 1.0
    one_axis: bool = False


DENOISE = Law(0.8, 0.0, 0.0, 0.7)
DEBLUR = Law(0.8, 0.8, 0.0, 0.1, 10.0)
UPSAMPLE = Law(0.8, 0.8, 0.8, 0.03, 5.0)
CLEAR = Law(0.0, 0.0, 0.0, 1.0)  # or a network that is asked for anything changes what is good
LAWS: dict[str, tuple[Law, ...]] = {
    "denoise": (DENOISE,),
    "deblur": (DEBLUR,),
    "upsample": (UPSAMPLE,),
    "one-click": (DENOISE, DENOISE, DEBLUR, UPSAMPLE, CLEAR, CLEAR),
    "aniso": (Law(0.8, 0.8, 0.8, 0.1, 10.0, one_axis=True),),
}


def as_light(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return how bright an image is: 0 at its 1st percentile, the camera's offset, 1 at its 99th.

    Parameters
    ----------
    pixels : array
        Grey values of one channel.

    Returns
    -------
    float32 array
        Nothing is below 0.
    """
    grey = pixels.astype(np.float32)
    low, high = np.percentile(grey, (1, 99))
    return np.maximum((grey - low) / max(high - low, 1e-6), 0).astype(np.float32)


def degraded(
    light: NDArray[np.float32], law: Law, rng: np.random.Generator, *, diameter_px: float
) -> NDArray[np.float32]:
    """Return an image as it would be with less light or worse optics, in the same grey scale.

    Parameters
    ----------
    light : float32 array [y, x]
        From 0 for no light; around 1 at full brightness.
    law : Law
        What is done.
    rng : numpy Generator
        Its chances.
    diameter_px : float
        Of cells in the image.

    Returns
    -------
    float32 array [y, x]
        But for blur, the mean over many draws is the light itself.
    """
    light = np.maximum(light, 0)
    factor = int(rng.integers(FACTORS[0], FACTORS[1] + 1)) if rng.random() < law.p_coarse else 1
    if rng.random() < law.p_blur or factor > 1:
        light = blurred(light, _sigma_px(law, rng, factor, diameter_px=diameter_px))
    factors = (factor, 1) if law.one_axis else (factor, factor)
    seen = coarse(light, factors)
    if rng.random() < law.p_poisson:
        photons = max(1.0, float(rng.gamma(PHOTONS_SHAPE, 1 / law.photons_rate)))
        seen = with_photons(seen, photons, rng)
    return enlarged(seen, factors, light.shape)


def with_photons(
    light: NDArray[np.float32], photons: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return an image of few photons, in the same grey scale.

    Parameters
    ----------
    light : float32 array
        From 0 for no light.
    photons : float
        Expected where the light is 1.
    rng : numpy Generator
        Its chances.

    Returns
    -------
    float32 array
        Its mean over many draws is the light.
    """
    counts = rng.poisson(np.maximum(light, 0).astype(np.float64) * photons)
    return (counts / photons).astype(np.float32)


def blurred(light: NDArray[np.float32], sigma_px: Sequence[float]) -> NDArray[np.float32]:
    """Return a blurred image.

    Parameters
    ----------
    light : float32 array [y, x]
        The image.
    sigma_px : sequence of float
        Per axis.

    Returns
    -------
    float32 array [y, x]
        Mirrored at its borders.
    """
    return np.asarray(ndimage.gaussian_filter(light, sigma_px, mode="reflect", truncate=3.0))


def coarse(light: NDArray[np.float32], factors: Sequence[int]) -> NDArray[np.float32]:
    """Return an image of larger pixels, each with the mean light of those it is made of.

    Parameters
    ----------
    light : float32 array [y, x]
        The image.
    factors : sequence of int
        By how much pixels are larger, per axis.

    Returns
    -------
    float32 array
        Rounded up; at the far ends the last pixels are repeated.
    """
    if tuple(factors) == (1, 1):
        return light
    rest = [(0, -n % f) for n, f in zip(light.shape, factors, strict=True)]
    padded = np.pad(light, rest, mode="edge")
    (rows, row), (columns, column) = (
        (n // f, f) for n, f in zip(padded.shape, factors, strict=True)
    )
    return padded.reshape(rows, row, columns, column).mean(axis=(1, 3), dtype=np.float32)


def enlarged(
    seen: NDArray[np.float32], factors: Sequence[int], shape: Sequence[int]
) -> NDArray[np.float32]:
    """Bring an image of large pixels back to small ones, by the interpolation of inference.

    Parameters
    ----------
    seen : float32 array [y, x]
        From `coarse`.
    factors : sequence of int
        By how much its pixels are larger.
    shape : sequence of int
        Of the result.

    Returns
    -------
    float32 array [*shape]
        Nothing is shifted: both images have one extent.
    """
    if tuple(factors) == (1, 1):
        return seen
    return resample(
        seen[None],
        box=Box.of(tuple(shape)),
        origin=(0, 0),
        source_shape=seen.shape,
        num=factors,
        den=(1, 1),
        threads=1,
    )[0]


def _sigma_px(
    law: Law, rng: np.random.Generator, factor: int, *, diameter_px: float
) -> tuple[float, float]:
    """Return the blur per axis: larger pixels come with half their edge of it."""
    unit = diameter_px / BLUR_DIAMETER_PX
    if law.one_axis:
        sigma = unit * min(factor * rng.uniform(*SPREAD), law.blur_px)
        return sigma, ACROSS * sigma
    sigma = factor / 2 if factor > 1 else unit * rng.uniform(1.0, max(law.blur_px, 1.0))
    return sigma, sigma
