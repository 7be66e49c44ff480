"""What was measured of cells, and how the parts of cells that planes or tiles saw are added."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import Corners, Sums, Tally, convex_volumes

__all__ = ["Measured", "join_measured"]


@dataclass(frozen=True)
class Measured:
    """What was measured of cells, ascending by label; no columns for what was not asked for.

    Parameters
    ----------
    sums : Sums
        Place, extent and intensities.
    contours, texture, ring : Tally
        See the kernels `object_contours`, `object_texture` and `object_rings`.
    convex : int64 array [n, k]
        Of the sums' cells: pixels of the hull; in 2D also what `object_contours` counts of them.
    quantiles : float64 array [n, C, q]
        Of the sums' cells.
    corners : Corners
        Of the hulls of planes, as long as further planes may follow.
    """

    sums: Sums
    contours: Tally
    texture: Tally
    ring: Tally
    convex: NDArray[np.int64]
    quantiles: NDArray[np.float64]
    corners: Corners

    @property
    def labels(self) -> NDArray[np.uint32]:
        """Cells of which anything is known: contours of a part are of cells before it, too."""
        tallies = (self.sums, self.contours, self.texture, self.ring, self.corners)
        return np.unique(np.concatenate([tally.label for tally in tallies]))

    @staticmethod
    def add(parts: Sequence[Measured]) -> Measured:
        """Add what was seen of cells, one part after the other.

        Parameters
        ----------
        parts : sequence of Measured
            One or more, in an order that is always the same: sums of floats depend on it. No cell
            whose hull or quantiles are known is in two of them.

        Returns
        -------
        Measured
            One row per cell.
        """
        label = np.concatenate([part.sums.label for part in parts])
        _, order = np.unique(label, return_index=True)

        known = [part for part in parts if len(part.sums.label)] or parts[:1]

        def column(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in known])[order]

        return Measured(
            Sums.add([part.sums for part in parts], in_order=True),
            Tally.add([part.contours for part in parts]),
            Tally.add([part.texture for part in parts]),
            Tally.add([part.ring for part in parts]),
            column("convex"),
            column("quantiles"),
            Corners.add([part.corners for part in parts]),
        )

    def only(self, label: NDArray[np.uint32]) -> Measured:
        """Return what was measured of some cells.

        Parameters
        ----------
        label : uint32 array [k]
            Theirs.

        Returns
        -------
        Measured
            In the same order.
        """
        kept = np.isin(self.sums.label, label)
        sums = {name: column[kept] for name, column in vars(self.sums).items()}
        return Measured(
            Sums(**sums),
            self.contours.only(label),
            self.texture.only(label),
            self.ring.only(label),
            self.convex[kept],
            self.quantiles[kept],
            self.corners.only(label),
        )

    def with_hulls(self) -> Measured:
        """Return the same with the hulls of cells all of whose planes were seen."""
        if not self.contours.values.shape[1]:  # forms were not asked for
            return self
        volume = convex_volumes(self.corners, self.sums.label)
        none = self.corners.only(self.sums.label[:0])
        return dataclasses.replace(self, convex=volume[:, None], corners=none)


def join_measured(planes: Iterable[Measured]) -> Measured:
    """Join cells through planes.

    Parameters
    ----------
    planes : iterable of Measured
        One or more, of one plane after the other; a cell has no gap along them.

    Returns
    -------
    Measured
        One row per cell. Of a cell that has ended no corners are kept in memory.
    """
    done: list[Measured] = []
    held: Measured | None = None
    for plane in planes:
        held = plane if held is None else Measured.add([held, plane])
        ended = np.setdiff1d(held.sums.label, plane.sums.label)
        if len(ended):
            done.append(held.only(ended).with_hulls())
            held = held.only(plane.sums.label)
    if held is None:
        raise ValueError("join_measured needs one plane or more, got none.")
    return Measured.add([*done, held.with_hulls()])
