"""Lists the objects of a label array with their boxes, areas and diameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_ids, as_labels, loops

__all__ = ["Objects", "boxes_and_areas", "check_boxes", "diameter_px", "select"]


@dataclass(frozen=True)
class Objects:
    """The objects of one label array, ascending by label.

    Parameters
    ----------
    label : uint32 array [n]
        Values that occur, without background.
    start, stop : int64 array [n, ndim]
        Half-open box of each object, in voxels of the array.
    area : int64 array [n]
        Voxels of each object; its volume in 3D.
    """

    label: NDArray[np.uint32]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    area: NDArray[np.int64]


def boxes_and_areas(
    labels: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Objects:
    """List the objects of a label array.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 1 to 4 axes.
    ids : uint32 array [n], optional
        Labels to list, ascending, those that do not occur with area 0; by default all that occur.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Objects
        One row per label that occurs, or per given id.
    """
    labels = as_labels(labels, "labels")
    if labels.ndim > 4:
        raise ValueError(f"boxes_and_areas needs 1 to 4 axes, got shape {labels.shape}.")
    backend_loops = loops(backend, threads)
    if ids is None:
        keys, _ = backend_loops.overlap_pairs(labels, labels, threads=threads)
        ids = keys[keys > 0].astype(np.uint32)
    ids = as_ids(ids)
    return Objects(ids, *backend_loops.boxes_and_areas(labels, ids, threads=threads))


def check_boxes(objects: Objects, shape: tuple[int, ...], name: str) -> None:
    """Refuse objects that cannot be those of an array, before a loop reads beyond it.

    Parameters
    ----------
    objects : Objects
        The objects with their boxes.
    shape : tuple of int
        Of the array.
    name : str
        What needs them, for the error message.
    """
    start, stop = objects.start, objects.stop
    if not objects.label.shape == objects.area.shape == start.shape[:1] or not (
        start.shape == stop.shape == (objects.label.size, len(shape))
        and (start >= 0).all()
        and (start < stop).all()
        and (stop <= shape).all()
    ):
        raise ValueError(
            f"{name} needs objects of the array of shape {shape}, got some with boxes beyond it,"
            " without area or of other axes. Take them from boxes_and_areas of the same array."
        )


def select(objects: Objects, keep: NDArray[np.bool_]) -> Objects:
    """Return some of the objects.

    Parameters
    ----------
    objects : Objects
        All of them.
    keep : bool array [n]
        Which ones.

    Returns
    -------
    Objects
        Those, in the same order.
    """
    return Objects(objects.label[keep], objects.start[keep], objects.stop[keep], objects.area[keep])


def diameter_px(areas: ArrayLike, ndim: int) -> NDArray[np.float64]:
    """Return the diameters of discs or balls that are as large as the objects.

    Parameters
    ----------
    areas : array [n]
        Voxels of each object.
    ndim : int
        Number of axes: 2 sqrt(area / pi) for 2, the cube root of 6 volume / pi for 3.

    Returns
    -------
    float64 array [n]
        Diameters.
    """
    if ndim < 1:
        raise ValueError(f"diameter_px needs 1 or more axes, got {ndim}.")
    unit_ball = math.pi ** (ndim / 2) / math.gamma(ndim / 2 + 1)
    return 2 * (np.asarray(areas, np.float64) / unit_ball) ** (1 / ndim)
