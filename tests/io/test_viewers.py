"""What viewers and validators make of each kind of store: read by programs that are not ours."""

import json
import logging

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Reader
from ome_zarr_models import open_ome_zarr, v04, v05

from cellseg_pipe.io.embed import add_labels_to_image
from cellseg_pipe.io.ngff import ImageMeta, create_image, create_label_pyramid, create_labels
from cellseg_pipe.io.pyramid import downsample_shard
from cellseg_pipe.io.shards import ShardWriter

VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])
AXES = pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "czyx", "tczyx", "tcyx"])
SIDES = {"t": 2, "c": 3, "z": 70, "y": 150, "x": 200}
SPACING = {"z": 2.0, "y": 0.5, "x": 0.25}
# Codecs that neuroglancer, zarrita (vizarr) and zarr-python all have.
COMMON = {"bytes", "zstd", "blosc", "crc32c", "sharding_indexed"}
MODELS = {"0.4": v04, "0.5": v05}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def meta_of(axes):
    channels = ("DAPI", "GFP", "RFP") if "c" in axes else ()
    return ImageMeta(axes, tuple(SPACING[axis] for axis in axes if axis in SPACING), channels)


def new_image(path, axes, version):
    array = {"shape": tuple(SIDES[axis] for axis in axes), "dtype": "uint16"}
    create_image(
        path, meta_of(axes), array=array, value_range=(0, 4095), version=version, n_levels=2
    )
    fill(path, kind="image")
    return path


def new_labels(path, axes, version):
    axes = axes.replace("c", "")
    shape = tuple(SIDES[axis] for axis in axes)
    create_label_pyramid(path, meta_of(axes), shape=shape, version=version, n_levels=2)
    fill(path, kind="labels")
    return path


def fill(store, kind):
    """Write numbers of boxes as pixels, and the level below from them."""
    writer = ShardWriter(store / "0")
    for number in range(len(writer.grid)):
        box = writer.grid.box(number)
        writer.write_shard(number, np.full(box.shape, number % 7 + 1, writer.dtype))
    for number in range(len(ShardWriter(store / "1").grid)):
        downsample_shard(store, 1, number, kind=kind)


def read_by_ours(store, level=0):
    return zarr.open_array(store / str(level), mode="r")[...]


def validate(store, version, *, labels):
    """Let ome-zarr-models look at the group from its root."""
    group = zarr.open_group(store, mode="r")
    found = open_ome_zarr(group, version=version)
    models = MODELS[version]
    models.image.Image.from_zarr(group)
    if labels:
        found = models.image_label.ImageLabel.from_zarr(group)
        assert isinstance(found, models.image_label.ImageLabel)
    about = found.attributes if version == "0.4" else found.attributes.ome
    return about


@VERSIONS
@AXES
def test_images(tmp_path, axes, version):
    store = new_image(tmp_path / "image.ome.zarr", axes, version)
    about = validate(store, version, labels=False)
    assert [axis.name for axis in about.multiscales[0].axes] == list(axes)
    assert set(about.multiscales[0].datasets[1].path) == {"1"}
    omero = about.omero if version == "0.4" else about.model_dump()["omero"]
    channels = omero.channels if version == "0.4" else omero["channels"]
    assert len(channels) == SIDES["c"] ** ("c" in axes)
    (node,) = Reader(parse_url(store))()
    assert node.first(Label) is None
    for level, data in enumerate(node.data):
        np.testing.assert_array_equal(np.asarray(data), read_by_ours(store, level))
    assert [axis["name"] for axis in node.metadata["axes"]] == list(axes)
    assert len(node.data) == 2 and node.data[0].any()


@VERSIONS
@AXES
def test_labels_by_themselves(tmp_path, caplog, axes, version):
    store = new_labels(tmp_path / "labels.ome.zarr", axes, version)
    about = validate(store, version, labels=True)
    assert [axis.name for axis in about.multiscales[0].axes] == list(axes.replace("c", ""))
    with caplog.at_level(logging.ERROR):
        (node,) = Reader(parse_url(store))()
    assert node.first(Label) is not None and not caplog.records
    for level, data in enumerate(node.data):
        assert data.dtype == np.uint32
        np.testing.assert_array_equal(np.asarray(data), read_by_ours(store, level))


