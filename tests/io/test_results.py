"""What is written, read back by other programs."""

import json
import struct
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image as Pictures
from pyarrow import parquet

from cellseg_pipe.io.images import read_array
from cellseg_pipe.io.inputs import find_inputs, stem_of
from cellseg_pipe.io.results import write_flows, write_labels, write_overlay
from cellseg_pipe.io.rois import write_geojson, write_outlines_text, write_roi_zip
from cellseg_pipe.io.seg_npy import read_seg_npy, write_seg_npy
from cellseg_pipe.io.tables import read_table, write_table
from cellseg_pipe.plot import flow_colors, label_colors, overlay, to_grey8

LABELS = np.zeros((40, 50), np.uint32)
LABELS[3:10, 4:12] = 1
LABELS[20:30, 30:45] = 70_000
SMALL = np.where(LABELS > 0, LABELS % 7 + 1, 0).astype(np.uint32)


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.ome.zarr"])
@pytest.mark.parametrize("shape", [(40, 50), (2, 40, 50), (600, 700)])
def test_labels_come_back(tmp_path, name, shape):
    labels = np.resize(LABELS, shape)
    write_labels(tmp_path / name, labels, spacing_um=(2.0, 0.5, 0.5)[-len(shape) :])
    found = read_array(tmp_path / name)
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.uint32
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_tiff_tells_axes_and_voxel_size(tmp_path):
    write_labels(tmp_path / "a.tif", LABELS, spacing_um=(0.5, 0.25))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "YX" and file.series[0].dtype == np.uint32
        assert 'PhysicalSizeX="0.25"' in file.ome_metadata
        assert 'PhysicalSizeYUnit="µm"' in file.ome_metadata


def test_a_store_is_a_label_image_for_others(tmp_path):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    write_labels(tmp_path / "a.ome.zarr", LABELS, spacing_um=(0.5, 0.25))
    nodes = list(Reader(parse_url(tmp_path / "a.ome.zarr"))())
    np.testing.assert_array_equal(np.asarray(nodes[0].data[0]), LABELS)
    scale = nodes[0].metadata["coordinateTransformations"][0][0]["scale"]
    assert scale == [0.5, 0.25]


def test_a_png_holds_65535_labels(tmp_path):
    write_labels(tmp_path / "a.png", SMALL)
    np.testing.assert_array_equal(np.asarray(Pictures.open(tmp_path / "a.png")), SMALL)
    with pytest.raises(ValueError, match="65535 labels, got .* 70000 labels"):
        write_labels(tmp_path / "b.png", LABELS)
    assert not (tmp_path / "b.png").exists()


def test_flows_keep_their_order(tmp_path):
    flow = np.random.default_rng(0).normal(size=(2, 9, 8)).astype(np.float32)
    write_flows(tmp_path / "f.tif", flow, flow[0] + 1)
    found = tifffile.imread(tmp_path / "f.tif")
    np.testing.assert_array_equal(found, np.stack([*flow, flow[0] + 1]))


def test_tables(tmp_path):
    columns = {"label": np.array([1, 2], np.uint32), "area_px": np.array([5.5, np.nan])}
    for name in ("a.csv", "a.parquet"):
        write_table(tmp_path / name, columns)
        found = read_table(tmp_path / name)
        assert list(found) == ["label", "area_px"]
        np.testing.assert_array_equal(found["label"], [1, 2])
        np.testing.assert_array_equal(found["area_px"], [5.5, np.nan])
    assert parquet.read_table(tmp_path / "a.parquet").num_rows == 2
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        write_table(tmp_path / "a.xls", columns)


def test_outlines_as_text_and_geojson(tmp_path):
    write_outlines_text(tmp_path / "a.txt", LABELS)
    first = [float(v) for v in (tmp_path / "a.txt").read_text().splitlines()[0].split(",")]
    assert set(first[::2]) == {4, 12} and set(first[1::2]) == {3, 10}
    write_geojson(tmp_path / "a.geojson", LABELS)
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [f["properties"]["label"] for f in features] == [1, 70_000]
    ring = features[1]["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1] and {tuple(p) for p in ring} == {
        (30, 20), (45, 20), (45, 30), (30, 30),
    }  # fmt: skip


