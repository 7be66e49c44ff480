"""Numba loops over the pixel values in and round objects, each object in its own box.

Arrays have axes z, y, x; an image has one plane.
"""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba.shape import OBJECTS, over_objects

PIXELS = (types.uint8, types.uint16, types.float32, types.float64)


@helper
def quantile(values, share):
    """Return a quantile of sorted values, linear between two of them."""
    place = share * (values.size - 1)
    i = min(np.int64(place), values.size - 2)
    if i < 0:
        return np.float64(values[0])
    low, high, part = np.float64(values[i]), np.float64(values[i + 1]), place - i
    # From the nearer end, so that a part of 1 is the upper value itself.
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


@loop(*((*OBJECTS, const(p, 2), const(types.float64), out(types.float64, 3)) for p in PIXELS))
def find_quantiles(
    labels, shape, start, stop, ids, first_object, last_object, image, shares, result
):
    """Write quantiles [object, channel, share] of the pixels of objects."""
    for k in range(first_object, last_object):
        n = 0
        for z in range(start[k, 0], stop[k, 0]):
            for y in range(start[k, 1], stop[k, 1]):
                base = (z * shape[1] + y) * shape[2]
                for x in range(start[k, 2], stop[k, 2]):
                    n += labels[base + x] == ids[k]
        values = np.empty(n, image.dtype)
        for channel in range(image.shape[0] if n else 0):
            i = 0
            for z in range(start[k, 0], stop[k, 0]):
                for y in range(start[k, 1], stop[k, 1]):
                    base = (z * shape[1] + y) * shape[2]
                    for x in range(start[k, 2], stop[k, 2]):
                        if labels[base + x] == ids[k]:
                            values[i] = image[channel, base + x]
                            i += 1
            values.sort()
            for s in range(shares.size):
                result[k, channel, s] = quantile(values, shares[s])
    return 0


@loop(
    *(
        (*OBJECTS, const(pixel, 2), const(types.int64, 2), out(number, 2))
        for pixel, number in zip(
            PIXELS, (types.int64, types.int64, types.float64, types.float64), strict=True
        )
    )
)
def add_differences(
    labels, shape, start, stop, ids, first_object, last_object, image, inner, result
):
    """Add squares of differences of face neighbours in objects; their number in column 0.

    A pair counts where its later voxel lies in the box `inner`, rows of (start, stop).
    """
    for k in range(first_object, last_object):
        for z in range(max(start[k, 0], inner[0, 0]), min(stop[k, 0], inner[1, 0])):
            for y in range(max(start[k, 1], inner[0, 1]), min(stop[k, 1], inner[1, 1])):
                base = (z * shape[1] + y) * shape[2]
                for x in range(max(start[k, 2], inner[0, 2]), min(stop[k, 2], inner[1, 2])):
                    here = base + x
                    if labels[here] != ids[k]:
                        continue
                    for axis in range(3):
                        at = (z, y, x)[axis]
                        before = here - (shape[1] * shape[2], shape[2], 1)[axis]
                        if at == 0 or labels[before] != ids[k]:
                            continue
                        result[k, 0] += 1
                        for channel in range(image.shape[0]):
                            step = result.dtype.type(image[channel, here])
                            step -= result.dtype.type(image[channel, before])
                            result[k, 1 + channel] += step * step
    return 0


@loop(
    *(
        (*OBJECTS, const(pixel, 2), const(types.int64, 2), const(types.int64, 2), out(number, 2))
        for pixel, number in zip(
            PIXELS, (types.int64, types.int64, types.float64, types.float64), strict=True
        )
    )
)
def add_rings(
    labels, shape, start, stop, ids, first_object, last_object, image, near, inner, result
):
    """Add the background pixels near objects, in the box `inner`; their number in column 0.

    `near` has rows (z, y, n): that many pixels before and after it a pixel of a line z, y away is
    near. Its last row has the widest reach along each axis.
    """
    reach = near[-1]
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for k in range(first_object, last_object):
        if stop[k, 0] <= start[k, 0]:
            continue
        for axis in range(3):
            low[axis] = max(start[k, axis] - reach[axis], inner[0, axis])
            high[axis] = max(min(stop[k, axis] + reach[axis], inner[1, axis]), low[axis])
        taken = np.zeros((high[0] - low[0], high[1] - low[1], high[2] - low[2]), np.bool_)
        for z in range(start[k, 0], stop[k, 0]):
            for y in range(start[k, 1], stop[k, 1]):
                base = (z * shape[1] + y) * shape[2]
                x = start[k, 2]
                while x < stop[k, 2]:
                    if labels[base + x] != ids[k]:
                        x += 1
                        continue
                    begin = x
                    while x < stop[k, 2] and labels[base + x] == ids[k]:
                        x += 1
                    for i in range(near.shape[0] - 1):
                        to_z, to_y = z + near[i, 0] - low[0], y + near[i, 1] - low[1]
                        if 0 <= to_z < taken.shape[0] and 0 <= to_y < taken.shape[1]:
                            first = max(begin - near[i, 2] - low[2], 0)
                            taken[to_z, to_y, first : max(x + near[i, 2] - low[2], 0)] = True
        for z in range(taken.shape[0]):
            for y in range(taken.shape[1]):
                base = ((low[0] + z) * shape[1] + low[1] + y) * shape[2] + low[2]
                for x in range(taken.shape[2]):
                    if taken[z, y, x] and labels[base + x] == 0:
                        result[k, 0] += 1
                        for channel in range(image.shape[0]):
                            result[k, 1 + channel] += image[channel, base + x]
    return 0


def object_quantiles(labels, image, objects, shares, *, threads):
    """Return [n, channels, shares] quantiles of the pixels of objects."""
    result = np.zeros((objects.label.size, image.shape[0], shares.size))
    rest = (image, shares, result)
    over_objects(find_quantiles, labels, objects, threads=threads, rest=rest)
    return result


def object_texture(labels, image, objects, inner, *, threads):
    """Return [n, 1 + channels]: pairs of neighbours, sums of squares of their differences."""
    result = empty_sums(image, objects)
    rest = (image, inner, result)
    over_objects(add_differences, labels, objects, threads=threads, rest=rest)
    return result


def object_rings(labels, image, objects, near, inner, *, threads):
    """Return [n, 1 + channels]: background pixels near objects, and sums over them."""
    result = empty_sums(image, objects)
    rest = (image, near, inner, result)
    over_objects(add_rings, labels, objects, threads=threads, rest=rest)
    return result


def empty_sums(image, objects):
    """Return zeros [n, 1 + channels] that sums of the image's pixels go into."""
    number = np.int64 if image.dtype.kind == "u" else np.float64
    return np.zeros((objects.label.size, 1 + image.shape[0]), number)
