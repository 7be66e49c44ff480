"""Local normalisation: a small grid of ranges, frozen once, interpolated at global positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box, per_axis
from cellseg_pipe.kernels import resample, source_box
from cellseg_pipe.preprocess.filters import gaussian
from cellseg_pipe.preprocess.ranges import quantiles
from cellseg_pipe.preprocess.sampling import grid_boxes, sample_boxes

__all__ = ["LocalRanges", "local_boxes", "local_ranges"]

SMOOTH_BLOCKS = 1.0  # as the peer: no step where a bright block meets a dark one


@dataclass(frozen=True)
class LocalRanges:
    """The grey values that become 0 and 1, on a grid of blocks over the image.

    Parameters
    ----------
    edge_px : tuple of int
        Edge of a block per axis; its values stand at its centre.
    low : float32 array [n_inputs, *grid]
        What becomes 0.
    contrast : float32 array [n_inputs, *grid]
        What becomes 1, less `low`; 0 throughout an input that is flat, and stays zero.
    """

    edge_px: tuple[int, ...]
    low: NDArray[np.float32]
    contrast: NDArray[np.float32]

    @property
    def flat(self) -> tuple[bool, ...]:
        """Which inputs have no contrast."""
        return tuple(not (part > 0).any() for part in self.contrast)

    def apply(
        self,
        inputs: NDArray[np.float32],
        *,
        origin: Sequence[int],
        invert: bool = False,
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Normalise a part of the image.

        Parameters
        ----------
        inputs : float32 array [n_inputs, *spatial]
            From `gather_channels`.
        origin : sequence of int
            Where in the image the part starts.
        invert : bool
            Turn x into 1 - x: dark cells on bright ground.
        threads : int, optional
            Threads to use; all that the process may use by default.

        Returns
        -------
        float32 array [n_inputs, *spatial]
            (x - low) / contrast, both interpolated linearly between the centres of the blocks.
        """
        box = Box.of(inputs.shape[1:]).shift(origin)
        result = np.zeros(inputs.shape, np.float32)
        for number, flat in enumerate(self.flat):
            if flat:
                continue
            row = result[number]
            np.subtract(inputs[number], self._at(self.low[number], box, threads), out=row)
            row /= self._at(self.contrast[number], box, threads)
            if invert:
                np.subtract(np.float32(1), row, out=row)
        return result

    def _at(
        self, values: NDArray[np.float32], box: Box, threads: int | None
    ) -> NDArray[np.float32]:
        """Return values of the grid at the pixels of a box."""
        shape, one = values.shape, (1,) * box.ndim
        needed = source_box(box, shape=shape, num=self.edge_px, den=one)
        return resample(
            values[(None, *needed.slices)],
            box=box,
            origin=needed.start,
            source_shape=shape,
            num=self.edge_px,
            den=one,
            threads=threads,
        )[0]


def local_boxes(
    shape: Sequence[int], edge_px: int | Sequence[int], *, budget_px: int = 2**16
) -> list[list[Box]]:
    """Return the boxes to sample for each block of the grid.

    Parameters
    ----------
    shape : sequence of int
        Shape of the image.
    edge_px : int or sequence of int
        Edge of a block per axis; the last one of an axis takes what is left over.
    budget_px : int
        Up to how many voxels all of a block is taken; else about a quarter of it is.

    Returns
    -------
    list of list of Box
        One list per block, blocks in C order; these depend on the shape alone.
    """
    return [
        [box.shift(block.start) for box in sample_boxes(block.shape, budget_px=budget_px)]
        for block in grid_boxes(shape, edge_px)
    ]


