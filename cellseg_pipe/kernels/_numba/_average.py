"""Averages of 3 x 3 pixels over the rows of one object's section, as vector instructions.

A section lies in rows of whole vectors with a row of zeros before and after; `share` is 0 outside
the object. Twice as fast as what the compiler makes of slices, which it reads again for each sum.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cellseg_pipe.kernels._numba._jit import helper
from cellseg_pipe.kernels._numba._vectors import I64, Vectors, data_of

__all__ = ["LANES", "average_plane"]

LANES = 16  # of a vector: a register of AVX-512 in float32, several ones elsewhere
NARROW = 5  # vectors of a row, up to which three rows of them stay in registers
BEFORE = [LANES - 1, *range(LANES, 2 * LANES - 1)]  # the last lane of one vector, then the next
AFTER = [*range(1, LANES), LANES]


class _Rows:
    """What both forms share: vectors of the element type, and the sums in fixed order."""

    def __init__(self, builder, element, weights):  # type: ignore[no-untyped-def]
        size = 4 if isinstance(element, ir.FloatType) else 8
        self.code = Vectors(builder, element, LANES, align_bytes=size)
        self.builder = builder
        self.row, self.column = (self.code.splat(weight) for weight in weights)

    def upright(self, above, here, below):  # type: ignore[no-untyped-def]
        """Return the weighted sum of a pixel and those above and below it."""
        outer = self.builder.fadd(above, below)
        return self.builder.fadd(outer, self.builder.fmul(here, self.row))

    def across(self, before, sums, after, share):  # type: ignore[no-untyped-def]
        """Return the weighted sum of upright sums side by side, times the share."""
        left = self.code.pick(before, sums, BEFORE)
        right = self.code.pick(sums, after, AFTER)
        outer = self.builder.fadd(left, right)
        total = self.builder.fadd(outer, self.builder.fmul(sums, self.column))
        return self.builder.fmul(total, share)


def narrow_average(n_vectors):  # type: ignore[no-untyped-def]
    """Return an intrinsic for rows of a known number of vectors: in place, rows in registers."""

    @intrinsic
    def average(typingctx, heat, share, first, last, row_weight, column_weight):  # type: ignore[no-untyped-def]
        signature = types.void(heat, share, types.int64, types.int64, row_weight, column_weight)

        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            element = context.get_value_type(heat.dtype)
            rows = _Rows(builder, element, arguments[4:])
            code = rows.code
            heats, shares = (
                data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 1)
            )
            width = ir.Constant(I64, n_vectors * LANES)
            lanes = [ir.Constant(I64, k * LANES) for k in range(n_vectors)]
            begin = builder.mul(arguments[2], width)

            def kept(row):  # type: ignore[no-untyped-def]
                """Return variables that hold a row."""
                values = [code.load(heats, builder.add(row, lane)) for lane in lanes]
                return [cgutils.alloca_once_value(builder, value) for value in values]

            above, here = kept(builder.sub(begin, width)), kept(begin)
            end = builder.mul(arguments[3], width)
            with cgutils.for_range_slice(builder, begin, end, width, I64) as (row, _):
                sums = [code.zero]
                for k, lane in enumerate(lanes):
                    below = code.load(heats, builder.add(builder.add(row, width), lane))
                    middle = builder.load(here[k])
                    sums.append(rows.upright(builder.load(above[k]), middle, below))
                    builder.store(middle, above[k])
                    builder.store(below, here[k])
                sums.append(code.zero)
                for k, lane in enumerate(lanes):
                    at = builder.add(row, lane)
                    part = code.load(shares, at)
                    code.store(rows.across(*sums[k : k + 3], part), heats, at)
            return context.get_dummy_value()

        return signature, codegen

    return average


@intrinsic
def wide_average(typingctx, old, share, new, first, last, width, row_weight, column_weight):  # type: ignore[no-untyped-def]
    """Average rows of any number of vectors, from one array into another."""
    size = types.int64
    signature = types.void(old, share, new, size, size, size, row_weight, column_weight)

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        rows = _Rows(builder, context.get_value_type(old.dtype), arguments[6:])
        code = rows.code
        olds, shares, news = (
            data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 2)
        )
        width, step = arguments[5], ir.Constant(I64, LANES)

        def upright(at):  # type: ignore[no-untyped-def]
            above = code.load(olds, builder.sub(at, width))
            below = code.load(olds, builder.add(at, width))
            return rows.upright(above, code.load(olds, at), below)

        begin, end = (builder.mul(arguments[i], width) for i in (3, 4))
        before, sums = (cgutils.alloca_once_value(builder, code.zero) for _ in range(2))
        with cgutils.for_range_slice(builder, begin, end, width, I64) as (row, _):
            builder.store(code.zero, before)
            builder.store(upright(row), sums)

            def write(at, after):  # type: ignore[no-untyped-def]
                here = builder.load(sums)
                part = code.load(shares, at)
                code.store(rows.across(builder.load(before), here, after, part), news, at)
                builder.store(here, before)
                builder.store(after, sums)

            final = builder.sub(builder.add(row, width), step)
            with cgutils.for_range_slice(builder, row, final, step, I64) as (at, _):
                write(at, upright(builder.add(at, step)))
            write(final, code.zero)
        return context.get_dummy_value()

    return signature, codegen


average_1, average_2, average_3, average_4, average_5 = map(narrow_average, range(1, NARROW + 1))


@helper
def average_plane(heat, other, share, width, first, last, weights):
    """Average rows first to last - 1; return (averages, room for the next ones)."""
    row, column = weights
    n = width // LANES
    if n == 1:
        average_1(heat, share, first, last, row, column)
    elif n == 2:
        average_2(heat, share, first, last, row, column)
    elif n == 3:
        average_3(heat, share, first, last, row, column)
    elif n == 4:
        average_4(heat, share, first, last, row, column)
    elif n == NARROW:
        average_5(heat, share, first, last, row, column)
    else:
        wide_average(heat, share, other, first, last, width, row, column)
        return other, heat
    return heat, other
