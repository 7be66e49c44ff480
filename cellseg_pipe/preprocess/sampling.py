"""Where statistics are sampled: boxes that depend on the image's shape and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cellseg_pipe.geometry import Box, ceil_div, per_axis

__all__ = ["grid_boxes", "sample_boxes"]

SEED = 0x5EED
SHARE = 4  # an image above the budget is sampled with a quarter of it
WORD = (1 << 64) - 1


def sample_boxes(
    shape: Sequence[int], *, budget_px: int = 2**24, edge_px: int | Sequence[int] | None = None
) -> list[Box]:
    """Return the boxes whose pixels stand for an image: all of it when it is small.

    A larger image is cut into nearly equal regions, of each of which one box of the fixed grid is
    drawn by a hash of the region's number: spread over the image, and no regular lattice that a
    regular specimen could fall in step with.

    Parameters
    ----------
    shape : sequence of int
        Shape of the image.
    budget_px : int
        Up to how many voxels all of the image is taken; else about a quarter of it is.
    edge_px : int or sequence of int, optional
        Edge of a box per axis; 64, and 1 on the first of three axes, by default.

    Returns
    -------
    list of Box
        Disjoint boxes in C order.
    """
    edge = (1,) * (len(shape) - 2) + (64, 64) if edge_px is None else edge_px
    edges = per_axis(edge, len(shape), "edge_px")
    if budget_px < 1 or any(e < 1 for e in edges):
        raise ValueError(
            f"sample_boxes needs a budget and edges of 1 or more, got {budget_px} and {edges}."
        )
    if math.prod(shape) <= budget_px:
        return grid_boxes(shape, edges)
    counts = tuple(max(1, n // e) for n, e in zip(shape, edges, strict=True))
    # The last box of an axis may be longer, and one box is taken in any case.
    wanted = max(1, budget_px // (SHARE * math.prod(edges)))
    strata = _strata(shape, counts, wanted)
    boxes = []
    for number, stratum in enumerate(Box.of(strata).points()):
        index = tuple(
            _drawn(k * c // m, (k + 1) * c // m, number * len(shape) + axis)
            for axis, (k, c, m) in enumerate(zip(stratum, counts, strata, strict=True))
        )
        boxes.append(_grid_box(index, shape, edges))
    return sorted(boxes)


def grid_boxes(shape: Sequence[int], edge_px: int | Sequence[int]) -> list[Box]:
    """Return the boxes of a fixed grid, from the origin, that cover an image.

    Parameters
    ----------
    shape : sequence of int
        Shape of the image.
    edge_px : int or sequence of int
        Edge of a box per axis; the last box of an axis takes what is left over.

    Returns
    -------
    list of Box
        In C order; none for an image without pixels.
    """
    edges = per_axis(edge_px, len(shape), "edge_px")
    if 0 in shape:
        return []
    counts = tuple(max(1, n // e) for n, e in zip(shape, edges, strict=True))
    return [_grid_box(index, shape, edges) for index in Box.of(counts).points()]


def _grid_box(index: Sequence[int], shape: Sequence[int], edges: Sequence[int]) -> Box:
    """Return one box of the grid; the last of an axis ends with it."""
    start = tuple(i * e for i, e in zip(index, edges, strict=True))
    stop = tuple(
        a + e if n - a >= 2 * e else n for a, n, e in zip(start, shape, edges, strict=True)
    )
    return Box(start, stop)


def _strata(shape: Sequence[int], counts: Sequence[int], wanted: int) -> tuple[int, ...]:
    """Return regions per axis, as cubic as can be, at most `wanted` and the grid's boxes."""

    def split(pitch: int) -> tuple[int, ...]:
        return tuple(min(c, ceil_div(n, pitch)) for n, c in zip(shape, counts, strict=True))

    low, high = 0, max(shape)  # a pitch that gives too many, one that gives few enough
    while high - low > 1:
        middle = (low + high) // 2
        if math.prod(split(middle)) > wanted:
            low = middle
        else:
            high = middle
    return split(high)


def _drawn(first: int, last: int, key: int) -> int:
    """Return a number from first to last - 1 by a hash of the key (splitmix64): fixed for ever."""
    mixed = (key * 0x9E3779B97F4A7C15 + SEED) & WORD
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & WORD
    mixed ^= mixed >> 31
    return first + mixed * (last - first) // (WORD + 1)
