"""Arrays read on another grid, at places that integer arithmetic on global indices gives.

An output pixel depends on its own global index and the pixels round it alone: a box computed by
itself has the bits of the same box cut out of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels._checks import Backend, as_labels, loops

__all__ = ["filter_axis", "resample", "resample_nearest", "source_box"]

PLACE_MAX = 1 << 62  # what the products of an index and a fraction's terms may reach in int64


def source_box(box: Box, *, shape: Sequence[int], num: Sequence[int], den: Sequence[int]) -> Box:
    """Return what `resample` reads of the source to compute a box of the output grid.

    Parameters
    ----------
    box : Box
        Pixels of the output grid.
    shape : sequence of int
        Shape of the whole source.
    num, den : sequence of int
        The scale per axis: output pixels over source pixels.

    Returns
    -------
    Box
        Pixels of the source, inside it; empty for an empty box.
    """
    if box.size == 0 or 0 in shape:
        return Box((0,) * box.ndim, (0,) * box.ndim)
    spans = [
        axis.span(a, b)
        for axis, a, b in zip(_axes(shape, num, den), box.start, box.stop, strict=True)
    ]
    return Box(tuple(low for low, _ in spans), tuple(high for _, high in spans))


def resample(
    array: ArrayLike,
    *,
    box: Box,
    origin: Sequence[int],
    source_shape: Sequence[int],
    num: Sequence[int],
    den: Sequence[int],
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.float32]:
    """Interpolate a box of the output grid linearly along each axis.

    Output pixel i lies at ((2 i + 1) den - num) / (2 num) on the source: pixel centres, both
    images of one extent. Places beyond the source's border take the border's pixel.

    Parameters
    ----------
    array : real array [C, *spatial]
        Part of the source, with 2 or 3 spatial axes; at least the `source_box` of `box`.
    box : Box
        Pixels of the output grid to compute.
    origin : sequence of int
        Where in the source the array starts.
    source_shape : sequence of int
        Shape of the whole source.
    num, den : sequence of int
        The scale per axis: output pixels over source pixels.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    float32 array [C, *box.shape]
        The pixels of the box; exact copies where the scale is 1.
    """
    pixels = np.ascontiguousarray(array, np.float32)
    needed = source_box(box, shape=source_shape, num=num, den=den)
    _check(pixels.shape[1:], box, origin=origin, needed=needed)
    index, weight = [], []
    for axis, line in enumerate(_axes(source_shape, num, den)):
        whole, share = line.places(box.start[axis], box.stop[axis])
        index.append(whole - origin[axis])
        weight.append(share)
    straight = num[-1] == den[-1] and box.start[-1] >= 0 and box.stop[-1] <= source_shape[-1]
    return loops(backend, threads).resample(
        pixels, index=index, weight=weight, straight=straight, threads=threads
    )


def resample_nearest(
    labels: ArrayLike,
    *,
    box: Box,
    origin: Sequence[int],
    source_shape: Sequence[int],
    num: Sequence[int],
    den: Sequence[int],
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.uint32]:
    """Take each pixel of a box of the output grid from the source pixel that its centre lies in.

    Parameters
    ----------
    labels : integer array [*spatial]
        Part of the source, with 2 or 3 axes; at least the `source_box` of `box`.
    box : Box
        Pixels of the output grid to compute.
    origin : sequence of int
        Where in the source the array starts.
    source_shape : sequence of int
        Shape of the whole source.
    num, den : sequence of int
        The scale per axis: output pixels over source pixels.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    uint32 array [*box.shape]
        The labels of the box.
    """
    source = as_labels(labels, "labels")
    needed = source_box(box, shape=source_shape, num=num, den=den)
    _check(source.shape, box, origin=origin, needed=needed)
    index = [
        line.nearest(box.start[axis], box.stop[axis]) - origin[axis]
        for axis, line in enumerate(_axes(source_shape, num, den))
    ]
    return loops(backend, threads).resample_nearest(source, index=index, threads=threads)


def filter_axis(
    array: ArrayLike,
    taps: ArrayLike,
    *,
    index: ArrayLike,
    axis: int,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.float32]:
    """Filter one axis with symmetric taps, the sums in one fixed order.

    Parameters
    ----------
    array : real array [*shape]
        What to filter.
    taps : float array [r + 1]
        Weight of the pixel itself, of its two neighbours, and so on.
    index : integer array [n + 2 r]
        Which pixel of the axis stands at each place, r places before the first result to r behind
        the last: this is where borders are decided.
    axis : int
        The axis, from 0.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    float32 array [*shape]
        Filtered, with n pixels on that axis.
    """
    pixels = np.ascontiguousarray(array, np.float32)
    places, weights = np.asarray(index), np.asarray(taps)
    if not 0 <= axis < pixels.ndim or places.size < 2 * (weights.size - 1) or weights.size == 0:
        raise ValueError(
            f"filter_axis needs an axis from 0 to {pixels.ndim - 1}, a tap or more and an index"
            f" for the neighbours, got axis {axis}, {weights.size} taps and {places.size} places."
        )
    if places.size and not 0 <= places.min() <= places.max() < pixels.shape[axis]:
        raise ValueError(
            f"filter_axis needs places from 0 to {pixels.shape[axis] - 1} on axis {axis}, got"
            f" {places.min()} to {places.max()}. Read a wider box or reflect at the border."
        )
    return loops(backend, threads).filter_axis(
        pixels, weights, index=places, axis=axis, threads=threads
    )


@dataclass(frozen=True)
class _Axis:
    """One axis: pixels of the source, and the scale as a fraction."""

    n: int
    num: int
    den: int

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Return the half-open range of source pixels for output pixels start to stop - 1.

        The pixel behind the last place always belongs to it, also where its weight is 0: 0 times
        another pixel could turn the sign of a zero.
        """
        if self.num < 1 or self.den < 1:
            raise ValueError(f"a scale needs whole numbers above 0, got {self.num} / {self.den}.")
        if (2 * max(abs(start), abs(stop), self.n) + 1) * max(self.num, self.den) > PLACE_MAX:
            raise ValueError(
                f"a scale of {self.num} / {self.den} does not fit int64 at pixel {stop}. Take a"
                " simpler fraction."
            )
        low = ((2 * start + 1) * self.den - self.num) // (2 * self.num)
        high = ((2 * stop - 1) * self.den - self.num) // (2 * self.num)
        return min(max(low, 0), self.n - 1), min(max(high, 0) + 2, self.n)

    def places(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the source pixel before each output pixel, and the weight of the next one."""
        i = np.arange(start, stop, dtype=np.int64)
        whole, rest = np.divmod((2 * i + 1) * self.den - self.num, 2 * self.num)
        weight = (rest / (2 * self.num)).astype(np.float32)
        weight[(whole < 0) | (whole >= self.n - 1)] = 0
        return np.clip(whole, 0, max(self.n - 1, 0)), weight

    def nearest(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the source pixel that the centre of each output pixel lies in."""
        i = np.arange(start, stop, dtype=np.int64)
        return np.clip((2 * i + 1) * self.den // (2 * self.num), 0, max(self.n - 1, 0))


def _axes(shape: Sequence[int], num: Sequence[int], den: Sequence[int]) -> list[_Axis]:
    """Return the axes of a source and its scale."""
    return [_Axis(n, p, q) for n, p, q in zip(shape, num, den, strict=True)]


def _check(shape: Sequence[int], box: Box, *, origin: Sequence[int], needed: Box) -> None:
    """Refuse an array that lacks pixels of the box."""
    if len(shape) not in (2, 3) or not len(shape) == box.ndim == len(origin):
        raise ValueError(
            f"resample needs 2 or 3 spatial axes and a box and origin of as many, got pixels of"
            f" shape {tuple(shape)}, {box} and origin {tuple(origin)}."
        )
    if not Box.of(shape).shift(origin).contains(needed):
        raise ValueError(
            f"resample needs pixels {needed.start} to {needed.stop} of the source for {box}, got"
            f" an array of shape {tuple(shape)} at {tuple(origin)}. Read the source_box first."
        )
