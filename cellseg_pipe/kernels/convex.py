"""How large the convex hulls of objects are, counted in voxels and exactly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_labels, loops
from cellseg_pipe.kernels.contours import directions
from cellseg_pipe.kernels.objects import boxes_and_areas

__all__ = ["Corners", "convex_sizes", "convex_volumes", "plane_hulls"]

# Of the octahedron: its corners, the directions of its sides and of its edges.
FACES = np.concatenate([np.eye(3, dtype=np.int64), -np.eye(3, dtype=np.int64)])
TIPS = np.array(list(itertools.product((-1, 1), repeat=3)))
EDGES = np.array([step for step in directions(3) if np.abs(step).sum() == 2])


@dataclass(frozen=True)
class Corners:
    """Corners of the convex hull of each plane of objects z, y, x.

    Parameters
    ----------
    label : uint32 array [m]
        Whose they are.
    place : int64 array [m, 3]
        Voxels.
    """

    label: NDArray[np.uint32]
    place: NDArray[np.int64]

    @staticmethod
    def add(parts: Sequence[Corners]) -> Corners:
        """Return the corners of several sets of planes.

        Parameters
        ----------
        parts : sequence of Corners
            One or more, without a plane of an object in two of them.

        Returns
        -------
        Corners
            By label, then place.
        """
        label = np.concatenate([part.label for part in parts])
        place = np.concatenate([part.place for part in parts])
        order = np.lexsort((*place.T[::-1], label))
        return Corners(label[order], place[order])

    def only(self, label: NDArray[np.uint32]) -> Corners:
        """Return the corners of some objects.

        Parameters
        ----------
        label : uint32 array [k]
            Theirs.

        Returns
        -------
        Corners
            In the same order.
        """
        mine = np.isin(self.label, label)
        return Corners(self.label[mine], self.place[mine])


def convex_sizes(
    labels: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the pixels of the convex hull of each object of an image.

    The hull is that of the middles of the edges of the object's pixels; a pixel is in it if its
    centre is, or lies on its border.

    Parameters
    ----------
    labels : integer array [y, x]
        Labels of any values with gaps, 0 for background.
    ids : integer array [n], optional
        Objects to measure, ascending; by default all that occur.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    area : int64 array [n]
        Pixels of each hull.
    crossings : int64 array [n, 4]
        Of these pixels what `object_contours` counts along `directions`.
    """
    labels = as_labels(labels, "labels")
    if labels.ndim != 2:
        raise ValueError(
            f"convex_sizes needs a label image of 2 axes, got shape {labels.shape}. Volumes have"
            " plane_hulls and convex_volumes."
        )
    objects = boxes_and_areas(labels, ids=ids, threads=threads, backend=backend)
    sizes = loops(backend, threads).convex_sizes(labels, objects, threads=threads)
    # Any line meets a convex set in one run, so it begins and ends once.
    columns = {(0, 1): 1, (1, 0): 2, (1, 1): 3, (1, -1): 4}
    order = [columns[tuple(step)] for step in directions(2).tolist()]
    return sizes[:, 0], 2 * sizes[:, order]


def plane_hulls(
    labels: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    origin: Sequence[int] = (0, 0, 0),
    threads: int | None = None,
    backend: Backend = "numba",
) -> Corners:
    """Find the corners of the convex hull of each plane of each object.

    Parameters
    ----------
    labels : integer array [z, y, x]
        Labels of any values with gaps, 0 for background.
    ids : integer array [n], optional
        Objects to measure, ascending; by default all that occur.
    origin : sequence of int
        Where the first voxel of `labels` lies in the full image.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Corners
        By label and plane, in full-image voxels.
    """
    labels = as_labels(labels, "labels")
    if labels.ndim != 3:
        raise ValueError(f"plane_hulls needs a volume of 3 axes, got shape {labels.shape}.")
    objects = boxes_and_areas(labels, ids=ids, threads=threads, backend=backend)
    owner, place = loops(backend, threads).plane_hulls(labels, objects, threads=threads)
    return Corners.add([Corners(objects.label[owner], place + np.asarray(origin, np.int64))])


def convex_volumes(
    corners: Corners, label: NDArray[np.uint32], *, backend: Backend = "numba"
) -> NDArray[np.int64]:
    """Count the voxels of the convex hull of each object of a volume.

    The hull is that of the middles of the faces of the object's voxels; a voxel is in it if its
    centre is, or lies on its border. Qhull says which corners are joined; planes through them and
    the count are in integers, so that the order of the corners does not matter.

    Parameters
    ----------
    corners : Corners
        Of all planes of the objects.
    label : uint32 array [n]
        Of which objects, ascending.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    int64 array [n]
        Voxels; none for an object without corners.
    """
    first = np.searchsorted(corners.label, label, "left")
    last = np.searchsorted(corners.label, label, "right")
    count = loops(backend).count_between
    volumes = np.zeros(label.size, np.int64)
    for k in np.flatnonzero(last > first):
        place = corners.place[first[k] : last[k]]
        origin = place.min(axis=0)
        normal, offset = _planes(place - origin, backend)
        volumes[k] = count(
            normal, offset, np.zeros(3, np.int64), np.asarray(place.max(axis=0) - origin + 1)
        )
    return volumes


def _planes(
    place: NDArray[np.int64], backend: Backend
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the planes normal . x <= offset of a hull, in half voxels.

    The middles of a voxel's faces are an octahedron round its centre, so the hull is the sum of two
    convex bodies: its planes are parallel to a side of either, or to an edge of each. To look for
    the centres' hull alone is three times as fast as to look for that of six times the points.
    """
    from scipy.spatial import ConvexHull, QhullError  # here: most jobs do without

    points = 2 * place
    loop = loops(backend).sum_planes
    try:
        hull = ConvexHull(points)
    except QhullError:  # centres in one plane
        points = np.unique((points[:, None] + FACES).reshape(-1, 3), axis=0)
        hull = ConvexHull(points)
        return _unique(loop(points, hull.simplices, hull.neighbors, hull.equations, EDGES[:0]))
    planes = loop(points, hull.simplices, hull.neighbors, hull.equations, EDGES)
    planes[:, 3] += np.abs(planes[:, :3]).max(axis=1)
    tips = np.column_stack([TIPS, (points @ TIPS.T).max(axis=0) + 1])
    return _unique(np.concatenate([planes, tips]))


def _unique(planes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each plane once, without those of triangles that have no area."""
    planes = planes[planes[:, :3].any(axis=1)]
    planes //= np.gcd.reduce(planes, axis=1, keepdims=True)
    planes = planes[np.lexsort(planes.T)]
    planes = planes[np.r_[True, (planes[1:] != planes[:-1]).any(axis=1)]]
    return np.ascontiguousarray(planes[:, :3]), np.ascontiguousarray(planes[:, 3])
