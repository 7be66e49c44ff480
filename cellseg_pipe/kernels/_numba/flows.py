"""Numba loops that give each object the flow up its own heat."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._average import LANES
from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._threads import available_threads, spread
from cellseg_pipe.kernels._numba.heat import (
    add_plane_gradient,
    heat_plane,
    padded,
    spread_volume,
    write_volume_gradient,
)

RANGES_PER_THREAD = 8
LINE_BYTES = 64
CANCELLED = 1e-6  # what is left of parts of length one is rounding error, without a direction

OBJECTS = (
    const(types.uint32),  # labels
    types.UniTuple(types.int64, 3),  # shape, 1 plane in 2D
    const(types.uint32),  # ids
    const(types.int64, 2),  # start
    const(types.int64, 2),  # stop
    types.UniTuple(types.float64, 3),  # spacing
)


@helper
def plane_flow(labels, value, base, size, step, spacing, weight, rows, columns, target, to, work):
    """Add the flow of one object's section with a plane; `work` is scratch.

    The plane's part inside the object's box has `size` rows and columns, `step` apart in labels
    and `to` apart in the components `rows` and `columns`.
    """
    top, left = size
    bottom, right, area = 0, 0, 0
    for y in range(size[0]):
        for x in range(size[1]):
            if labels[base + y * step[0] + x * step[1]] == value:
                top, bottom = min(top, y), max(bottom, y + 1)
                left, right = min(left, x), max(right, x + 1)
                area += 1
    if area < 2:
        return
    base += top * step[0] + left * step[1]
    target += top * to[0] + left * to[1]
    inside = (bottom - top, right - left)
    width = padded(inside[1])
    n = (inside[0] + 2) * width
    finest = min(spacing)
    scale = (spacing[0] / finest, spacing[1] / finest)
    middle = (3 * scale[0] ** 2 - 2, 3 * scale[1] ** 2 - 2)
    steps = 2 * int(np.ceil(inside[0] * scale[0] + inside[1] * scale[1]) + 4)
    share = work[0][:n]
    part = 1 / ((2 + middle[0]) * (2 + middle[1]))
    share[:] = 0
    sum_y, sum_x = 0, 0
    for y in range(inside[0]):
        for x in range(inside[1]):
            if labels[base + y * step[0] + x * step[1]] == value:
                share[(y + 1) * width + x] = part
                sum_y += y
                sum_x += x
    centre = nearest_in_plane(share, width, inside, (sum_y, sum_x), area, scale)
    heat = heat_plane(share, width, centre, steps, middle, work[1:])
    add_plane_gradient(heat, share, width, inside, scale, weight, rows, columns, target, to)


@helper
def nearest_in_plane(share, width, size, sums, area, scale):
    """Return the object's pixel nearest to its mean, of equal ones the first in C order."""
    # ceil(mean - 1/2) along each axis, in whole numbers: the lower one of two equally near
    y, x = (2 * sums[0] + area - 1) // (2 * area), (2 * sums[1] + area - 1) // (2 * area)
    centre = (y + 1) * width + x
    if share[centre] > 0:  # as in nearly all objects
        return centre
    nearest = np.inf
    for y in range(size[0]):
        for x in range(size[1]):
            i = (y + 1) * width + x
            if share[i] > 0:  # area * distance^2 to the mean, in whole numbers, less a constant
                far = scale[0] ** 2 * (area * y * y - 2 * sums[0] * y)
                far += scale[1] ** 2 * (area * x * x - 2 * sums[1] * x)
                if far < nearest:
                    nearest, centre = far, i
    return centre


