"""Pictures of arrays: colours in, no files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import outline_pixels

__all__ = ["flow_colors", "label_colors", "overlay", "to_grey8"]

OUTLINE = (255, 210, 0)
GOLDEN_RATIO = 0.6180339887498949  # of the circle between hues: neighbours in number differ most


def to_grey8(
    plane: NDArray[np.generic], *, percentiles: tuple[float, float] = (0.5, 99.5)
) -> NDArray[np.uint8]:
    """Stretch grey values to 8 bits.

    Parameters
    ----------
    plane : real array [y, x]
        Grey values; what is not finite becomes black.
    percentiles : tuple of float
        Which become black and white.

    Returns
    -------
    uint8 array [y, x]
        Grey.
    """
    values = np.asarray(plane, np.float32)
    if values.size == 0:
        return np.zeros(values.shape, np.uint8)
    step = max(1, int(np.sqrt(values.size / 1_000_000)))  # a million pixels tell the range
    sample = values[::step, ::step]
    known = sample[np.isfinite(sample)]
    if known.size == 0:
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(known, percentiles)
    if low == high:  # few bright pixels, as in a mask
        low, high = known.min(), known.max()
    finite = np.where(np.isfinite(values), values, low)
    return np.clip((finite - low) * (255 / max(high - low, 1e-12)), 0, 255).astype(np.uint8)


def label_colors(labels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Give each label a colour of its own number; background is clear.

    Parameters
    ----------
    labels : uint32 array [y, x]
        The cells.

    Returns
    -------
    uint8 array [y, x, 4]
        Red, green, blue, opacity.
    """
    hue = (np.arange(4096) * GOLDEN_RATIO) % 1.0  # colours repeat after so many labels
    light = 0.75 + 0.25 * np.cos(np.arange(4096) * 2.4)
    table = np.concatenate([_hues(hue) * light[:, None], np.full((4096, 1), 255.0)], axis=1)
    picture = table.astype(np.uint8)[np.asarray(labels) % 4096]
    picture[np.asarray(labels) == 0] = 0
    return picture


def flow_colors(flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Show where a flow leads: direction as hue, length as brightness; of 3D the part in the plane.

    Parameters
    ----------
    flow : float32 array [n_axes, *spatial]
        Components in axis order.

    Returns
    -------
    uint8 array [*spatial, 4]
        Red, green, blue, opacity.
    """
    dy, dx = flow[-2], flow[-1]
    length = np.minimum(np.hypot(dy, dx), 1.0)[..., None]
    turn = (np.arctan2(dy, dx) / (2 * np.pi)) % 1.0
    colours = _hues(turn) * length
    opaque = np.full((*turn.shape, 1), 255.0)
    return np.concatenate([colours, opaque], axis=-1).astype(np.uint8)


def overlay(image: NDArray[np.generic], labels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Draw the outlines of cells over an image.

    Parameters
    ----------
    image : real array [y, x] or [3, y, x]
        Grey values, or colours.
    labels : uint32 array [y, x]
        The cells.

    Returns
    -------
    uint8 array [y, x, 3]
        Colours.
    """
    if image.shape[-2:] != labels.shape or image.ndim not in (2, 3):
        raise ValueError(
            f"overlay needs an image [y, x] or [3, y, x] of the labels' shape {labels.shape}, got"
            f" {image.shape}."
        )
    planes = [image] * 3 if image.ndim == 2 else list(image[:3])
    if image.dtype == np.uint8 and image.ndim == 3:
        picture = np.stack(planes, axis=-1).copy()
    else:
        grey = to_grey8(image) if image.ndim == 2 else None
        picture = np.stack([to_grey8(p) if grey is None else grey for p in planes], axis=-1)
    picture[outline_pixels(labels)] = OUTLINE
    return picture.astype(np.uint8)


def _hues(turn: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the full colours of hues from 0 to 1: three waves a third of the circle apart."""
    waves = [np.cos(2 * np.pi * (turn - shift / 3)) for shift in range(3)]
    return 127.5 * (1 + np.stack(waves, axis=-1))
