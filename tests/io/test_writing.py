"""What writers promise beyond their pixels: fixed types, voxel sizes, whole files, and no lies."""

import json

import imagecodecs
import numpy as np
import pytest
import tifffile
from ome_zarr_models.v04.image import Image as ImageModel
from ome_zarr_models.v04.image_label import ImageLabel
from PIL import Image as Pictures

from cellseg_pipe.io import results
from cellseg_pipe.io._attributes import described
from cellseg_pipe.io.images import pair_files, read_array
from cellseg_pipe.io.reading import Image
from cellseg_pipe.io.results import write_flows, write_labels
from cellseg_pipe.io.seg_npy import write_seg_npy
from cellseg_pipe.io.tables import read_table, write_table
from cellseg_pipe.io.writing import write_image

LABELS = np.zeros((40, 50), np.uint32)
LABELS[3:10, 4:12] = 1
LABELS[20:30, 30:45] = 2
VOLUME = np.stack([LABELS, LABELS * 0, LABELS])


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.ome.zarr"])
def test_labels_of_any_integer_type_are_written_as_uint32(tmp_path, name):
    write_labels(tmp_path / name, LABELS.astype(np.int64))
    found = read_array(tmp_path / name)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, LABELS)


@pytest.mark.parametrize(
    ("labels", "spacing", "message"),
    [
        (LABELS.astype(np.int64) - 1, None, "0 to 4294967295, got -1 to 1"),
        (LABELS.astype(np.int64) << 31, None, "got 0 to 4294967296. Renumber"),
        (LABELS.astype(np.float32), None, "2 or 3 axes, got float32"),
        (LABELS[0], None, "2 or 3 axes"),
        (LABELS[:0], None, r"shape \(0, 50\)"),
        (VOLUME, (0.5, 0.5), "3 axes need a spacing each"),
    ],
)
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.npy", "a.ome.zarr"])
def test_what_is_no_label_image_is_refused_before_writing(tmp_path, name, labels, spacing, message):
    with pytest.raises(ValueError, match=message):
        write_labels(tmp_path / name, labels, spacing_um=spacing)
    assert list(tmp_path.iterdir()) == []


def test_plain_tags_of_a_tiff_tell_the_size_of_a_pixel(tmp_path):
    write_labels(tmp_path / "a.tif", VOLUME, spacing_um=(2.0, 0.5, 0.25))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags, xml = file.pages[0].tags, file.ome_metadata
        x, y = (tags[f"{axis}Resolution"].value for axis in "XY")
        assert tags["ResolutionUnit"].value == 3  # per cm
        assert tags["Compression"].value == 8 and file.series[0].axes == "ZYX"
    assert (x[0] / x[1], y[0] / y[1]) == (40_000, 20_000)
    assert 'PhysicalSizeZ="2.0"' in xml


def test_a_large_tiff_is_tiled(tmp_path):
    labels = np.zeros((700, 600), np.uint32)
    labels[600:, 500:] = 9
    write_labels(tmp_path / "a.tif", labels)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].is_tiled
        np.testing.assert_array_equal(file.asarray(), labels)


@pytest.mark.parametrize("labels", [LABELS, VOLUME])
def test_a_store_is_valid_and_claims_no_unit_it_does_not_know(tmp_path, labels):
    import zarr

    for name, spacing in (("known", (2.0, 0.5, 0.25)[-labels.ndim :]), ("unknown", None)):
        write_labels(tmp_path / f"{name}.ome.zarr", labels, spacing_um=spacing)
        group = zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="r")
        ImageModel.from_zarr(group)
        about = ImageLabel.from_zarr(group).attributes.multiscales[0]
        units = {axis.unit for axis in about.axes}
        assert units == ({"micrometer"} if spacing else {None})
        steps = about.datasets[0].coordinateTransformations[0].scale
        assert tuple(steps) == (spacing or (1.0,) * labels.ndim)


