"""Which windows, tiles and boxes one job works on. Arithmetic only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.scope import windows_needed
from cellseg_pipe.tiles import equal_batches, morton_order

__all__ = ["batch_of", "window_batch", "window_batches"]


def batch_of(
    keys: NDArray[np.int64],
    number: int,
    n_batches: int,
    *,
    costs: NDArray[np.bool_] | None = None,
) -> list[int]:
    """Return the keys of one of several batches of equal size.

    Parameters
    ----------
    keys : int64 array [n]
        All keys, in the order of the work.
    number, n_batches : int
        Which batch, of how many.
    costs : bool array [n], optional
        Which keys are work; all by default.

    Returns
    -------
    list of int
        Its keys; none if there are fewer keys than batches.
    """
    work = np.ones(len(keys), int) if costs is None else costs.astype(int)
    return keys[equal_batches(work, n_batches) == number].tolist()


def window_batch(plan: Plan, number: int, n_batches: int) -> list[int]:
    """Return the keys of the windows of a batch.

    Parameters
    ----------
    plan : Plan
        Of the image.
    number, n_batches : int
        Which batch, of how many.

    Returns
    -------
    list of int
        Keys, see `window_keys`; neighbours after each other.
    """
    order, costs = _windows_in_order(plan)
    return batch_of(order, number, n_batches, costs=costs)


def window_batches(plan: Plan, n_batches: int) -> NDArray[np.int64]:
    """Return the batch of each window, so that a reader of few opens few files.

    Parameters
    ----------
    plan : Plan
        Of the image.
    n_batches : int
        Of the stage `predict`.

    Returns
    -------
    int64 array [n_windows]
        By key, see `window_keys`.
    """
    order, costs = _windows_in_order(plan)
    batches = np.empty(len(order), np.int64)
    batches[order] = equal_batches(costs.astype(int), n_batches)
    return batches


def _windows_in_order(plan: Plan) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return keys, neighbours after each other, and which of them are work."""
    parts, costs, first = [], [], 0
    for view in plan.views:
        order = morton_order(view.lattice.counts)
        parts.append(first + order)
        costs.append(windows_needed(plan, view).ravel()[order])
        first += len(view.lattice)
    return np.concatenate(parts), np.concatenate(costs)
