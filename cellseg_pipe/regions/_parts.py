"""One box, file of polygons or mask as runs of pixels, each with the number of its region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_RUNS",
    "Outline",
    "Part",
    "box_part",
    "outlines_part",
    "runs_of_rows",
    "spread_part",
]

# Corners are rounded to this, so that what follows is arithmetic of whole numbers: no sum below
# overflows 64 bits for corners up to 2^20 px from the origin, and images end at 523,262 px.
PER_PX = 1024
FARTHEST_PX = 1 << 20
AT_ONCE = 1 << 22  # crossings of edges and rows in memory
MAX_RUNS = 1 << 24  # 340 MB, and about a GB while they are sorted


@dataclass(frozen=True)
class Outline:
    """A region given by rings of corners.

    Parameters
    ----------
    name : str
        What it is called.
    rings : tuple of float array [n, 2]
        Corners y, x in px, outer rings and holes alike: what an odd number of rings goes round is
        inside. The first corner may be repeated at the end.
    """

    name: str
    rings: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Part:
    """Runs of pixels along the last axis, in rows that may be several px thick.

    Parameters
    ----------
    breaks : tuple of int64 array
        For each axis but the last, where rows begin on level 0, and the end of the last one.
    row : int64 array [n]
        Of each run, in C order of the rows; ascending.
    start, stop : int64 array [n]
        Of each run along the last axis, on level 0.
    number : int64 array [n]
        Which name each has, from 0. Where runs overlap the lower one counts.
    names : tuple of str
        Of the regions.
    """

    breaks: tuple[NDArray[np.int64], ...]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    number: NDArray[np.int64]
    names: tuple[str, ...]


def box_part(
    start: Sequence[float], stop: Sequence[float], *, shape: Sequence[int], name: str
) -> Part:
    """Return the pixels whose centres lie in a box: from the start on, before the stop.

    Parameters
    ----------
    start, stop : sequence of float
        Corners in px; of y and x only, they hold for all planes.
    shape : sequence of int
        Of the image.
    name : str
        What it is called.

    Returns
    -------
    Part
        Clipped to the image; without runs if it lies outside.
    """
    lows, highs = [0] * (len(shape) - len(start)), list(shape[: len(shape) - len(start)])
    for low, high, n in zip(start, stop, shape[len(lows) :], strict=True):
        lows.append(min(max(math.ceil(low - 0.5), 0), n))
        highs.append(min(max(math.ceil(high - 0.5), lows[-1]), n))
    empty = any(a >= b for a, b in zip(lows, highs, strict=True))
    breaks = tuple(
        np.array([a, max(b, a + 1)], np.int64) for a, b in zip(lows[:-1], highs[:-1], strict=True)
    )
    one = np.zeros(0 if empty else 1, np.int64)
    return Part(breaks, one, one + lows[-1], one + highs[-1], one, (name,))


def outlines_part(outlines: Sequence[Outline], *, shape: Sequence[int]) -> Part:
    """Return the pixels whose centres lie in outlines; in a volume, of all planes.

    A centre on an edge is inside if the outline goes on towards higher y, or towards higher x where
    the edge is upright: of two outlines that share an edge one has it. Where outlines overlap the
    first has the pixel.

    Parameters
    ----------
    outlines : sequence of Outline
        In px of level 0.
    shape : sequence of int
        Of the image.

    Returns
    -------
    Part
        Clipped to the image; rows are those that any outline meets.
    """
    height, width = shape[-2:]
    edges = [_edges(outline) for outline in outlines]
    number = np.repeat(np.arange(len(edges)), [len(part) for part in edges])
    together = np.concatenate([np.zeros((0, 4), np.int64), *edges])
    found, n = [np.zeros((0, 4), np.int64)], 0
    for low, high in _bands(together, height):
        found.append(_runs(together, number, rows=(low, high), width=width))
        n += len(found[-1])
        if n > MAX_RUNS:
            raise ValueError(
                f"outlines need at most {MAX_RUNS} runs of pixels in an image of {tuple(shape)},"
                " got more. Give a mask of lower resolution instead."
            )
    runs = np.concatenate(found)
    names = tuple(outline.name for outline in outlines)
    low, high = (int(runs[0, 0]), int(runs[-1, 0]) + 1) if len(runs) else (0, 1)
    depth = tuple(np.array([0, z], np.int64) for z in shape[:-2])
    breaks = (*depth, np.arange(low, high + 1, dtype=np.int64))
    row, start, stop, number = (np.ascontiguousarray(column) for column in runs.T)
    return Part(breaks, row - low, start, stop, number, names)


def _bands(edges: NDArray[np.int64], height: int) -> list[tuple[int, int]]:
    """Cut the rows so that not too many crossings are in memory at once."""
    first, stop = _spans(edges, (0, height))
    change = np.bincount(first, minlength=height + 1) - np.bincount(stop, minlength=height + 1)
    band = np.cumsum(np.cumsum(change[:height])) // AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(band)) + 1).tolist(), height]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def _edges(outline: Outline) -> NDArray[np.int64]:
    """Return edges y0, x0, y1, x1 with y0 < y1, in 1/1024 px; level ones cross no row."""
    parts = [np.zeros((0, 4), np.int64)]
    for ring in outline.rings:
        if np.abs(ring).max(initial=0) > FARTHEST_PX:
            raise ValueError(
                f"outlines need corners within {FARTHEST_PX} px, got {np.abs(ring).max():g} in"
                f" {outline.name!r}. Give them in pixels of the full resolution."
            )
        corner = np.rint(np.asarray(ring, np.float64) * PER_PX).astype(np.int64)
        parts.append(np.concatenate([corner, np.roll(corner, -1, axis=0)], axis=1))
    edges = np.concatenate(parts)
    down = edges[:, 0] > edges[:, 2]
    edges[down] = edges[down][:, [2, 3, 0, 1]]
    return edges[edges[:, 0] < edges[:, 2]]


def _spans(
    edges: NDArray[np.int64], rows: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return from which row on and before which one each edge crosses the line of centres."""
    return np.clip(_pixel(edges[:, 0], 1), *rows), np.clip(_pixel(edges[:, 2], 1), *rows)


