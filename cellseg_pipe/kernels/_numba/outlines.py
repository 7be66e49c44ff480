"""Numba loops that trace all borders of objects: of each piece the outer one, then its holes."""

from __future__ import annotations

import numpy as np

from cellseg_pipe.kernels._numba._jit import helper, loop
from cellseg_pipe.kernels._numba.shape import OBJECTS, doubled, over_objects, trace


@helper
def flood(marks, pitch, begin, old, new, stack):
    """Exchange `old` for `new` in all that faces join to a place; return how many places.

    They are left in the stack. Marks have a frame of other values.
    """
    marks[begin] = new
    stack[0] = begin
    n = 1
    done = 0
    while done < n:
        at = stack[done]
        done += 1
        for step in (-pitch, -1, 1, pitch):
            if marks[at + step] == old:
                marks[at + step] = new
                stack[n] = at + step
                n += 1
    return n


@helper
def trace_piece(piece, pitch, vertex, n, ends, n_rings):
    """Trace the border of a piece, then those of its holes; return (vertex, n, ends, n_rings).

    `piece` is 1 on the piece, 0 elsewhere, and 2 on a frame; the row inside the frame is empty.
    """
    stack = np.empty(piece.size, np.int64)
    flood(piece, pitch, pitch + 1, 0, 2, stack)
    inside, traced = np.zeros(piece.size, np.bool_), np.zeros(piece.size, np.bool_)
    for at in range(piece.size):
        inside[at] = piece[at] != 2
    hole = np.zeros(piece.size, np.bool_)
    for at in range(piece.size):
        # The piece comes before its holes, and what is seen first of each has a corner.
        outer = n_rings == 0 and piece[at] == 1
        if not outer and piece[at] != 0:
            continue
        if n_rings == ends.shape[0]:
            ends = doubled(ends, n_rings)
        if outer:
            vertex, end, _ = trace(inside, traced, pitch, at, vertex, n)
        else:
            n_px = flood(piece, pitch, at, 0, 3, stack)
            for i in range(n_px):
                hole[stack[i]] = True
            vertex, end, _ = trace(hole, traced, pitch, at, vertex, n)
            vertex[n:end] = vertex[n:end][::-1].copy()
            for i in range(n_px):
                hole[stack[i]] = False
        n = end
        ends[n_rings, 0] = n
        n_rings += 1
    return vertex, n, ends, n_rings


@loop(OBJECTS)
def trace_polygons(labels, shape, start, stop, ids, first_object, last_object):
    """Return (vertices, rows (object, piece, end of vertices) of borders)."""
    vertex, ring = np.empty((1024, 2), np.int32), np.empty((256, 3), np.int64)
    n, n_rings = 0, 0
    for k in range(first_object, last_object):
        height, width = stop[k, 0] - start[k, 0], stop[k, 1] - start[k, 1]
        if height <= 0:
            continue
        pitch = width + 2
        marks = np.zeros((height + 2) * pitch, np.int8)
        for y in range(height):
            for x in range(width):
                at = (start[k, 0] + y) * shape[1] + start[k, 1] + x
                marks[(y + 1) * pitch + x + 1] = labels[at] == ids[k]
        stack = np.empty(height * width, np.int64)
        n_pieces = 0
        for at in range(marks.size):
            if marks[at] != 1:
                continue
            places = stack[: flood(marks, pitch, at, 1, 2, stack)]
            top, left, right = places[0] // pitch, pitch, 0
            bottom = top
            for place in places:
                bottom = max(bottom, place // pitch)
                left, right = min(left, place % pitch), max(right, place % pitch)
            edge = right - left + 5
            piece = np.full((bottom - top + 5) * edge, 2, np.int8)
            for y in range(1, bottom - top + 4):
                piece[y * edge + 1 : (y + 1) * edge - 1] = 0
            for place in places:
                piece[(place // pitch - top + 2) * edge + place % pitch - left + 2] = 1
            ends = np.empty((8, 1), np.int64)
            begin = n
            vertex, n, ends, found = trace_piece(piece, edge, vertex, n, ends, 0)
            for i in range(begin, n):
                vertex[i, 0] += start[k, 0] + top - 3
                vertex[i, 1] += start[k, 1] + left - 3
            for i in range(found):
                if n_rings == ring.shape[0]:
                    ring = doubled(ring, n_rings)
                ring[n_rings] = k, n_pieces, ends[i, 0]
                n_rings += 1
            n_pieces += 1
    return vertex[:n].copy(), ring[:n_rings].copy()


def object_borders(labels, objects, *, threads):
    """Return (vertices, object, piece, offset) of all borders."""
    parts = over_objects(trace_polygons, labels, objects, threads=threads)
    vertices = np.concatenate([np.empty((0, 2), np.int32), *(vertex for vertex, _ in parts)])
    rings = np.concatenate([np.empty((0, 3), np.int64), *(ring for _, ring in parts)])
    lengths = [np.diff(ring[:, 2], prepend=0) for _, ring in parts]
    offset = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
    return vertices, rings[:, 0], rings[:, 1], offset
