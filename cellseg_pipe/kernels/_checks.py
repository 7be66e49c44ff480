"""What every public kernel asks of its arrays, with one wording of each error."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Backend = Literal["numba"]
LABEL_MAX = int(np.iinfo(np.uint32).max)


def loops(backend: Backend) -> ModuleType:
    """Return the module that holds the loops of a backend.

    Parameters
    ----------
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    module
        Functions of the same names in every backend.
    """
    if backend not in get_args(Backend):
        known = ", ".join(get_args(Backend))
        raise ValueError(f"backend needs to be one of {known}, got {backend!r}.")
    return importlib.import_module(f"cellseg_pipe.kernels._{backend}")


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
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"{name} needs an array of integers (uint32 labels, 0 = background), got"
            f" {labels.dtype}. Label the objects of a mask first, or cast on purpose."
        )
    if labels.ndim == 0:
        raise ValueError(f"{name} needs an array of 1 or more axes, got a single number.")
    if labels.dtype != np.uint32 and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > LABEL_MAX:
            raise ValueError(
                f"{name} needs labels from 0 to {LABEL_MAX}, got {low} to {high}."
                " Renumber them first."
            )
    return np.ascontiguousarray(labels, np.uint32).reshape(labels.shape)


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
