"""What every public kernel asks of its arrays, with one wording of each error."""

from __future__ import annotations

import importlib
import operator
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Backend = Literal["numba"]
LABEL_MAX = int(np.iinfo(np.uint32).max)


def loops(backend: Backend, threads: int | None = None) -> ModuleType:
    """Return the module that holds the loops of a backend; refuse a wrong number of threads.

    Parameters
    ----------
    backend : {"numba"}
        Which implementation runs.
    threads : int, optional
        Threads that it is to use.

    Returns
    -------
    module
        Functions of the same names in every backend.
    """
    if backend not in get_args(Backend):
        known = ", ".join(get_args(Backend))
        raise ValueError(f"backend needs to be one of {known}, got {backend!r}.")
    if threads is not None:
        as_count(threads, "threads", least=1)
    return importlib.import_module(f"cellseg_pipe.kernels._{backend}")


def as_count(value: Any, name: str, *, least: int = 0) -> int:
    """Return a whole number, refusing others and those that are too small.

    Parameters
    ----------
    value : int
        The setting.
    name : str
        What it is, for the error message.
    least : int
        The smallest that will do.

    Returns
    -------
    int
        The number.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} needs a whole number, got {value!r}.") from None
    if number < least:
        raise ValueError(f"{name} needs a whole number of {least} or more, got {number}.")
    return number


def as_labels(array: ArrayLike, name: str) -> NDArray[np.uint32]:
    """Return a label array as C-contiguous uint32, refusing what would not fit.

    Parameters
    ----------
    array : array of any integer type
        Labels, 0 for background.
    name : str
        What the array is, for the error message.

    Returns
    -------
    uint32 array [*spatial]
        The same labels; the same memory where it already fits.
    """
    labels = np.asarray(array)
    if labels.size == 0:  # an empty list is an array of floats
        return np.empty(labels.shape, np.uint32)
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"{name} needs an array of integers (uint32 labels, 0 = background), got"
            f" {labels.dtype}. Label the objects of a mask first, or cast on purpose."
        )
    if labels.ndim == 0:
        raise ValueError(f"{name} needs an array of 1 or more axes, got a single number.")
    if labels.dtype != np.uint32:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > LABEL_MAX:
            raise ValueError(
                f"{name} needs labels from 0 to {LABEL_MAX}, got {low} to {high}."
                " Renumber them first."
            )
    return np.ascontiguousarray(labels, np.uint32).reshape(labels.shape)


def as_ids(array: ArrayLike) -> NDArray[np.uint32]:
    """Return a list of labels, refusing one that does not ascend.

    Parameters
    ----------
    array : integer array [n]
        Labels, each once and without 0.

    Returns
    -------
    uint32 array [n]
        The same labels.
    """
    ids = as_labels(array, "ids")
    if ids.ndim != 1 or (ids[1:] <= ids[:-1]).any() or (ids[:1] == 0).any():
        raise ValueError("ids needs ascending labels, each once and without 0. Sort them first.")
    return ids


def same_shape(left: Any, right: Any, names: str) -> None:
    """Refuse two arrays that do not show one region.

    Parameters
    ----------
    left, right : array
        The two views.
    names : str
        What needs them, for the error message.
    """
    if left.shape != right.shape:
        raise ValueError(
            f"{names} needs two views of one region, got shapes {left.shape} and {right.shape}."
            " Crop both to the same Box first."
        )


def as_flow(
    flow: ArrayLike, foreground: ArrayLike, name: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a flow and its foreground as contiguous arrays, refusing what does not fit.

    Parameters
    ----------
    flow : float array [ndim, *spatial]
        One component per spatial axis, of which there are 2 or 3.
    foreground : bool array [*spatial]
        Where the flow is read.
    name : str
        What needs them, for the error message.

    Returns
    -------
    flow : float32 array [ndim, *spatial]
        The flow.
    foreground : bool array [*spatial]
        The foreground.
    """
    vectors, mask = np.asarray(flow), np.asarray(foreground)
    if mask.dtype != bool or vectors.dtype.kind != "f":
        raise TypeError(
            f"{name} needs a flow of floats and a foreground of bool, got {vectors.dtype} and"
            f" {mask.dtype}. Compare the logit with a threshold first."
        )
    if mask.ndim not in (2, 3) or vectors.shape != (mask.ndim, *mask.shape):
        raise ValueError(
            f"{name} needs a flow [ndim, *spatial] over 2 or 3 axes, got shapes {vectors.shape}"
            f" and {mask.shape} for flow and foreground."
        )
    return np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(mask)
