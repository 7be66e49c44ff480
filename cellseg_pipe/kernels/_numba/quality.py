"""Numba loops that compare a flow with the flow of the objects it led to."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba.flows import (
    OBJECTS,
    diffusion_field,
    over_objects,
    planes_field,
    scratch,
)


@helper
def mean_error(labels, shape, value, start, stop, field, flow):
    """Return the mean squared distance of field and flow at an object's voxels."""
    total, area = 0.0, 0
    for c in range(flow.shape[0]):  # one after the other: contiguous, and few sums in a chain
        ours, given = field[c], flow[c]
        squares, area, j = 0.0, 0, 0
        for z in range(start[0], stop[0]):
            for y in range(start[1], stop[1]):
                base = (z * shape[1] + y) * shape[2]
                for x in range(base + start[2], base + stop[2]):
                    if labels[x] == value:
                        area += 1
                        apart = np.float64(ours[j]) - np.float64(given[x])
                        squares += apart * apart
                    j += 1
        total += squares
    return total / area


@loop((*OBJECTS, const(types.float32, 2), out(types.float64)))
def planes_error(labels, shape, ids, start, stop, spacing, flow, error):
    """Write each object's error against its flow from planes."""
    field, runs, work = scratch(start, stop, flow.shape[0])
    for k in range(ids.size):
        planes_field(labels, shape, ids[k], start[k], stop[k], spacing, field, runs, work)
        error[k] = mean_error(labels, shape, ids[k], start[k], stop[k], field, flow)
    return 0


@loop((*OBJECTS, const(types.float32, 2), out(types.float64)))
def diffusion_error(labels, shape, ids, start, stop, spacing, flow, error):
    """Write each object's error against its flow from heat in three dimensions."""
    field, runs, work = scratch(start, stop, 3)
    for k in range(ids.size):
        diffusion_field(labels, shape, ids[k], start[k], stop[k], spacing, field, runs, work)
        error[k] = mean_error(labels, shape, ids[k], start[k], stop[k], field, flow)
    return 0


def flow_quality(labels, flow, ids, start, stop, *, method, spacing, threads):
    """Return the error of each of the objects `ids`, which have these boxes."""
    error = np.zeros(ids.size)
    flat = flow.reshape(labels.ndim, -1)
    over_objects(
        diffusion_error if method == "diffusion" and labels.ndim == 3 else planes_error,
        (labels, ids, start, stop, spacing),
        lambda first, last: (flat, error[first:last]),
        threads=threads,
    )
    return error
