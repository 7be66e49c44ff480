"""Levels, chunks and shards: the rules, and that they fit each other for any shape."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.io.levels import (
    CHUNK_PX,
    SHARD_PX,
    choose_version,
    chunk_shape,
    count_files,
    level_factors,
    level_grid,
    level_shape,
    shard_shape,
)
from cellseg_pipe.tiles import Grid

sides = st.integers(1, 20_000)
shapes = st.one_of(st.tuples(sides, sides), st.tuples(st.integers(1, 3000), sides, sides))


@pytest.mark.parametrize(
    ("shape", "spacing", "factors"),
    [
        ((512, 512), None, [(1, 1)]),
        ((513, 100), None, [(1, 1), (2, 2)]),
        ((1, 2049), (0.3, 0.3), [(1, 1), (2, 2), (4, 4), (8, 8)]),
        ((100, 600, 1200), (1, 1, 1), [(1, 1, 1), (2, 2, 2), (4, 4, 4)]),
        # 1.4 is nearer to a cube when halved (2.8 : 2), 1.5 is not (3 : 2 against 1.5 : 2)
        ((100, 600, 1000), (1.4, 1, 1), [(1, 1, 1), (2, 2, 2)]),
        ((100, 600, 1000), (1.5, 1, 1), [(1, 1, 1), (1, 2, 2)]),
        ((100, 600, 4000), (5, 1, 1), [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8)]),
        ((1, 1, 1025), (1, 1, 1), [(1, 1, 1), (1, 2, 2), (1, 4, 4)]),
        ((3, 1, 1025), (1, 1, 1), [(1, 1, 1), (2, 2, 2), (4, 4, 4)]),
    ],
)
def test_y_and_x_are_halved_until_512_and_z_while_the_voxel_becomes_a_cube(shape, spacing, factors):
    assert level_factors(shape, spacing) == factors
    assert level_factors(shape, spacing, n_levels=1) == factors[:1]
    assert level_factors(shape, spacing, n_levels=len(factors) + 2)[: len(factors)] == factors


def test_levels_are_asked_for_in_words_that_make_sense():
    with pytest.raises(
        ValueError, match=r"2 or 3 spatial axes with a spacing each, got shape \(9,"
    ):
        level_factors((9, 9), (1.0,))
    with pytest.raises(ValueError, match="2 or 3 spatial axes"):
        level_factors((9,))
    with pytest.raises(ValueError, match="n_levels=0"):
        level_factors((9, 9), n_levels=0)


@given(shapes, st.floats(0.1, 20))
def test_halving_step_by_step_is_halving_at_once(shape, step):
    factors = level_factors(shape, (step, *(1.0,) * (len(shape) - 1)))
    found = tuple(shape)
    for above, below in zip(factors, factors[1:], strict=False):
        found = level_shape(found, tuple(b // a for a, b in zip(above, below, strict=True)))
        assert found == level_shape(shape, below) and all(f & (f - 1) == 0 for f in below)
    assert max(found[-2:]) <= 512 and (len(factors) == 1 or max(shape[-2:]) > 512)


@given(shapes, st.integers(0, 6))
def test_stored_shards_are_the_boxes_of_the_plan(shape, level):
    ndim = len(shape)
    found = level_grid(shape, level)
    plan = Grid(found.shape, SHARD_PX[ndim])
    assert found.counts == plan.counts
    for number in {0, len(plan) // 2, len(plan) - 1}:
        assert found.box(number) == plan.box(number)
    chunk, shard = chunk_shape(found.shape, ndim), shard_shape(found.shape, ndim)
    assert all(s % c == 0 for s, c in zip(shard, chunk, strict=True))
    assert all(c <= m for c, m in zip(chunk, CHUNK_PX[ndim], strict=True))
    # No chunk of a shard of a small image lies outside it: viewers would ask for it.
    assert all(s < n + c for s, n, c in zip(shard, found.shape, chunk, strict=True))


def test_leading_axes_are_stored_one_by_one():
    assert chunk_shape((5, 3, 100, 900), 2) == (1, 1, 100, 512)
    assert shard_shape((5, 3, 100, 9000), 2) == (1, 1, 100, 2048)
    grid = level_grid((5, 300, 1000, 1000), 1, spacing_um=(1, 1, 1), ndim=3)
    assert grid.shape == (5, 150, 500, 500) and grid.pitch == (1, 128, 256, 256)


@given(shapes, st.integers(1, 4))
def test_files_are_counted_over_all_levels(shape, n_channels):
    ndim = len(shape)
    grids = [level_grid(shape, level) for level in range(len(level_factors(shape)))]
    chunks = sum(math.prod(level_shape(g.shape, chunk_shape(g.shape, ndim))) for g in grids)
    assert count_files(shape, ndim, n_channels) == chunks * n_channels
    assert count_files((7, *shape), ndim) == chunks * 7
    assert count_files(shape, ndim, n_channels, version="0.5") == sum(map(len, grids)) * n_channels
    version = choose_version(shape, ndim, n_channels)
    assert version == ("0.4" if chunks * n_channels < 20_000 else "0.5")


@pytest.mark.parametrize(
    ("shape", "n_channels", "version"),
    [
        ((2048, 2048), 1, "0.4"),
        ((60_000, 60_000), 1, "0.4"),
        ((100_000, 100_000), 1, "0.5"),
        ((60_000, 60_000), 3, "0.5"),
        ((512, 1024, 1024), 1, "0.4"),
        ((2000, 10_000, 10_000), 1, "0.5"),
    ],
)
def test_a_store_of_many_files_is_sharded(shape, n_channels, version):
    assert choose_version(shape, len(shape), n_channels) == version


def test_the_number_of_files_at_the_border_of_the_two_versions():
    row = [n for n in range(1, 30_000) if count_files((512, 512 * n), 2) >= 20_000][0]
    assert choose_version((512, 512 * row), 2) == "0.5"
    assert choose_version((512, 512 * (row - 1)), 2) == "0.4"
    assert np.isclose(row, 10_000, rtol=0.01)  # the lower levels hold as much again
