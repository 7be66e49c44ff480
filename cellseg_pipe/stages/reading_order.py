"""In which order windows ask for an image, so that little is read or restored twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.nets.windows import View
from cellseg_pipe.restoration import RestorePlan
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.stored import window_keys

__all__ = ["behind_each_other", "in_reading_order", "keys_in_reading_order"]


def keys_in_reading_order(
    keys: Sequence[int],
    *,
    plan: Plan,
    restoring: RestorePlan | None,
    chunk: Sequence[int] | None,
) -> list[int]:
    """Return the windows of a batch in the order in which least is read or restored twice.

    Before the batch is opened: it puts last what has ended an attempt, and that stays so.

    Parameters
    ----------
    keys : sequence of int
        See `window_keys`; neighbours after each other.
    plan : Plan
        Of the image.
    restoring : RestorePlan or None
        What restores it.
    chunk : sequence of int or None
        What of the image is decoded as one; None where windows do not share it.

    Returns
    -------
    list of int
        The same keys.
    """
    every, found = np.asarray(keys, np.int64), list[int]()
    for view, first in window_keys(plan):
        places = every[(every >= first) & (every < first + len(view.lattice))] - first
        if restoring is not None:
            places = in_reading_order(view, places, plan=plan, restoring=restoring)
        elif chunk is not None:
            places = behind_each_other(view, places, chunk=chunk)
        found += (first + places).tolist()
    return found


def behind_each_other(
    view: View, places: NDArray[np.int64], *, chunk: Sequence[int]
) -> NDArray[np.int64]:
    """Return windows that are one voxel thick in columns, so that `Slabs` decodes chunks once.

    Parameters
    ----------
    view : View
        The windows' side.
    places : int64 array [n]
        Their numbers in C order, neighbours after each other.
    chunk : sequence of int
        What of the image is decoded as one.

    Returns
    -------
    int64 array [n]
        The same numbers; in their order where chunks are as thin as the windows, or these are not.
    """
    counts = view.lattice.counts
    thin = [axis for axis in range(len(counts)) if axis not in view.axes]
    if all(chunk[axis] == 1 for axis in thin):
        return places
    index = np.unravel_index(places, counts)
    # The last key counts first.
    return places[np.lexsort([index[axis] for axis in (*thin, *view.axes)])]


def in_reading_order(
    view: View, places: NDArray[np.int64], *, plan: Plan, restoring: RestorePlan
) -> NDArray[np.int64]:
    """Return windows in the order in which what restores runs least often.

    It sees planes. A network that looks at a volume from the side, or at cubes, has windows that
    ask for a part of many planes: those that lie in one window of each plane follow each other.

    Parameters
    ----------
    view : View
        The windows' side.
    places : int64 array [n]
        Their numbers in C order, neighbours after each other.
    plan : Plan
        Of the image.
    restoring : RestorePlan
        What restores it.

    Returns
    -------
    int64 array [n]
        The same numbers.
    """
    if not restoring.views or view.axes == restoring.views[0].axes:
        return places
    planes, step = restoring.views[0].axes, restoring.views[0].lattice.stride
    index = np.unravel_index(places, view.lattice.counts)
    pitch = view.lattice.stride / np.asarray(plan.scale.factors) * restoring.scale.factors
    blocks = [(index[axis] * pitch[axis] // step[axis]).astype(np.int64) for axis in planes]
    seen = [index[axis] for axis in planes if axis in view.axes]
    thin = [index[axis] for axis in planes if axis not in view.axes]
    depth = [index[axis] for axis in range(len(index)) if axis not in planes]
    # The last key counts first.
    return places[np.lexsort([*thin, *seen[::-1], *blocks[::-1], *depth])]
