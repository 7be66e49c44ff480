"""Half-open integer boxes in N axes. Arithmetic only: no arrays, no I/O."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Box", "ceil_div", "per_axis"]


def ceil_div(numerator: int, denominator: int) -> int:
    """Return numerator / denominator rounded up, exact for integers of any size and sign."""
    return -(-numerator // denominator)


def per_axis(values: int | Sequence[int], ndim: int, name: str) -> tuple[int, ...]:
    """Return one integer per axis from a single number or a sequence.

    Parameters
    ----------
    values : int or sequence of int
        One number for all axes, or one per axis in axis order.
    ndim : int
        Number of axes wanted.
    name : str
        What the numbers are, for the error message.

    Returns
    -------
    tuple of int
        `ndim` integers.
    """
    if isinstance(values, Sequence):
        numbers = tuple(operator.index(value) for value in values)
    else:
        numbers = (operator.index(values),) * ndim
    if len(numbers) != ndim:
        raise ValueError(
            f"{name} needs one number or {ndim} (one per axis), got {len(numbers)}: {numbers}."
            " Give them in axis order."
        )
    return numbers


@dataclass(frozen=True, order=True)
class Box:
    """A half-open box `start <= position < stop`, in whole voxels of the full image.

    Parameters
    ----------
    start : tuple of int
        First voxel in the box, per axis. May be negative: halos reach over borders.
    stop : tuple of int
        One past the last voxel, per axis. Never below `start`.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the rank and the order of the ends once, so that nothing else has to."""
        object.__setattr__(self, "start", tuple(operator.index(a) for a in self.start))
        object.__setattr__(self, "stop", tuple(operator.index(b) for b in self.stop))
        if len(self.start) != len(self.stop):
            raise ValueError(
                f"Box needs as many starts as stops, got {self.start} and {self.stop}."
            )
        if any(b < a for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError(
                f"Box needs stop >= start on every axis, got {self.start} to {self.stop}."
            )

    @classmethod
    def of(cls, shape: Sequence[int]) -> Box:
        """Return the box of a whole array of this shape, from the origin."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent per axis in voxels."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels, exact however large."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Slices that cut this box out of the full image; refused for negative starts."""
        if any(a < 0 for a in self.start):
            raise ValueError(
                f"{self} starts before the image, where slices would wrap round. Clip it first."
            )
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def grow(self, margin: int | Sequence[int]) -> Box:
        """Return the box with `margin` voxels more on both sides of each axis."""
        margins = per_axis(margin, self.ndim, "margin")
        return Box(
            tuple(a - m for a, m in zip(self.start, margins, strict=True)),
            tuple(b + m for b, m in zip(self.stop, margins, strict=True)),
        )

    def shift(self, offset: Sequence[int]) -> Box:
        """Return the box moved by `offset`."""
        return Box(
            tuple(a + o for a, o in zip(self.start, offset, strict=True)),
            tuple(b + o for b, o in zip(self.stop, offset, strict=True)),
        )

    def relative_to(self, origin: Sequence[int]) -> Box:
        """Return the box in coordinates whose zero is `origin`."""
        return self.shift(tuple(-o for o in origin))

    def clip(self, other: Box) -> Box:
        """Return the part inside `other`; empty, at its nearest edge, where they are apart."""
        start = tuple(
            min(max(a, low), high)
            for a, low, high in zip(self.start, other.start, other.stop, strict=True)
        )
        stop = tuple(
            max(min(b, high), a) for b, a, high in zip(self.stop, start, other.stop, strict=True)
        )
        return Box(start, stop)

    def meets(self, other: Box) -> bool:
        """Tell whether the two boxes share a voxel."""
        return all(
            max(a, c) < min(b, d)
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def contains(self, other: Box) -> bool:
        """Tell whether every voxel of `other` lies in this box; an empty box lies in any."""
        return other.size == 0 or all(
            a <= c and d <= b
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def holds(self, point: Sequence[int]) -> bool:
        """Tell whether the voxel at `point` lies in this box."""
        return all(a <= p < b for a, b, p in zip(self.start, self.stop, point, strict=True))

    def cells(self, pitch: Sequence[int]) -> Box:
        """Return the box of indices of the grid cells of edge `pitch` that this box meets."""
        if self.size == 0:
            origin = tuple(a // p for a, p in zip(self.start, pitch, strict=True))
            return Box(origin, origin)
        return Box(
            tuple(a // p for a, p in zip(self.start, pitch, strict=True)),
            tuple(ceil_div(b, p) for b, p in zip(self.stop, pitch, strict=True)),
        )

    def points(self) -> Iterator[tuple[int, ...]]:
        """Yield every voxel of the box in C order."""
        return itertools.product(*map(range, self.start, self.stop))
