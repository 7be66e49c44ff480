"""Numba loops that count which labels lie on which."""

from __future__ import annotations

import numpy as np
from numba import types

from cellseg_pipe.kernels._numba._jit import const, helper, loop, out
from cellseg_pipe.kernels._numba._threads import ranges, spread

CHUNK = 1 << 20  # elements a thread reads at a time; bounds its worst case to 16 MiB
SLOTS = 1 << 13  # pairs held open; more than the labels that a few image rows cross
BLOCK = 1 << 11  # elements whose run ends are found at a time; their flags stay in the L1 cache


@helper
def slot_of(key):
    """Return the place of a pair among SLOTS = 2^13, by multiplicative hashing."""
    mixed = (key ^ (key >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed >> np.uint64(51))


@loop((const(types.uint32), const(types.uint32), out(types.uint64), out(types.int64)))
def count_runs(left, right, keys, counts):
    """Write (pair, voxels) rows, a pair possibly more than once; return how many rows.

    Runs of equal pairs go to a small table of open pairs, from which a pair is written out when
    another one needs its slot: no sorting and no growing hash map in the loop.
    """
    held = np.zeros(SLOTS, np.uint64)
    open_counts = np.zeros(SLOTS, np.int64)
    ends = np.empty(BLOCK, np.int64)
    is_end = np.empty(BLOCK, np.uint8)
    written = 0
    begin = 0
    for start in range(0, left.size, BLOCK):
        stop = min(start + BLOCK, left.size)
        a, next_a = left[start:stop], left[start + 1 : stop + 1]
        b, next_b = right[start:stop], right[start + 1 : stop + 1]
        is_end[stop - start - 1] = 1  # for the last element of all, which has no next one
        for k in range(next_a.size):
            is_end[k] = ((a[k] ^ next_a[k]) | (b[k] ^ next_b[k])) != 0
        n_ends = 0
        for k in range(stop - start):  # without a branch, which would be guessed wrong at each end
            ends[n_ends] = start + k
            n_ends += is_end[k]
        for k in range(n_ends):
            last = ends[k]
            key = (np.uint64(left[last]) << np.uint64(32)) | np.uint64(right[last])
            slot = np.int64(
                ((key ^ (key >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(51)
            )
            if open_counts[slot] and held[slot] != key:
                keys[written] = held[slot]
                counts[written] = open_counts[slot]
                written += 1
                open_counts[slot] = 0
            held[slot] = key
            open_counts[slot] += last + 1 - begin
            begin = last + 1
    for slot in range(SLOTS):
        if open_counts[slot]:
            keys[written] = held[slot]
            counts[written] = open_counts[slot]
            written += 1
    return written


def overlap_pairs(left, right, *, threads):
    """Return (keys, counts), keys ascending: left label in the high 32 bits, right in the low."""
    left, right = left.ravel(), right.ravel()

    def part(start, stop):
        keys = np.empty(min(CHUNK, stop - start) + SLOTS, np.uint64)
        counts = np.empty(keys.size, np.int64)
        n = count_runs(left[start:stop], right[start:stop], keys, counts)
        return sum_by_key(keys[:n], counts[:n])

    parts = spread(part, ranges(left.size, CHUNK), threads=threads)
    keys = np.concatenate([np.empty(0, np.uint64), *(keys for keys, _ in parts)])
    counts = np.concatenate([np.empty(0, np.int64), *(counts for _, counts in parts)])
    return sum_by_key(keys, counts)


def sum_by_key(keys, counts):
    """Return the distinct keys, ascending, with their summed counts."""
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    first = np.flatnonzero(np.r_[keys.size > 0, keys[1:] != keys[:-1]][: keys.size])
    return keys[first], np.add.reduceat(counts, first) if first.size else counts
