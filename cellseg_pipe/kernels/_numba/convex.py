"""Numba loops about the convex hulls of objects, all in integers, from the ends of their rows."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba.shape import OBJECTS, doubled, over_objects

FAR = np.iinfo(np.int64).max


@helper
def chain(edge, side, kept):
    """Keep the rows where the hull of edge[row] over row has a corner; return how many.

    `side` is 1 for the hull's lower side and -1 for its upper one; rows of FAR hold nothing.
    """
    n = 0
    for row in range(edge.size):
        if edge[row] == FAR:
            continue
        while n > 1:
            a, b = kept[n - 2], kept[n - 1]
            cross = (b - a) * (edge[row] - edge[a]) - (row - a) * (edge[b] - edge[a])
            if cross * side > 0:
                break
            n -= 1
        kept[n] = row
        n += 1
    return n


@helper
def extremes(labels, base, width, value):
    """Return the first and the last place of a value in a row; FAR where it has none."""
    first = 0
    while first < width and labels[base + first] != value:
        first += 1
    if first == width:
        return FAR, FAR
    last = width - 1
    while labels[base + last] != value:
        last -= 1
    return first, last


@helper
def inner_bound(edge, side, kept, n, bound):
    """Write for each pixel row the first (side 1) or last (-1) pixel centre within the hull.

    Rows and places of `edge` are in half pixels, and pixel row r is at 2 r + 1.
    """
    at = 0
    for row in range(bound.size):
        here = 2 * row + 1
        while kept[at + 1] < here:
            at += 1
        a, b = kept[at], kept[at + 1]
        run = b - a
        place = edge[a] * run + (edge[b] - edge[a]) * (here - a)  # times run
        bound[row] = side * -((-place * side) // (2 * run))
    return 0


@loop((*OBJECTS, out(types.int64, 2)))
def fill_convex(labels, shape, start, stop, ids, first_object, last_object, sizes):
    """Write the pixels of hulls, and along how many rows, columns and diagonals they lie.

    The hull is that of the middles of the edges of the object's pixels.
    """
    for k in range(first_object, last_object):
        height, width = stop[k, 0] - start[k, 0], stop[k, 1] - start[k, 1]
        if height <= 0:
            continue
        low, high = np.full(2 * height + 1, FAR), np.full(2 * height + 1, FAR)
        for row in range(height):
            base = (start[k, 0] + row) * shape[1] + start[k, 1]
            first, last = extremes(labels, base, width, ids[k])
            if first == FAR:
                continue
            for near in range(3):  # the upper, the side and the lower corners of the diamond
                reach = 1 if near == 1 else 0
                at = 2 * row + near
                low[at] = min(low[at], 2 * first - reach)
                high[at] = 2 * last + reach if high[at] == FAR else max(high[at], 2 * last + reach)
        kept = np.empty(2 * height + 1, np.int64)
        left, right = np.empty(height, np.int64), np.empty(height, np.int64)
        inner_bound(low, 1, kept, chain(low, 1, kept), left)
        inner_bound(high, -1, kept, chain(high, -1, kept), right)
        falling, rising = np.zeros((2, height + width), np.bool_)
        for row in range(height):
            sizes[k, 0] += right[row] - left[row] + 1
            for x in range(left[row], right[row] + 1):
                falling[x - row + height] = True
                rising[x + row] = True
        sizes[k, 1], sizes[k, 2] = height, width
        sizes[k, 3], sizes[k, 4] = falling.sum(), rising.sum()
    return 0


@loop(OBJECTS)
def find_plane_hulls(labels, shape, start, stop, ids, first_object, last_object):
    """Return rows (object, z, y, x) of the corners of the hull of each plane of each object."""
    corner = np.empty((1024, 4), np.int64)
    n = 0
    for k in range(first_object, last_object):
        height, width = stop[k, 1] - start[k, 1], stop[k, 2] - start[k, 2]
        if height <= 0:
            continue
        low, high = np.empty(height, np.int64), np.empty(height, np.int64)
        kept, taken = np.empty(height, np.int64), np.empty(height, np.bool_)
        for z in range(start[k, 0], stop[k, 0]):
            for row in range(height):
                base = (z * shape[1] + start[k, 1] + row) * shape[2] + start[k, 2]
                low[row], high[row] = extremes(labels, base, width, ids[k])
            while corner.shape[0] < n + 2 * height:
                corner = doubled(corner, n)
            taken[:] = False
            for i in range(chain(low, 1, kept)):
                row = kept[i]
                taken[row] = True
                corner[n] = k, z, start[k, 1] + row, start[k, 2] + low[row]
                n += 1
            for i in range(chain(high, -1, kept)):
                row = kept[i]
                if high[row] != low[row] or not taken[row]:
                    corner[n] = k, z, start[k, 1] + row, start[k, 2] + high[row]
                    n += 1
    return corner[:n].copy()


@loop((const(types.int64, 2), const(types.int64), const(types.int64), const(types.int64)))
def count_between(normal, offset, start, stop):
    """Count the voxel centres in a box that are on the inner side of all planes.

    Planes are normal . place <= offset, places in half voxels.
    """
    total = 0
    for z in range(start[0], stop[0]):
        for y in range(start[1], stop[1]):
            low, high = 2 * start[2], 2 * (stop[2] - 1)
            for i in range(offset.size):
                slope = normal[i, 2]
                rest = offset[i] - 2 * normal[i, 0] * z - 2 * normal[i, 1] * y
                if slope > 0:
                    high = min(high, rest // slope)
                elif slope < 0:
                    low = max(low, -(rest // -slope))
                elif rest < 0:
                    high = low - 1
                if high < low:
                    break
            first, last = -(-low // 2), high // 2
            total += max(0, last - first + 1)
    return total


@helper
def cross(a, b, result):
    """Write the cross product of two vectors."""
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        result[i] = a[j] * b[k] - a[k] * b[j]
    return 0


@helper
def dot(a, b):
    """Return the product of two vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@loop(
    (
        const(types.int64, 2),
        const(types.int32, 2),
        const(types.int32, 2),
        const(types.float64, 2),
        const(types.int64, 2),
    )
)
def sum_planes(points, triangles, beyond, outward, edges):
    """Return rows (normal, offset) of planes that have a hull of points on their inner side.

    Those through its triangles, and those through one of its edges that are parallel to one of
    `edges`. The edge opposite to a triangle's corner i leads to the triangle beyond[i].
    """
    plane = np.empty((triangles.shape[0] * (1 + 3 * edges.shape[0]), 4), np.int64)
    normal = np.empty(3, np.int64)
    n = 0
    for t in range(triangles.shape[0]):
        a, b, c = points[triangles[t, 0]], points[triangles[t, 1]], points[triangles[t, 2]]
        cross(b - a, c - a, normal)
        side = 1 if dot(normal, outward[t, :3]) > 0 else -1
        plane[n, :3], plane[n, 3] = side * normal, side * dot(normal, a)
        n += 1
        for i in range(3):
            other = beyond[t, i]
            if other < t:  # each edge once
                continue
            first, last = points[triangles[t, (i + 1) % 3]], points[triangles[t, (i + 2) % 3]]
            for j in range(3):  # where the other triangle is not at the edge
                corner = triangles[other, j]
                if corner != triangles[t, (i + 1) % 3] and corner != triangles[t, (i + 2) % 3]:
                    far = points[corner]
            near = points[triangles[t, i]]
            for edge in edges:
                cross(last - first, edge, normal)
                one, two = dot(normal, near - first), dot(normal, far - first)
                if (one <= 0 and two <= 0) or (one >= 0 and two >= 0):
                    side = 1 if one + two < 0 else -1
                    plane[n, :3], plane[n, 3] = side * normal, side * dot(normal, first)
                    n += one + two != 0
    return plane[:n].copy()


def convex_sizes(labels, objects, *, threads):
    """Return [n, 5] of pixels, rows, columns and diagonals of the hulls of objects y, x."""
    sizes = np.zeros((objects.label.size, 5), np.int64)
    over_objects(fill_convex, labels, objects, threads=threads, rest=(sizes,))
    return sizes


def plane_hulls(labels, objects, *, threads):
    """Return (object, [z, y, x]) of the corners of the hulls of planes, by object and place."""
    parts = over_objects(find_plane_hulls, labels, objects, threads=threads)
    found = np.concatenate([np.empty((0, 4), np.int64), *parts])
    return found[:, 0], np.ascontiguousarray(found[:, 1:])
