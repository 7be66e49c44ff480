"""Holes, outlines, sizes and numbering of the objects of a label array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_labels, loops
from cellseg_pipe.kernels.objects import Objects, boxes_and_areas, check_boxes
from cellseg_pipe.kernels.relabel import relabel

__all__ = [
    "Polygons",
    "border_objects",
    "fill_holes",
    "hole_claims",
    "outline_pixels",
    "outline_polygons",
    "remove_small",
    "renumber",
]


@dataclass(frozen=True)
class Polygons:
    """One polygon per object, ascending by label.

    Parameters
    ----------
    label : uint32 array [n]
        Labels that occur.
    offset : int64 array [n + 1]
        Polygon k has the vertices offset[k] to offset[k + 1].
    vertex : int32 array [m, 2]
        Corners (y, x); pixel (y, x) spans y to y + 1 and x to x + 1, so its centre is half a
        pixel further. The last corner joins the first, which is not repeated.
    """

    label: NDArray[np.uint32]
    offset: NDArray[np.int64]
    vertex: NDArray[np.int32]


def fill_holes(
    labels: ArrayLike,
    *,
    order: ArrayLike | None = None,
    objects: Objects | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.uint32]:
    """Give each object the background that it encloses.

    Enclosed is what face neighbours do not join to the outside of the object's box: holes in
    2D, voids in 3D. Other objects in a hole stay as they are. Background enclosed by several
    objects goes to the one of smallest area before filling, then of smallest `order`, so that
    neither numbering nor tiles matter. Time grows with the summed size of the objects' boxes.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 1 to 4 axes.
    order : integer array [n], optional
        Rank of each object among those of equal area, objects ascending by label; by default
        the label itself.
    objects : Objects, optional
        The objects of the array, where they are known already: saves a pass over it.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    uint32 array [*spatial]
        A new array.
    """
    labels = as_labels(labels, "labels")
    if objects is None:
        objects = boxes_and_areas(labels, threads=threads, backend=backend)
    check_boxes(objects, labels.shape, "fill_holes")
    ties = objects.label if order is None else np.asarray(order)
    if ties.shape != objects.label.shape:
        raise ValueError(
            f"fill_holes needs an order for each of the {objects.label.size} objects, got shape"
            f" {ties.shape}. List one number per label that occurs, ascending by label."
        )
    rank = np.lexsort((objects.label, ties, objects.area))
    return loops(backend, threads).fill_holes(labels, objects, rank, threads=threads)


def hole_claims(
    labels: ArrayLike,
    *,
    order: ArrayLike | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """List the background that `fill_holes` would give away.

    Of the claimants in several tiles that overlap, the best is the best of each tile's best. Only
    owned cells may be passed: one that the window cuts encloses less in it than in the image.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 1 to 4 axes.
    order : integer array [n], optional
        As in `fill_holes`.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    index : int64 array [n]
        C-order indices of the voxels, ascending.
    label : uint32 array [n]
        The object that takes each.
    """
    labels = as_labels(labels, "labels")
    filled = fill_holes(labels, order=order, threads=threads, backend=backend)
    index = np.flatnonzero(filled != labels)
    return index, filled.ravel()[index]


def remove_small(
    labels: ArrayLike,
    *,
    min_size_px: int,
    max_size_px: int | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.uint32]:
    """Remove objects outside of a range of areas; the others keep their labels.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 1 to 4 axes.
    min_size_px : int
        Smallest area (volume in 3D) that stays.
    max_size_px : int, optional
        Largest area that stays; no limit by default.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    uint32 array [*spatial]
        A new array.
    """
    labels = as_labels(labels, "labels")
    objects = boxes_and_areas(labels, threads=threads, backend=backend)
    stays = objects.area >= min_size_px
    if max_size_px is not None:
        stays &= objects.area <= max_size_px
    kept = objects.label[stays]
    return relabel(labels, kept, kept, threads=threads, backend=backend)


def border_objects(
    labels: ArrayLike, *, faces: Sequence[tuple[bool, bool]] | None = None
) -> NDArray[np.uint32]:
    """List the objects that touch the border of the array.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels, 0 for background.
    faces : sequence of (bool, bool), optional
        Whether the first and the last face of each axis count; all do by default. A window inside
        an image names the faces that cut it out.

    Returns
    -------
    uint32 array [n]
        Labels, ascending.
    """
    labels = as_labels(labels, "labels")
    chosen = [(True, True)] * labels.ndim if faces is None else list(faces)
    if len(chosen) != labels.ndim or any(len(pair) != 2 for pair in chosen):
        raise ValueError(
            f"border_objects needs (first, last) for each of {labels.ndim} axes, got {faces}."
        )
    touched = [np.empty(0, np.uint32)]
    for axis, (first, last) in enumerate(chosen):
        if labels.shape[axis]:
            touched += [np.unique(labels.take(0, axis))] if first else []
            touched += [np.unique(labels.take(-1, axis))] if last else []
    found = np.unique(np.concatenate(touched))
    return found[found > 0]


def renumber(
    labels: ArrayLike,
    *,
    order: ArrayLike | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Give the objects the numbers 1 to n.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 1 to 4 axes.
    order : integer array [n], optional
        The labels that occur, in the order of their new numbers; ascending by default.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    labels : uint32 array [*spatial]
        A new array.
    old : uint32 array [n]
        The former label of 1, 2, and so on.
    """
    labels = as_labels(labels, "labels")
    present = boxes_and_areas(labels, threads=threads, backend=backend).label
    old = present if order is None else as_labels(order, "order")
    if not np.array_equal(np.sort(old, axis=None), present) or old.ndim != 1:
        raise ValueError(
            f"renumber needs an order of exactly the {present.size} labels that occur, each once,"
            f" got {old.size} numbers that differ from them."
        )
    new = np.arange(1, old.size + 1, dtype=np.uint32)
    return relabel(labels, old, new, threads=threads, backend=backend), old


def outline_pixels(
    labels: ArrayLike, *, threads: int | None = None, backend: Backend = "numba"
) -> NDArray[np.bool_]:
    """Mark the voxels of objects that border on the outside.

    Such a voxel has a face neighbour that is neither the object nor enclosed by it; what is
    beyond the array is outside.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 1 to 4 axes.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    bool array [*spatial]
        True on outlines.
    """
    labels = as_labels(labels, "labels")
    objects = boxes_and_areas(labels, threads=threads, backend=backend)
    return loops(backend, threads).outline_pixels(labels, objects, threads=threads)


def outline_polygons(
    labels: ArrayLike, *, threads: int | None = None, backend: Backend = "numba"
) -> Polygons:
    """Trace the outer boundary of each object along the edges of its pixels.

    What an object encloses counts as inside. Pieces that meet only at corners are apart, which
    keeps each polygon simple (it never touches itself); the largest piece is traced, of equal
    ones the first. A polygon starts at the upper left corner of the piece's first pixel and runs
    counter-clockwise in axes x, y: its shoelace sum of (x, y) is the area of the filled piece.

    Parameters
    ----------
    labels : integer array [y, x]
        Labels of any values with gaps, 0 for background.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Polygons
        One per object, without corners on straight lines.
    """
    labels = as_labels(labels, "labels")
    if labels.ndim != 2:
        raise ValueError(
            f"outline_polygons needs a label image of 2 axes, got shape {labels.shape}."
            " Take one plane at a time."
        )
    objects = boxes_and_areas(labels, threads=threads, backend=backend)
    trace = loops(backend, threads).outline_polygons
    vertices, offsets = trace(labels, objects, threads=threads)
    return Polygons(objects.label, offsets, vertices)
