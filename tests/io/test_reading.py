"""Images as programs write them: axes, channels, voxel size; clear words for the unreadable."""

import logging

import numpy as np
import pytest
import tifffile
from PIL import Image as Pictures

from cellseg_pipe.io.ngff import ImageMeta, create_image, create_labels
from cellseg_pipe.io.reading import read_image

rng = np.random.default_rng(0)
GREY = rng.integers(0, 255, (20, 30), dtype=np.uint8)
COLOUR = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
STACK = rng.integers(0, 60000, (7, 20, 30), dtype=np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_a_grey_plane(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, GREY)
    elif suffix == ".tif":
        tifffile.imwrite(path, GREY)
    else:
        Pictures.fromarray(GREY).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, GREY[None])
    assert image.spatial == "yx" and not image.rgb and image.spacing_um is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, COLOUR, photometric="rgb")
    else:
        Pictures.fromarray(COLOUR).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, np.moveaxis(COLOUR, -1, 0))
    assert image.rgb


def test_jpeg_palette_and_alpha(tmp_path, caplog):
    Pictures.fromarray(COLOUR).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").pixels.shape == (3, 20, 30)
    Pictures.fromarray(COLOUR).convert("P").save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").rgb
    opaque = np.concatenate([COLOUR, np.full((20, 30, 1), 200, np.uint8)], axis=-1)
    Pictures.fromarray(opaque).save(tmp_path / "t.png")
    with caplog.at_level(logging.INFO):
        image = read_image(tmp_path / "t.png")
    np.testing.assert_array_equal(image.pixels, np.moveaxis(COLOUR, -1, 0))
    assert "alpha channel is left out" in caplog.text


def test_an_imagej_hyperstack(tmp_path):
    pixels = rng.integers(0, 1000, (5, 2, 20, 30), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        imagej=True,
        resolution=(1 / 0.25, 1 / 0.5),
        metadata={"axes": "ZCYX", "spacing": 2.0, "unit": "um"},
    )
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, pixels.swapaxes(0, 1))
    assert image.spatial == "zyx"
    assert image.spacing_um == pytest.approx((2.0, 0.5, 0.25))


def test_labels_of_imagej_name_channels_only_one_by_one(tmp_path):
    for labels, names in ((["DAPI", "GFP", "Cy5"], ("DAPI", "GFP", "Cy5")), ("Red", ())):
        about = {"axes": "CYX", "Labels": labels if isinstance(labels, list) else [labels]}
        pixels = rng.integers(0, 9, (3, 20, 30), dtype=np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata=about)
        assert read_image(tmp_path / "a.tif").channel_names == names


def test_an_ome_tiff_names_channels_and_units(tmp_path):
    pixels = rng.integers(0, 1000, (2, 20, 30), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        pixels,
        metadata={
            "axes": "CYX",
            "PhysicalSizeX": 325.0,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.325,
            "PhysicalSizeYUnit": "µm",
            "Channel": {"Name": ["DAPI", "GFP"]},
        },
    )
    image = read_image(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.channel_names == ("DAPI", "GFP")
    assert image.spacing_um == pytest.approx((0.325, 0.325))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr(tmp_path, version):
    path = tmp_path / "a.ome.zarr"
    meta = ImageMeta("czyx", (2.0, 0.5, 0.5), ("a", "b"))
    array = {"shape": (2, 3, 20, 30), "dtype": "uint16", "chunks": (1, 1, 20, 30)}
    pixels = rng.integers(0, 99, (2, 3, 20, 30), dtype=np.uint16)
    create_image(path, meta, array=array, value_range=(0, 99), version=version)[...] = pixels
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.channel_names == ("a", "b") and image.spacing_um == (2.0, 0.5, 0.5)
    labels = {"shape": (3, 20, 30), "chunks": (1, 20, 30)}
    create_labels(path, "cells", ImageMeta("zyx", (2.0, 0.5, 0.5)), array=labels, version=version)
    assert read_image(path / "labels" / "cells").pixels.shape == (1, 3, 20, 30)


@pytest.mark.parametrize(
    ("shape", "axes", "spatial", "n_channels"),
    [
        ((7, 20, 30), None, "zyx", 1),
        ((3, 20, 30), None, "yx", 3),
        ((3, 20, 30), "zyx", "zyx", 1),
        ((20, 30, 3), None, "yx", 3),
        ((20, 30, 7), "yxc", "yx", 7),
        ((1, 2, 20, 30), "zcyx", "yx", 2),
        ((1, 4, 1, 20, 30), "tczyx", "yx", 4),
    ],
)
def test_axes_are_guessed_and_said_or_given(tmp_path, caplog, shape, axes, spatial, n_channels):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with caplog.at_level(logging.INFO):
        image = read_image(tmp_path / "a.npy", axes=axes)
    assert image.spatial == spatial and len(image.pixels) == n_channels
    assert ("axes= says otherwise" in caplog.text) == (axes is None)


def test_resolutions_of_printers_are_no_voxel_sizes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(72, 72), resolutionunit="INCH")
    assert read_image(tmp_path / "a.tif").spacing_um is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tif", b"", "is empty"),
        ("a.tif", b"not a tiff at all", "cannot be read as TIFF"),
        ("a.png", b"\x89PNG broken", "cannot be read as a picture"),
        ("a.npy", b"\x93NUMPY", "cannot be read as one plain array"),
        ("a.czi", b"x", "needs to be one of .tif"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_other_things_that_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_image(tmp_path / "none.tif")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder without one"):
        read_image(tmp_path / "folder")
    np.save(tmp_path / "a.npy", STACK)
    with pytest.raises(ValueError, match="a letter for each axis"):
        read_image(tmp_path / "a.npy", axes="yx")
    with pytest.raises(ValueError, match="7 steps along axis 't'"):
        read_image(tmp_path / "a.npy", axes="tyx")
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    with pytest.raises(ValueError, match="series 0 to 0, asked for 3"):
        read_image(tmp_path / "a.tif", series=3)


def test_a_cut_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot be read as TIFF"):
        read_image(tmp_path / "a.tif")
