"""Numba loops over runs of one object's voxels: its middle and the piece that holds it."""

from __future__ import annotations

import numpy as np

from cellseg_pipe.kernels._numba._jit import helper

ROW, FIRST, STOP, PARENT = range(4)  # of a run: its row, its half-open span, a run it hangs on


@helper
def list_row(labels, value, base, length, step, row, runs, n):
    """Append the runs of one row of voxels `step` apart to the first n runs; return how many."""
    x = 0
    while x < length:
        if labels[base + x * step] != value:
            x += 1
            continue
        runs[n, ROW] = row
        runs[n, FIRST] = x
        x += 1
        while x < length and labels[base + x * step] == value:
            x += 1
        runs[n, STOP] = x
        runs[n, PARENT] = n
        n += 1
    return n


@helper
def root_of(runs, k):
    """Return the run that stands for the piece of run k, halving the way to it."""
    while runs[k, PARENT] != k:
        runs[k, PARENT] = runs[runs[k, PARENT], PARENT]
        k = runs[k, PARENT]
    return k


@helper
def join_rows(runs, a, a_stop, b, b_stop, touch):
    """Join the runs a to a_stop of one row with those of the next that lie beside them.

    `touch` is 1 where corners join, 0 where only faces do.
    """
    while a < a_stop and b < b_stop:
        if runs[a, FIRST] < runs[b, STOP] + touch and runs[b, FIRST] < runs[a, STOP] + touch:
            one, other = root_of(runs, a), root_of(runs, b)
            runs[max(one, other), PARENT] = min(one, other)
        if runs[a, STOP] < runs[b, STOP]:
            a += 1
        else:
            b += 1


@helper
def list_section(labels, value, base, size, step, runs):
    """List the runs of an object's section with a plane and join its pieces; return how many."""
    above, here = 0, 0
    for y in range(size[0]):
        n = list_row(labels, value, base + y * step[0], size[1], step[1], y, runs, here)
        join_rows(runs, above, here, here, n, 1)
        above, here = here, n
    return here


@helper
def list_volume(labels, shape, value, start, extent, runs, first):
    """List the runs of an object's box and join its pieces; return how many.

    Row z * extent[1] + y has the runs from first[row] to first[row + 1].
    """
    n = 0
    for z in range(extent[0]):
        for y in range(extent[1]):
            row = z * extent[1] + y
            base = ((start[0] + z) * shape[1] + start[1] + y) * shape[2] + start[2]
            first[row] = n
            n = list_row(labels, value, base, extent[2], 1, row, runs, n)
            first[row + 1] = n
            if y > 0:
                join_rows(runs, first[row - 1], first[row], first[row], n, 0)
            if z > 0:
                above = row - extent[1]
                join_rows(runs, first[above], first[above + 1], first[row], n, 0)
    return n


@helper
def span_of(runs, n):
    """Return the area, the lowest and highest column, and the sum of columns from the lowest."""
    area, left, right, total = 0, runs[0, FIRST], runs[0, STOP], 0
    for k in range(n):
        begin, end = runs[k, FIRST], runs[k, STOP]
        left, right = min(left, begin), max(right, end)
        area += end - begin
        total += (end - begin) * (begin + end - 1) // 2
    return area, left, right, total - area * left


@helper
def middle_of_section(runs, n, scale):
    """Return (run, column) of the pixel nearest to the mean, of equal ones the first in C order."""
    top = runs[0, ROW]
    area, left, _, sum_x = span_of(runs, n)
    sum_y = 0
    for k in range(n):
        sum_y += (runs[k, STOP] - runs[k, FIRST]) * (runs[k, ROW] - top)
    # ceil(mean - 1/2) along each axis, in whole numbers: the lower one of two equally near
    row = (2 * sum_y + area - 1) // (2 * area) + top
    column = (2 * sum_x + area - 1) // (2 * area) + left
    for k in range(n):
        if runs[k, ROW] == row and runs[k, FIRST] <= column < runs[k, STOP]:
            return k, column  # as in nearly all objects
    nearest, run = np.inf, 0
    for k in range(n):
        y = runs[k, ROW] - top
        for at in range(runs[k, FIRST], runs[k, STOP]):
            x = at - left  # area * distance^2 to the mean, in whole numbers, less a constant
            far = scale[0] ** 2 * (area * y * y - 2 * sum_y * y)
            far += scale[1] ** 2 * (area * x * x - 2 * sum_x * x)
            if far < nearest:
                nearest, run, column = far, k, at
    return run, column


@helper
def middle_of_volume(runs, n, height, scale):
    """Return (run, column) of the voxel nearest to the mean, of equal ones the first in C order."""
    area, sum_z, sum_y, sum_x = 0, 0, 0, 0
    for k in range(n):
        begin, end = runs[k, FIRST], runs[k, STOP]
        area += end - begin
        sum_z += (end - begin) * (runs[k, ROW] // height)
        sum_y += (end - begin) * (runs[k, ROW] % height)
        sum_x += (end - begin) * (begin + end - 1) // 2
    nearest, run, column = np.inf, 0, 0
    for k in range(n):
        z, y = runs[k, ROW] // height, runs[k, ROW] % height
        for x in range(runs[k, FIRST], runs[k, STOP]):
            far = scale[0] ** 2 * (area * z * z - 2 * sum_z * z)
            far += scale[1] ** 2 * (area * y * y - 2 * sum_y * y)
            far += scale[2] ** 2 * (area * x * x - 2 * sum_x * x)
            if far < nearest:
                nearest, run, column = far, k, x
    return run, column


@helper
def keep_piece(runs, n, run):
    """Move the runs of one run's piece to the front, in their order; return how many they are."""
    for k in range(n):  # parents stand before their children: one pass names the root of all
        runs[k, PARENT] = runs[runs[k, PARENT], PARENT]
    root, kept = runs[run, PARENT], 0
    for k in range(n):
        if runs[k, PARENT] == root:
            runs[kept, ROW], runs[kept, FIRST] = runs[k, ROW], runs[k, FIRST]
            runs[kept, STOP] = runs[k, STOP]
            kept += 1
    return kept
