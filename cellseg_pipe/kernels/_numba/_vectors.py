"""Vector instructions that are the same on every CPU, for the loops that the compiler leaves slow.

A vector longer than the CPU's registers is cut up by the compiler, lane by lane the same sums:
nothing is fused or reordered, which keeps the bits equal everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

__all__ = ["I32", "I64", "Vectors", "data_of"]

I32, I64 = ir.IntType(32), ir.IntType(64)


def data_of(context, builder, kind, array):  # type: ignore[no-untyped-def]
    """Return the pointer to the first element of a numba array."""
    return cgutils.create_struct_proxy(kind)(context, builder, value=array).data


class Vectors:
    """Shorthands for instructions on vectors of one element type and length.

    Parameters
    ----------
    builder : ir.IRBuilder
        Where the instructions go.
    element : ir.Type
        Of a lane.
    lanes : int
        Length of the vectors.
    align_bytes : int
        What addresses in memory are a multiple of.
    """

    def __init__(
        self, builder: ir.IRBuilder, element: ir.Type, lanes: int, align_bytes: int
    ) -> None:
        self.builder = builder
        self.lanes = lanes
        self.number = int if isinstance(element, ir.IntType) else float
        self.kind = ir.VectorType(element, lanes)
        self.align_bytes = align_bytes
        self.zero = self.constant(0)

    def address(self, base: ir.Value, offset: ir.Value) -> ir.Value:
        """Return where the vector lies that begins `offset` elements after `base`."""
        place = self.builder.gep(base, [offset])
        return self.builder.bitcast(place, self.kind.as_pointer())

    def load(self, base: ir.Value, offset: ir.Value) -> ir.Value:
        """Return the vector that begins `offset` elements after `base`."""
        value = self.builder.load(self.address(base, offset))
        value.align = self.align_bytes
        return value

    def store(self, value: ir.Value, base: ir.Value, offset: ir.Value) -> None:
        """Write a vector."""
        self.builder.store(value, self.address(base, offset)).align = self.align_bytes

    def constant(self, number: float) -> ir.Value:
        """Return a vector of one number."""
        return ir.Constant(self.kind, [self.number(number)] * self.lanes)

    def splat(self, value: ir.Value) -> ir.Value:
        """Return a vector of one value known at run time."""
        none = ir.Constant(self.kind, ir.Undefined)
        first = self.builder.insert_element(none, value, ir.Constant(I32, 0))
        return self.pick(first, first, [0] * self.lanes)

    def pick(self, left: ir.Value, right: ir.Value, lanes: Sequence[int]) -> ir.Value:
        """Return lanes of two vectors, those of the second counted on from the first."""
        chosen = ir.Constant(ir.VectorType(I32, self.lanes), list(lanes))
        return self.builder.shuffle_vector(left, right, chosen)

    def minimum(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return the smaller of two integers in each lane."""
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def maximum(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return the larger of two integers in each lane."""
        return self.builder.select(self.builder.icmp_signed(">", left, right), left, right)
