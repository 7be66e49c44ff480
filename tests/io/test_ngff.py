"""Stores as they are created: all levels and metadata, no pixels."""

import json

import numpy as np
import pytest
import zarr

from cellseg_pipe.io._attributes import marker_of, ngff_version
from cellseg_pipe.io.ngff import (
    ImageMeta,
    create_image,
    create_label_pyramid,
    create_label_store,
    create_labels,
)

VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])
META = ImageMeta(
    "zyx", (2.0, 0.5, 0.25), translation_um=(10.0, 0.0, -3.0), stage_hash="0123456789ab"
)


def described(path):
    attributes = dict(zarr.open_group(path, mode="r").attrs)
    return attributes.get("ome", attributes)


@VERSIONS
def test_a_pyramid_has_all_levels_and_no_file_of_pixels(tmp_path, version):
    path = tmp_path / "labels.ome.zarr"
    assert create_label_pyramid(path, META, shape=(9, 1500, 700), version=version) is None
    scale = described(path)["multiscales"][0]
    shapes = [(9, 1500, 700), (9, 750, 350), (9, 375, 175)]
    assert [dataset["path"] for dataset in scale["datasets"]] == ["0", "1", "2"]
    for level, shape in enumerate(shapes):
        array = zarr.open_array(path / str(level), mode="r")
        assert (array.shape, array.dtype, array.fill_value) == (shape, np.uint32, 0)
        assert not array[:, :2, :2].any()
    names = {file.name for file in path.rglob("*") if file.is_file()}
    assert names <= {"zarr.json", ".zgroup", ".zattrs", ".zarray"}
    assert [file.name for file in tmp_path.iterdir()] == ["labels.ome.zarr"]
    assert ngff_version(path) == version


@VERSIONS
def test_levels_say_where_their_voxels_lie(tmp_path, version):
    path = tmp_path / "labels.ome.zarr"
    create_label_pyramid(path, META, shape=(9, 1500, 700), version=version, n_levels=4)
    steps = [
        [transform[transform["type"]] for transform in dataset["coordinateTransformations"]]
        for dataset in described(path)["multiscales"][0]["datasets"]
    ]
    assert steps == [
        [[2.0, 0.5, 0.25], [10.0, 0.0, -3.0]],
        [[2.0, 1.0, 0.5], [10.0, 0.25, -2.875]],
        [[2.0, 2.0, 1.0], [10.0, 0.75, -2.625]],
        [[4.0, 4.0, 2.0], [11.0, 1.75, -2.125]],
    ]


@VERSIONS
def test_labels_name_themselves_their_version_and_their_maker(tmp_path, version):
    path = tmp_path / "labels.ome.zarr"
    create_label_pyramid(path, META, shape=(9, 15, 70), version=version)
    about = described(path)
    assert about["image-label"] == ({"version": "0.4"} if version == "0.4" else {})
    assert about["multiscales"][0]["name"] == "labels"
    assert {axis["unit"] for axis in about["multiscales"][0]["axes"]} == {"micrometer"}
    assert "colors" not in json.dumps(about) and "omero" not in about
    marker = marker_of(path)
    assert marker["stage_hash"] == "0123456789ab" and marker["version"][0].isdigit()


def test_units_are_left_out_where_they_are_not_known(tmp_path):
    meta = ImageMeta("tyx", (1.0, 1.0), unit=None)
    create_label_pyramid(tmp_path / "a.zarr", meta, shape=(2, 9, 9), version="0.5")
    axes = described(tmp_path / "a.zarr")["multiscales"][0]["axes"]
    assert axes == [
        {"name": "t", "type": "time"},
        {"name": "y", "type": "space"},
        {"name": "x", "type": "space"},
    ]


