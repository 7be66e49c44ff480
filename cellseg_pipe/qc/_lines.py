"""Where seams are looked for, and lines of the same image without a seam that they compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lines", "Seams", "lines_of", "seam_positions"]

Seams = int | Sequence[int] | Sequence[Sequence[int]]
BETWEEN = 8  # parts into which the way from one seam to the next is cut: 7 lines without a seam


@dataclass(frozen=True)
class Lines:
    """The lines of one axis: a line p lies between the voxels p - 1 and p.

    Parameters
    ----------
    position : int64 array [n]
        Ascending, from 1 to the length of the axis less 1.
    is_seam : bool array [n]
        Whether tiles meet there.
    """

    position: NDArray[np.int64]
    is_seam: NDArray[np.bool_]

    def within(self, start: int, stop: int) -> Lines:
        """Return the lines p with start <= p < stop."""
        rows = slice(*np.searchsorted(self.position, (start, stop)))
        return Lines(self.position[rows], self.is_seam[rows])


def seam_positions(shape: Sequence[int], seams: Seams) -> tuple[tuple[int, ...], ...]:
    """Return where the seams of each axis are.

    Parameters
    ----------
    shape : sequence of int
        Of the labels.
    seams : int, or sequence of int, or of sequences of int
        Edge of the tiles; or one per axis, 0 for an axis that is not cut; or the positions of the
        seams along each axis.

    Returns
    -------
    tuple of tuple of int
        Ascending, per axis; only those inside the image.
    """
    per_axis: list[int | Sequence[int]] = (
        [seams] * len(shape) if isinstance(seams, int) else list(seams)
    )
    if len(per_axis) != len(shape):
        raise ValueError(
            f"seams needs one number or an entry for each of {len(shape)} axes, got"
            f" {len(per_axis)}. Give 0 for an axis that is not cut."
        )
    found = []
    for n, said in zip(shape, per_axis, strict=True):
        known = {said} if isinstance(said, int) else {int(place) for place in said}
        if min(known, default=0) < 0:
            raise ValueError(f"seams needs edges and positions of 0 or more, got {said}.")
        if isinstance(said, int):
            known = set(range(said, n, said)) if said else set()
        found.append(tuple(sorted(p for p in known if 0 < p < n)))
    return tuple(found)


def lines_of(
    shape: Sequence[int], positions: Sequence[Sequence[int]], *, clear_px: float
) -> tuple[Lines, ...]:
    """Return seams, and lines between them that are far from any.

    Parameters
    ----------
    shape : sequence of int
        Of the labels.
    positions : sequence of sequences of int
        Seams per axis.
    clear_px : float
        How far the other lines stay from seams and borders, where there is room.

    Returns
    -------
    tuple of Lines
        Per axis; none for an axis without seams.
    """
    found = []
    for n, seams in zip(shape, positions, strict=True):
        ends = [0, *seams, n]
        others = [
            place
            for a, b in zip(ends[:-1], ends[1:], strict=True)
            for place in (a + (b - a) * k // BETWEEN for k in range(1, BETWEEN))
            if a < place < b and min(place - a, b - place) >= min(clear_px, (b - a) // 4)
        ]
        position = np.array(sorted({*seams, *others} if seams else ()), np.int64)
        found.append(Lines(position, np.isin(position, seams)))
    return tuple(found)
