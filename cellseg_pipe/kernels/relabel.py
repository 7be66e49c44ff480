"""Exchanges the values of a label array."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_labels, loops

__all__ = ["relabel"]


def relabel(
    labels: ArrayLike,
    old: ArrayLike,
    new: ArrayLike,
    *,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.uint32]:
    """Exchange label values; labels that are not listed become background.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels, 0 for background.
    old : integer array [n]
        Values to exchange, in any order, each once. Background stays background.
    new : integer array [n]
        The value that each becomes.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    uint32 array [*spatial]
        A new array.
    """
    labels, old, new = as_labels(labels, "labels"), as_labels(old, "old"), as_labels(new, "new")
    if old.ndim != 1 or old.shape != new.shape:
        raise ValueError(
            f"relabel needs one new value per old one, got shapes {old.shape} and {new.shape}."
        )
    order = np.argsort(old, kind="stable")
    old, new = old[order], new[order]
    if (old[1:] == old[:-1]).any():
        twice = old[1:][old[1:] == old[:-1]][0]
        raise ValueError(f"relabel needs each old value once, got {twice} twice.")
    return loops(backend, threads).relabel(labels, old, new, threads=threads)