@helper
def planes_field(labels, shape, value, start, stop, spacing, field, work):
    """Write an object's flow over its box: one set of planes in 2D, the mean of three in 3D."""
    ndim = field.shape[0]
    extent = (stop[0] - start[0], stop[1] - start[1], stop[2] - start[2])
    strides = (shape[1] * shape[2], shape[2], 1)
    steps = (extent[1] * extent[2], extent[2], 1)
    corner = start[0] * strides[0] + start[1] * strides[1] + start[2]
    volume = extent[0] * steps[0]
    field[:, :volume] = 0
    for normal in range(1 if ndim == 2 else 3):
        row = 1 if normal == 0 else 0
        column = 1 if normal == 2 else 2
        for k in range(extent[normal]):
            plane_flow(
                labels,
                value,
                corner + k * strides[normal],
                (extent[row], extent[column]),
                (strides[row], strides[column]),
                (spacing[row], spacing[column]),
                1.0 if ndim == 2 else 0.5,
                field[row + ndim - 3],
                field[column + ndim - 3],
                k * steps[normal],
                (steps[row], steps[column]),
                work,
            )
    if ndim == 3:
        normalise(field, volume)


@helper
def normalise(field, volume):
    """Give every vector the length one, but 0 where the planes' parts cancel."""
    for i in range(volume):
        z, y, x = np.float64(field[0, i]), np.float64(field[1, i]), np.float64(field[2, i])
        length = np.sqrt(z * z + y * y + x * x)
        if length > CANCELLED:
            field[0, i], field[1, i], field[2, i] = z / length, y / length, x / length
        else:
            field[:, i] = 0


@helper
def diffusion_field(labels, shape, value, start, stop, spacing, field, work):
    """Write an object's flow over its box, from heat that spreads in all directions."""
    extent = (stop[0] - start[0], stop[1] - start[1], stop[2] - start[2])
    row = extent[2] + 1
    plane = (extent[1] + 1) * row
    n = (extent[0] + 2) * plane + 1
    finest = min(spacing)
    scale = (spacing[0] / finest, spacing[1] / finest, spacing[2] / finest)
    weights = (scale[0] ** -2, scale[1] ** -2, scale[2] ** -2)
    reach = extent[0] * scale[0] + extent[1] * scale[1] + extent[2] * scale[2]
    steps = 6 * int(np.ceil(reach) + 3)
    part = 1 / (1 + 2 * (weights[0] + weights[1] + weights[2]))
    heat, share, other = work[0][:n], work[1][:n], work[2][:n]
    heat[:] = 0
    other[:] = 0
    share[:] = 0
    area, sum_z, sum_y, sum_x = 0, 0, 0, 0
    for z in range(extent[0]):
        for y in range(extent[1]):
            base = ((start[0] + z) * shape[1] + start[1] + y) * shape[2] + start[2]
            for x in range(extent[2]):
                if labels[base + x] == value:
                    share[(z + 1) * plane + (y + 1) * row + x + 1] = part
                    area += 1
                    sum_z += z
                    sum_y += y
                    sum_x += x
    nearest, centre = np.inf, 0
    for z in range(extent[0]):
        for y in range(extent[1]):
            for x in range(extent[2]):
                i = (z + 1) * plane + (y + 1) * row + x + 1
                if share[i] > 0:
                    far = scale[0] ** 2 * (area * z * z - 2 * sum_z * z)
                    far += scale[1] ** 2 * (area * y * y - 2 * sum_y * y)
                    far += scale[2] ** 2 * (area * x * x - 2 * sum_x * x)
                    if far < nearest:
                        nearest, centre = far, i
    pitch = (plane, row)
    spread_volume(heat, other, share, pitch, centre, steps, weights)
    write_volume_gradient(heat, share, pitch, extent, scale, field)


@helper
def scratch(start, stop, ndim):
    """Return room for the largest of the objects: its field, and heat, share and the like."""
    voxels, plane, volume = 0, 0, 0
    for k in range(start.shape[0]):
        d, h, w = stop[k, 0] - start[k, 0], stop[k, 1] - start[k, 1], stop[k, 2] - start[k, 2]
        voxels = max(voxels, d * h * w)
        plane = max(plane, (h + 2) * padded(w), (d + 2) * padded(w), (d + 2) * padded(h))
        volume = max(volume, (d + 2) * (h + 1) * (w + 1))
    n = max(plane, volume + 1)
    exact = (aligned(n, np.float64), aligned(n, np.float64), aligned(n, np.float64))
    fast = (aligned(plane, np.float32), aligned(plane, np.float32), aligned(plane, np.float32))
    return np.empty((ndim, voxels), np.float32), exact + fast


