"""What is written, read back by other programs."""

import numpy as np
import pytest
import tifffile
from PIL import Image as Pictures

from cellseg_pipe.io.images import read_array
from cellseg_pipe.io.reading import read_image
from cellseg_pipe.io.results import write_flows, write_labels, write_overlay
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


def test_a_tiff_of_a_volume_is_tiled(tmp_path):
    volume = np.resize(LABELS, (3, 600, 700))
    write_labels(tmp_path / "a.TIF", volume, spacing_um=(2.0, 0.5, 0.25))
    with tifffile.TiffFile(tmp_path / "a.TIF") as file:
        assert file.series[0].axes == "ZYX" and file.pages[0].is_tiled
        assert file.pages[0].compression != 1 and 'PhysicalSizeZ="2.0"' in file.ome_metadata
        np.testing.assert_array_equal(file.asarray(), volume)
    assert read_image(tmp_path / "a.TIF").spacing_um == (2.0, 0.5, 0.25)


def test_a_png_holds_65535_labels(tmp_path):
    write_labels(tmp_path / "a.png", SMALL)
    np.testing.assert_array_equal(np.asarray(Pictures.open(tmp_path / "a.png")), SMALL)
    with pytest.raises(ValueError, match="65535 labels, got .* 70000 labels"):
        write_labels(tmp_path / "b.png", LABELS)
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("shape", [(9, 8), (5, 9, 8)])
def test_flows_keep_their_order(tmp_path, shape):
    flow = np.random.default_rng(0).normal(size=(len(shape), *shape)).astype(np.float32)
    write_flows(tmp_path / "f.tif", flow, flow[0] + 1)
    write_flows(tmp_path / "f.npy", flow, flow[0] + 1)
    found = tifffile.imread(tmp_path / "f.tif")
    np.testing.assert_array_equal(found, np.stack([*flow, flow[0] + 1]))
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), found)
    image = read_image(tmp_path / "f.tif")
    assert image.spatial == "zyx"[-len(shape) :] and image.pixels.dtype == np.float32
    assert image.channel_names == (*(f"flow_{axis}" for axis in image.spatial), "logit")
    with pytest.raises(ValueError, match=r"\.tif or \.npy, got f\.png"):
        write_flows(tmp_path / "f.png", flow, flow[0])


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_overlay(tmp_path / "a.png", np.zeros((2, 2, 7), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_pictures():
    grey = to_grey8(np.arange(400, dtype=np.uint16).reshape(20, 20))
    assert grey.dtype == np.uint8 and grey[0, 0] == 0 and grey[-1, -1] == 255
    colours = label_colors(SMALL)
    assert (colours[SMALL == 0] == 0).all() and (colours[SMALL > 0, 3] == 255).all()
    assert len(np.unique(colours.reshape(-1, 4), axis=0)) == 3
    right = np.zeros((2, 4, 4), np.float32)
    right[1, :2] = 1
    down = right[::-1].copy()
    assert (flow_colors(right)[0, 0] != flow_colors(down)[0, 0]).any()
    assert (flow_colors(right * 0)[..., :3] == 0).all()
    drawn = overlay(np.zeros((40, 50), np.uint16), SMALL)
    assert (drawn[3, 4] == (255, 210, 0)).all() and (drawn[6, 8] == 0).all()
    with pytest.raises(ValueError, match="labels' shape"):
        overlay(np.zeros((4, 5)), SMALL)
