"""Heat that spreads inside one object, and unit vectors along its gradient."""

from __future__ import annotations

import numpy as np

from cellseg_pipe.kernels._numba._average import LANES, average_plane
from cellseg_pipe.kernels._numba._jit import helper

# Heat is linear in its source, and a power of two scales it without rounding. From 2^900 on, heat
# fades to nothing only 640 px from the centre of a line of single pixels.
SOURCE = 2.0**900
# A section takes its first steps in float32, in half the time. The last ones in float64 smooth its
# rounding errors away. What float32 leaves below LEAST anywhere (thin, curled or tiny objects, or
# pieces that heat never reaches) is done again, all in float64.
SOURCE_32, LEAST_32, LAST_STEPS = 2.0**96, 2.0**-96, 16
SMALL, LARGE = 2.0**-800, 2.0**800  # squares in between keep all their digits


@helper
def spread_plane(heat, other, share, width, centre, begin, end, middle, strength):
    """Add heat at the centre and average over 3 x 3 pixels, in steps from begin to end.

    Return the array that holds the heat. Outer terms are added first: mirrored objects stay
    mirrored.
    """
    kind = heat.dtype.type
    weights, source = (kind(middle[0]), kind(middle[1])), kind(strength)
    top, rows = centre // width, heat.size // width - 2
    for step in range(begin, end):
        heat[centre] += source
        first = max(top - step - 1, 1)  # beyond the rows that heat reached all is 0
        last = min(top + step + 1, rows)
        heat, other = average_plane(heat, other, share, width, first, last + 1, weights)
    return heat


@helper
def add_plane_gradient(heat, share, width, size, scale, weight, rows, columns, target, step):
    """Add the unit vectors along the gradient of heat, times weight, at the object's pixels."""
    per_row, per_column = 1 / scale[0], 1 / scale[1]
    for y in range(size[0]):
        for x in range(size[1]):
            i = (y + 1) * width + x
            if share[i] > 0:
                left = heat[i - 1] if x > 0 else 0.0
                right = heat[i + 1] if x + 1 < size[1] else 0.0
                dy = (heat[i + width] - heat[i - width]) * per_row
                dx = (right - left) * per_column
                square = dy * dy + dx * dx
                if not SMALL < square < LARGE:  # or nearly lost
                    top = max(abs(dy), abs(dx))
                    if top == 0:
                        continue
                    dy, dx = dy / top, dx / top
                    square = dy * dy + dx * dx
                part = weight / np.sqrt(square)
                j = target + y * step[0] + x * step[1]
                rows[j] += np.float32(dy * part)
                columns[j] += np.float32(dx * part)


@helper
def fades(heat, share):
    """Tell whether there is too little heat for float32 anywhere in the object."""
    least = heat.dtype.type(LEAST_32)
    faint = 0
    for i in range(heat.size):
        faint += (share[i] > 0) & (heat[i] < least)
    return faint > 0


@helper
def heat_plane(share, width, centre, steps, middle, work):
    """Return the heat of one section; scratch is two arrays, then three in float32."""
    n = share.size
    heat, other = work[0][:n], work[1][:n]
    fast, fast_other, fast_share = work[2][:n], work[3][:n], work[4][:n]
    fast[:] = 0
    fast_other[:] = 0
    for i in range(n):
        fast_share[i] = share[i]
    turn = max(steps - LAST_STEPS, 0)
    fast = spread_plane(fast, fast_other, fast_share, width, centre, 0, turn, middle, SOURCE_32)
    other[:] = 0
    if fades(fast, fast_share):
        heat[:] = 0
        return spread_plane(heat, other, share, width, centre, 0, steps, middle, SOURCE)
    for i in range(n):
        heat[i] = fast[i]
    return spread_plane(heat, other, share, width, centre, turn, steps, middle, SOURCE_32)


@helper
def padded(columns):
    """Return the length of a row of whole vectors."""
    return (columns + LANES - 1) // LANES * LANES


@helper
def spread_volume(heat, other, share, pitch, centre, steps, weights):
    """Add heat at the centre and average over 7 voxels, `steps` times, an even number."""
    plane, row = pitch
    size = heat.size - 2 * plane
    wz, wy, wx = weights
    part = share[plane:]
    old, new = heat, other
    for _ in range(steps):
        old[centre] += SOURCE
        before, after = old[:size], old[2 * plane :]
        above, below = old[plane - row :], old[plane + row :]
        left, here, right = old[plane - 1 :], old[plane:], old[plane + 1 :]
        target = new[plane:]
        for i in range(size):
            sides = (before[i] + after[i]) * wz + (above[i] + below[i]) * wy
            target[i] = ((sides + (left[i] + right[i]) * wx) + here[i]) * part[i]
        old, new = new, old


@helper
def write_volume_gradient(heat, share, pitch, extent, scale, field, target, to):
    """Write the unit vectors along the gradient of heat at the object's voxels."""
    plane, row = pitch
    for z in range(extent[0]):
        for y in range(extent[1]):
            i = (z + 1) * plane + (y + 1) * row
            j = target + z * to[0] + y * to[1] - 1
            for _ in range(extent[2]):
                i += 1
                j += 1
                if share[i] == 0:
                    continue
                dz = (heat[i + plane] - heat[i - plane]) / scale[0]
                dy = (heat[i + row] - heat[i - row]) / scale[1]
                dx = (heat[i + 1] - heat[i - 1]) / scale[2]
                top = max(abs(dz), abs(dy), abs(dx))
                if top > 0:
                    dz, dy, dx = dz / top, dy / top, dx / top
                    length = np.sqrt(dz * dz + dy * dy + dx * dx)
                    field[0, j] = dz / length
                    field[1, j] = dy / length
                    field[2, j] = dx / length
