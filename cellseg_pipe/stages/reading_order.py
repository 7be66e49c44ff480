"""In which order windows ask for an image that is restored where it is read. Arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.nets.windows import View
from cellseg_pipe.restoration import RestorePlan
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.stored import window_keys

__all__ = ["in_reading_order", "keys_in_reading_order"]


def keys_in_reading_order(
    keys: Sequence[int], *, plan: Plan, restoring: RestorePlan | None
) -> list[int]:
    """Return the windows of a batch in the order in which what restores runs least often.

    Before the batch is opened: it puts last what has ended an attempt, and that stays so.

    Parameters
    ----------
    keys : sequence of int
        See `window_keys`; neighbours after each other.
    plan : Plan
        Of the image.
    restoring : RestorePlan or None
        What restores it.

    Returns
    -------
    list of int
        The same keys.
    """
    if restoring is None:
        return list(keys)
    every, found = np.asarray(keys, np.int64), list[int]()
    for view, first in window_keys(plan):
        places = every[(every >= first) & (every < first + len(view.lattice))] - first
        ordered = in_reading_order(view, places, plan=plan, restoring=restoring)
        found += (first + ordered).tolist()
    return found


def in_reading_order(
    view: View, places: NDArray[np.int64], *, plan: Plan, restoring: RestorePlan | None
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
    restoring : RestorePlan or None
        What restores it.

    Returns
    -------
    int64 array [n]
        The same numbers.
    """
    if restoring is None or not restoring.views or view.axes == restoring.views[0].axes:
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
