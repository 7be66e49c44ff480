"""Pictures of a plane: outlines, filled cells, and the four panels of a segmentation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import outline_pixels
from cellseg_pipe.plot.colors import distinct_colors, flow_colors, to_rgb8

__all__ = ["fill", "fitted", "outlines", "overlay", "probability", "show"]

OUTLINE = (255, 210, 0)
GAP_PX = 8
PAPER = 255
LOGIT_END = 6.0  # beyond it nobody sees a difference


def outlines(
    labels: NDArray[np.uint32], *, color: tuple[int, int, int] = OUTLINE
) -> NDArray[np.uint8]:
    """Draw the outlines of cells on clear ground.

    Parameters
    ----------
    labels : uint32 array [y, x]
        The cells.
    color : tuple of int
        Red, green, blue.

    Returns
    -------
    uint8 array [y, x, 4]
        Red, green, blue, opacity.
    """
    picture = np.zeros((*labels.shape, 4), np.uint8)
    picture[outline_pixels(labels)] = (*color, 255)
    return picture


def overlay(
    image: NDArray[np.generic],
    labels: NDArray[np.uint32],
    *,
    color: tuple[int, int, int] = OUTLINE,
) -> NDArray[np.uint8]:
    """Draw the outlines of cells over an image.

    Parameters
    ----------
    image : real array [y, x] or [c, y, x]
        Grey values; three channels are red, green and blue.
    labels : uint32 array [y, x]
        The cells.
    color : tuple of int
        Red, green, blue.

    Returns
    -------
    uint8 array [y, x, 3]
        Colours.
    """
    _check(image, labels, "overlay")
    picture = to_rgb8(image)
    picture[outline_pixels(labels)] = color
    return picture


def fill(
    image: NDArray[np.generic], labels: NDArray[np.uint32], *, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """Colour the cells of an image; those that lie side by side differ.

    Parameters
    ----------
    image : real array [y, x] or [c, y, x]
        Grey values; three channels are red, green and blue.
    labels : uint32 array [y, x]
        The cells.
    opacity : float
        Of the colours, 0 to 1.

    Returns
    -------
    uint8 array [y, x, 3]
        Colours.
    """
    _check(image, labels, "fill")
    colours = distinct_colors(labels)
    share = opacity * (colours[..., 3:] / 255)
    return (to_rgb8(image) * (1 - share) + colours[..., :3] * share).astype(np.uint8)


def show(
    image: NDArray[np.generic],
    labels: NDArray[np.uint32],
    *,
    flow: NDArray[np.float32],
    logit: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Show a segmentation in four panels: image, outlines, flow, probability.

    Parameters
    ----------
    image : real array [y, x] or [c, y, x]
        Grey values; three channels are red, green and blue.
    labels : uint32 array [y, x]
        The cells.
    flow : float32 array [2 or 3, y', x']
        Along the axes, on any grid.
    logit : float32 array [y', x']
        Above the threshold in cells.

    Returns
    -------
    uint8 array [y, 4 x and gaps, 3]
        Colours, side by side.
    """
    _check(image, labels, "show")
    gap = np.full((labels.shape[0], GAP_PX, 3), PAPER, np.uint8)
    panels = (
        to_rgb8(image),
        overlay(image, labels),
        fitted(flow_colors(flow)[..., :3], labels.shape),
        fitted(to_rgb8(probability(logit)), labels.shape),
    )
    row = [part for panel in panels for part in (panel, gap)]
    return np.concatenate(row[:-1], axis=1)


def probability(logit: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Show how sure the network is that a pixel is in a cell.

    Parameters
    ----------
    logit : float32 array [y, x]
        Of the network.

    Returns
    -------
    uint8 array [y, x]
        0 for never, 255 for surely.
    """
    ends = np.clip(np.asarray(logit, np.float32), -LOGIT_END, LOGIT_END)
    return np.asarray(255 / (1 + np.exp(-ends)) + 0.5).astype(np.uint8)


def fitted(picture: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Show a picture on another grid: each pixel is the nearest one.

    Parameters
    ----------
    picture : uint8 array [y', x', ...]
        Any picture.
    shape : tuple of int
        Rows and columns to be.

    Returns
    -------
    uint8 array [y, x, ...]
        Of that shape.
    """
    if picture.shape[:2] == tuple(shape):
        return picture
    rows, columns = (
        ((np.arange(n) + 0.5) * old / n).astype(np.int64)
        for n, old in zip(shape, picture.shape[:2], strict=True)
    )
    return picture[rows[:, None], columns]


def _check(image: NDArray[np.generic], labels: NDArray[np.uint32], name: str) -> None:
    if image.shape[-2:] != labels.shape or image.ndim not in (2, 3):
        raise ValueError(
            f"{name} needs an image [y, x] or [c, y, x] of the labels' shape {labels.shape}, got"
            f" {image.shape}."
        )
