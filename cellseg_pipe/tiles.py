"""How an image is cut: blocks, cores, halos, windows, batches, cell numbers. Arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box, ceil_div, per_axis

__all__ = [
    "Grid",
    "Lattice",
    "Tile",
    "TilePlan",
    "block_ranks",
    "equal_batches",
    "first_ids",
    "morton_order",
]

ID_MAX = int(np.iinfo(np.uint32).max)
MORTON_BITS = 63  # what an int64 key can hold


@dataclass(frozen=True)
class Grid:
    """Boxes of one pitch, laid over an image from its origin; those at the far end are cut.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image in voxels.
    pitch : tuple of int
        Edge of a box per axis.
    """

    shape: tuple[int, ...]
    pitch: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the numbers once."""
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "pitch", per_axis(self.pitch, len(self.shape), "pitch"))
        if any(n < 0 for n in self.shape) or any(p < 1 for p in self.pitch):
            raise ValueError(
                f"Grid needs a shape >= 0 and a pitch >= 1, got {self.shape} and {self.pitch}."
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Boxes per axis."""
        return tuple(ceil_div(n, p) for n, p in zip(self.shape, self.pitch, strict=True))

    def __len__(self) -> int:
        """Return how many boxes there are."""
        return math.prod(self.counts)

    def box(self, number: int) -> Box:
        """Return box `number`, counted in C order, cut at the image border."""
        index = self.index(number)
        start = tuple(i * p for i, p in zip(index, self.pitch, strict=True))
        stop = tuple(min(a + p, n) for a, p, n in zip(start, self.pitch, self.shape, strict=True))
        return Box(start, stop)

    def index(self, number: int) -> tuple[int, ...]:
        """Return the position of box `number` along each axis."""
        if not 0 <= number < len(self):
            raise IndexError(f"the grid has boxes 0 to {len(self) - 1}, asked for {number}.")
        index = []
        for count in reversed(self.counts):
            number, position = divmod(number, count)
            index.append(position)
        return tuple(reversed(index))

    def number(self, index: Sequence[int]) -> int:
        """Return the number of the box at a position along each axis."""
        number = 0
        for position, count in zip(index, self.counts, strict=True):
            number = number * count + position
        return number

    def owner(self, point: Sequence[int]) -> int:
        """Return the number of the one box that holds the voxel at `point`."""
        if not Box.of(self.shape).holds(point):
            raise IndexError(f"the image has shape {self.shape}, asked for voxel {tuple(point)}.")
        return self.number(tuple(x // p for x, p in zip(point, self.pitch, strict=True)))

    def owners(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the box that holds each of many voxels [n, ndim] of the image."""
        index = tuple((points // np.asarray(self.pitch)).T)
        return np.ravel_multi_index(index, self.counts).astype(np.int64)

    def over(self, box: Box) -> Iterator[int]:
        """Yield the numbers of the boxes that meet `box`, ascending."""
        wanted = box.clip(Box.of(self.shape))
        return (self.number(index) for index in wanted.cells(self.pitch).points())


@dataclass(frozen=True)
class Lattice:
    """The network's windows: fixed starts in global network coordinates, whoever asks.

    A window starts on each multiple of the stride until the axis is covered. The last one ends with
    the image, but for what the divisor wants: there the border is padded. So a window depends on
    the shape of the image alone, never on a tile.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image on the network's grid.
    window : tuple of int
        Largest edge of a window per axis; 1 on an axis that the network does not see.
    overlap : tuple of int
        Voxels that neighbouring windows share per axis, at most half a window.
    divisor : tuple of int
        What the edge of a window must be a multiple of, for the network's pooling.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    overlap: tuple[int, ...]
    divisor: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the numbers once."""
        ndim = len(self.shape)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        for name in ("window", "overlap", "divisor"):
            object.__setattr__(self, name, per_axis(getattr(self, name), ndim, name))
        for n, window, overlap, divisor in zip(
            self.shape, self.window, self.overlap, self.divisor, strict=True
        ):
            if n < 0 or window < 1 or divisor < 1 or window % divisor:
                raise ValueError(
                    f"Lattice needs windows that are multiples of {divisor} voxels over an axis"
                    f" of 0 or more, got a window of {window} over {n}."
                )
            if not 0 <= 2 * overlap <= window:
                raise ValueError(
                    f"Lattice needs an overlap from 0 to half the window of {window} voxels,"
                    f" got {overlap}. Make the window larger or the overlap smaller."
                )

    @property
    def edge(self) -> tuple[int, ...]:
        """Edge of the largest window per axis."""
        return tuple(
            min(w, max(ceil_div(n, d), 1) * d)
            for n, w, d in zip(self.shape, self.window, self.divisor, strict=True)
        )

    @property
    def stride(self) -> tuple[int, ...]:
        """Distance between window starts per axis."""
        return tuple(w - o for w, o in zip(self.window, self.overlap, strict=True))

    @property
    def counts(self) -> tuple[int, ...]:
        """Windows per axis."""
        return tuple(
            0 if n == 0 else 1 + max(0, ceil_div(n - w, s))
            for n, w, s in zip(self.shape, self.window, self.stride, strict=True)
        )

    def __len__(self) -> int:
        """Return how many windows there are."""
        return math.prod(self.counts)

    def box(self, index: Sequence[int]) -> Box:
        """Return the window at an index; it may reach past the image, never before it."""
        start = tuple(i * s for i, s in zip(index, self.stride, strict=True))
        stop = tuple(
            a + min(w, max(ceil_div(n - a, d), 1) * d)
            for a, n, w, d in zip(start, self.shape, self.window, self.divisor, strict=True)
        )
        return Box(start, stop)

    def size(self, chosen: NDArray[np.bool_]) -> int:
        """Return how many voxels some of the windows have together."""
        last = self.box([n - 1 for n in self.counts]).shape
        sums: NDArray[Any] = chosen  # one entry a window, along each axis
        for n, edge, end in reversed(list(zip(self.counts, self.edge, last, strict=True))):
            edges = np.full(n, edge)
            edges[-1:] = end
            sums = sums @ edges
        return int(sums)

    def over(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Yield the indices of the windows that meet `box`, ascending: the order of blending."""
        wanted = box.clip(Box.of(self.shape))
        if wanted.size == 0:
            return iter(())
        first = tuple(
            max(0, (a - e) // s + 1)
            for a, e, s in zip(wanted.start, self.edge, self.stride, strict=True)
        )
        last = tuple(
            min(c, (b - 1) // s + 1)
            for b, c, s in zip(wanted.stop, self.counts, self.stride, strict=True)
        )
        return Box(first, last).points()


@dataclass(frozen=True)
class Tile:
    """One unit of work: a core that it owns and the region that it must read.

    Parameters
    ----------
    number : int
        Place of the core in the plan's grid of cores.
    core : Box
        Voxels that this tile answers for; the cores of all tiles partition the image.
    outer : Box
        Core and halo, cut at the image border.
    """

    number: int
    core: Box
    outer: Box


@dataclass(frozen=True)
class TilePlan:
    """How one image is cut into tiles.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image in voxels.
    block : tuple of int
        Unit of numbering; fixed for all runs, so that ids depend on nothing else.
    core : tuple of int
        Edge of a core per axis: whole shards.
    halo : tuple of int
        Voxels that a tile reads beyond its core per axis.
    shard : tuple of int, optional
        Edge of a stored shard per axis: whole blocks; one block by default.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]
    core: tuple[int, ...]
    halo: tuple[int, ...]
    shard: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check that cores are whole shards and shards whole blocks."""
        ndim = len(self.shape)
        object.__setattr__(self, "shard", self.shard or self.block)
        for name in ("block", "core", "halo", "shard"):
            object.__setattr__(self, name, per_axis(getattr(self, name), ndim, name))
        if any(h < 0 for h in self.halo):
            raise ValueError(f"TilePlan needs a halo of 0 voxels or more, got {self.halo}.")
        for whole, part in (("shard", "block"), ("core", "shard")):
            edges, unit = getattr(self, whole), getattr(self, part)
            if any(e < 1 or e % u for e, u in zip(edges, unit, strict=True)):
                raise ValueError(
                    f"TilePlan needs a {whole} of whole {part}s of {unit} voxels, got {edges}."
                    f" Choose multiples: two jobs must never write one {part}."
                )

    @cached_property
    def blocks(self) -> Grid:
        """The canonical blocks, in which cells are numbered."""
        return Grid(self.shape, self.block)

    @cached_property
    def shards(self) -> Grid:
        """The shards of the stored labels, each written by one job."""
        return Grid(self.shape, self.shard)

    @cached_property
    def cores(self) -> Grid:
        """The cores, which partition the image."""
        return Grid(self.shape, self.core)

    def __len__(self) -> int:
        """Return how many tiles there are."""
        return len(self.cores)

    def tile(self, number: int) -> Tile:
        """Return tile `number`."""
        core = self.cores.box(number)
        return Tile(number, core, core.grow(self.halo).clip(Box.of(self.shape)))


def morton_order(counts: Sequence[int]) -> NDArray[np.int64]:
    """Return the numbers of a grid's boxes along a Z-order curve.

    Neighbours on the curve are neighbours in space, so a batch reads few halos twice.

    Parameters
    ----------
    counts : sequence of int
        Boxes per axis.

    Returns
    -------
    int64 array [n]
        Each number from 0 to n - 1 once.
    """
    bits = [max(count - 1, 0).bit_length() for count in counts]
    if sum(bits) > MORTON_BITS:
        raise ValueError(f"morton_order needs a grid of at most 2^63 boxes, got {tuple(counts)}.")
    keys = np.zeros(tuple(counts), np.int64)
    place = 0
    for bit in range(max(bits, default=0)):
        for axis in reversed(range(len(counts))):
            if bit < bits[axis]:
                shape = [-1 if a == axis else 1 for a in range(len(counts))]
                digit = (np.arange(counts[axis], dtype=np.int64) >> bit) & 1
                keys += (digit << place).reshape(shape)
                place += 1
    return np.argsort(keys, axis=None, kind="stable").astype(np.int64)


def equal_batches(costs: Sequence[int] | NDArray[np.int64], n_batches: int) -> NDArray[np.int64]:
    """Cut a sequence of costs into runs of nearly equal sums.

    Parameters
    ----------
    costs : int array [n]
        Cost of each item, 0 or more, in the order of the work.
    n_batches : int
        How many runs; some stay empty when there are fewer items.

    Returns
    -------
    int64 array [n]
        Batch of each item, ascending. No batch costs more than its share plus one item.
    """
    costs = np.asarray(costs, np.int64)
    if n_batches < 1 or (costs < 0).any():
        raise ValueError(
            f"equal_batches needs 1 or more batches and costs of 0 or more, got {n_batches}"
            f" batches and a lowest cost of {costs.min(initial=0)}."
        )
    if costs.sum() == 0:
        costs = np.ones_like(costs)
    # An item goes where its middle falls. Doubled and in integers, so it is exact. Items at the end
    # that cost nothing fall on the end of the last batch.
    middles = 2 * np.cumsum(costs) - costs
    total = 2 * int(costs.sum())
    if total * n_batches > np.iinfo(np.int64).max:
        middles = middles.astype(object)
    return np.minimum(np.asarray(middles * n_batches // total, np.int64), n_batches - 1)


def block_ranks(
    peaks: NDArray[np.int64], blocks: Grid
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the block of each peak and its rank among the peaks of that block.

    Parameters
    ----------
    peaks : int64 array [n, ndim]
        Distinct global coordinates; all the peaks of each block that occurs.
    blocks : Grid
        The canonical blocks of the image.

    Returns
    -------
    block : int64 array [n]
        Number of the block that holds each peak.
    rank : int64 array [n]
        Place of each peak in its block by C order of coordinates, from 0.
    """
    peaks = np.asarray(peaks, np.int64).reshape(-1, len(blocks.shape))
    block = blocks.owners(peaks)
    order = np.lexsort((*reversed(peaks.T), block))
    ordered = block[order]
    first = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(peaks), np.int64)
    rank[order] = np.arange(len(peaks)) - first
    return block, rank


def first_ids(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the id of the first cell of each block, from the number of cells in each.

    Parameters
    ----------
    counts : int array [n_blocks]
        Cells whose peak lies in each block.

    Returns
    -------
    int64 array [n_blocks]
        The id of rank 0; ids are 1, 2, 3 ... without a gap over the image.
    """
    counts = np.asarray(counts, np.int64)
    if counts.sum() > ID_MAX:
        raise ValueError(
            f"first_ids needs at most {ID_MAX} cells (uint32 labels), got {int(counts.sum())}."
            " Raise min_size_px or cut the image into regions."
        )
    return 1 + np.cumsum(counts) - counts
