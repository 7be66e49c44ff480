"""Length, surface and connectedness of the borders of objects, from counts at voxels' corners."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_labels, loops
from cellseg_pipe.kernels.objects import boxes_and_areas
from cellseg_pipe.kernels.tally import Tally

__all__ = ["crofton", "crofton_weights", "directions", "object_contours"]


def object_contours(
    labels: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Tally:
    """Count along how many lines of voxels objects begin or end, and their Euler number.

    Counted are the corners inside the array, not those on its faces: blocks that share a layer of
    voxels add up to the whole, which needs a frame of background.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 2 or 3 axes.
    ids : integer array [n], optional
        Objects to count, ascending; by default all that occur.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Tally
        int64: a column for each of `directions`, of the neighbours along it of which one is the
        object's and the other is not; then the Euler number (pieces joined by faces, edges or
        corners, less tunnels, plus enclosed voids; in 2D pieces less holes).
    """
    labels = as_labels(labels, "labels")
    if labels.ndim not in (2, 3):
        raise ValueError(f"object_contours needs 2 or 3 axes, got shape {labels.shape}.")
    objects = boxes_and_areas(labels, ids=ids, threads=threads, backend=backend)
    run = loops(backend, threads)
    table = _corner_table(labels.ndim)
    return Tally(objects.label, run.object_contours(labels, objects, table, threads=threads))


def directions(ndim: int) -> NDArray[np.int64]:
    """Return the directions along which lines of voxels are looked at.

    Parameters
    ----------
    ndim : int
        Number of axes.

    Returns
    -------
    int64 array [4 or 13, ndim]
        Steps to neighbours over faces, edges and corners, one of each two that are opposite.
    """
    steps = itertools.product((-1, 0, 1), repeat=ndim)
    return np.array([step for step in steps if step > (0,) * ndim])


@functools.cache
def _corner_table(ndim: int) -> NDArray[np.int64]:
    """Return what a corner counts for, for each set of voxels round it.

    A pair of neighbours, and a face, edge or corner of voxels, is met at several corners: the last
    one counts.
    """
    offsets = list(itertools.product((0, 1), repeat=ndim))
    codes = np.arange(1 << len(offsets))
    there = {}
    for number, at in enumerate(sorted(offsets, key=lambda at: at[-1])):  # as the loop's bits
        there[at] = (codes >> number & 1).astype(bool)
    columns = []
    for step in directions(ndim):
        one = tuple(0 if s > 0 else 1 for s in step)
        other = tuple(0 if s < 0 else 1 for s in step)
        columns.append(there[one] != there[other])
    euler = np.zeros(codes.size, np.int64)
    for kept in offsets:
        at_all = [there[at] for at in offsets if all(a >= k for a, k in zip(at, kept, strict=True))]
        euler += (-1) ** sum(kept) * np.logical_or.reduce(at_all)
    return np.ascontiguousarray(np.column_stack([*columns, euler]), np.int64)


def crofton(crossings: NDArray[np.int64], proportions: Sequence[float]) -> NDArray[np.float64]:
    """Return the lengths, or the areas in 3D, of borders by Crofton's formula.

    Parameters
    ----------
    crossings : int64 array [n, 4 or 13]
        Along each of `directions`.
    proportions : sequence of float
        Edges of a voxel.

    Returns
    -------
    float64 array [n]
        Perimeters or surfaces, in the unit of the edges.
    """
    weights = crofton_weights(tuple(proportions))
    # One product after the other: a matrix product may add in another order for other shapes.
    total = np.zeros(len(crossings))
    for column, weight in zip(crossings.T, weights, strict=True):
        total += column * weight
    return total


@functools.cache
def crofton_weights(proportions: tuple[float, ...]) -> NDArray[np.float64]:
    """Return what a crossing along each of `directions` counts for.

    Parameters
    ----------
    proportions : tuple of float
        Edges of a voxel along 2 or 3 axes.

    Returns
    -------
    float64 array [4 or 13]
        Share of the directions that are nearest to it, times the distance of its lines.
    """
    ndim = len(proportions)
    steps = directions(ndim) * np.asarray(proportions)
    length = np.linalg.norm(steps, axis=1)
    share = (_arcs if ndim == 2 else _caps)(steps / length[:, None])
    # The mean over all directions of crossings per area (length) across, by Cauchy and Crofton.
    return (math.pi / 2 if ndim == 2 else 2.0) * share * math.prod(proportions) / length


def _arcs(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the half circle that is nearest to each direction."""
    angle = np.arctan2(unit[:, 0], unit[:, 1]) % math.pi
    order = np.argsort(angle)
    gap = np.diff(angle[order], append=angle[order[0]] + math.pi)
    share = np.empty(len(unit))
    share[order] = (gap + np.roll(gap, 1)) / (2 * math.pi)
    return share


def _caps(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the sphere that is nearest to each direction or its opposite."""
    from scipy.spatial import SphericalVoronoi  # here: most jobs do without

    areas = SphericalVoronoi(np.concatenate([unit, -unit])).calculate_areas()
    return np.asarray(2 * areas[: len(unit)] / areas.sum())
