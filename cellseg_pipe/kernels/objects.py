"""Lists the objects of a label array with their boxes and areas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_labels, loops

__all__ = ["Objects", "boxes_and_areas", "select"]


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
    ids: NDArray[np.uint32] | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Objects:
    """List the objects of a label array.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 1 to 4 axes.
    ids : uint32 array [n], optional
        Ascending, all that occur and perhaps more, whose area is 0; looked up by default.
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
    backend_loops = loops(backend)
    if ids is None:
        keys, _ = backend_loops.overlap_pairs(labels, labels, threads=threads)
        ids = keys[keys > 0].astype(np.uint32)
    return Objects(ids, *backend_loops.boxes_and_areas(labels, ids, threads=threads))


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
