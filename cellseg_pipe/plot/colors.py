"""Colours of grey values, labels and flows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["distinct_colors", "flow_colors", "label_colors", "to_grey8", "to_rgb8"]

FLAT = 2e-4  # range of lengths from which on there is something to show
NEAR_PX = 6  # gap from which on cells are no neighbours
# Of even lightness, told apart by people who confuse red and green as well (Wong, Tol).
PALETTE = np.array(
    [
        *((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167)),
        *((213, 94, 0), (0, 114, 178), (170, 170, 255), (187, 204, 51), (136, 204, 238)),
    ]
)
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


def distinct_colors(labels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Give labels colours of which no two that lie side by side are equal; background is clear.

    Parameters
    ----------
    labels : uint32 array [y, x]
        The cells.

    Returns
    -------
    uint8 array [y, x, 4]
        Red, green, blue, opacity. A colour depends on what lies around: another crop may have
        other ones.
    """
    ids, places = np.unique(np.asarray(labels), return_inverse=True)
    places = places.reshape(np.shape(labels))
    around: list[list[int]] = [[] for _ in ids]
    for low, high in _side_by_side(places):
        around[high].append(low)
    chosen = np.zeros(len(ids), np.int64)
    for index, below in enumerate(around):
        taken = {int(chosen[other]) for other in below}
        # Turns are taken, so that cells that lie alone do not all have the first colour.
        free = [k for k in range(len(PALETTE)) if k not in taken] or list(range(len(PALETTE)))
        chosen[index] = free[index % len(free)]
    table = np.concatenate([PALETTE[chosen], np.full((len(ids), 1), 255)], axis=1)
    table[ids == 0] = 0
    return table.astype(np.uint8)[places]


def _side_by_side(places: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return which objects lie at most `NEAR_PX` from each other along an axis, lower one first."""
    pairs = []
    for axis in (0, 1):
        for step in range(1, min(NEAR_PX, places.shape[axis] - 1) + 1):
            n = places.shape[axis]
            first = np.take(places, np.arange(n - step), axis=axis)
            second = np.take(places, np.arange(step, n), axis=axis)
            other = first != second
            both = np.sort(np.stack([first[other], second[other]], axis=1), axis=1)
            pairs.append(np.unique(both, axis=0))
    found = np.unique(np.concatenate(pairs), axis=0) if pairs else np.zeros((0, 2), np.int64)
    return [(int(low), int(high)) for low, high in found]


def flow_colors(flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Show where a flow leads as Cellpose does: direction as hue, length as brightness.

    Parameters
    ----------
    flow : float32 array [n_axes, *spatial]
        Components in axis order; of a volume the part in the plane is shown.

    Returns
    -------
    uint8 array [*spatial, 4]
        Red, green, blue, opacity. Percentiles 1 and 99 of the length become black and bright.
    """
    dy, dx = np.asarray(flow[-2], np.float32), np.asarray(flow[-1], np.float32)
    length = np.hypot(dy, dx)
    low, high = np.percentile(length, (1, 99)) if length.size else (0.0, 0.0)
    flat = high - low <= FLAT
    bright = np.zeros_like(length) if flat else np.clip((length - low) / (high - low), 0, 1)
    turn = np.arctan2(dx, dy) + np.float32(np.pi)
    waves = [np.cos(turn + shift * 2 * np.pi / 3) + 1 for shift in range(3)]
    colours = np.stack(waves, axis=-1) * (127.5 * bright)[..., None]
    opaque = np.full((*turn.shape, 1), 255.0)
    return np.concatenate([np.clip(colours, 0, 255), opaque], axis=-1).astype(np.uint8)


def to_rgb8(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Show a plane as colours.

    Parameters
    ----------
    image : real array [y, x] or [c, y, x]
        Grey values; three channels are red, green and blue, and those of 8 bits stay as they are.
        Of other numbers of channels the first is shown in grey.

    Returns
    -------
    uint8 array [y, x, 3]
        Colours.
    """
    planes = image[None] if image.ndim == 2 else image
    if len(planes) != 3:
        planes = planes[:1]
    if planes.dtype != np.uint8 or len(planes) != 3:
        planes = np.stack([to_grey8(plane) for plane in planes])
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(planes, (3, *planes.shape[1:])), 0, -1))


def _hues(turn: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the full colours of hues from 0 to 1: three waves a third of the circle apart."""
    waves = [np.cos(2 * np.pi * (turn - shift / 3)) for shift in range(3)]
    return 127.5 * (1 + np.stack(waves, axis=-1))
