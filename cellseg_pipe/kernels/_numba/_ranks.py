"""Ranks of foreground pixels from a bit per pixel and a count per word of them."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from cellseg_pipe.kernels._numba._jit import helper


@intrinsic
def bits_set(typingctx, word):  # type: ignore[no-untyped-def]
    """Count the bits of a word."""
    return types.uint64(types.uint64), lambda context, builder, signature, arguments: builder.ctpop(
        arguments[0]
    )


@helper
def rank_of(words, before, flat):
    """Return how many foreground pixels come before this one, -1 if it is background."""
    word = words[flat >> 6]
    bit = np.uint64(1) << np.uint64(flat & 63)
    if word & bit == 0:
        return np.int64(-1)
    return before[flat >> 6] + np.int64(bits_set(word & (bit - np.uint64(1))))


def ranked(foreground):
    """Return the foreground as a bit per pixel, and the number of pixels before each word."""
    words = np.zeros(-(-foreground.size // 64), np.uint64)
    bits = np.packbits(foreground.reshape(-1), bitorder="little")
    words.view(np.uint8)[: bits.size] = bits
    before = np.cumsum(np.bitwise_count(words), dtype=np.int64) - np.bitwise_count(words)
    return words, before
