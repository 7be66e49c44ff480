"""Numbers of objects that add up over the blocks of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tally"]


@dataclass(frozen=True)
class Tally:
    """Some numbers per object, ascending by label.

    Parameters
    ----------
    label : uint32 array [n]
        Labels.
    values : int64 or float64 array [n, k]
        What is summed.
    """

    label: NDArray[np.uint32]
    values: NDArray[Any]

    @staticmethod
    def none() -> Tally:
        """Return the tally of what is not measured."""
        return Tally(np.zeros(0, np.uint32), np.zeros((0, 0), np.int64))

    @staticmethod
    def add(tables: Sequence[Tally]) -> Tally:
        """Add tables, one after the other: sums of floats depend on their order.

        Parameters
        ----------
        tables : sequence of Tally
            One or more, of the same numbers.

        Returns
        -------
        Tally
            One row per object.
        """
        rows = np.concatenate([table.label for table in tables])
        label, place = np.unique(rows, return_inverse=True)
        parts = np.concatenate([table.values for table in tables])
        values = np.zeros((label.size, parts.shape[1]), parts.dtype)
        np.add.at(values, place, parts)
        return Tally(label, values)

    def only(self, label: NDArray[np.uint32]) -> Tally:
        """Return the rows of some objects.

        Parameters
        ----------
        label : uint32 array [m]
            Theirs; those that have no row are left out.

        Returns
        -------
        Tally
            In the same order.
        """
        kept = np.isin(self.label, label)
        return Tally(self.label[kept], self.values[kept])

    def of(self, label: NDArray[np.uint32]) -> NDArray[Any]:
        """Return the numbers of some objects.

        Parameters
        ----------
        label : uint32 array [m]
            Ascending, all in the table.

        Returns
        -------
        array [m, k]
            Their rows.
        """
        return self.values[np.searchsorted(self.label, label)]
