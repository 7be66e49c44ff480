"""What a user passes for an image, and what the package makes of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.preprocess import check_finite, white_of
from cellseg_pipe.segmentation.plan import ImageSource
from cellseg_pipe.segmentation.settings import Settings

__all__ = ["channels_first", "check_spacing", "source_of", "with_spacing"]

log = logging.getLogger(__name__)
COLOUR_CHANNELS = (3, 4)


def channels_first(
    image: ArrayLike, axes: str | None, *, rgb: bool | None = None
) -> tuple[NDArray[Any], bool]:
    """Return pixels [C, *spatial], and whether they are colours.

    Parameters
    ----------
    image : real array
        In the order of its axes.
    axes : str, optional
        A letter per axis, out of t, c, z, y, x.
    rgb : bool, optional
        Whether the channels are red, green and blue; by default if there are 3 or 4 and come last.

    Returns
    -------
    pixels : array [C, *spatial]
        A view where that is possible; with times as the first axis after the channels.
    rgb : bool
        Whether the channels are red, green and blue.
    """
    pixels = np.asarray(image)
    if pixels.dtype.kind not in "biuf":
        raise TypeError(f"segment needs an image of real numbers, got {pixels.dtype}.")
    named = axes.lower() if axes is not None else _guessed(pixels.shape)
    if (
        len(named) != pixels.ndim
        or len(set(named)) != len(named)
        or not {"y", "x"} <= set(named) <= set("tczyx")
        or {"t", "z"} <= set(named)
    ):
        raise ValueError(
            f"axes needs a letter out of c, z, y, x, or t, c, y, x, for each of {pixels.ndim} axes,"
            f" with y and x, got {named!r} for shape {pixels.shape}."
        )
    if pixels.size == 0:
        raise ValueError(f"segment needs an image with pixels, got shape {pixels.shape}.")
    if rgb is None:
        rgb = named.endswith("c") and pixels.shape[-1] in COLOUR_CHANNELS
    order = [named.index(axis) for axis in "ctzyx" if axis in named]
    pixels = pixels.transpose(order) if "c" in named else pixels.transpose(order)[None]
    check_finite(pixels)
    return (pixels[:3] if rgb else pixels), rgb  # opacity is no channel


def _guessed(shape: tuple[int, ...]) -> str:
    """Return the axes that a shape suggests."""
    if len(shape) == 2:
        return "yx"
    known = {3: "zyx", 4: "czyx"}
    # No volume is a pixel or two wide: such a last axis is of channels, as Cellpose has them.
    narrow = len(shape) == 3 and shape[-1] < min(COLOUR_CHANNELS) < shape[0]
    if narrow or (len(shape) == 3 and shape[-1] in COLOUR_CHANNELS):
        known[3] = "yxc"
    elif len(shape) == 3 and shape[0] <= max(COLOUR_CHANNELS):
        known[3] = "cyx"
    if len(shape) not in known:
        raise ValueError(
            f"segment needs an image of 2 to 4 axes, got shape {shape}. Pass one time point, or"
            " axes='tcyx'."
        )
    log.info("axes of shape %s are taken as %s; axes= says otherwise", shape, known[len(shape)])
    return known[len(shape)]


def source_of(
    pixels: NDArray[Any], names: tuple[str, ...], *, rgb: bool, series: bool = False
) -> ImageSource:
    """Return what gives parts of an array.

    Parameters
    ----------
    pixels : array [C, *spatial]
        The image.
    names : tuple of str
        Names of the channels.
    rgb : bool
        Whether they are colours.
    series : bool
        Whether the first axis of space is time.

    Returns
    -------
    ImageSource
        Reads from memory.
    """
    if names and len(names) != len(pixels):
        more = " The fourth colour is opacity; rgb=False makes it a channel." if rgb else ""
        raise ValueError(
            f"channel_names needs one for each of {len(pixels)} channels, got {list(names)}.{more}"
        )
    return ImageSource(
        shape=pixels.shape[1:],
        n_channels=len(pixels),
        read=lambda box: pixels[(slice(None), *box.slices)],
        names=names,
        rgb=rgb,
        series=series,
        white=white_of(pixels.dtype),
    )


def check_spacing(spacing_um: tuple[float, ...], ndim: int) -> None:
    """Refuse what is no size of a voxel.

    Parameters
    ----------
    spacing_um : tuple of float
        Edges of a voxel.
    ndim : int
        Axes of space.
    """
    if len(spacing_um) != ndim or not all(0 < edge < math.inf for edge in spacing_um):
        raise ValueError(
            f"spacing_um needs a size above 0 for each of {ndim} axes, got {spacing_um}."
        )


def with_spacing(
    settings: Mapping[str, Any],
    shape: tuple[int, ...],
    spacing_um: tuple[float, ...] | None,
    *,
    diameter_um: float | None,
) -> Settings:
    """Return settings with a diameter in px, and the anisotropy that the spacing tells.

    Parameters
    ----------
    settings : mapping
        What the user set.
    shape : tuple of int
        Spatial shape of the image.
    spacing_um : tuple of float, optional
        Edges of a voxel.
    diameter_um : float, optional
        Diameter of a typical cell.

    Returns
    -------
    Settings
        Checked.
    """
    given, ndim = dict(settings), len(shape)
    if diameter_um is not None and given.get("diameter_px") is not None:
        raise ValueError("a diameter needs one unit, got both diameter_px and diameter_um.")
    if diameter_um is not None and not 0 < diameter_um < math.inf:
        raise ValueError(f"diameter_um needs a number above 0, got {diameter_um}.")
    if diameter_um is not None and spacing_um is None:
        raise ValueError(
            "diameter_um needs the size of a pixel, and the image does not tell it. Give"
            " spacing_um, or the diameter in px."
        )
    if spacing_um is not None:
        check_spacing(spacing_um, ndim)
        if diameter_um is not None:
            given["diameter_px"] = diameter_um / spacing_um[-1]
        if ndim == 3:
            given.setdefault("anisotropy", spacing_um[0] / spacing_um[-1])
    return Settings(**given)
