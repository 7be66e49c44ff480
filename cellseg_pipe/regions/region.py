"""A region of an image: which pixels are meant, and what their region is called."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.regions._parts import MAX_RUNS, Part, box_part
from cellseg_pipe.tiles import Grid

__all__ = ["Region", "compose", "region_of_arrays", "region_to_arrays"]

Interval = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels of an image, each in one region or in none.

    Parameters
    ----------
    shape : tuple of int
        Of the image, on level 0.
    breaks : tuple of int64 array
        For each axis but the last, where rows begin, and the end of the last one: pixels of a row
        are alike along these axes.
    start, stop : int64 array [n]
        Runs of pixels, row * width + place, ascending; none reaches into the next row.
    number : uint32 array [n]
        Region of each run, from 1.
    names : tuple of str
        Of the regions.
    """

    shape: tuple[int, ...]
    breaks: tuple[NDArray[np.int64], ...]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    number: NDArray[np.uint32]
    names: tuple[str, ...]

    @cached_property
    def size(self) -> int:
        """How many pixels there are."""
        thick = np.ones(1, np.int64)
        for line in self.breaks:
            thick = np.multiply.outer(thick, np.diff(line)).ravel()
        return int(((self.stop - self.start) * thick[self.start // self.shape[-1]]).sum())

    def numbers_at(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return in which region pixels lie.

        Parameters
        ----------
        points : int64 array [n, ndim]
            Of level 0.

        Returns
        -------
        int64 array [n]
            From 1; 0 for none.
        """
        points = np.asarray(points, np.int64).reshape(-1, len(self.shape))
        inside = ((points >= 0) & (points < self.shape)).all(axis=1)
        row = np.zeros(len(points), np.int64)
        for line, place in zip(self.breaks, points.T, strict=False):
            index = np.searchsorted(line, place, "right") - 1
            inside &= (index >= 0) & (index < len(line) - 1)
            row = row * (len(line) - 1) + index
        key = row * self.shape[-1] + points[:, -1]
        run = np.searchsorted(self.start, key, "right") - 1
        inside &= run >= 0
        found = np.zeros(len(points), np.int64)
        held = np.flatnonzero(inside)
        held = held[key[held] < self.stop[run[held]]]
        found[held] = self.number[run[held]]
        return found

    def names_at(self, points: NDArray[np.int64]) -> NDArray[np.str_]:
        """Return the name of the region in which pixels lie.

        Parameters
        ----------
        points : int64 array [n, ndim]
            Of level 0.

        Returns
        -------
        str array [n]
            Nothing for none.
        """
        return np.array(["", *self.names], np.str_)[self.numbers_at(points)]

    def touched(self, intervals: Sequence[Interval]) -> NDArray[np.bool_]:
        """Return which boxes of a grid hold a pixel of the region.

        Parameters
        ----------
        intervals : sequence of (int64 array, int64 array)
            For each axis where the boxes begin and end, on level 0.

        Returns
        -------
        bool array [n boxes along each axis]
            The product of the axes.
        """
        spans = [
            zip(*_rows_over(line, *ends), strict=True)
            for line, ends in zip(self.breaks, intervals, strict=False)
        ]
        low, high = intervals[-1]
        known: dict[Any, NDArray[np.bool_]] = {}
        found = []
        for span in itertools.product(*map(list, spans)):
            if span not in known:
                start, stop, _ = self._runs_in(span)
                # Runs that begin before a box ends, less those that end before it begins.
                begun = np.searchsorted(np.sort(start), high, "left")
                ended = np.searchsorted(np.sort(stop), low, "right")
                known[span] = (begun > ended) & (low < high)
            found.append(known[span])
        return np.array(found, bool).reshape([len(first) for first, _ in intervals])

    def touched_boxes(self, grid: Grid) -> NDArray[np.bool_]:
        """Return which boxes of a grid over the image hold a pixel of the region.

        Parameters
        ----------
        grid : Grid
            On level 0.

        Returns
        -------
        bool array [n boxes]
            In C order.
        """
        starts = [np.arange(0, n, p) for n, p in zip(grid.shape, grid.pitch, strict=True)]
        ends = zip(starts, grid.pitch, grid.shape, strict=True)
        return self.touched([(low, np.minimum(low + p, n)) for low, p, n in ends]).ravel()

    def bounds(self, box: Box) -> Box | None:
        """Return the smallest box around the region's pixels in a box.

        Parameters
        ----------
        box : Box
            On level 0; it may reach beyond the image.

        Returns
        -------
        Box or None
            None where there are none.
        """
        lows, highs = list(box.start), list(box.stop)
        span = tuple(
            (int(first[0]), int(last[0]))
            for first, last in (
                _rows_over(line, np.array([low]), np.array([high]))
                for line, low, high in zip(self.breaks, lows, highs, strict=False)
            )
        )
        start, stop, row = self._runs_in(span)
        meets = (start < highs[-1]) & (stop > lows[-1]) & (lows[-1] < highs[-1])
        if not meets.any():
            return None
        lows[-1] = max(lows[-1], int(start[meets].min()))
        highs[-1] = min(highs[-1], int(stop[meets].max()))
        rest = row[meets]
        for axis in reversed(range(len(self.breaks))):
            line = self.breaks[axis]
            rest, index = np.divmod(rest, len(line) - 1)
            lows[axis] = max(lows[axis], int(line[index.min()]))
            highs[axis] = min(highs[axis], int(line[index.max() + 1]))
        return Box(tuple(lows), tuple(highs))

    def _runs_in(
        self, span: Sequence[tuple[int, int]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return start, stop along the last axis, and row of the runs in rows of each axis."""
        *outer, (low, high) = span
        width, n_rows = self.shape[-1], [len(line) - 1 for line in self.breaks]
        parts = []
        for index in itertools.product(*(range(first, last) for first, last in outer)):
            base = 0
            for place, n in zip(index, n_rows, strict=False):
                base = base * n + place
            rows = np.array([base * n_rows[-1] + low, base * n_rows[-1] + high])
            parts.append(slice(*np.searchsorted(self.start, rows * width).tolist()))
        if high <= low or not parts:
            none = np.zeros(0, np.int64)
            return none, none, none
        start = np.concatenate([self.start[part] for part in parts])
        stop = np.concatenate([self.stop[part] for part in parts])
        row = start // width
        return start - row * width, stop - row * width, row


def _rows_over(
    line: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which rows intervals meet: from the first to before the last; none if it is not above.

    A stretch without pixels has no row.
    """
    first = np.maximum(np.searchsorted(line, low, "right") - 1, 0)
    last = np.where(low < high, np.searchsorted(line, high, "left"), first)
    return first, np.minimum(last, len(line) - 1)


def compose(include: Sequence[Part], exclude: Sequence[Part], *, shape: Sequence[int]) -> Region:
    """Put what is included and what is excluded together.

    Parameters
    ----------
    include : sequence of Part
        Where they overlap the first one counts; none of them: all of the image, without a name.
    exclude : sequence of Part
        Taken away.
    shape : sequence of int
        Of the image.

    Returns
    -------
    Region
        Perhaps empty.
    """
    shape = tuple(shape)
    meant = list(include) or [box_part((0,) * len(shape), shape, shape=shape, name="")]
    parts = [*exclude, *meant]
    breaks = tuple(
        np.unique(np.concatenate([part.breaks[axis] for part in parts]))
        for axis in range(len(shape) - 1)
    )
    columns, first = [], 0
    for part in parts:
        start, stop, number = _on_grid(part, breaks, shape[-1])
        columns.append((start, stop, first + number))
        first += len(part.names)
    start, stop, number = (np.concatenate(column) for column in zip(*columns, strict=True))
    start, stop, number = _flattened(start, stop, number, width=shape[-1])
    n_excluded = sum(len(part.names) for part in exclude)
    kept = number >= n_excluded
    names = tuple(name for part in meant for name in part.names)
    own = (number[kept] - n_excluded + 1).astype(np.uint32)
    return Region(shape, breaks, start[kept], stop[kept], own, names)


def _on_grid(
    part: Part, breaks: tuple[NDArray[np.int64], ...], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return start, stop and number of a part's runs in finer rows."""
    rows, inside = np.zeros(1, np.int64), np.ones(1, bool)
    for own, line in zip(part.breaks, breaks, strict=True):
        index = np.searchsorted(own, line[:-1], "right") - 1
        there = (index >= 0) & (index < len(own) - 1)
        rows = np.add.outer(rows * (len(own) - 1), index).ravel()
        inside = np.logical_and.outer(inside, there).ravel()
    wanted = np.flatnonzero(inside)
    first = np.searchsorted(part.row, rows[wanted], "left")
    count = np.searchsorted(part.row, rows[wanted], "right") - first
    _check_count(int(count.sum()))
    run = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
    base = np.repeat(wanted, count) * width
    return base + part.start[run], base + part.stop[run], part.number[run]


def _check_count(n: int) -> None:
    if n > MAX_RUNS:
        raise ValueError(
            f"a region needs at most {MAX_RUNS} runs of pixels, got {n}. Give masks of lower"
            " resolution, or simpler outlines."
        )


def _flattened(
    start: NDArray[np.int64], stop: NDArray[np.int64], number: NDArray[np.int64], *, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return runs that do not overlap, ascending: the lowest number has a pixel."""
    order = np.argsort(start, kind="stable")
    start, stop, number = start[order], stop[order], number[order]
    if (stop[:-1] <= start[1:]).all():
        return start, stop, number
    cuts = np.unique(np.concatenate([start, stop]))
    low, high = np.searchsorted(cuts, start), np.searchsorted(cuts, stop)
    _check_count(int((high - low).sum()))
    piece = np.repeat(low - np.cumsum(high - low) + (high - low), high - low)
    piece += np.arange(piece.size)
    nobody = int(number.max()) + 1
    owner = np.full(len(cuts), nobody, np.int64)
    np.minimum.at(owner, piece, np.repeat(number, high - low))
    begins = np.ones(len(cuts), bool)
    begins[1:] = (owner[1:] != owner[:-1]) | (cuts[1:] % width == 0)
    first = np.flatnonzero(begins)
    first = first[owner[first] < nobody]
    after = np.append(np.flatnonzero(begins), len(cuts) - 1)
    last = after[np.searchsorted(after, first, "right")]
    return cuts[first], cuts[last], owner[first]


def region_to_arrays(region: Region) -> dict[str, NDArray[Any]]:
    """Return what is to be stored of a region beside its shape and names.

    Parameters
    ----------
    region : Region
        The region.

    Returns
    -------
    dict of str to array
        By name.
    """
    lines = {f"breaks.{axis}": line for axis, line in enumerate(region.breaks)}
    return lines | {name: getattr(region, name) for name in ("start", "stop", "number")}


def region_of_arrays(
    arrays: dict[str, NDArray[Any]], *, shape: Sequence[int], names: Sequence[str]
) -> Region:
    """Return the region that was stored.

    Parameters
    ----------
    arrays : dict of str to array
        From `region_to_arrays`.
    shape : sequence of int
        Of the image.
    names : sequence of str
        Of the regions.

    Returns
    -------
    Region
        Equal to the one that was stored.
    """
    breaks = tuple(arrays[f"breaks.{axis}"] for axis in range(len(shape) - 1))
    runs = {name: arrays[name] for name in ("start", "stop", "number")}
    return Region(tuple(shape), breaks, names=tuple(names), **runs)
