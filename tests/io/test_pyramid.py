"""Pyramids: levels made shard by shard equal those made of the whole array at once."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.io import pyramid
from cellseg_pipe.io.levels import level_factors
from cellseg_pipe.io.ngff import ImageMeta, create_image, create_label_pyramid
from cellseg_pipe.io.pyramid import downsample, downsample_shard, level_grid
from cellseg_pipe.io.shards import ShardWriter, read_box


def slow_downsample(array, factor, kind):
    """One block at a time: the mode, on a tie the lowest; or the mean, rounded half to even."""
    shape = tuple(-(-n // f) for n, f in zip(array.shape, factor, strict=True))
    made = np.zeros(shape, array.dtype)
    for index in np.ndindex(shape):
        block = array[tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factor, strict=True))]
        if kind == "labels":
            values, counts = np.unique(block, return_counts=True)
            made[index] = values[np.argmax(counts)]
        elif array.dtype.kind == "f":
            made[index] = block.mean(dtype=np.float64)
        else:
            made[index] = np.rint(block.mean(dtype=np.float64))
    return made


def new_levels(store, shape, factors, *, dtype, sharded):
    """A store of small chunks, so that small arrays have many shards."""
    group = zarr.open_group(store, mode="w", zarr_format=3 if sharded else 2)
    for level, factor in enumerate(factors):
        coarse = tuple(-(-n // f) for n, f in zip(shape, factor, strict=True))
        group.create_array(
            str(level),
            shape=coarse,
            dtype=dtype,
            chunks=(2,) * len(shape),
            shards=(4,) * len(shape) if sharded else None,
            chunk_key_encoding={"name": "default" if sharded else "v2", "separator": "/"},
        )


@pytest.mark.parametrize("kind", ["labels", "image"])
@settings(max_examples=25)
@given(
    shape=st.lists(st.integers(1, 11), min_size=2, max_size=3),
    flat=st.booleans(),
    sharded=st.booleans(),
    random=st.randoms(),
)
def test_shards_in_any_order_equal_the_whole(tmp_path_factory, kind, shape, flat, sharded, random):
    store = tmp_path_factory.mktemp("any") / "a.zarr"
    dtype = "uint32" if kind == "labels" else "uint16"
    step = (1 if flat else 2, *(2,) * (len(shape) - 1))
    factors = [tuple(s**level for s in step) for level in range(3)]
    new_levels(store, shape, factors, dtype=dtype, sharded=sharded)
    whole = np.random.default_rng(len(shape)).integers(0, 3, shape).astype(dtype)
    zarr.open_array(store / "0", mode="r+")[...] = whole
    for level in range(1, 3):
        numbers = list(range(len(ShardWriter(store / str(level)).grid)))
        random.shuffle(numbers)
        for number in numbers:
            downsample_shard(store, level, number, kind=kind)
        whole = slow_downsample(whole, step, kind)
        np.testing.assert_array_equal(zarr.open_array(store / str(level), mode="r")[...], whole)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.integers(0, 99))
def test_float_images_do_not_depend_on_shards_either(tmp_path_factory, shape, seed):
    store = tmp_path_factory.mktemp("any") / "a.zarr"
    factors = [(1,) * len(shape), (2,) * len(shape)]
    new_levels(store, shape, factors, dtype="float32", sharded=True)
    whole = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    zarr.open_array(store / "0", mode="r+")[...] = whole
    for number in range(len(ShardWriter(store / "1").grid)):
        downsample_shard(store, 1, number, kind="image")
    found = zarr.open_array(store / "1", mode="r")[...]
    np.testing.assert_array_equal(found, downsample(whole, factors[1], kind="image"))
    np.testing.assert_allclose(found, slow_downsample(whole, factors[1], "image"), atol=1e-6)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ([[5, 5], [0, 0]], 0),
        ([[0, 7], [0, 7]], 0),
        ([[9, 3], [3, 9]], 3),
        ([[4, 3], [2, 1]], 1),
        ([[4, 4], [2, 1]], 4),
        ([[8], [9]], 8),
        ([[2**32 - 1, 2**32 - 1], [1, 2]], 2**32 - 1),
    ],
)
def test_on_a_tie_the_lowest_label_wins(block, expected):
    assert downsample(np.array(block, np.uint32), (2, 2)).tolist() == [[expected]]


def test_means_of_whole_numbers_are_rounded_half_to_even():
    row = np.array([[0, 1, 1, 2, 2, 3, 65535, 65535, 7]], np.uint16)
    assert downsample(row, (1, 2), kind="image").tolist() == [[0, 2, 2, 65535, 7]]
    assert downsample(row, (1, 1), kind="image") is row


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((1300, 2500), (1.0, 1.0)), ((70, 300, 1100), (2.0, 1.0, 1.0))]
)
def test_a_label_store_gets_all_its_levels(tmp_path, version, shape, spacing):
    store = tmp_path / "labels.ome.zarr"
    create_label_pyramid(
        store, ImageMeta("zyx"[-len(shape) :], spacing), shape=shape, version=version
    )
    small = np.random.default_rng(1).integers(0, 5, [n // 8 + 2 for n in shape])
    whole = np.kron(small, np.ones((8,) * len(shape), np.uint32)).astype(np.uint32)
    whole = whole[tuple(slice(3, n + 3) for n in shape)]
    writer = ShardWriter(store / "0")
    for number in range(len(writer.grid)):
        writer.write_shard(number, whole[writer.grid.box(number).slices])
    factors = level_factors(shape, spacing)
    for level in range(1, len(factors)):
        grid = level_grid(shape, level, spacing_um=spacing)
        for number in reversed(range(len(grid))):
            written = downsample_shard(store, level, number)
            assert written == ShardWriter(store / str(level)).stored(number)
        step = tuple(b // a for a, b in zip(factors[level - 1], factors[level], strict=True))
        whole = downsample(whole, step)
        found = read_box(store / str(level), Box.of(grid.shape))
        np.testing.assert_array_equal(found, whole)
        assert found.dtype == np.uint32 and set(np.unique(found)) <= set(range(5))
    assert len(factors) > 2


def test_an_image_with_channels_and_times_gets_its_levels(tmp_path):
    shape = (2, 2, 600, 700)
    meta = ImageMeta("tcyx", (1.0, 1.0), ("a", "b"))
    array = {"shape": shape, "dtype": "uint16"}
    create_image(
        tmp_path / "a.zarr", meta, array=array, value_range=(0, 9), version="0.5", n_levels=None
    )[...] = whole = np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)
    grid = level_grid(shape, 1, ndim=2)
    assert len(grid) == 4 == len(ShardWriter(tmp_path / "a.zarr/1").grid)
    for number in range(len(grid)):
        downsample_shard(tmp_path / "a.zarr", 1, number, kind="image", threads=1)
    blocks = whole.reshape(2, 2, 300, 2, 350, 2).astype(np.float64)
    np.testing.assert_array_equal(
        zarr.open_array(tmp_path / "a.zarr/1", mode="r")[...], np.rint(blocks.mean((3, 5)))
    )


def test_no_more_is_read_at_once_than_one_shard_above(tmp_path, monkeypatch):
    shape = (300, 700, 900)
    create_label_pyramid(
        tmp_path / "a.zarr", ImageMeta("zyx", (1, 1, 1)), shape=shape, version="0.5"
    )
    sizes = []

    def counted(level, box, **threads):
        sizes.append(box.size)
        return read_box(level, box, **threads)

    monkeypatch.setattr(pyramid, "read_box", counted)
    assert downsample_shard(tmp_path / "a.zarr", 1, 0).blank
    assert len(sizes) == 8 and max(sizes) <= 128 * 256 * 256
    assert sum(sizes) == 256 * 512 * 512


def test_levels_that_do_not_fit_are_refused(tmp_path):
    new_levels(tmp_path / "a.zarr", (16, 16), [(1, 1), (3, 3)], dtype="uint32", sharded=True)
    with pytest.raises(ValueError, match=r"equal or half as long .* got \(16, 16\) and \(6, 6\)"):
        downsample_shard(tmp_path / "a.zarr", 1, 0)
    with pytest.raises(ValueError, match="level 0 is made by none above it"):
        downsample_shard(tmp_path / "a.zarr", 0, 0)
    with pytest.raises(FileNotFoundError, match="needs to be a zarr array"):
        downsample_shard(Path(tmp_path / "a.zarr"), 2, 0)
