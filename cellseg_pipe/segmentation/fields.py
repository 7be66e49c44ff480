"""The fields of an image whose cells are of one size each: classes of diameters. No pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.diameter import rounded, sorted_into_classes
from cellseg_pipe.geometry import ceil_div
from cellseg_pipe.regions import Part, Region, box_part, compose
from cellseg_pipe.tiles import Grid

__all__ = ["Fields", "check_mode", "fields_of", "measuring_grid"]

FIELDS = {2: 8, 3: 4}  # along each axis of an image of so many, at most: 64 in all
FIELD_DIAMETERS = 16.0  # edge of a field, at least: some cells of four times that size fit in, too


@dataclass(frozen=True)
class Fields:
    """A grid over an image, each field of which is of a class of diameters.

    Parameters
    ----------
    shape : tuple of int
        Of the image, on level 0.
    pitch : tuple of int
        Edges of a field.
    measured_px : tuple of float or None
        Diameter of the cells of each field, in C order; None where they are too few to tell.
    classes : tuple of int
        Of each field, from 0.
    diameter_px : tuple of float
        Of each class, ascending.
    """

    shape: tuple[int, ...]
    pitch: tuple[int, ...]
    measured_px: tuple[float | None, ...]
    classes: tuple[int, ...]
    diameter_px: tuple[float, ...]

    @property
    def grid(self) -> Grid:
        """The fields."""
        return Grid(self.shape, self.pitch)

    @property
    def differ(self) -> bool:
        """Whether there is more than one class."""
        return len(self.diameter_px) > 1

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each class, its part of the image."""
        sizes = [self.grid.box(number).size for number in range(len(self.classes))]
        total = np.bincount(self.classes, sizes, len(self.diameter_px)) / sum(sizes)
        return tuple(total.tolist())

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What plan and summary say of each class."""
        pairs = zip(self.diameter_px, self.shares, strict=True)
        return [{"diameter_px": px, "share": share} for px, share in pairs]

    def typical_px(self, points: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the diameter at which cells are seen.

        Parameters
        ----------
        points : int64 array [n, ndim]
            Their peaks, on level 0.

        Returns
        -------
        float64 array [n]
            That of the class of the field that holds each of them.
        """
        classes = np.asarray(self.classes)[self.grid.owners(points)]
        return np.asarray(self.diameter_px)[classes]

    def region(self, number: int, within: Region | None = None) -> Region:
        """Return where the peaks of the cells of a class lie.

        Parameters
        ----------
        number : int
            Of the class; one that there is not has no pixels.
        within : Region, optional
            What is meant of the image; all of it by default.

        Returns
        -------
        Region
            The part of it in the fields of the class.
        """
        others = [
            box_part(box.start, box.stop, shape=self.shape, name="")
            for box in (self.grid.box(n) for n, one in enumerate(self.classes) if one != number)
        ]
        return compose([] if within is None else [_part(within)], others, shape=self.shape)


def _part(region: Region) -> Part:
    row, start = np.divmod(region.start, region.shape[-1])
    stop = region.stop - row * region.shape[-1]
    number = region.number.astype(np.int64) - 1
    return Part(region.breaks, row, start, stop, number, region.names)


def check_mode(mode: str, *, series: bool) -> None:
    """Refuse several diameters where planes are seen by themselves.

    Parameters
    ----------
    mode : str
        How the image is seen.
    series : bool
        Whether its planes are times.
    """
    if mode == "planes":
        raise ValueError(
            "diameter_classes needs an image y, x or a volume of mode 3d, got"
            f" {'a series in time' if series else 'mode planes'}. Leave it out."
        )


def measuring_grid(shape: Sequence[int], typical_px: float) -> Grid:
    """Return the fields in which diameters are measured: not too many, nor too small.

    Parameters
    ----------
    shape : sequence of int
        Of the image.
    typical_px : float
        Diameter of its typical cells.

    Returns
    -------
    Grid
        At most 64 fields, all about as wide along an axis.
    """
    most = FIELDS[len(shape)]
    counts = [min(most, max(1, int(n / (FIELD_DIAMETERS * typical_px)))) for n in shape]
    pitch = [max(1, ceil_div(n, count)) for n, count in zip(shape, counts, strict=True)]
    return Grid(tuple(shape), tuple(pitch))


def fields_of(
    grid: Grid, measured_px: Sequence[float | None], *, typical_px: float, most: int
) -> Fields:
    """Sort the fields of an image into classes of diameters.

    Parameters
    ----------
    grid : Grid
        The fields.
    measured_px : sequence of float or None
        Diameter of the cells of each; a field whose is not known is of the class of the nearest one
        whose is.
    typical_px : float
        Diameter of the cells of the image, which is that of a single class.
    most : int
        Classes, at most.

    Returns
    -------
    Fields
        With one class if no parts of the image differ.
    """
    measured = tuple(measured_px)
    known = [number for number, px in enumerate(measured) if px is not None]
    sizes = np.array([measured[number] for number in known], np.float64)
    own = sorted_into_classes(sizes, most=most) if known else np.zeros(0, np.int64)
    n_classes = int(own.max(initial=0)) + 1
    if n_classes == 1:
        classes = (0,) * len(measured)
        return Fields(grid.shape, grid.pitch, measured, classes, (float(typical_px),))
    diameters = tuple(rounded(float(np.median(sizes[own == k]))) for k in range(n_classes))
    nearest = _nearest(grid, known)
    return Fields(grid.shape, grid.pitch, measured, tuple(own[nearest].tolist()), diameters)


def _nearest(grid: Grid, known: Sequence[int]) -> NDArray[np.intp]:
    """Return which of the known fields each field is nearest to: the first, if several are."""
    middles = np.array([np.add(b.start, b.stop) for b in map(grid.box, range(len(grid)))], np.int64)
    apart = ((middles[:, None] - middles[list(known)][None]) ** 2).sum(axis=2)
    return np.argmin(apart, axis=1)
