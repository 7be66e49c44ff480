"""Counts along seams and other lines in one block of labels: integers that add up over blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import Objects, boxes_and_areas, overlap_pairs
from cellseg_pipe.qc._lines import Lines

__all__ = ["COUNTS", "SeamCounts", "count_lines", "margin_px"]

COUNTS = (
    "line",  # no count: which line it is
    *("touching", "cut", "slivers", "fused", "close", "near", "middles", "starts", "stops"),
    *("crossed", "covered"),
    *("rated", "repeated", "places", "gaps"),
)
SEGMENT_PX = {2: 128, 3: 256}  # pieces of lines, between which the spread is measured
CUT_SHARE = 0.6  # of the section through the middle of a typical cell, that is flat on a line
SLIVER_SHARE = 0.25  # of the size of a typical cell
FUSED_SHARE = 1.7  # likewise: about what two of them have
CLOSE_DIAMETERS = 0.6  # between the middles of two cells that touch
BAND_DIAMETERS = 0.5  # to both sides of a line, where middles are counted
NARROW_DIAMETERS = 0.125  # likewise, and where cells begin and end
GAP_DIAMETERS = 1.1  # without a cell on a line
REPEAT_PX = 128  # the widest strip that is looked for twice
REPEATED = 0.9  # of the outlines that a strip shares with the one beside it
LEAST_OUTLINES = 8  # that a piece of a line needs to be compared
MARGIN_PX = 256  # is enough, but for cells that are not seen whole in it
EVERY_ROW = 8  # of a plane of a volume, whose outlines are compared


@dataclass(frozen=True)
class SeamCounts:
    """What was counted on pieces of lines.

    Parameters
    ----------
    seam, other : int64 array [len(COUNTS), n]
        A column per piece of a seam, and of a line without a seam.
    """

    seam: NDArray[np.int64]
    other: NDArray[np.int64]

    @staticmethod
    def add(parts: Sequence[SeamCounts]) -> SeamCounts:
        """Return the pieces of several blocks, one after the other.

        Parameters
        ----------
        parts : sequence of SeamCounts
            Of blocks that do not overlap.

        Returns
        -------
        SeamCounts
            All pieces.
        """
        none = np.zeros((len(COUNTS), 0), np.int64)
        return SeamCounts(
            np.concatenate([none, *(part.seam for part in parts)], axis=1),
            np.concatenate([none, *(part.other for part in parts)], axis=1),
        )


def margin_px(typical_px: float) -> int:
    """Return how far beyond a block labels are looked at, to see cells whole.

    Parameters
    ----------
    typical_px : float
        Diameter of a typical cell.

    Returns
    -------
    int
        In px.
    """
    wide, least = math.ceil(3 * typical_px), math.ceil(1.5 * typical_px)
    return max(16, min(wide, MARGIN_PX), least)


def count_lines(
    labels: NDArray[Any],
    *,
    window: Box,
    core: Box,
    lines: Sequence[Lines],
    typical_px: float,
) -> SeamCounts:
    """Count what lies on the lines of a block.

    Parameters
    ----------
    labels : integer array [*window]
        Labels of the block and its margin.
    window, core : Box
        What the array holds, and the block, which counts.
    lines : sequence of Lines
        Of the image, per axis.
    typical_px : float
        Diameter of a typical cell.

    Returns
    -------
    SeamCounts
        A cell belongs to the line that it touches and the piece beside its middle.
    """
    inner = core.relative_to(window.start)
    objects: Objects | None = None
    parts = []
    for axis, known in enumerate(lines):
        here = known.within(max(core.start[axis], 1), core.stop[axis])
        if here.position.size:
            objects = boxes_and_areas(labels) if objects is None else objects
            counter = _Counter(labels, objects, inner, axis, typical_px)
            columns = [counter.line(int(p) - window.start[axis]) for p in here.position]
            for p, column in zip(here.position, columns, strict=True):
                column[0] = p * labels.ndim + axis
            for column, is_seam in zip(columns, here.is_seam, strict=True):
                none = column[:, :0]
                parts.append(SeamCounts(*((column, none) if is_seam else (none, column))))
    return SeamCounts.add(parts)


@dataclass(frozen=True)
class _Counter:
    """Counts on the lines across one axis of a block."""

    labels: NDArray[Any]
    objects: Objects
    inner: Box
    axis: int
    typical_px: float

    @property
    def across(self) -> tuple[int, ...]:
        """The other axes."""
        return tuple(a for a in range(self.labels.ndim) if a != self.axis)

    @property
    def flat(self) -> Box:
        """The block as a line sees it."""
        return Box(
            tuple(self.inner.start[a] for a in self.across),
            tuple(self.inner.stop[a] for a in self.across),
        )

    def line(self, place: int) -> NDArray[np.int64]:
        """Return the counts [len(COUNTS), n_pieces] of the line before a voxel of the window."""
        left, right = self._plane(place - 1), self._plane(place)
        mine = self._rows(place)
        touching, cut, close = self._contacts(left, right)
        start, stop = self.objects.start[:, self.axis], self.objects.stop[:, self.axis]
        ball = math.pi ** (left.ndim / 2 + 0.5) / math.gamma(left.ndim / 2 + 1.5)
        size = self.objects.area / (ball * (self.typical_px / 2) ** (left.ndim + 1))
        thin = touching & (size < SLIVER_SHARE) & ((start == place) | (stop == place))
        fused = touching & (size >= FUSED_SHARE)
        middle = (start + stop) / 2
        bands = [np.abs(middle - place) < BAND_DIAMETERS * self.typical_px]
        narrow = NARROW_DIAMETERS * self.typical_px
        bands += [np.abs(edge - place) < narrow for edge in (middle, start, stop)]
        rows = [
            self._pieces(mine & chosen) for chosen in (touching, cut, thin, fused, close, *bands)
        ]
        cover = [self._sum(np.ones(self.flat.shape, np.int64)) * 2]
        cover.append(self._sum((left > 0)[self.flat.slices].astype(np.int64)
                               + (right > 0)[self.flat.slices]))  # fmt: skip
        gaps = self._gaps((left == 0) & (right == 0))
        which = np.zeros_like(gaps)
        return np.stack([which, *rows, *cover, *self._repeats(place), rows[0] + gaps, gaps])

    def _plane(self, place: int) -> NDArray[Any]:
        return np.ascontiguousarray(np.take(self.labels, place, axis=self.axis))

    def _rows(self, place: int) -> NDArray[np.bool_]:
        """Return the objects whose middle lies beside the block's part of the line."""
        inside = np.ones(len(self.objects.label), bool)
        for axis in self.across:
            twice = self.objects.start[:, axis] + self.objects.stop[:, axis]
            inside &= (twice >= 2 * self.inner.start[axis]) & (twice < 2 * self.inner.stop[axis])
        return inside

    def _contacts(self, left: NDArray[Any], right: NDArray[Any]) -> list[NDArray[np.bool_]]:
        """Return which objects touch a line, end flat on it, or have a neighbour too near."""
        pairs = overlap_pairs(left, right, threads=1)
        differ = pairs.left != pairs.right
        section = self.typical_px if left.ndim == 1 else math.pi / 4 * self.typical_px**2
        flat = differ & (pairs.count >= CUT_SHARE * section)
        both = differ & (pairs.left > 0) & (pairs.right > 0)
        rows = [np.searchsorted(self.objects.label, side) for side in (pairs.left, pairs.right)]
        near = np.zeros_like(both)
        middle = (self.objects.start + self.objects.stop) / 2
        a, b = rows[0][both], rows[1][both]
        apart = np.sqrt(((middle[a] - middle[b]) ** 2).sum(axis=1))
        near[both] = apart < CLOSE_DIAMETERS * self.typical_px
        found = []
        for chosen in (np.ones_like(both), flat, near):
            marked = np.zeros(len(self.objects.label), bool)
            for side, place in zip((pairs.left, pairs.right), rows, strict=True):
                marked[place[chosen & (side > 0)]] = True
            found.append(marked)
        return found

    def _grid(self) -> tuple[int, tuple[int, ...]]:
        edge = SEGMENT_PX[self.labels.ndim]
        return edge, tuple(-(-n // edge) for n in self.flat.shape)

    def _pieces(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count objects per piece of the line."""
        edge, counts = self._grid()
        twice = (self.objects.start + self.objects.stop)[chosen][:, self.across]
        index = (twice - 2 * np.array(self.flat.start)) // (2 * edge)
        return np.bincount(
            np.ravel_multi_index(tuple(index.T), counts), minlength=math.prod(counts)
        ).astype(np.int64)

    def _sum(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Sum up voxels of the block's part of a line per piece; leading axes stay."""
        edge, counts = self._grid()
        lead = values.ndim - len(counts)
        for axis, n in enumerate(self.flat.shape, start=lead):
            values = np.add.reduceat(values, np.arange(0, n, edge), axis=axis, dtype=np.int64)
        return values.reshape(*values.shape[:lead], -1)

    def _gaps(self, empty: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count long runs of background along a line, each for the piece where it begins."""
        rows = empty[self.flat.slices].reshape(-1, self.flat.shape[-1])
        edges = np.diff(np.pad(rows.astype(np.int8), ((0, 0), (1, 1))), axis=1)
        row, first = np.nonzero(edges > 0)
        long = np.nonzero(edges < 0)[1] - first >= GAP_DIAMETERS * self.typical_px
        if self.labels.ndim > 2:  # some rows tell as much as all
            long &= row % EVERY_ROW == 0
        begins = np.zeros(rows.shape, np.uint8)
        begins[row[long], first[long]] = 1
        return self._sum(begins.reshape(self.flat.shape))

    def _repeats(self, place: int) -> list[NDArray[np.int64]]:
        """Return which pieces have outlines to compare, and which see them twice."""
        least = max(6, math.ceil(self.typical_px / 3))
        most = min(REPEAT_PX, place, self.labels.shape[self.axis] - place)
        n_pieces = math.prod(self._grid()[1])
        if most < least:
            return [np.zeros(n_pieces, np.int64)] * 2
        # A strip that is there twice: its first, middle and last line are those of the other.
        shifts = np.arange(least, most + 1)
        outlines = self._outlines(place - most, place + most)
        met = np.zeros((len(shifts), n_pieces), np.int64)
        total = np.zeros_like(met)
        for step in (np.zeros_like(shifts), shifts // 2, shifts - 1):
            one, other = outlines[most + step], outlines[most + step - shifts]
            met += self._sum((one & _widened(other)).view(np.uint8))
            met += self._sum((other & _widened(one)).view(np.uint8))
            total += self._sum(one.view(np.uint8)) + self._sum(other.view(np.uint8))
        enough = total >= 2 * LEAST_OUTLINES
        again = enough & (met >= REPEATED * total)
        return [np.asarray(side.any(axis=0), np.int64) for side in (enough, again)]

    def _outlines(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Return where labels change along the last axis of the planes of the block."""
        where = list(self.inner.slices)
        where[self.axis] = slice(start, stop)
        planes = np.moveaxis(self.labels[tuple(where)], self.axis, 0)
        changed = np.zeros(planes.shape, bool)
        changed[..., 1:] = planes[..., 1:] != planes[..., :-1]
        if planes.ndim > 2:  # some rows tell as much as all
            rows = np.arange(planes.shape[1]) % EVERY_ROW == 0
            changed &= rows[:, None]
        return changed


def _widened(outlines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    wide = outlines.copy()
    wide[..., 1:] |= outlines[..., :-1]
    wide[..., :-1] |= outlines[..., 1:]
    return wide
