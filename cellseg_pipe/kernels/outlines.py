"""All borders of the objects of an image, pieces and holes, along the edges of their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_labels, loops
from cellseg_pipe.kernels.objects import boxes_and_areas

__all__ = ["Borders", "object_borders"]


@dataclass(frozen=True)
class Borders:
    """Closed lines, by label, piece of the object, and in a piece the outer one before its holes.

    Parameters
    ----------
    label : uint32 array [n]
        Whose border it is.
    piece : int64 array [n]
        Which of its pieces, from 0: those that faces of pixels join.
    offset : int64 array [n + 1]
        Border k has the vertices offset[k] to offset[k + 1].
    vertex : int32 array [m, 2]
        Corners (y, x); pixel (y, x) spans y to y + 1 and x to x + 1. The last corner joins the
        first, which is not repeated. Outer borders run counter-clockwise in axes x, y, and holes
        clockwise.
    """

    label: NDArray[np.uint32]
    piece: NDArray[np.int64]
    offset: NDArray[np.int64]
    vertex: NDArray[np.int32]


def object_borders(
    labels: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Borders:
    """Trace the border of each piece of each object and of each of its holes.

    Both pieces and holes are what faces of pixels join, so that no border touches itself: the
    pieces of an object are a valid multipolygon.

    Parameters
    ----------
    labels : integer array [y, x]
        Labels of any values with gaps, 0 for background.
    ids : integer array [n], optional
        Objects to trace, ascending; by default all that occur.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Borders
        Without corners on straight lines.
    """
    labels = as_labels(labels, "labels")
    if labels.ndim != 2:
        raise ValueError(
            f"object_borders needs a label image of 2 axes, got shape {labels.shape}. Take one"
            " plane at a time."
        )
    objects = boxes_and_areas(labels, ids=ids, threads=threads, backend=backend)
    run = loops(backend, threads)
    vertex, owner, piece, offset = run.object_borders(labels, objects, threads=threads)
    return Borders(objects.label[owner], piece, offset, vertex)