def test_rois_are_imagejs_format(tmp_path):
    write_roi_zip(tmp_path / "a.zip", LABELS)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["000001.roi", "070000.roi"]
        data = archive.read("070000.roi")
    magic, version, kind, _, top, left, bottom, right, n = struct.unpack(">4shBBhhhhH", data[:18])
    assert (magic, kind, n) == (b"Iout", 0, 4) and version >= 218
    assert (top, left, bottom, right) == (20, 30, 30, 45)
    x = np.frombuffer(data[64 : 64 + 2 * n], ">i2") + left
    exact = np.frombuffer(data[64 + 4 * n : 64 + 8 * n], ">f4")
    assert set(x) == {30, 45} and set(exact) == {30, 45}


def test_seg_npy_comes_back_and_runs_no_code(tmp_path):
    flow = np.zeros((2, 40, 50), np.float32)
    write_seg_npy(
        tmp_path / "a_seg.npy",
        labels=SMALL,
        flow=flow,
        logit=flow[0] - 1,
        image_path="a.tif",
        diameter_px=9.5,
    )
    found = read_seg_npy(tmp_path / "a_seg.npy")
    np.testing.assert_array_equal(found["masks"], SMALL)
    assert found["masks"].dtype == np.uint16 and found["diameter"] == 9.5
    assert found["flows"][4].shape == (3, 40, 50)
    usual = np.load(tmp_path / "a_seg.npy", allow_pickle=True).item()
    assert set(usual) >= {"masks", "outlines", "flows", "filename", "chan_choose", "ismanual"}

    class Trap:
        def __reduce__(self):
            return (print, ("executed",))

    np.save(tmp_path / "trap_seg.npy", {"masks": Trap()}, allow_pickle=True)
    with pytest.raises(ValueError, match="builtins.print, which is no plain data"):
        read_seg_npy(tmp_path / "trap_seg.npy")


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_overlay(tmp_path / "a.png", np.zeros((2, 2, 7), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_inputs_in_natural_order_without_results(tmp_path):
    names = [
        "b10.tif",
        "b2.png",
        "b2_cp_masks.png",
        "b10_seg.npy",
        "x_labels.tif",
        ".h.tif",
        "n.txt",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in find_inputs([tmp_path])] == ["b2.png", "b10.tif"]
    assert [path.name for path in find_inputs([tmp_path / "b1*"])] == ["b10.tif"]
    with pytest.raises(FileNotFoundError, match="there is none"):
        find_inputs([tmp_path / "*.jpg"])
    (tmp_path / "b2.tif").write_bytes(b"x")
    with pytest.raises(ValueError, match="have one name"):
        find_inputs([tmp_path])
    assert stem_of("a/b.ome.tif") == "b" and stem_of("c.1.zarr") == "c.1"


def test_pictures():
    grey = to_grey8(np.arange(400, dtype=np.uint16).reshape(20, 20))
    assert grey.dtype == np.uint8 and grey[0, 0] == 0 and grey[-1, -1] == 255
    colours = label_colors(SMALL)
    assert (colours[SMALL == 0] == 0).all() and (colours[SMALL > 0, 3] == 255).all()
    assert len(np.unique(colours.reshape(-1, 4), axis=0)) == 3
    right = np.zeros((2, 4, 4), np.float32)
    right[1] = 1
    down = right[::-1].copy()
    assert (flow_colors(right)[0, 0] != flow_colors(down)[0, 0]).any()
    assert (flow_colors(right * 0)[..., :3] == 0).all()
    drawn = overlay(np.zeros((40, 50), np.uint16), SMALL)
    assert (drawn[3, 4] == (255, 210, 0)).all() and (drawn[6, 8] == 0).all()
    with pytest.raises(ValueError, match="labels' shape"):
        overlay(np.zeros((4, 5)), SMALL)
