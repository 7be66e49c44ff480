"""Which voxels each synthetic cell owns, decided from its neighbours alone: arithmetic only."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth._cells import Cells, draw_cells
from cellseg_pipe.synth._random import reach_px

if TYPE_CHECKING:
    from cellseg_pipe.synth._spec import Spec

__all__ = ["OwnedCell", "owned_cells"]

DEEP = 0.75  # a centre this near the centre of a larger cell (1 = its edge) is dropped
MIN_SHARE, MIN_PX = 0.3, 12  # a cell cut by its neighbours below this share is dropped
MIN_NUCLEUS_SHARE = {"nuclei": 0.0, "cells": 0.8}  # likewise for what is left of its nucleus
FACES = {ndim: ndimage.generate_binary_structure(ndim, 1) for ndim in (2, 3)}


@dataclass(frozen=True)
class OwnedCell:
    """One cell in its bounding box, after its neighbours took their part.

    Parameters
    ----------
    id : int
        Id in copy 0 of the period; without meaning for cells that do not reach the image.
    source, target : tuples of slice
        What part of the arrays below lies in the box asked for, and where in that box.
    brightness : float
        Light, median 1.
    lit : bool array
        Its voxels, those outside the image included.
    truth, nucleus_truth : bool arrays
        Its voxels in the image, in one piece; those of its nucleus.
    distance, nucleus_distance : float32 arrays
        0 at the centre, 1 at the edge it has without neighbours.
    rim : float32 array
        Distance to the edge that it has, in the same unit; positive inside.
    """

    id: int
    source: tuple[slice, ...]
    target: tuple[slice, ...]
    brightness: float
    lit: np.ndarray
    truth: np.ndarray
    nucleus_truth: np.ndarray
    distance: np.ndarray
    nucleus_distance: np.ndarray
    rim: np.ndarray


def owned_cells(spec: Spec, box: Box) -> Iterator[OwnedCell]:
    """Yield the cells that meet a box, the same from whatever box they are seen.

    Parameters
    ----------
    spec : Spec
        The image.
    box : Box
        Where, in voxels of the full image; may reach over its borders.

    Yields
    ------
    OwnedCell
        In order of lattice sites.
    """
    cells = _drop_deep(spec, draw_cells(spec, box))
    start, stop = cells.start, cells.stop
    first, second = _neighbours(spec, cells, 2 * reach_px(spec))
    low = np.maximum(start[first], start[second])
    high = np.minimum(stop[first], stop[second])
    wanted = np.all((start < box.stop) & (stop > box.start), axis=1)
    contest = np.all(low < high, axis=1) & wanted[first]
    first, second, low, high = (item[contest] for item in (first, second, low, high))
    own, other = _slices(low, high, start[first]), _slices(low, high, start[second])
    rivals = second.tolist()
    bounds = np.searchsorted(first, np.arange(len(start) + 1))
    measure = functools.cache(functools.partial(_measure, spec, cells))
    for row in np.flatnonzero(wanted).tolist():
        rival = np.ones_like(measure(row)[0])
        for n in range(bounds[row], bounds[row + 1]):
            near = rival[own[n]]
            np.minimum(near, measure(rivals[n])[0][other[n]], out=near)
        cell = _settle(spec, cells.take(row), box, near=measure(row), rival=rival)
        if cell is not None:
            yield cell


def _drop_deep(spec: Spec, cells: Cells) -> Cells:
    """Drop cells whose centre lies deep in a larger one, be that one dropped itself or not."""
    large, small = _neighbours(spec, cells, reach_px(spec))
    gap_px = cells.anchor[small] - cells.anchor[large] + cells.fraction[small]
    gap_px = (gap_px - cells.fraction[large]) * spec.step_px
    depth = np.linalg.norm(np.einsum("nij,nj->ni", cells.forms[large, : spec.ndim], gap_px), axis=1)
    deep = (depth < DEEP) & (cells.radius_px[large] > cells.radius_px[small])
    keep = np.ones(len(cells.ids), bool)
    keep[small[deep]] = False
    return cells.take(keep)


def _neighbours(spec: Spec, cells: Cells, distance_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Return both orders of each pair of cells whose centres are this near, first cell sorted."""
    centres = (cells.anchor + cells.fraction) * spec.step_px
    pairs = cKDTree(centres).query_pairs(distance_px, output_type="ndarray")
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.lexsort((second, first))
    return first[order], second[order]