@VERSIONS
@pytest.mark.parametrize("axes", ["cyx", "czyx"])
def test_labels_in_their_image(tmp_path, axes, version):
    image = new_image(tmp_path / "image.ome.zarr", axes, version)
    plain = ImageMeta(axes[1:], meta_of(axes).spacing_um)
    array = {"shape": tuple(SIDES[axis] for axis in axes[1:])}
    create_labels(image, "truth", plain, array=array, version=version)
    add_labels_to_image(new_labels(tmp_path / "a.zarr", axes, version), image, "cells")
    validate(image, version, labels=False)
    validate(image / "labels/cells", version, labels=True)
    validate(image / "labels/truth", version, labels=True)
    group = zarr.open_group(image, mode="r")
    for labels in (
        MODELS[version].labels.Labels.from_zarr(zarr.open_group(image / "labels", mode="r")),
        MODELS[version].image.Image.from_zarr(group).labels,
    ):
        about = labels.attributes if version == "0.4" else labels.attributes.ome
        assert about.labels == ["truth", "cells"]
    nodes = {node.zarr.basename(): node for node in Reader(parse_url(image))()}
    assert set(nodes) == {"image.ome.zarr", "labels", "truth", "cells"}
    assert nodes["cells"].first(Label) and nodes["truth"].first(Label)
    expected = read_by_ours(image / "labels/cells")
    np.testing.assert_array_equal(np.asarray(nodes["cells"].data[0]), expected)
    assert expected.any()
    # Seen from the labels alone, the reader finds the image that they belong to.
    parents = Reader(parse_url(image / "labels/cells"))()
    assert "image.ome.zarr" in {node.zarr.basename() for node in parents}


@VERSIONS
@pytest.mark.parametrize("axes", ["yx", "tzyx"])
def test_rules_that_viewers_have(tmp_path, axes, version):
    """By hand, as reported of napari, neuroglancer and vizarr."""
    store = new_labels(tmp_path / "labels.ome.zarr", axes, version)
    new = version == "0.5"
    about = json.loads((store / ("zarr.json" if new else ".zattrs")).read_text())
    about = about["attributes"]["ome"] if new else about
    (scale,) = about["multiscales"]
    assert "image-label" in about  # napari shows labels only then
    assert "c" not in {axis["name"] for axis in scale["axes"]}  # its rank would be wrong
    assert (about if new else scale)["version"] == version
    corners = set()
    for dataset in scale["datasets"]:
        array = json.loads(
            (store / dataset["path"] / ("zarr.json" if new else ".zarray")).read_text()
        )
        assert (array["data_type"] if new else array["dtype"]) in ("uint32", "<u4")  # not 64 bits
        step, start = (dataset["coordinateTransformations"][i] for i in (0, 1))
        assert (step["type"], start["type"]) == ("scale", "translation")
        assert len(step["scale"]) == len(start["translation"]) == len(array["shape"])
        spatial = [i for i, axis in enumerate(axes) if axis in SPACING]
        corners.add(tuple(start["translation"][i] - step["scale"][i] / 2 for i in spatial))
        if new:
            assert array["dimension_names"] == [axis["name"] for axis in scale["axes"]]
            assert array["chunk_key_encoding"]["configuration"]["separator"] == "/"
            assert names_of(array["codecs"]) <= COMMON
        else:
            # QuPath's JZarr has blosc and zlib.
            assert array["dimension_separator"] == "/" and array["compressor"]["id"] == "blosc"
    assert len(corners) == 1  # levels lie over each other


def names_of(codecs):
    found = set()
    for codec in codecs:
        inner = codec.get("configuration", {})
        found |= {codec["name"]} | names_of(inner.get("codecs", []) + inner.get("index_codecs", []))
        assert inner.get("index_location", "end") == "end"
    return found
