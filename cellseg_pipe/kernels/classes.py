"""From the output of a network that tells interior, boundary and background apart to cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_count, loops
from cellseg_pipe.kernels.objects import boxes_and_areas
from cellseg_pipe.kernels.relabel import relabel

__all__ = ["masks_from_classes"]


def masks_from_classes(
    scores: ArrayLike,
    *,
    min_size_px: int = 15,
    growth_px: int = 2,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.uint32]:
    """Return the cells that a network with outputs interior, boundary, background describes.

    Connected interiors are the cells; each grows over the boundary next to it, one pixel at a
    time. A pixel that several cells reach at once joins the neighbour with the greatest interior
    score, of equal ones the first in C order. So a window gives a cell as the whole does if it
    holds all of its interior and those of its neighbours.

    Parameters
    ----------
    scores : float array [3, *spatial]
        Interior, boundary, background, in this order: the largest decides. A pixel without a
        single largest score is background.
    min_size_px : int
        Smallest interior that counts as a cell.
    growth_px : int
        How far cells grow over the boundary.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    uint32 array [*spatial]
        Ids from 1 in C order of the cells' first interior pixels, 0 for background.
    """
    from scipy import ndimage

    outputs = np.asarray(scores)
    if outputs.dtype.kind != "f" or outputs.ndim not in (3, 4) or outputs.shape[0] != 3:
        raise ValueError(
            "masks_from_classes needs floats [3, *spatial] (interior, boundary, background), got"
            f" {outputs.dtype} of shape {outputs.shape}."
        )
    if np.isnan(outputs).any():
        raise ValueError(
            "masks_from_classes needs scores without NaN, got some. The network's output is"
            " damaged."
        )
    as_count(min_size_px, "min_size_px")
    as_count(growth_px, "growth_px")
    loops(backend, threads)
    interior, boundary, background = outputs
    pieces = ndimage.label(interior > np.maximum(boundary, background))[0].astype(np.uint32)
    objects = boxes_and_areas(pieces, threads=threads, backend=backend)
    kept = objects.label[objects.area >= min_size_px]
    labels = relabel(pieces, kept, np.arange(1, kept.size + 1), threads=threads, backend=backend)
    open_to_growth = boundary > np.maximum(interior, background)
    for _ in range(growth_px):
        labels = _grown(labels, interior, open_to_growth)
    return labels


def _grown(
    labels: NDArray[np.uint32], interior: NDArray[np.floating], open_to_growth: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Let cells take the open pixels beside them."""
    fresh = open_to_growth & (labels == 0)
    padded = np.pad(labels, 1)
    score = np.pad(interior, 1)
    best = np.full(labels.shape, -np.inf, interior.dtype)
    grown = labels.copy()
    # The first in C order lies before the pixel along the first axis; what is not greater is later.
    places = [(axis, -1) for axis in range(labels.ndim)]
    places += [(axis, 1) for axis in reversed(range(labels.ndim))]
    for axis, step in places:
        beside = tuple(
            slice(1 + step * (k == axis), 1 + step * (k == axis) + n)
            for k, n in enumerate(labels.shape)
        )
        owner, height = padded[beside], score[beside]
        better = fresh & (owner > 0) & ((height > best) | (grown == 0))
        grown[better] = owner[better]
        best[better] = height[better]
    return grown
