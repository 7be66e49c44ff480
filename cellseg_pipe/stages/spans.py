"""Runs of labels: what tiles measured is put together for one run of cells after the other."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.ledger import Records
from cellseg_pipe.stages.tiling import Tiling

__all__ = ["Span", "reach_of", "spans_of"]

GAP = 4096  # labels that are missing between two runs of a tile


@dataclass(frozen=True)
class Span:
    """A run of labels, and where something was measured of them.

    Parameters
    ----------
    row : int
        Of tiles along the first axis, where such rows are apart: the time of a series.
    low, high : int
        The first label, and the one after the last.
    tiles : int64 array [n]
        Ascending; they may have measured other labels, too.
    whole : bool array [n]
        Whether such a tile has no others.
    """

    row: int
    low: int
    high: int
    tiles: NDArray[np.int64]
    whole: NDArray[np.bool_]

    def opened(self) -> Iterator[tuple[int, bool]]:
        """Yield each tile, and whether all of it belongs here.

        Yields
        ------
        tile : int
            Its number.
        whole : bool
            Whether it has no other labels.
        """
        yield from zip(self.tiles.tolist(), self.whole.tolist(), strict=True)

    def holds(self, label: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which labels are of this run.

        Parameters
        ----------
        label : array [n]
            Labels.

        Returns
        -------
        bool array [n]
            For each.
        """
        return np.asarray((label >= self.low) & (label < self.high))

    def of_rows(self, tiling: Tiling) -> Iterator[Span]:
        """Yield the same for one row of tiles along the first axis after the other.

        Parameters
        ----------
        tiling : Tiling
            Of the unit.

        Yields
        ------
        Span
            For rows that have any.
        """
        rows = self.tiles // _tiles_in_row(tiling)
        for row in np.unique(rows).tolist():
            here = rows == row
            yield dataclasses.replace(self, row=row, tiles=self.tiles[here], whole=self.whole[here])


def reach_of(*labels: NDArray[np.uint32]) -> dict[str, list[int]]:
    """Return what `measure` says of a tile, so that it is opened for the right run only.

    Parameters
    ----------
    *labels : uint32 array [n]
        All labels that something is stored of.

    Returns
    -------
    dict
        The first and the last of each run without wide gaps, and how many are in it.
    """
    found = np.unique(np.concatenate(labels))
    if not len(found):
        return {}
    gaps = np.flatnonzero(np.diff(found.astype(np.int64)) > GAP)
    begin, end = np.r_[0, gaps + 1], np.r_[gaps, len(found) - 1]
    runs = np.stack([found[begin], found[end], end - begin + 1], axis=1)
    return {"labels": runs.tolist()}


def spans_of(measured: Records, tiling: Tiling, *, by_row: bool, at_once: int) -> Iterator[Span]:
    """Yield runs of labels, so short that what was measured of them fits in memory.

    Parameters
    ----------
    measured : Records
        Of the stage `measure`, which is done.
    tiling : Tiling
        Of the unit.
    by_row : bool
        Whether rows of tiles along the first axis are apart: planes, or times.
    at_once : int
        About how many cells of tiles a run has, all that chain to one cell counted.

    Yields
    ------
    Span
        Ascending, for each row if they are apart; only those that something was measured of.
    """
    known = np.array(
        sorted((key, *run) for key, info in measured.infos() for run in info.get("labels", [])),
        np.int64,
    ).reshape(-1, 4)  # tile, first and last label, how many
    rows = known[:, 0] // _tiles_in_row(tiling) if by_row else np.zeros(len(known), np.int64)
    for row in np.unique(rows).tolist():
        tile, first, last, count = known[rows == row].T
        cuts = _cuts(first, last + 1, count, at_once=at_once)
        for low, high in itertools.pairwise(cuts):
            tiles = np.unique(tile[(first < high) & (last >= low)])
            if len(tiles):
                partly = tile[(first < low) | (last >= high)]
                yield Span(row, low, high, tiles, ~np.isin(tiles, partly))


def _cuts(
    first: NDArray[np.int64], end: NDArray[np.int64], count: NDArray[np.int64], *, at_once: int
) -> list[int]:
    """Return labels between which about equally many are stored, if those of a run lie evenly."""
    place = np.concatenate([first, end])
    density = count / (end - first)
    order = np.argsort(place, kind="stable")
    place, rise = place[order], np.cumsum(np.concatenate([density, -density])[order])
    below = np.concatenate([[0.0], np.cumsum(rise[:-1] * np.diff(place))])
    n_cuts = max(1, math.ceil(count.sum() / at_once))
    inner = np.interp(np.arange(1, n_cuts) * (below[-1] / n_cuts), below, place)
    return np.unique(np.r_[place[0], np.ceil(inner).astype(np.int64), place[-1]]).tolist()


def _tiles_in_row(tiling: Tiling) -> int:
    return len(tiling.tiles) // tiling.tiles.cores.counts[0]
