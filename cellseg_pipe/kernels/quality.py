"""Judges objects by how well the flow that made them agrees with the flow they would have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_labels, loops
from cellseg_pipe.kernels.flows import FlowMethod, flow_input
from cellseg_pipe.kernels.objects import Objects, boxes_and_areas, check_boxes

__all__ = ["Quality", "flow_quality"]


@dataclass(frozen=True)
class Quality:
    """The flow error of each object, ascending by label.

    Parameters
    ----------
    label : uint32 array [n]
        The objects.
    error : float64 array [n]
        Mean squared distance of two flows over the object's voxels: 0 where they agree, 2 where
        they have nothing to do with each other, 4 where they are opposite.
    """

    label: NDArray[np.uint32]
    error: NDArray[np.float64]


def flow_quality(
    labels: ArrayLike,
    flow: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    objects: Objects | None = None,
    method: FlowMethod = "planes",
    spacing: Sequence[float] | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Quality:
    """Compare a flow with the flow of the objects it led to.

    The error of an object is the mean, over its voxels, of the squared distance between the given
    flow and that of `flows_from_labels`, which is made object by object and never held as a whole.
    In 2D it equals the flow error of Cellpose 3.1, but for up to 4 / area where heat peaks in a
    symmetric object and the flow has no direction; in 3D it is defined in the same way. It depends
    on nothing but the object's own voxels, to the bit.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 2 or 3 axes.
    flow : float array [ndim, *spatial]
        Unit vectors, or what a network gives for them; finite at every object that is asked for.
    ids : integer array [n], optional
        The labels to judge, in any order; all that occur by default.
    objects : Objects, optional
        The objects to judge with their boxes, where those are known already.
    method : {"planes", "diffusion"}
        What flow to compare with in 3D, see `flows_from_labels`.
    spacing : sequence of float, optional
        Edge lengths of a voxel in any unit, equal by default.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Quality
        One row per object, ascending by label.
    """
    labels, spacing = flow_input(labels, method, spacing, name="flow_quality")
    flow = _as_flow(flow, labels.shape)
    if objects is None:
        objects = boxes_and_areas(labels, threads=threads, backend=backend)
    check_boxes(objects, labels.shape, "flow_quality")
    if ids is not None:
        objects = _only(objects, as_labels(ids, "ids"))
    error = loops(backend, threads).flow_quality(
        labels,
        flow,
        objects.label,
        objects.start,
        objects.stop,
        method=method,
        spacing=spacing,
        threads=threads,
    )
    if not np.isfinite(error).all():
        raise ValueError(
            "flow_quality needs a finite flow at every object, got NaN or infinity at label"
            f" {objects.label[~np.isfinite(error)][0]}. Set such voxels to 0, or repeat the step"
            " that made the flow."
        )
    return Quality(objects.label, error)


def _as_flow(flow: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the flow as the loops take it."""
    array = np.asarray(flow)
    if array.dtype.kind != "f":
        raise TypeError(
            f"flow needs an array of floating point numbers (unit vectors), got {array.dtype}."
        )
    if array.shape != (len(shape), *shape):
        raise ValueError(
            f"flow needs the shape {(len(shape), *shape)}, components first, got {array.shape}."
            " Crop both to the same Box first."
        )
    return np.ascontiguousarray(array, np.float32)


def _only(objects: Objects, ids: NDArray[np.uint32]) -> Objects:
    """Return the objects of these labels."""
    wanted = np.unique(ids)
    missing = np.setdiff1d(wanted, objects.label)
    if missing.size:
        raise ValueError(
            f"ids needs labels that occur, got {missing[0]}. Take them from boxes_and_areas."
        )
    rows = np.searchsorted(objects.label, wanted)
    return Objects(wanted, objects.start[rows], objects.stop[rows], objects.area[rows])