def _slices(low: np.ndarray, high: np.ndarray, origin: np.ndarray) -> list[tuple[slice, ...]]:
    begins, ends = (low - origin).tolist(), (high - origin).tolist()
    return [tuple(map(slice, a, b)) for a, b in zip(begins, ends, strict=True)]


def _measure(spec: Spec, cells: Cells, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the voxels of a cell's box lie from the centres of the cell and its nucleus.

    Offsets count from the whole part of the centre, as small numbers in each copy of a period, and
    the box is always measured whole: so float32 gives the same bits from wherever it is seen.
    """
    column = (slice(None), *[None] * spec.ndim)
    corner = cells.start[row] - cells.anchor[row] - cells.fraction[row]
    extent = (cells.stop[row] - cells.start[row]).tolist()
    position: np.ndarray | float = 0.0  # [2 ndim, *box]: unit coordinates, then phases of waves
    for axis, (n, first, step) in enumerate(zip(extent, corner, spec.step_px, strict=True)):
        offset_px = ((np.arange(n) + first) * step).astype(np.float32)
        line = cells.forms[row, :, axis, None] * offset_px
        position = position + np.expand_dims(line, [1 + a for a in range(spec.ndim) if a != axis])
    unit, phases = np.split(np.asarray(position), 2)
    unit += np.float32(spec.roughness) * np.sin(phases + cells.phase[row][column])
    distance = np.sqrt((unit * unit).sum(0))
    if spec.kind == "nuclei":
        return distance, distance
    inner = (unit - cells.nucleus[row][column]) * cells.roundness[row][column]
    return distance, np.sqrt((inner * inner).sum(0)) / np.float32(spec.nucleus_ratio)


def _settle(
    spec: Spec, cell: Cells, box: Box, *, near: tuple[np.ndarray, np.ndarray], rival: np.ndarray
) -> OwnedCell | None:
    """Give a cell the voxels that are nearer to it than to any rival, or drop it."""
    distance, nucleus_distance = near
    lit = distance < rival
    if np.count_nonzero(lit) < max(MIN_PX, MIN_SHARE * np.count_nonzero(distance < 1)):
        return None
    nucleus = nucleus_distance < 1
    if np.count_nonzero(lit & nucleus) < MIN_NUCLEUS_SHARE[spec.kind] * np.count_nonzero(nucleus):
        return None
    start, stop = cell.start.tolist(), cell.stop.tolist()
    image = Box(start, stop) if spec.period_px else Box.of(spec.shape)
    inside = _overlap(start, stop, image, origin=start)
    truth = np.zeros_like(lit)
    truth[inside] = lit[inside] = _largest_piece(lit[inside])
    return OwnedCell(
        id=int(cell.ids) % 2**32,
        source=_overlap(start, stop, box, origin=start),
        target=_overlap(start, stop, box, origin=box.start),
        brightness=float(cell.brightness),
        lit=lit,
        truth=truth,
        nucleus_truth=truth if spec.kind == "nuclei" else _largest_piece(truth & nucleus),
        distance=distance,
        nucleus_distance=nucleus_distance,
        rim=rival - distance,
    )


def _overlap(
    start: Sequence[int], stop: Sequence[int], frame: Box, *, origin: Sequence[int]
) -> tuple[slice, ...]:
    """Slices of what two boxes share, as Box.clip would give them at ten times the cost."""
    ends = zip(start, stop, frame.start, frame.stop, origin, strict=True)
    return tuple(slice(max(a, c) - o, max(a, c, min(b, d)) - o) for a, b, c, d, o in ends)


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    """Keep the largest face-connected piece, the first of equals; nothing if it is tiny."""
    pieces, n_pieces = ndimage.label(mask, FACES[mask.ndim])
    counts = np.bincount(pieces.ravel())[1:]
    if n_pieces == 0 or counts.max() < MIN_PX:
        return np.zeros_like(mask)
    return pieces == counts.argmax() + 1
