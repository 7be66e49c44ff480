"""Pictures of volumes: what is brightest along each axis, and slices through a point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.plot.colors import to_rgb8
from cellseg_pipe.plot.pictures import GAP_PX, PAPER, overlay

__all__ = ["max_projections", "orthogonal_slices"]


def max_projections(volume: NDArray[np.generic], *, anisotropy: float = 1.0) -> NDArray[np.uint8]:
    """Show what is brightest along z, y and x.

    Parameters
    ----------
    volume : real array [z, y, x]
        Grey values.
    anisotropy : float
        Distance of planes over the edge of a pixel.

    Returns
    -------
    uint8 array [y and z, x and z, 3]
        Colours: the view along z, right of it that along x, below it that along y.
    """
    along = [to_rgb8(volume.max(axis=axis)) for axis in range(3)]
    return _arranged(*along, anisotropy=anisotropy)


def orthogonal_slices(
    volume: NDArray[np.generic],
    labels: NDArray[np.uint32] | None = None,
    *,
    at: tuple[int, int, int] | None = None,
    anisotropy: float = 1.0,
) -> NDArray[np.uint8]:
    """Show the three slices through a point, with the outlines of cells if there are any.

    Parameters
    ----------
    volume : real array [z, y, x]
        Grey values.
    labels : uint32 array [z, y, x], optional
        The cells.
    at : tuple of int, optional
        The point; by default the middle.
    anisotropy : float
        Distance of planes over the edge of a pixel.

    Returns
    -------
    uint8 array [y and z, x and z, 3]
        Colours: the plane z, right of it the plane x, below it the plane y.
    """
    if labels is not None and labels.shape != volume.shape:
        raise ValueError(
            f"orthogonal_slices needs labels of the volume's shape {volume.shape}, got"
            f" {labels.shape}."
        )
    point = tuple(n // 2 for n in volume.shape) if at is None else at
    slices = []
    for axis in range(3):
        plane = np.take(volume, point[axis], axis=axis)
        cells = None if labels is None else np.take(labels, point[axis], axis=axis)
        slices.append(to_rgb8(plane) if cells is None else overlay(plane, cells))
    return _arranged(*slices, anisotropy=anisotropy)


def _arranged(
    front: NDArray[np.uint8],
    below: NDArray[np.uint8],
    side: NDArray[np.uint8],
    *,
    anisotropy: float,
) -> NDArray[np.uint8]:
    """Put the planes [y, x], [z, x] and [z, y] where one edge of each meets another's."""
    below = stretched(below, anisotropy)
    side = np.swapaxes(stretched(side, anisotropy), 0, 1)
    height, width = front.shape[:2]
    shape = (height + GAP_PX + below.shape[0], width + GAP_PX + side.shape[1], 3)
    picture = np.full(shape, PAPER, np.uint8)
    picture[:height, :width] = front
    picture[:height, width + GAP_PX :] = side
    picture[height + GAP_PX :, :width] = below
    return picture


def stretched(picture: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Repeat rows so that they are as far apart as columns.

    Parameters
    ----------
    picture : uint8 array [y, x, ...]
        Rows and columns.
    factor : float
        How far apart the rows are.

    Returns
    -------
    uint8 array [factor y, x, ...]
        Each row is the nearest one.
    """
    n = max(1, round(picture.shape[0] * factor))
    rows = np.minimum((np.arange(n) + 0.5) / factor, picture.shape[0] - 1).astype(np.int64)
    return picture[rows]
