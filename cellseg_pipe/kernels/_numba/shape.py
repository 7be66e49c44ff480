"""Numba loops about the shape of objects: enclosed background, outlines, polygons.

Each object is looked at in its own box, in `gaps`: the runs along the last axis that are not the
object. A gap is outside if it reaches a face of the box, by itself or over gaps beside it. Gaps
are few, so that joining them costs little beside reading the box once.
"""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._threads import ranges, spread
from cellseg_pipe.machine import available_threads

OBJECTS = (  # labels, shape, start, stop, ids, first and last object
    const(types.uint32),
    const(types.int64),
    const(types.int64, 2),
    const(types.int64, 2),
    const(types.uint32),
    types.int64,
    types.int64,
)


@helper
def doubled(array, used):
    """Return a larger copy of an array whose first `used` rows count."""
    larger = np.empty((2 * array.shape[0], array.shape[1]), array.dtype)
    larger[:used] = array[:used]
    return larger


@helper
def root_of(parent, i):
    """Return the smallest member known of the set that holds i."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@helper
def join_rows(parent, gap, this, this_end, other, other_end):
    """Unite the gaps of two neighbouring rows that lie beside each other."""
    while this < this_end and other < other_end:
        if gap[this, 0] < gap[other, 1] and gap[other, 0] < gap[this, 1]:
            a, b = root_of(parent, this + 1), root_of(parent, other + 1)
            parent[max(a, b)] = min(a, b)
        if gap[this, 1] < gap[other, 1]:
            this += 1
        else:
            other += 1


@helper
def rows_of(shape, start, sides):
    """Return (flat start, place on axes, on a face or not) of rows, rows to the next on an axis."""
    ndim = shape.size
    step = np.ones(ndim, np.int64)
    for axis in range(ndim - 2, -1, -1):
        step[axis] = step[axis + 1] * sides[axis]
    base = np.empty(step[0], np.int64)
    place = np.empty((step[0], ndim - 1), np.int64)
    face = np.zeros(step[0], np.bool_)
    for row in range(step[0]):
        flat = 0
        for axis in range(ndim - 1):
            at = row // step[axis + 1] % sides[axis]
            place[row, axis] = at
            face[row] |= at == 0 or at == sides[axis] - 1
            flat = flat * shape[axis] + start[axis] + at
        base[row] = flat * shape[ndim - 1] + start[ndim - 1]
    return base, place, face, step[1:]


@helper
def gaps_of(labels, shape, start, stop, value):
    """Return (rows, first gap of each row, [begin, end] of gaps in their row, outside or not)."""
    sides = stop - start
    width = sides[-1]
    rows = rows_of(shape, start, sides)
    base, place, face, steps = rows
    first = np.empty(base.size + 1, np.int64)
    gap = np.empty((4 * base.size + width + 2, 2), np.int64)
    n = 0
    for row in range(base.size):
        first[row] = n
        while gap.shape[0] < n + width // 2 + 1:
            gap = doubled(gap, n)
        line = labels[base[row] : base[row] + width]
        x = 0
        while x < width:
            while x < width and line[x] == value:
                x += 1
            if x == width:
                break
            gap[n, 0] = x
            while x < width and line[x] != value:
                x += 1
            gap[n, 1] = x
            n += 1
    first[base.size] = n
    parent = np.zeros(n + 1, np.int64)  # 0 is the outside, gap i is i + 1
    for row in range(base.size):
        for i in range(first[row], first[row + 1]):
            if not face[row] and gap[i, 0] > 0 and gap[i, 1] < width:
                parent[i + 1] = i + 1
    for row in range(base.size if parent.any() else 0):
        here, here_end = first[row], first[row + 1]
        for axis in range(steps.size):
            if place[row, axis]:
                there = row - steps[axis]
                join_rows(parent, gap, here, here_end, first[there], first[there + 1])
    outside = np.empty(n, np.bool_)
    for i in range(n):
        parent[i + 1] = parent[parent[i + 1]]
        outside[i] = parent[i + 1] == 0
    return rows, first, gap, outside


@loop(OBJECTS)
def find_holes(labels, shape, start, stop, ids, first_object, last_object):
    """Return rows (begin, end, object) of enclosed voxels, as runs of flat indices."""
    holes = np.empty((256, 3), np.int64)
    n = 0
    for k in range(first_object, last_object):
        rows, first, gap, outside = gaps_of(labels, shape, start[k], stop[k], ids[k])
        base = rows[0]
        for row in range(base.size):
            for i in range(first[row], first[row + 1]):
                if outside[i]:
                    continue
                if n == holes.shape[0]:
                    holes = doubled(holes, n)
                holes[n, 0] = base[row] + gap[i, 0]
                holes[n, 1] = base[row] + gap[i, 1]
                holes[n, 2] = k
                n += 1
    return holes[:n].copy()


@loop(
    (
        const(types.int64, 2),
        const(types.int64),
        const(types.int64),
        const(types.uint32),
        out(types.uint32),
    )
)
def paint_holes(holes, first, rank, ids, result):
    """Give the background in holes to the first object in `rank` that claims it."""
    for k in rank:
        for i in range(first[k], first[k + 1]):
            for x in range(holes[i, 0], holes[i, 1]):
                if result[x] == 0:
                    result[x] = ids[k]
    return 0


@helper
def mark(labels, value, marks, begin, end):
    """Mark what belongs to an object in a range of flat indices."""
    for x in range(begin, end):
        if labels[x] == value:
            marks[x] = True


@loop((*OBJECTS, out(types.boolean)))
def mark_outlines(labels, shape, start, stop, ids, first_object, last_object, marks):
    """Mark the voxels of objects that have a face neighbour outside."""
    for k in range(first_object, last_object):
        value, sides = ids[k], stop[k] - start[k]
        rows, first, gap, outside = gaps_of(labels, shape, start[k], stop[k], value)
        base, place, face, steps = rows
        for row in range(base.size):
            begin, end = base[row], base[row] + sides[-1]
            mark(labels, value, marks, begin, begin + 1)
            mark(labels, value, marks, end - 1, end)
            if face[row]:
                mark(labels, value, marks, begin, end)
            for i in range(first[row], first[row + 1]):
                if not outside[i]:
                    continue
                left, right = max(gap[i, 0] - 1, 0), min(gap[i, 1] + 1, sides[-1])
                mark(labels, value, marks, begin + left, begin + right)
                for axis in range(steps.size):
                    for step in (-1, 1):
                        if 0 <= place[row, axis] + step < sides[axis]:
                            beside = base[row + step * steps[axis]]
                            mark(labels, value, marks, beside + gap[i, 0], beside + gap[i, 1])
    return 0


@helper
def trace(inside, traced, pitch, corner, vertex, n):
    """Follow the edge of a piece from its first corner; return (vertex, end, area).

    A pixel and its upper left corner have one index in the padded box. At a crossing of two
    diagonal pixels the way keeps to its own pixel, so that pieces joined by a corner are two.
    """
    step = (1, pitch, -1, -pitch)
    ahead = (0, -1, -pitch - 1, -pitch)  # the pixel of the object side behind each corner
    beyond = (-pitch, 0, -1, -pitch - 1)
    at = corner
    way = 0  # right, down, left, up
    area = 0
    while True:
        if n == vertex.shape[0]:
            vertex = doubled(vertex, n)
        vertex[n, 0] = at // pitch
        vertex[n, 1] = at % pitch
        n += 1
        while True:
            if way == 0:
                traced[at] = True
                area -= at // pitch
            elif way == 2:
                area += at // pitch
            at += step[way]
            if not inside[at + ahead[way]]:
                way = (way + 1) % 4
                break
            if inside[at + beyond[way]]:
                way = (way + 3) % 4
                break
        if at == corner:
            return vertex, n, area


@loop(OBJECTS)
def trace_outlines(labels, shape, start, stop, ids, first_object, last_object):
    """Return (vertices, end of each object's vertices) of the largest piece of each object."""
    vertex = np.empty((1024, 2), np.int32)
    ends = np.empty(last_object - first_object, np.int64)
    n = 0
    for k in range(first_object, last_object):
        rows, first, gap, outside = gaps_of(labels, shape, start[k], stop[k], ids[k])
        height, pitch = rows[0].size, stop[k, 1] - start[k, 1] + 2
        inside = np.zeros((height + 2) * pitch, np.bool_)
        traced = np.zeros_like(inside)
        for row in range(height):
            flat = (row + 1) * pitch + 1
            inside[flat : flat + pitch - 2] = True
            for i in range(first[row], first[row + 1]):
                if outside[i]:
                    inside[flat + gap[i, 0] : flat + gap[i, 1]] = False
        best, held = 0, n
        for row in range(height):
            for i in range(first[row] - 1, first[row + 1]):  # a piece begins behind a gap, or at 0
                at = (row + 1) * pitch + 1 + (gap[i, 1] if i >= first[row] else 0)
                if not inside[at] or inside[at - pitch] or traced[at]:
                    continue
                vertex, end, area = trace(inside, traced, pitch, at, vertex, held)
                if area > best:
                    vertex[n : n + end - held] = vertex[held:end].copy()
                    best, held = area, n + end - held
        for i in range(n, held):
            vertex[i, 0] += start[k, 0] - 1
            vertex[i, 1] += start[k, 1] - 1
        n = held
        ends[k - first_object] = n
    return vertex[:n].copy(), ends


def over_objects(function, labels, objects, *, threads, rest=()):
    """Return what a loop returns for each range of objects; a few ranges per thread."""
    shape = np.array(labels.shape, np.int64)
    image = (labels.ravel(), shape, objects.start, objects.stop, objects.label)
    step = -(-objects.label.size // (4 * (threads or available_threads()))) or 1
    items = ranges(objects.label.size, step)
    return spread(lambda *item: function(*image, *item, *rest), items, threads=threads)


def fill_holes(labels, objects, rank, *, threads):
    """Return labels with enclosed background given to the first claimant in `rank`."""
    parts = over_objects(find_holes, labels, objects, threads=threads)
    holes = np.concatenate([np.empty((0, 3), np.int64), *parts])
    first = np.searchsorted(holes[:, 2], np.arange(objects.label.size + 1))
    result = labels.copy()
    paint_holes(holes, first, rank, objects.label, result.reshape(-1))
    return result


def outline_pixels(labels, objects, *, threads):
    """Return where objects border on the outside."""
    marks = np.zeros(labels.shape, bool)
    over_objects(mark_outlines, labels, objects, threads=threads, rest=(marks.reshape(-1),))
    return marks


def outline_polygons(labels, objects, *, threads):
    """Return (vertices, offsets) of the polygons of all objects."""
    parts = over_objects(trace_outlines, labels, objects, threads=threads)
    vertices = np.concatenate([np.empty((0, 2), np.int32), *(vertex for vertex, _ in parts)])
    lengths = [np.diff(ends, prepend=0) for _, ends in parts]
    return vertices, np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
