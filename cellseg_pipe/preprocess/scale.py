"""The network's grid: how it lies over level 0, in fractions. Arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import source_box

__all__ = ["Scale"]

TOLERANCE = Fraction(1, 10_000)


@dataclass(frozen=True)
class Scale:
    """Network pixels over level-0 pixels, a fraction per axis.

    Both grids have one extent: network pixel i lies at ((2 i + 1) den - num) / (2 num) on level 0.

    Parameters
    ----------
    num, den : tuple of int
        The fraction per axis; kept in lowest terms.
    """

    num: tuple[int, ...]
    den: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check and reduce once."""
        if len(self.num) != len(self.den) or min(*self.num, *self.den, 1) < 1:
            raise ValueError(
                f"Scale needs a num and den of 1 or more per axis, got {self.num} and {self.den}."
            )
        parts = [Fraction(p, q) for p, q in zip(self.num, self.den, strict=True)]
        object.__setattr__(self, "num", tuple(part.numerator for part in parts))
        object.__setattr__(self, "den", tuple(part.denominator for part in parts))

    @classmethod
    def of(cls, factors: Sequence[float], *, max_denominator: int = 100_000) -> Scale:
        """Return the simplest fractions within 1e-4 (relative) of the factors.

        Parameters
        ----------
        factors : sequence of float
            Network pixels over level-0 pixels per axis.
        max_denominator : int
            The largest denominator allowed; int64 has room for far more.

        Returns
        -------
        Scale
            The same for equal factors everywhere; exactly 1 for factors next to 1.
        """
        parts = []
        for factor in factors:
            if not 0 < factor < math.inf:
                raise ValueError(f"Scale needs factors above 0, got {tuple(factors)}.")
            exact = Fraction(factor)
            part = _simplest(exact * (1 - TOLERANCE), exact * (1 + TOLERANCE))
            if part.denominator > max_denominator:
                raise ValueError(
                    f"Scale needs a factor that a denominator of {max_denominator} meets to 1e-4,"
                    f" got {factor}. Check the diameter, or read a smaller level of the pyramid."
                )
            parts.append(part)
        return cls(tuple(p.numerator for p in parts), tuple(p.denominator for p in parts))

    @property
    def identity(self) -> bool:
        """Whether the network's grid is level 0 itself."""
        return self.num == self.den

    @property
    def inverse(self) -> Scale:
        """Level-0 pixels over network pixels: with it results come back."""
        return Scale(self.den, self.num)

    @property
    def factors(self) -> tuple[float, ...]:
        """The fractions as numbers."""
        return tuple(p / q for p, q in zip(self.num, self.den, strict=True))

    def grid_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the network's grid over an image of this shape.

        Parameters
        ----------
        shape : sequence of int
            Shape of level 0.

        Returns
        -------
        tuple of int
            Rounded down, at least 1; 0 only on an axis without pixels.
        """
        return tuple(
            max(1, n * p // q) if n else 0
            for n, p, q in zip(shape, self.num, self.den, strict=True)
        )

    def source_box(self, box: Box, shape: Sequence[int]) -> Box:
        """Return the level-0 pixels that a box of the network's grid is computed from.

        Parameters
        ----------
        box : Box
            Pixels of the network's grid.
        shape : sequence of int
            Shape of level 0.

        Returns
        -------
        Box
            Pixels of level 0.
        """
        return source_box(box, shape=shape, num=self.num, den=self.den)

    def back_box(self, box: Box, shape: Sequence[int]) -> Box:
        """Return the network pixels that a box of level 0 is brought back from.

        Parameters
        ----------
        box : Box
            Pixels of level 0.
        shape : sequence of int
            Shape of level 0.

        Returns
        -------
        Box
            Pixels of the network's grid.
        """
        return self.inverse.source_box(box, self.grid_shape(shape))


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """Return the fraction of smallest denominator in a closed range above 0."""
    whole = math.ceil(low)
    if whole <= high:
        return Fraction(whole)
    base = whole - 1
    return base + 1 / _simplest(1 / (high - base), 1 / (low - base))