def _pixel(place: NDArray[np.int64], share: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Return the first pixel whose centre does not lie before place / share (in 1/1024 px)."""
    return -((PER_PX // 2 * share - place) // (PER_PX * share))


def _runs(
    edges: NDArray[np.int64], number: NDArray[np.int64], *, rows: tuple[int, int], width: int
) -> NDArray[np.int64]:
    """Return row, start, stop and number of the runs in some rows."""
    first, stop = _spans(edges, rows)
    here = np.flatnonzero(stop > first)
    count = stop[here] - first[here]
    edge = np.repeat(here, count)
    row = np.arange(edge.size) - np.repeat(np.cumsum(count) - count - first[here], count)
    y0, x0, y1, x1 = edges[edge].T
    rise = y1 - y0
    # Where the edge crosses the line of centres, times the rise: whole numbers, nothing is rounded.
    crossing = x0 * rise + (x1 - x0) * (row * PER_PX + PER_PX // 2 - y0)
    column = np.clip(_pixel(crossing, rise), 0, width)
    # An outline crosses each row an even number of times, so sorted crossings are pairs.
    n_outlines = int(number.max(initial=0)) + 1
    key = np.sort(((row - rows[0]) * n_outlines + number[edge]) * (width + 1) + column)
    line, column = np.divmod(key.reshape(-1, 2), width + 1)
    row, own = np.divmod(line[:, 0], n_outlines)
    runs = np.stack([row + rows[0], column[:, 0], column[:, 1], own], axis=1)
    return runs[runs[:, 1] < runs[:, 2]]


def runs_of_rows(
    pixels: NDArray[np.generic],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.generic]]:
    """Return the runs of equal values in rows of pixels.

    Parameters
    ----------
    pixels : array [rows, width]
        Any values; 0 for none.

    Returns
    -------
    row, start, stop : int64 array [n]
        In C order.
    value : array [n]
        Of each run.
    """
    width = pixels.shape[1]
    flat = pixels.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.union1d(changes, np.arange(0, flat.size, width))
    stops = np.append(starts[1:], flat.size)
    value = flat[starts]
    there = value != 0
    starts, stops, value = starts[there], stops[there], value[there]
    row = starts // width
    return row, starts - row * width, stops - row * width, value


def spread_part(part: Part, *, own_shape: Sequence[int], shape: Sequence[int]) -> Part:
    """Spread runs on a grid of another resolution over the image: each pixel takes the nearest.

    Parameters
    ----------
    part : Part
        In px of its own grid; its breaks are not looked at.
    own_shape : sequence of int
        Of its grid; without a z axis it holds for all planes.
    shape : sequence of int
        Of the image, whose field of view the grid has.

    Returns
    -------
    Part
        On level 0.
    """
    depth = tuple(np.array([0, z], np.int64) for z in shape[: len(shape) - len(own_shape)])
    lines = [_first_px(m, n) for m, n in zip(own_shape, shape[len(depth) :], strict=True)]
    start, stop = lines[-1][part.start], lines[-1][part.stop]
    seen = start < stop
    return Part(
        (*depth, *lines[:-1]),
        part.row[seen],
        start[seen],
        stop[seen],
        part.number[seen],
        part.names,
    )


def _first_px(count: int, n: int) -> NDArray[np.int64]:
    """Return the first of n pixels whose centre lies in each of `count` cells, and n."""
    cell = np.arange(count + 1, dtype=np.int64)
    return -((count - 2 * n * cell) // (2 * count))