def local_ranges(
    samples: Iterable[Sequence[NDArray[np.float32]]],
    *,
    shape: Sequence[int],
    edge_px: int | Sequence[int],
    percentiles: tuple[float, float] = (1.0, 99.0),
    min_contrast: float = 0.01,
) -> LocalRanges:
    """Return the grid of ranges from the sampled pixels of each block.

    Parameters
    ----------
    samples : iterable of sequences of float32 array [n_inputs, *spatial]
        For each block, the inputs of its boxes in the order of `local_boxes`; may be lazy.
    shape : sequence of int
        Shape of the image.
    edge_px : int or sequence of int
        Edge of a block per axis.
    percentiles : tuple of float
        From 0 to 100, the lower one first.
    min_contrast : float
        A block with less than this share of the strongest block's contrast holds nothing: it takes
        the values of the nearest block that does.

    Returns
    -------
    LocalRanges
        Small enough to be kept in a plan.
    """
    edges = per_axis(edge_px, len(shape), "edge_px")
    grid = tuple(max(1, n // e) for n, e in zip(shape, edges, strict=True))
    rows = []
    for boxes in samples:
        values = [np.asarray(box, np.float32) for box in boxes]
        inputs = zip(*values, strict=True)
        rows.append(
            [quantiles(np.concatenate([v.ravel() for v in i]), percentiles) for i in inputs]
        )
    ends = np.array(rows, np.float32)  # [blocks, n_inputs, 2]
    if ends.ndim != 3 or len(ends) != np.prod(grid):
        raise ValueError(
            f"local_ranges needs samples of all {int(np.prod(grid))} blocks (a grid of {grid}),"
            f" got {len(rows)}. Sample the boxes of local_boxes."
        )
    low = np.moveaxis(ends[..., 0].reshape(*grid, -1), -1, 0)
    contrast = np.moveaxis((ends[..., 1] - ends[..., 0]).reshape(*grid, -1), -1, 0)
    smooth = [
        _mended(*pair, edge_px=edges, min_contrast=min_contrast)
        for pair in zip(low, contrast, strict=True)
    ]
    return LocalRanges(edges, *(np.stack(part) for part in zip(*smooth, strict=True)))


def _mended(
    low: NDArray[np.float32],
    contrast: NDArray[np.float32],
    *,
    edge_px: Sequence[int],
    min_contrast: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return one input's grids with weak blocks replaced and the rest smoothed."""
    good = (contrast > 0) & (contrast >= np.float32(min_contrast) * contrast.max())
    if not good.any():
        return np.zeros_like(low), np.zeros_like(contrast)
    source = _nearest_good(good, edge_px)
    whole = Box.of(low.shape)
    ends = np.stack([low.ravel()[source], contrast.ravel()[source]])
    ends = gaussian(
        ends, (SMOOTH_BLOCKS,) * low.ndim, box=whole, origin=whole.start, shape=low.shape, threads=1
    )
    return ends[0], ends[1]


def _nearest_good(good: NDArray[np.bool_], edge_px: Sequence[int]) -> NDArray[np.int64]:
    """Return for each block the nearest good one, of equally near ones the first in C order.

    Squared distances are whole numbers and add up axis by axis, so one pass per axis is exact.
    """
    far = np.iinfo(np.int64).max // 2
    distance = np.where(good, np.int64(0), far)
    number = np.where(good, np.arange(good.size).reshape(good.shape), good.size)
    for axis, edge in enumerate(edge_px):
        n = good.shape[axis]
        place = np.arange(n).reshape([-1 if a == axis else 1 for a in range(good.ndim)])
        best, chosen = np.full_like(distance, far), np.full_like(number, good.size)
        for i in range(n):
            here = [slice(i, i + 1) if a == axis else slice(None) for a in range(good.ndim)]
            reached = np.minimum(distance[tuple(here)] + ((place - i) * edge) ** 2, far)
            other = np.broadcast_to(number[tuple(here)], number.shape)
            nearer = (reached < best) | ((reached == best) & (other < chosen))
            best, chosen = np.where(nearer, reached, best), np.where(nearer, other, chosen)
        distance, number = best, chosen
    return number
