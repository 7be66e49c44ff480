"""Cuts the outlines of cells, plane by plane, out of the part of an image that sees them whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.wkb import Outlines, outlines_of, sort_outlines
from cellseg_pipe.kernels import object_borders
from cellseg_pipe.segmentation.measuring import View

__all__ = ["outlined"]


def outlined(view: View, ids: NDArray[np.uint32]) -> Outlines:
    """Return the outlines of cells.

    Parameters
    ----------
    view : View
        The part of the image.
    ids : uint32 array [n]
        Which cells, ascending.

    Returns
    -------
    Outlines
        Ascending by label, then plane.
    """
    labels, start = view.labels[view.inside.slices], view.inner.start
    planes = labels.reshape(-1, *labels.shape[-2:])
    first = start[0] if labels.ndim == 3 else 0
    parts = []
    for z, plane in enumerate(planes):
        borders = object_borders(plane, ids=ids)
        parts.append(outlines_of(borders, origin=(start[-2], start[-1]), plane=first + z))
    return sort_outlines(parts)