@helper
def aligned(size, dtype):
    """Return room that begins with a cache line: vectors across two lines take twice as long."""
    room = np.empty(size + LANES, dtype)
    line = LINE_BYTES // room.itemsize
    skip = (-(room.ctypes.data // room.itemsize)) % line
    return room[skip : skip + size]


@helper
def copy_field(labels, shape, value, start, stop, field, flow):
    """Copy an object's voxels from the field over its box to the flow of the whole array."""
    for c in range(flow.shape[0]):
        ours, target, j = field[c], flow[c], 0
        for z in range(start[0], stop[0]):
            for y in range(start[1], stop[1]):
                base = (z * shape[1] + y) * shape[2]
                for x in range(base + start[2], base + stop[2]):
                    if labels[x] == value:
                        target[x] = ours[j]
                    j += 1


@loop((*OBJECTS, out(types.float32, 2)))
def paint_planes(labels, shape, ids, start, stop, spacing, flow):
    """Write the flow of each object, from planes."""
    field, work = scratch(start, stop, flow.shape[0])
    for k in range(ids.size):
        planes_field(labels, shape, ids[k], start[k], stop[k], spacing, field, work)
        copy_field(labels, shape, ids[k], start[k], stop[k], field, flow)
    return 0


@loop((*OBJECTS, out(types.float32, 2)))
def paint_diffusion(labels, shape, ids, start, stop, spacing, flow):
    """Write the flow of each object, from heat in three dimensions."""
    field, work = scratch(start, stop, 3)
    for k in range(ids.size):
        diffusion_field(labels, shape, ids[k], start[k], stop[k], spacing, field, work)
        copy_field(labels, shape, ids[k], start[k], stop[k], field, flow)
    return 0


def flows_from_labels(labels, ids, start, stop, *, method, spacing, threads):
    """Return the flow of the objects `ids`, which have these boxes."""
    flow = np.zeros((labels.ndim, *labels.shape), np.float32)
    over_objects(
        paint_diffusion if method == "diffusion" and labels.ndim == 3 else paint_planes,
        (labels, ids, start, stop, spacing),
        lambda first, last: (flow.reshape(labels.ndim, -1),),
        threads=threads,
    )
    return flow


def over_objects(run, objects, extra, *, threads):
    """Call a loop on ranges of objects that cost about the same; a 2D array is one plane.

    `objects` is (labels, ids, start, stop, spacing), and `extra(first, last)` gives a range's
    further arguments. The cost of an object is its box times the steps, which grow as its sides.
    """
    labels, ids, start, stop, spacing = objects
    shape = (1,) * (3 - labels.ndim) + labels.shape
    sides = stop - start
    work = np.cumsum(np.prod(sides, axis=1, dtype=np.float64) * sides.sum(axis=1))
    workers = threads or available_threads()
    parts = 1 if workers == 1 else RANGES_PER_THREAD * workers
    goals = np.arange(1, parts) * (work[-1] / parts if work.size else 0.0)
    edges = np.unique(np.r_[0, np.searchsorted(work, goals), ids.size])
    pad = ((0, 0), (3 - labels.ndim, 0))
    start = np.pad(start, pad)
    stop = np.pad(stop, pad, constant_values=1)
    spacing = (1.0,) * (3 - labels.ndim) + spacing
    flat = labels.ravel()

    def part(first, last):
        boxes = ids[first:last], start[first:last], stop[first:last]
        run(flat, shape, *boxes, spacing, *extra(first, last))

    spread(
        part,
        [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)],
        threads=threads,
    )
