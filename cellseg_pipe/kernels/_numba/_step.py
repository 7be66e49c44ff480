"""One step of a particle along a flow field, as vector instructions that are the same everywhere.

A position is one integer per axis: whole pixels in the high bits, a fraction of 1/4096 px in the
low ones. So a crop moves its particles exactly as the whole image does, and a particle that comes
back to a position repeats its path for ever. The compiler makes slow scalar code of the same loop
written in Python, so the instructions are laid out here: one vector holds all axes. Nothing is
fused or reordered, which keeps the bits equal on every CPU.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cellseg_pipe.kernels._numba._vectors import I32, I64, Vectors, data_of

FRACTION_BITS = 12
ONE = 1 << FRACTION_BITS
# px that a component may have: from the far end of the longest axis one such step stays in int32.
STEP_MAX = 1024.0


def lanes_of(ndim: int) -> int:
    """Return the length of the vectors for this many axes: the next power of two."""
    return 2 if ndim == 2 else 4


@intrinsic
def advance(typingctx, field, state, at, upper, strides, unit):  # type: ignore[no-untyped-def]
    """Move the particle whose state begins at state[at] by one step.

    The state is three vectors of int32: the position, and the lowest and highest coordinate of its
    path before positions were cut to the array. `field` holds a vector of float32 per pixel,
    padded by one pixel at the far end of each axis; `strides` are in floats. `unit` is what the
    last bit of a fraction stands for: 1/4096 px, or 0 to sample the pixel that holds the particle.
    """
    ndim = strides.count
    lanes = lanes_of(ndim)
    signature = types.void(field, state, types.int64, upper, strides, types.float32)

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        field, state, upper = (
            data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 3)
        )
        whole_px = Vectors(builder, I32, lanes, align_bytes=4)
        parts = Vectors(builder, ir.FloatType(), lanes, align_bytes=4)
        first, size = arguments[2], ir.Constant(I64, lanes)
        position = whole_px.load(state, first)
        pixel = builder.ashr(position, whole_px.constant(FRACTION_BITS))
        low_bits = builder.and_(position, whole_px.constant(ONE - 1))
        fraction = builder.fmul(builder.sitofp(low_bits, parts.kind), parts.splat(arguments[5]))
        steps = [builder.extract_value(arguments[4], axis) for axis in range(ndim)]
        origin = ir.Constant(I64, 0)
        for axis, stride in enumerate(steps):
            at_axis = builder.sext(builder.extract_element(pixel, ir.Constant(I32, axis)), I64)
            origin = builder.add(origin, builder.mul(at_axis, stride))

        def between(axis, offset):  # type: ignore[no-untyped-def]
            """Interpolate along this axis and all later ones."""
            if axis == ndim:
                return parts.load(field, offset)
            near = between(axis + 1, offset)
            far = between(axis + 1, builder.add(offset, steps[axis]))
            weight = parts.pick(fraction, fraction, [axis] * lanes)
            return builder.fadd(near, builder.fmul(weight, builder.fsub(far, near)))

        scaled = builder.fmul(between(0, origin), parts.constant(ONE))
        position = builder.add(position, builder.fptosi(scaled, whole_px.kind))
        for keep in (whole_px.minimum, whole_px.maximum):
            first = builder.add(first, size)
            whole_px.store(keep(whole_px.load(state, first), position), state, first)
        top = whole_px.load(upper, ir.Constant(I64, 0))
        inside = whole_px.minimum(whole_px.maximum(position, whole_px.zero), top)
        whole_px.store(inside, state, arguments[2])
        return context.get_dummy_value()

    return signature, codegen
