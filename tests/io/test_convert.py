"""Files that cannot be read in boxes become OME-Zarr of the same pixels, in bounded memory."""

import os

import numpy as np
import pytest
import tifffile
import zarr

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.convert import convert
from cellseg_pipe.io.opening import open_image

rng = np.random.default_rng(0)
SPACE = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
MANY = 1 << 30


def same(left, right):
    """Tell whether two open images hold the same pixels and say the same of them."""
    about = ("shape", "spatial", "n_channels", "n_times", "dtype", "rgb", "spacing_um", "offset_um")
    assert {name: getattr(left, name) for name in about[:-1]} == {
        name: getattr(right, name) for name in about[:-1]
    }
    for time in range(left.n_times):
        box = Box.of(left.shape)
        np.testing.assert_array_equal(left.read(box, t=time), right.read(box, t=time))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("shape", "axes", "dtype"),
    [
        ((700, 600), "YX", "u1"),
        ((3, 2, 30, 40), "TCYX", "u2"),
        ((2, 70, 90, 80), "CZYX", ">u2"),
        ((5, 33, 35), "ZYX", "f4"),
        ((64, 48), "YX", "f2"),
        ((30, 31), "YX", "i4"),
        ((64, 48), "YX", "?"),
    ],
)
def test_pixels_stay_bit_for_bit(tmp_path, shape, axes, dtype, version):
    pixels = (rng.integers(0, 250, shape) % (2 if dtype == "?" else 251)).astype(dtype)
    order = ">" if dtype[0] == ">" else "<"
    ome = np.dtype(dtype) not in (np.dtype("f2"), np.dtype("?"))
    path = tmp_path / ("a.ome.tif" if ome else "a.tif")
    about = {"axes": axes, **SPACE} if ome else {"axes": axes}
    compression = "zlib" if np.dtype(dtype) != np.dtype("?") else None
    tifffile.imwrite(
        path, pixels, byteorder=order, compression=compression, rowsperstrip=7, metadata=about
    )
    image = open_image(path)
    assert not image.in_place  # single bits are packed
    out = convert(image, tmp_path / "a.ome.zarr", memory_bytes=MANY, version=version)
    found = open_image(out)
    same(image, found)
    assert found.in_place and found.format == f"OME-Zarr {version}"
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, "a.ome.zarr"])
    channels = zarr.open_group(out, mode="r").attrs
    window = channels.get("ome", channels)["omero"]["channels"][0]["window"]
    low, high = pixels.min().item(), pixels.max().item()
    assert (window["start"], window["end"]) == (low, high)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_stay_colours(tmp_path, planar):
    pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    stored = pixels if planar == "contig" else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, compression="lzw"
    )
    image = open_image(tmp_path / "a.tif")
    found = open_image(convert(image, tmp_path / "a.zarr", memory_bytes=MANY))
    same(image, found)
    assert found.rgb and found.channel_names == ("red", "green", "blue")


def test_one_large_page_is_converted_strip_by_strip(tmp_path):
    pixels = rng.integers(0, 9, (3000, 2000), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", rowsperstrip=64)
    image = open_image(tmp_path / "a.tif")
    boxes = []

    class Watched:
        def __getattr__(self, name):
            return getattr(image, name)

        def read(self, box, *, t):
            boxes.append(box)
            return image.read(box, t=t)

    least = 4 * 512 * 2000 + 2 * 64 * 2000 + pixels.nbytes
    out = convert(Watched(), tmp_path / "a.zarr", memory_bytes=least)
    same(image, open_image(out))
    assert [box.shape for box in boxes] == [(512, 2000)] * 5 + [(440, 2000)]


@pytest.mark.parametrize(("planes", "depth"), [(64, 64), (1, 1)])
def test_thin_slabs_where_memory_is_scarce(tmp_path, planes, depth):
    pixels = rng.integers(0, 9, (70, 300, 200), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", metadata={"axes": "ZYX"})
    image = open_image(tmp_path / "a.tif")
    spare = pixels.nbytes + 2 * 300 * 200
    out = convert(image, tmp_path / "a.zarr", memory_bytes=spare + 4 * planes * 300 * 200)
    same(image, open_image(out))
    assert open_image(out).chunk[0] == depth


def test_too_little_memory_is_said_before_anything_is_written(tmp_path):
    pixels = rng.integers(0, 9, (600, 500), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", rowsperstrip=600)
    image = open_image(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="needs 2 MB to be converted.*got 0 MB. Raise the memory"):
        convert(image, tmp_path / "a.zarr", memory_bytes=400_000)
    assert os.listdir(tmp_path) == ["a.tif"]


def test_it_is_done_once_and_never_overwrites(tmp_path):
    pixels = rng.integers(0, 9, (60, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib")
    image, out = open_image(tmp_path / "a.tif"), tmp_path / "a.zarr"
    convert(image, out, memory_bytes=MANY)
    before = os.stat(out / "0").st_mtime_ns
    assert convert(open_image(tmp_path / "a.tif"), out, memory_bytes=MANY) == out
    assert os.stat(out / "0").st_mtime_ns == before
    tifffile.imwrite(tmp_path / "a.tif", pixels[:50], compression="zlib")
    with pytest.raises(FileExistsError, match="is no copy of .* as it is now"):
        convert(open_image(tmp_path / "a.tif"), out, memory_bytes=MANY)


def test_a_fault_leaves_nothing_behind(tmp_path):
    pixels = rng.integers(0, 255, (600, 500), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", rowsperstrip=100)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].dataoffsets[5]
    with open(tmp_path / "a.tif", "r+b") as file:
        file.seek(offset)
        file.write(b"no zlib at all")
    with pytest.raises(ValueError, match="page 0: .*Copy or export it again"):
        convert(open_image(tmp_path / "a.tif"), tmp_path / "a.zarr", memory_bytes=MANY)
    assert os.listdir(tmp_path) == ["a.tif"]
