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
from numba.core import cgutils
from numba.extending import intrinsic

FRACTION_BITS = 12
ONE = 1 << FRACTION_BITS
AXIS_MAX = 1 << (31 - FRACTION_BITS)  # px along an axis that a position can hold

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()


def lanes_of(ndim: int) -> int:
    """Return the length of the vectors for this many axes: the next power of two."""
    return 2 if ndim == 2 else 4


@intrinsic
def advance(typingctx, field, state, at, upper, strides):  # type: ignore[no-untyped-def]
    """Move the particle whose state begins at state[at] by one step.

    The state is three vectors of int32: the position, and the lowest and highest coordinate of its
    path before positions were cut to the array. `field` holds a vector of float32 per pixel,
    padded by one pixel at the far end of each axis; `strides` are in floats.
    """
    ndim = strides.count
    lanes = lanes_of(ndim)
    signature = types.void(field, state, types.int64, upper, strides)

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointers = {
            name: cgutils.create_struct_proxy(signature.args[i])(
                context, builder, value=arguments[i]
            ).data
            for name, i in (("field", 0), ("state", 1), ("upper", 3))
        }
        code = _Vectors(builder, lanes)
        rows = code.pointer(builder.gep(pointers["state"], [arguments[2]]), I32)
        position = code.load(rows)
        whole = builder.ashr(position, code.splat(FRACTION_BITS, I32))
        low_bits = builder.and_(position, code.splat(ONE - 1, I32))
        fraction = code.times(builder.sitofp(low_bits, code.floats), 1 / ONE)
        steps = [builder.extract_value(arguments[4], axis) for axis in range(ndim)]
        origin = ir.Constant(I64, 0)
        for axis, stride in enumerate(steps):
            pixel = builder.sext(builder.extract_element(whole, ir.Constant(I32, axis)), I64)
            origin = builder.add(origin, builder.mul(pixel, stride))

        def between(axis, offset):  # type: ignore[no-untyped-def]
            """Interpolate along this axis and all later ones."""
            if axis == ndim:
                return code.load(code.pointer(builder.gep(pointers["field"], [offset]), F32))
            near = between(axis + 1, offset)
            far = between(axis + 1, builder.add(offset, steps[axis]))
            weight = code.spread(fraction, axis)
            return builder.fadd(near, builder.fmul(weight, builder.fsub(far, near)))

        move = builder.fptosi(code.times(between(0, origin), ONE), code.integers)
        position = builder.add(position, move)
        for row, keep in ((1, code.minimum), (2, code.maximum)):
            seen = builder.gep(rows, [ir.Constant(I32, row)])
            code.store(keep(code.load(seen), position), seen)
        top = code.load(code.pointer(pointers["upper"], I32))
        code.store(code.minimum(code.maximum(position, code.splat(0, I32)), top), rows)
        return context.get_dummy_value()

    return signature, codegen


class _Vectors:
    """Shorthands for instructions on vectors of one length."""

    def __init__(self, builder: ir.IRBuilder, lanes: int) -> None:
        self.builder = builder
        self.lanes = lanes
        self.integers = ir.VectorType(I32, lanes)
        self.floats = ir.VectorType(F32, lanes)

    def pointer(self, address: ir.Value, element: ir.Type) -> ir.Value:
        return self.builder.bitcast(address, ir.VectorType(element, self.lanes).as_pointer())

    def load(self, pointer: ir.Value) -> ir.Value:
        value = self.builder.load(pointer)
        value.align = 4
        return value

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        self.builder.store(value, pointer).align = 4

    def splat(self, number: float, element: ir.Type) -> ir.Value:
        return ir.Constant(ir.VectorType(element, self.lanes), [number] * self.lanes)

    def times(self, value: ir.Value, factor: float) -> ir.Value:
        return self.builder.fmul(value, self.splat(float(factor), F32))

    def spread(self, value: ir.Value, lane: int) -> ir.Value:
        chosen = ir.Constant(self.integers, [lane] * self.lanes)
        return self.builder.shuffle_vector(value, ir.Constant(self.floats, ir.Undefined), chosen)

    def minimum(self, left: ir.Value, right: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def maximum(self, left: ir.Value, right: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed(">", left, right), left, right)
