"""Numba loops that give each object the flow up its own heat."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._average import LANES
from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._threads import spread
from cellseg_pipe.kernels._numba.heat import (
    add_plane_gradient,
    heat_plane,
    padded,
    spread_volume,
    write_volume_gradient,
)
from cellseg_pipe.kernels._numba.pieces import (
    FIRST,
    ROW,
    STOP,
    keep_piece,
    list_section,
    list_volume,
    middle_of_section,
    middle_of_volume,
    span_of,
)
from cellseg_pipe.machine import available_threads

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
def plane_flow(
    labels, value, base, size, step, spacing, weight, rows, columns, target, to, runs, work
):
    """Add the flow of one object's section with a plane; `runs` and `work` are scratch.

    The plane's part inside the object's box has `size` rows and columns, `step` apart in labels
    and `to` apart in the components `rows` and `columns`. Heat is kept in the box of the piece
    that it spreads over, so that a stray pixel far away costs steps only.
    """
    n = list_section(labels, value, base, size, step, runs)
    if n == 0:
        return
    finest = min(spacing)
    scale = (spacing[0] / finest, spacing[1] / finest)
    _, left, right, _ = span_of(runs, n)
    height = runs[n - 1, ROW] + 1 - runs[0, ROW]
    steps = 2 * int(np.ceil(height * scale[0] + (right - left) * scale[1]) + 4)
    run, column = middle_of_section(runs, n, scale)
    row = runs[run, ROW]
    n = keep_piece(runs, n, run)
    area, left, right, _ = span_of(runs, n)
    if area < 2:
        return
    top = runs[0, ROW]
    inside = (runs[n - 1, ROW] + 1 - top, right - left)
    width = padded(inside[1])
    middle = (3 * scale[0] ** 2 - 2, 3 * scale[1] ** 2 - 2)
    share = work[0][: (inside[0] + 2) * width]
    part = 1 / ((2 + middle[0]) * (2 + middle[1]))
    share[:] = 0
    for k in range(n):
        at = (runs[k, ROW] - top + 1) * width - left
        share[at + runs[k, FIRST] : at + runs[k, STOP]] = part
    centre = (row - top + 1) * width + column - left
    heat = heat_plane(share, width, centre, steps, middle, work[1:])
    target += top * to[0] + left * to[1]
    add_plane_gradient(heat, share, width, inside, scale, weight, rows, columns, target, to)


@helper
def planes_field(labels, shape, value, start, stop, spacing, field, runs, work):
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
                runs,
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
def diffusion_field(labels, shape, value, start, stop, spacing, field, runs, work):
    """Write an object's flow over its box, from heat that spreads in all directions."""
    extent = (stop[0] - start[0], stop[1] - start[1], stop[2] - start[2])
    field[:, : extent[0] * extent[1] * extent[2]] = 0
    first = np.empty(extent[0] * extent[1] + 1, np.int64)
    n = list_volume(labels, shape, value, start, extent, runs, first)
    if n == 0:
        return
    finest = min(spacing)
    scale = (spacing[0] / finest, spacing[1] / finest, spacing[2] / finest)
    weights = (scale[0] ** -2, scale[1] ** -2, scale[2] ** -2)
    reach = extent[0] * scale[0] + extent[1] * scale[1] + extent[2] * scale[2]
    steps = 6 * int(np.ceil(reach) + 3)
    part = 1 / (1 + 2 * (weights[0] + weights[1] + weights[2]))
    height = extent[1]
    run, column = middle_of_volume(runs, n, height, scale)
    middle_z, middle_y = runs[run, ROW] // height, runs[run, ROW] % height
    n = keep_piece(runs, n, run)
    _, left, right, _ = span_of(runs, n)
    front, back = runs[0, ROW] // height, runs[n - 1, ROW] // height + 1
    top, bottom = height, 0
    for k in range(n):
        y = runs[k, ROW] % height
        top, bottom = min(top, y), max(bottom, y + 1)
    inside = (back - front, bottom - top, right - left)
    row = inside[2] + 1
    plane = (inside[1] + 1) * row
    size = (inside[0] + 2) * plane + 1
    heat, share, other = work[0][:size], work[1][:size], work[2][:size]
    heat[:] = 0
    other[:] = 0
    share[:] = 0
    for k in range(n):
        z, y = runs[k, ROW] // height - front + 1, runs[k, ROW] % height - top + 1
        at = z * plane + y * row + 1 - left
        share[at + runs[k, FIRST] : at + runs[k, STOP]] = part
    centre = (middle_z - front + 1) * plane + (middle_y - top + 1) * row + column - left + 1
    pitch, to = (plane, row), (height * extent[2], extent[2])
    spread_volume(heat, other, share, pitch, centre, steps, weights)
    target = front * to[0] + top * to[1] + left
    write_volume_gradient(heat, share, pitch, inside, scale, field, target, to)


@helper
def scratch(start, stop, ndim):
    """Return room for the largest of the objects: its field, its runs, and heat and the like.

    It is not touched here: of a box that is all but empty little memory is ever taken.
    """
    voxels, plane, volume, n_runs = 0, 0, 0, 0
    for k in range(start.shape[0]):
        d, h, w = stop[k, 0] - start[k, 0], stop[k, 1] - start[k, 1], stop[k, 2] - start[k, 2]
        voxels = max(voxels, d * h * w)
        plane = max(plane, (h + 2) * padded(w), (d + 2) * padded(w), (d + 2) * padded(h))
        volume = max(volume, (d + 2) * (h + 1) * (w + 1))
        n_runs = max(n_runs, d * h * ((w + 1) // 2))
    n = max(plane, volume + 1)
    exact = (aligned(n, np.float64), aligned(n, np.float64), aligned(n, np.float64))
    fast = (aligned(plane, np.float32), aligned(plane, np.float32), aligned(plane, np.float32))
    runs = np.empty((n_runs, 4), np.int64)
    return np.empty((ndim, voxels), np.float32), runs, exact + fast


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
    field, runs, work = scratch(start, stop, flow.shape[0])
    for k in range(ids.size):
        planes_field(labels, shape, ids[k], start[k], stop[k], spacing, field, runs, work)
        copy_field(labels, shape, ids[k], start[k], stop[k], field, flow)
    return 0


@loop((*OBJECTS, out(types.float32, 2)))
def paint_diffusion(labels, shape, ids, start, stop, spacing, flow):
    """Write the flow of each object, from heat in three dimensions."""
    field, runs, work = scratch(start, stop, 3)
    for k in range(ids.size):
        diffusion_field(labels, shape, ids[k], start[k], stop[k], spacing, field, runs, work)
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
