"""How large cells are in each part of an image: medians of a coarse grid, from counts alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.tiles import Grid

__all__ = ["DiameterMap", "field_grid"]

FIELDS = 8  # per axis, at most
FIELD_DIAMETERS = 10.0  # edge of a field, at least
LEAST_CELLS = 20  # of a field whose median says something
PER_OCTAVE, OCTAVES = 24, 14  # bins of diameters, 3 % wide, from 1 px on


def field_grid(shape: Sequence[int], typical_px: float) -> Grid:
    """Return the fields of an image, from its shape and the size of its cells.

    Parameters
    ----------
    shape : sequence of int
        Of the image.
    typical_px : float
        Diameter of a typical cell.

    Returns
    -------
    Grid
        At most 8 per axis.
    """
    least = math.ceil(FIELD_DIAMETERS * typical_px)
    return Grid(tuple(shape), tuple(max(1, least, math.ceil(n / FIELDS)) for n in shape))


class DiameterMap:
    """Counts of cells by field and diameter; in any order they give the same medians.

    Parameters
    ----------
    fields : Grid
        From `field_grid`.
    """

    def __init__(self, fields: Grid) -> None:
        self.fields = fields
        self._counts = np.zeros((len(fields), PER_OCTAVE * OCTAVES), np.int64)

    def add(self, centre: ArrayLike, diameter_px: ArrayLike) -> None:
        """Count some cells.

        Parameters
        ----------
        centre : int array [n, ndim]
            In the image.
        diameter_px : float array [n]
            Of each of them.
        """
        where = self.fields.owners(np.asarray(centre))
        octave = np.log2(np.maximum(np.asarray(diameter_px, np.float64), 1.0))
        bins = np.minimum((octave * PER_OCTAVE).astype(np.int64), self._counts.shape[1] - 1)
        np.add.at(self._counts, (where, bins), 1)

    def medians(self) -> NDArray[np.float64]:
        """Return the median diameter of each field.

        Returns
        -------
        float64 array [*fields]
            In px, to the width of a bin; nan where fewer than 20 cells lie.
        """
        n_cells = self._counts.sum(axis=1)
        middle = np.argmax(2 * np.cumsum(self._counts, axis=1) >= n_cells[:, None], axis=1)
        median = 2.0 ** ((middle + 0.5) / PER_OCTAVE)
        return np.where(n_cells >= LEAST_CELLS, median, np.nan).reshape(self.fields.counts)
