"""Images as programs write them: axes, channels, voxel size; clear words for the unreadable."""

import logging

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
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


def test_png_keeps_16_bits_of_colours(tmp_path, caplog):
    pixels = rng.integers(0, 65535, (20, 30, 4), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    with caplog.at_level(logging.INFO):
        image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, np.moveaxis(pixels[..., :3], -1, 0))
    assert image.rgb and image.pixels.dtype == np.uint16
    assert "alpha channel is left out" in caplog.text
    Pictures.fromarray(pixels[..., :2].astype(np.uint8)).save(tmp_path / "la.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "la.png").pixels[0], pixels[..., 0].astype(np.uint8)
    )


def test_a_picture_of_more_pixels_than_pillow_reads(tmp_path):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((9000, 20_000), np.uint8)))
    assert read_image(tmp_path / "a.png").pixels.shape == (1, 9000, 20_000)


def test_inks_become_colours(tmp_path):
    Pictures.new("CMYK", (30, 20), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    image = read_image(tmp_path / "a.jpg")
    assert image.rgb and (image.pixels[0] > 200).all() and (image.pixels[1:] < 60).all()


def test_a_jpeg_larger_than_pillow_takes(tmp_path, monkeypatch):
    Pictures.fromarray(COLOUR).save(tmp_path / "a.jpg")
    usual = read_image(tmp_path / "a.jpg")
    monkeypatch.setattr(Pictures, "MAX_IMAGE_PIXELS", 100)
    large = read_image(tmp_path / "a.jpg")
    assert large.rgb and np.abs(large.pixels.astype(int) - usual.pixels).max() <= 2


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.npy"])
def test_a_cut_file_is_refused(tmp_path, name):
    if name == "a.npy":
        np.save(tmp_path / name, GREY)
    else:
        Pictures.fromarray(GREY).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"{name} cannot be read as .*Copy or export") as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_numbers_are_those_of_this_machine(tmp_path):
    np.save(tmp_path / "a.npy", STACK[0].astype(">u2"))
    image = read_image(tmp_path / "a.npy")
    assert image.pixels.dtype.isnative
    np.testing.assert_array_equal(image.pixels[0], STACK[0])


def test_a_stack_of_colours(tmp_path):
    pixels = rng.integers(0, 255, (5, 20, 30, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, np.moveaxis(pixels, -1, 0))
    assert image.rgb and image.spatial == "zyx"


@pytest.mark.parametrize(
    "how",
    [
        {"compression": "lzw"},
        {"compression": "zstd"},
        {"compression": "zlib", "predictor": True},
        {"tile": (16, 16), "bigtiff": True},
        {"byteorder": ">"},
        {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"},
    ],
)
def test_ways_to_store_a_tiff(tmp_path, how):
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], **how)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels[0], STACK[0])
    assert image.pixels.dtype.isnative
    assert image.spacing_um == (pytest.approx((0.5, 0.5)) if "resolution" in how else None)


def test_planes_of_colours_and_several_series(tmp_path):
    planes = np.ascontiguousarray(np.moveaxis(COLOUR, -1, 0))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(planes, photometric="rgb", planarconfig="separate")
        writer.write(GREY)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, planes)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", series=1).pixels[0], GREY)


def store(path, attributes, **arrays):
    """Write a Zarr 3 group with the attributes that are given."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    for name, pixels in arrays.items():
        group.create_array(name, data=pixels, chunks=pixels.shape)
    group.attrs.update({"ome": attributes})
    return path


SPACE = [{"name": name, "type": "space", "unit": "nanometer"} for name in "yx"]


def test_levels_of_a_store_and_their_sizes(tmp_path):
    levels = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [step, step]}]}
        for name, step in (("fine", 1), ("coarse", 2))
    ]
    overall = [{"type": "scale", "scale": [250, 500]}]
    scales = {"axes": SPACE, "datasets": levels, "coordinateTransformations": overall}
    path = store(tmp_path / "a.zarr", {"multiscales": [scales]}, fine=GREY, coarse=GREY[::2, ::2])
    assert read_image(path).spacing_um == pytest.approx((0.25, 0.5))
    coarse = read_image(path, level=1)
    np.testing.assert_array_equal(coarse.pixels[0], GREY[::2, ::2])
    assert coarse.spacing_um == pytest.approx((0.5, 1.0))
    with pytest.raises(ValueError, match="levels 0 to 1, asked for 2"):
        read_image(path, level=2)
    np.save(tmp_path / "a.npy", GREY)
    with pytest.raises(ValueError, match="only OME-Zarr images are read at level 1"):
        read_image(tmp_path / "a.npy", level=1)


@pytest.mark.parametrize(("kind", "spacing"), [("scale", (4e-3, 3e-3)), ("rotation", None)])
def test_version_06_is_read_as_far_as_it_is_plain(tmp_path, kind, spacing):
    steps = [{"type": kind, "scale": [4, 3]}, {"type": "translation", "translation": [1, 1]}]
    level = {
        "path": "0",
        "coordinateTransformations": [{"type": "sequence", "transformations": steps}],
    }
    scales = {"coordinateSystems": [{"name": "p", "axes": SPACE}], "datasets": [level]}
    image = read_image(store(tmp_path / "a.zarr", {"multiscales": [scales]}, **{"0": GREY}))
    np.testing.assert_array_equal(image.pixels[0], GREY)
    assert image.spacing_um == (pytest.approx(spacing) if spacing else None)


def test_stores_that_are_refused(tmp_path):
    levels = [{"path": "0"}]
    wrong = store(
        tmp_path / "b.zarr", {"multiscales": [{"axes": SPACE, "datasets": levels}]}, **{"0": STACK}
    )
    with pytest.raises(ValueError, match="needs a name for each of its 3 axes"):
        read_image(wrong)
    plate = store(tmp_path / "p.zarr", {"plate": {}})
    store(plate / "A", {})
    with pytest.raises(ValueError, match="no multiscales.*groups here: A"):
        read_image(plate)
    damaged = store(
        tmp_path / "d.zarr", {"multiscales": [{"axes": SPACE, "datasets": levels}]}, **{"0": GREY}
    )
    (chunk,) = (path for path in (damaged / "0" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(b"no zstd")
    with pytest.raises(ValueError, match="cannot be read as OME-Zarr") as caught:
        read_image(damaged)
    assert "\n" not in str(caught.value)