def test_a_store_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    write_labels(tmp_path / "a.zarr", LABELS)
    write_labels(tmp_path / "a.zarr", VOLUME)
    np.testing.assert_array_equal(read_array(tmp_path / "a.zarr"), VOLUME)
    real = results.os.replace

    def second_fails(source, target):
        if str(target) == str(tmp_path / "a.zarr") and "old" not in str(source):
            raise OSError("no space")
        real(source, target)

    monkeypatch.setattr(results.os, "replace", second_fails)
    with pytest.raises(OSError, match="no space"):
        write_labels(tmp_path / "a.zarr", LABELS)
    np.testing.assert_array_equal(read_array(tmp_path / "a.zarr"), VOLUME)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_flows_of_a_volume_name_their_channels(tmp_path):
    flow = np.random.default_rng(0).normal(size=(3, 4, 20, 30)).astype(np.float32)
    write_flows(tmp_path / "f.tif", flow, flow[0] + 1)
    with tifffile.TiffFile(tmp_path / "f.tif") as file:
        assert file.series[0].axes == "CZYX" and file.series[0].dtype == np.float32
        np.testing.assert_array_equal(file.asarray(), [*flow, flow[0] + 1])
        for name in ("flow_z", "flow_y", "flow_x", "logit"):
            assert f'Name="{name}"' in file.ome_metadata
    write_flows(tmp_path / "f.npy", flow, flow[0] + 1)
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), [*flow, flow[0] + 1])
    with pytest.raises(ValueError, match=r"\.tif or \.npy, got f\.png"):
        write_flows(tmp_path / "f.png", flow, flow[0])


def test_tables_go_by_their_ending_in_any_case(tmp_path):
    write_table(tmp_path / "A.CSV", {"label": np.arange(3, dtype=np.uint32)})
    assert (tmp_path / "A.CSV").read_text() == '"label"\n0\n1\n2\n'
    write_table(tmp_path / "A.Parquet", {"label": np.zeros(0, np.uint32)})
    assert read_table(tmp_path / "A.Parquet")["label"].dtype == np.uint32
    for write_or_read in (lambda path: write_table(path, {}), read_table):
        with pytest.raises(ValueError, match=r"\.csv or \.parquet, got a\.txt"):
            write_or_read(tmp_path / "a.txt")


def test_masks_of_a_seg_npy_are_read_and_paired(tmp_path):
    flow = np.zeros((2, *LABELS.shape), np.float32)
    about = {"labels": LABELS, "flow": flow, "logit": flow[0], "diameter_px": 9.0}
    write_seg_npy(tmp_path / "a_seg.npy", **about, image_path="a.tif")
    np.testing.assert_array_equal(read_array(tmp_path / "a_seg.npy"), LABELS)
    write_labels(tmp_path / "a_labels.tif", LABELS)
    pairs = pair_files([tmp_path / "a_seg.npy"], [tmp_path / "a_labels.tif"])
    assert pairs == [("a", tmp_path / "a_seg.npy", tmp_path / "a_labels.tif")]


def test_pngs_are_read_as_stored(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 2**16, (20, 30, 3), dtype=np.uint16)
    (tmp_path / "c.png").write_bytes(imagecodecs.png_encode(colours))
    np.testing.assert_array_equal(read_array(tmp_path / "c.png"), colours)
    numbers = rng.integers(0, 9, (20, 30), dtype=np.uint8)
    picture = Pictures.fromarray(numbers, "P")
    picture.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
    picture.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_array(tmp_path / "p.png"), numbers)
    Pictures.fromarray(numbers > 4).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_array(tmp_path / "b.png"), numbers > 4)


def test_a_png_larger_than_pillow_takes(tmp_path):
    labels = np.zeros((10_000, 10_000), np.uint16)
    labels[5000, 7000] = 65_535
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(labels, level=1))
    found = read_array(tmp_path / "a.png")
    assert found.shape == labels.shape and found[5000, 7000] == 65_535


def test_geojson_is_strict_json(tmp_path):
    from cellseg_pipe.io.rois import polygons_of, write_geojson

    write_geojson(tmp_path / "a.geojson", polygons_of(LABELS))
    found = json.loads((tmp_path / "a.geojson").read_text(), parse_constant=pytest.fail)
    assert found["type"] == "FeatureCollection" and len(found["features"]) == 2


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, bool])
def test_each_channel_is_shown_in_its_own_grey_values(tmp_path, dtype):
    """A bright channel does not make a dim one black; one of a single value can be shown."""
    pixels = np.zeros((3, 20, 30), dtype)
    pixels[0, 5:9], pixels[1, 5:9] = 40, 60_000
    write_image(Image(pixels, "yx", (), None, False, tmp_path / "a"), tmp_path / "a.ome.zarr")
    channels = described(tmp_path / "a.ome.zarr")["omero"]["channels"]
    found = [(c["window"]["start"], c["window"]["end"]) for c in channels]
    bright = (1, 1) if dtype is bool else (40, 60_000)
    assert found == [(0, bright[0]), (0, bright[1]), (0, 1)]
    assert all(type(value) in (int, float) for window in found for value in window)
