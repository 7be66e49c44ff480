"""TIFFs of many kinds: what samples and pages mean, which image is read, what a pixel measures."""

import logging

import numpy as np
import pytest
import tifffile

from cellseg_pipe.io.reading import read_image

rng = np.random.default_rng(0)
GREY = rng.integers(0, 60_000, (40, 50), dtype=np.uint16)
COLOUR = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
ALPHA = {"extrasamples": ["unassalpha"]}


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "u2", "u4", "u8", "i2", "i4", ">u2", "f2", ">f4", "f8"]
)
def test_all_types_come_in_the_order_of_bytes_of_this_machine(tmp_path, dtype):
    pixels = (GREY % 2 if dtype == "?" else GREY % 100).astype(dtype)
    order = ">" if dtype[0] == ">" else "<"
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=order)
    found = read_image(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(found, pixels[None])
    assert found.dtype == np.dtype(dtype).newbyteorder("=") and found.dtype.isnative


@pytest.mark.parametrize("bits", [1, 4, 10, 12])
def test_odd_depths(tmp_path, bits):
    pixels = (GREY % 2**bits).astype({1: bool, 4: np.uint8}.get(bits, np.uint16))
    kind = {"bitspersample": bits, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **kind)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, pixels[None])


@pytest.mark.parametrize("how", ["lzw", "deflate", "zstd", "packbits", "tiled", "big"])
def test_all_layouts(tmp_path, how):
    layout = {"tiled": {"tile": (16, 16)}, "big": {"bigtiff": True}}.get(how, {"compression": how})
    tifffile.imwrite(tmp_path / "a.tif", GREY, **layout)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, GREY[None])


@pytest.mark.parametrize(
    ("n_samples", "layout", "n_channels", "rgb", "said"),
    [
        (3, {"photometric": "rgb"}, 3, True, False),
        (4, {"photometric": "rgb", **ALPHA}, 3, True, True),
        (2, {"photometric": "minisblack", **ALPHA}, 1, False, True),
        (2, {"photometric": "minisblack"}, 2, False, False),
        (3, {"photometric": "minisblack"}, 3, False, False),
        (4, {"photometric": "minisblack"}, 4, False, False),
        (5, {"photometric": "rgb"}, 5, False, False),
    ],
)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_are_colours_opacity_or_channels(
    tmp_path, caplog, n_samples, layout, n_channels, rgb, said, planar
):
    samples = rng.integers(0, 255, (n_samples, 40, 50), dtype=np.uint8)
    stored = np.moveaxis(samples, 0, -1) if planar == "contig" else samples
    tifffile.imwrite(tmp_path / "a.tif", stored, planarconfig=planar, **layout)
    with caplog.at_level(logging.INFO):
        image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, samples[:n_channels])
    assert image.rgb == rgb and image.spatial == "yx"
    assert ("alpha channel is left out" in caplog.text) == said


@pytest.mark.parametrize("n_pages", [2, 3, 7])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_pages_of_colours_are_planes(tmp_path, caplog, n_pages, planar):
    pages = rng.integers(0, 255, (n_pages, 3, 40, 50), dtype=np.uint8)
    stored = np.moveaxis(pages, 1, -1) if planar == "contig" else pages
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    with caplog.at_level(logging.INFO):
        image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, pages.swapaxes(0, 1))
    assert image.rgb and image.spatial == "zyx" and "axes= says otherwise" in caplog.text


def test_each_series_of_an_ome_tiff_has_its_own_names_and_sizes(tmp_path, caplog):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        about = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        writer.write(GREY, metadata=about)
        about = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.2}
        writer.write(np.stack([GREY, GREY]), metadata={**about, "Channel": {"Name": ["a", "b"]}})
    with caplog.at_level(logging.INFO):
        first = read_image(tmp_path / "a.ome.tif")
    assert first.pixels.shape == (1, 40, 50) and first.spacing_um == (0.5, 0.5)
    assert "holds 2 images, number 0 is read" in caplog.text
    second = read_image(tmp_path / "a.ome.tif", series=1)
    assert second.channel_names == ("a", "b") and second.spacing_um == (0.2, 0.25)


@pytest.mark.parametrize("unit", ["micron", "um", "µm", "\\u00b5m", "\\u00B5m"])
def test_units_of_imagej(tmp_path, unit):
    about = {"unit": unit.replace("µ", "\\u00b5"), "axes": "ZYX", "spacing": 2.0}
    stack = np.stack([GREY] * 3)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(4, 2), metadata=about)
    assert read_image(tmp_path / "a.tif").spacing_um == pytest.approx((2.0, 0.5, 0.25))


@pytest.mark.parametrize(
    ("per_unit", "unit", "size_um"),
    [
        (20_000, "CENTIMETER", 0.5),
        (50_800, "INCH", 0.5),
        (72, "INCH", None),
        (300, "INCH", None),
        (1200, "INCH", None),
        (118.11, "CENTIMETER", None),
        (0, "CENTIMETER", None),
        (20_000, "NONE", None),
    ],
)
def test_resolutions_count_where_they_are_of_a_microscope(
    tmp_path, caplog, per_unit, unit, size_um
):
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(per_unit, per_unit), resolutionunit=unit)
    with caplog.at_level(logging.INFO):
        found = read_image(tmp_path / "a.tif").spacing_um
    assert found == (size_um and pytest.approx((size_um, size_um)))
    assert ("by its resolution" in caplog.text) == (size_um is not None)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"compression": "lzw"}])
def test_cut_files_are_refused_in_one_line(tmp_path, layout):
    tifffile.imwrite(tmp_path / "a.tif", GREY, **layout)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot be read as TIFF") as caught:
        read_image(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("axes", ["qyx", "zzx", "zy", "zyxc"])
def test_axes_that_cannot_be_are_refused(tmp_path, axes):
    np.save(tmp_path / "a.npy", GREY[None])
    with pytest.raises(ValueError, match="a letter for each axis"):
        read_image(tmp_path / "a.npy", axes=axes)


def test_colours_of_one_channel(tmp_path):
    np.save(tmp_path / "a.npy", COLOUR[None])
    image = read_image(tmp_path / "a.npy", axes="cyxs")
    np.testing.assert_array_equal(image.pixels, np.moveaxis(COLOUR, -1, 0))
    assert image.rgb


@pytest.mark.parametrize(("steps", "found"), [([0.5, 0.25], (0.5, 0.25)), ([0, -1], None)])
def test_steps_of_a_store_that_are_no_sizes_are_left_out(tmp_path, steps, found):
    import zarr

    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=GREY)
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": steps}]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    image = read_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(image.pixels, GREY[None])
    assert image.spacing_um == found