def test_arrays_are_stored_as_viewers_want_them(tmp_path):
    create_label_pyramid(tmp_path / "n.zarr", META, shape=(200, 600, 900), version="0.5")
    about = json.loads((tmp_path / "n.zarr/0/zarr.json").read_text())
    assert about["dimension_names"] == ["z", "y", "x"]
    assert about["chunk_grid"]["configuration"]["chunk_shape"] == [128, 256, 256]
    assert about["chunk_key_encoding"]["configuration"] == {"separator": "/"}
    (shard,) = about["codecs"]
    assert shard["configuration"]["chunk_shape"] == [64, 64, 64]
    assert [codec["name"] for codec in shard["configuration"]["codecs"]] == ["bytes", "zstd"]
    assert shard["configuration"]["codecs"][1]["configuration"] == {"level": 1, "checksum": True}
    create_label_pyramid(tmp_path / "o.zarr", META, shape=(20, 600, 900), version="0.4")
    about = json.loads((tmp_path / "o.zarr/0/.zarray").read_text())
    assert (about["chunks"], about["dtype"]) == ([20, 64, 64], "<u4")
    assert about["dimension_separator"] == "/"
    blosc = {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 0, "blocksize": 0}
    assert about["compressor"] == blosc  # QuPath reads no other zstd


def test_images_may_have_levels_too(tmp_path):
    meta = ImageMeta("cyx", (0.5, 0.5), ("DAPI", "GFP"))
    array = {"shape": (2, 1100, 700), "dtype": "uint16"}
    level = create_image(
        tmp_path / "a.zarr", meta, array=array, value_range=(0, 9), version="0.5", n_levels=None
    )
    assert (level.shape, level.chunks, level.shards) == (
        (2, 1100, 700),
        (1, 512, 512),
        (1, 1536, 1024),
    )
    shapes = [zarr.open_array(tmp_path / f"a.zarr/{k}", mode="r").shape for k in range(3)]
    assert shapes == [(2, 1100, 700), (2, 550, 350), (2, 275, 175)]
    transforms = described(tmp_path / "a.zarr")["multiscales"][0]["datasets"][2]
    assert transforms["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 2.0, 2.0]},
        {"type": "translation", "translation": [0.0, 0.75, 0.75]},
    ]


def test_chunks_of_ones_own_hold_for_level_0(tmp_path):
    array = {"shape": (300, 300), "chunks": (100, 50), "shards": (200, 100)}
    level = create_label_store(
        tmp_path / "a.zarr", ImageMeta("yx", (1, 1)), array=array, version="0.5"
    )
    assert (level.chunks, level.shards) == ((100, 50), (200, 100))
    level = create_label_store(tmp_path / "b.zarr", ImageMeta("yx", (1, 1)), array=array)
    assert (level.chunks, level.shards) == ((100, 50), None)


def test_a_store_is_never_written_over(tmp_path):
    path = tmp_path / "labels.ome.zarr"
    path.mkdir()
    with pytest.raises(FileExistsError, match="exists. Name another store"):
        create_label_pyramid(path, META, shape=(9, 15, 70), version="0.4")
    assert list(path.iterdir()) == []


def test_a_store_that_cannot_be_made_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no channel axis, got axes 'cyx'"):
        meta = ImageMeta("cyx", (1.0, 1.0))
        create_label_pyramid(tmp_path / "a.zarr", meta, shape=(1, 9, 9), version="0.5")
    with pytest.raises(ValueError, match="'zyx' need a shape with as many numbers"):
        create_label_pyramid(tmp_path / "a.zarr", META, shape=(9, 9), version="0.5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": "xy", "spacing_um": (1, 1)}, "in the order tczyx"),
        ({"axes": "yyx", "spacing_um": (1, 1, 1)}, "in the order tczyx"),
        ({"axes": "syx", "spacing_um": (1, 1)}, "out of t, c, z, y, x"),
        ({"axes": "cyx", "spacing_um": (1, 1, 1)}, "a spacing for each of 'yx'"),
        ({"axes": "yx", "spacing_um": (1, 1), "translation_um": (1,)}, "for each of 'yx' or none"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageMeta(**arguments)


@VERSIONS
def test_labels_of_an_image_name_it_as_their_source(tmp_path, version):
    meta = ImageMeta("yx", (1.0, 1.0))
    array = {"shape": (40, 50), "dtype": "uint8"}
    create_image(tmp_path / "a.zarr", meta, array=array, value_range=(0, 9), version=version)
    for name in ("cells", "nuclei"):
        create_labels(tmp_path / "a.zarr", name, meta, array={"shape": (40, 50)}, version=version)
    assert described(tmp_path / "a.zarr/labels")["labels"] == ["cells", "nuclei"]
    about = described(tmp_path / "a.zarr/labels/nuclei")
    assert about["image-label"]["source"] == {"image": "../../"}
