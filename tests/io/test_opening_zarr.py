"""OME-Zarr opened box by box: all orders of axes, codecs, damage, zip files, broken metadata."""

import itertools
import json
import os
import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.io import _zarr_pixels
from cellseg_pipe.io.ngff import ImageMeta, create_image
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.io.reading import read_image

rng = np.random.default_rng(0)
SIZES = {"t": 3, "c": 2, "z": 5, "y": 20, "x": 30}
ORDERS = [
    order
    for n in (2, 3, 4, 5)
    for order in itertools.permutations("tczyx", n)
    if {"y", "x"} <= set(order)
]


def axes_of(names, unit="micrometer"):
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": name, "type": kinds.get(name, "space")} for name in names]
    return [{**axis, "unit": unit} if axis["type"] == "space" else axis for axis in axes]


def write(path, pixels, axes, *, version="0.4", transforms=None, **array):
    """Write an image of one level with nothing but zarr-python."""
    new = version not in ("0.1", "0.2", "0.3", "0.4")
    group = zarr.open_group(path, mode="w", zarr_format=3 if new else 2)
    group.create_array("0", data=pixels, **{"chunks": (4,) * pixels.ndim, **array})
    level = {"path": "0"}
    if transforms:
        level["coordinateTransformations"] = transforms
    scale = {"axes": axes, "datasets": [level]}
    if new:
        group.attrs["ome"] = {"version": version, "multiscales": [scale]}
    else:
        group.attrs["multiscales"] = [{**scale, "version": version}]
    return path


@pytest.mark.parametrize("order", ORDERS, ids="".join)
def test_every_order_and_subset_of_axes(tmp_path, order):
    pixels = rng.integers(0, 99, [SIZES[axis] for axis in order], dtype=np.uint16)
    steps = [{"type": "scale", "scale": [float("tczyx".index(axis) + 1) for axis in order]}]
    image = open_image(write(tmp_path / "a.zarr", pixels, axes_of(order), transforms=steps))
    spatial = "zyx" if "z" in order else "yx"
    assert image.spatial == spatial and image.shape == tuple(SIZES[axis] for axis in spatial)
    assert image.spacing_um == tuple(float("tczyx".index(axis) + 1) for axis in spatial)
    wanted = pixels.transpose([order.index(axis) for axis in "tczyx" if axis in order])
    wanted = wanted if "t" in order else wanted[None]
    wanted = wanted if "c" in order else wanted[:, None]
    box = Box(tuple(n // 4 for n in image.shape), tuple(n - 1 for n in image.shape))
    for time in range(image.n_times):
        found = image.read(box, t=time)
        np.testing.assert_array_equal(found, wanted[(time, slice(None), *box.slices)])
        assert found.flags.c_contiguous and found.dtype == np.uint16
    assert image.chunk == (4,) * len(spatial) and image.in_place


@pytest.mark.parametrize(
    ("unit", "spacing"),
    [
        ("angstrom", 1e-4), ("nanometer", 1e-3), ("micrometer", 1.0), ("millimeter", 1e3),
        ("centimeter", 1e4), ("meter", 1e6), ("picometer", 1e-6), ("inch", 25_400.0),
        ("foot", 304_800.0), ("kilometer", 1e9), ("yottameter", 1e30), ("decimeter", 1e5),
        ("pixel", None), ("", None), (3, None), (None, None),
    ],
)  # fmt: skip
def test_units_and_offsets(tmp_path, unit, spacing):
    steps = [{"type": "scale", "scale": [1, 2]}, {"type": "translation", "translation": [3, 4]}]
    path = write(tmp_path / "a.zarr", np.zeros((8, 8), "u1"), axes_of("yx", unit), transforms=steps)
    image = open_image(path)
    assert image.spacing_um == (spacing and pytest.approx((spacing, 2 * spacing)))
    assert image.offset_um == (spacing and pytest.approx((3 * spacing, 4 * spacing)))


def test_transformations_of_the_whole_come_after_those_of_a_level(tmp_path):
    steps = [{"type": "scale", "scale": [1, 2]}, {"type": "translation", "translation": [3, 4]}]
    path = write(tmp_path / "a.zarr", np.zeros((8, 8), "u1"), axes_of("yx"), transforms=steps)
    group = zarr.open_group(path, mode="r+")
    scale = dict(group.attrs["multiscales"][0])
    overall = [{"type": "scale", "scale": [10, 10]}, {"type": "translation", "translation": [1, 2]}]
    group.attrs["multiscales"] = [{**scale, "coordinateTransformations": overall}]
    image = open_image(path)
    assert (image.spacing_um, image.offset_um) == ((10, 20), (31, 42))


CODECS_2 = [
    numcodecs.Blosc("zstd"), numcodecs.Zstd(), numcodecs.Zlib(), numcodecs.BZ2(), None,
    numcodecs.LZ4(), numcodecs.LZMA(),
]  # fmt: skip


@pytest.mark.parametrize("codec", CODECS_2, ids=str)
def test_codecs_of_zarr_2(tmp_path, codec):
    pixels = rng.integers(0, 99, (20, 30)).astype(">u2")
    path = write(tmp_path / "a.zarr", pixels, axes_of("yx"), compressors=codec)
    found = open_image(path).read(Box((3, 4), (17, 28)))
    np.testing.assert_array_equal(found, pixels[None, 3:17, 4:28])
    assert found.dtype.isnative


def test_what_tensorstore_does_not_know_is_read_by_zarr(tmp_path):
    pixels = np.arange(600, dtype="i4").reshape(20, 30)
    delta = {"filters": [numcodecs.Delta("i4")], "order": "F"}
    path = write(tmp_path / "a.zarr", pixels, axes_of("yx"), **delta)
    np.testing.assert_array_equal(read_image(path).pixels[0], pixels)


def test_shards_and_other_codecs_of_zarr_3(tmp_path):
    pixels = rng.integers(0, 99, (5, 64, 64), dtype=np.uint16)
    shards = {"chunks": (1, 16, 16), "shards": (5, 32, 32)}
    path = write(tmp_path / "a.zarr", pixels, axes_of("zyx"), version="0.5", **shards)
    image = open_image(path)
    assert image.chunk == (1, 16, 16) and image.format == "OME-Zarr 0.5"
    found = image.read(Box((1, 7, 9), (4, 60, 50)))
    np.testing.assert_array_equal(found[0], pixels[1:4, 7:60, 9:50])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("fill", [0, 7])
def test_chunks_that_were_never_written_hold_the_fill_value(tmp_path, version, fill):
    pixels = np.full((8, 8), 5, "u2")
    path = write(tmp_path / "a.zarr", pixels, axes_of("yx"), version=version, fill_value=fill)
    chunk = path / "0" / ("c/1/1" if version == "0.5" else "1.1")
    chunk.unlink()
    found = open_image(path).read(Box.of((8, 8)))[0]
    assert (found[4:, 4:] == fill).all() and (found[:4] == 5).all() and (found[:, :4] == 5).all()


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_box_across_many_chunks_is_read_in_parts(tmp_path_factory, data):
    """All chunks that are asked for at once are held at once: a slab through planes meets all."""
    pixels = np.arange(13 * 30 * 40, dtype=np.uint16).reshape(13, 30, 40)
    chunks = data.draw(st.tuples(st.integers(1, 13), st.integers(5, 30), st.integers(5, 40)))
    path = tmp_path_factory.mktemp("parts") / "a.zarr"
    zarr.create_array(path, data=pixels, chunks=chunks, zarr_format=2)
    source = open_image(path, axes="zyx")._source
    asked = []
    spied = replace(source, fetch=lambda slices: asked.append(slices) or source.fetch(slices))
    ends = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in pixels.shape]
    box = Box(*zip(*ends, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_zarr_pixels, "HELD_BYTES", 3 * source.piece_bytes)
        found = spied.read(box)
    np.testing.assert_array_equal(found, pixels[box.slices])
    for slices in asked:
        part = Box(*zip(*((s.start, s.stop) for s in slices), strict=True))
        assert part.cells(source.chunk).size <= 3


@pytest.mark.parametrize("codec", [numcodecs.Zstd(), numcodecs.LZ4()], ids=str)
def test_a_damaged_chunk_is_named(tmp_path, codec):
    pixels = rng.integers(0, 99, (16, 16), dtype=np.uint16)
    path = write(tmp_path / "a.zarr", pixels, axes_of("yx"), compressors=codec)
    (path / "0" / "2.1").write_bytes(b"\xff\xff\xff\xffnothing")
    image = open_image(path)
    np.testing.assert_array_equal(image.read(Box((0, 0), (8, 16)))[0], pixels[:8])
    with pytest.raises(ValueError, match="array '0', chunk 2/1:.*delete the file") as caught:
        image.read(Box((2, 2), (14, 14)))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_nested_chunks_that_the_metadata_do_not_tell(tmp_path):
    pixels = rng.integers(1, 99, (8, 8), dtype=np.uint16)
    nested = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    path = write(tmp_path / "a.zarr", pixels, axes_of("yx"), **nested)
    about = json.loads((path / "0" / ".zarray").read_text())
    del about["dimension_separator"]
    (path / "0" / ".zarray").write_text(json.dumps(about))
    np.testing.assert_array_equal(open_image(path).read(Box.of((8, 8)))[0], pixels)


@pytest.mark.parametrize("inside", ["", "a.zarr"])
def test_a_zip_file(tmp_path, inside):
    pixels = rng.integers(0, 99, (2, 16, 16), dtype=np.uint16)
    path = write(tmp_path / "a.zarr", pixels, axes_of("cyx"))
    start = path if not inside else tmp_path
    with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w") as packed:
        for file in sorted(path.rglob("*")):
            packed.write(file, file.relative_to(start))
    image = open_image(tmp_path / "a.zarr.zip")
    np.testing.assert_array_equal(image.read(Box((1, 2), (15, 16))), pixels[:, 1:15, 2:])
    assert image.identity["bytes"] == os.path.getsize(tmp_path / "a.zarr.zip")
    plain = open_image(tmp_path / "a.zarr.zip" / "0", axes="cyx")
    np.testing.assert_array_equal(plain.read(Box.of((16, 16))), pixels)
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="cannot be read as a zip file"):
        open_image(tmp_path / "b.zip")


def test_a_plain_array_needs_its_axes(tmp_path):
    pixels = rng.integers(0, 99, (5, 16, 16), dtype=np.uint16)
    zarr.save_array(tmp_path / "a.zarr", pixels, zarr_format=2)
    with pytest.raises(ValueError, match=r"plain Zarr array of shape \(5, 16, 16\).*Give axes="):
        open_image(tmp_path / "a.zarr")
    image = open_image(tmp_path / "a.zarr", axes="zyx")
    np.testing.assert_array_equal(image.read(Box.of(image.shape))[0], pixels)
    named = zarr.create_array(tmp_path / "b.zarr", data=pixels, dimension_names=["c", "y", "x"])
    assert open_image(tmp_path / "b.zarr").n_channels == named.shape[0]


def test_axes_that_a_user_gives_take_their_sizes_along(tmp_path):
    steps = [{"type": "scale", "scale": [5, 2, 3]}]
    pixels = np.zeros((4, 8, 8), "u1")
    path = write(tmp_path / "a.zarr", pixels, axes_of("zyx"), transforms=steps)
    assert open_image(path).spacing_um == (5, 2, 3)
    image = open_image(path, axes="cyx")
    assert (image.n_channels, image.spacing_um) == (4, (2, 3))


def test_an_image_opens_again_in_another_process_and_reads_in_threads(tmp_path):
    meta = ImageMeta("cyx", (0.5, 0.5), ("a", "b"))
    pixels = rng.integers(0, 99, (2, 200, 300), dtype=np.uint16)
    array = {"shape": pixels.shape, "dtype": "uint16", "chunks": (1, 64, 64)}
    create_image(tmp_path / "a.zarr", meta, array=array, value_range=(0, 99))[...] = pixels
    image = open_image(tmp_path / "a.zarr")
    again = pickle.loads(pickle.dumps(image))
    assert again == image and again.channel_names == ("a", "b")
    boxes = [Box((y, x), (y + 90, x + 100)) for y in range(0, 100, 10) for x in range(0, 200, 20)]
    with ThreadPoolExecutor(8) as pool:
        for box, found in zip(boxes, pool.map(again.read, boxes), strict=True):
            np.testing.assert_array_equal(found, pixels[(slice(None), *box.slices)])


def test_the_identity_changes_with_the_file(tmp_path):
    path = write(tmp_path / "a.zarr", np.zeros((8, 8), "u1"), axes_of("yx"))
    first = open_image(path).identity
    assert open_image(path).identity == first and json.loads(json.dumps(first)) == first
    shutil.rmtree(path)
    write(path, np.zeros((8, 9), "u1"), axes_of("yx"))
    assert open_image(path).identity["metadata"] != first["metadata"]


@pytest.mark.parametrize(
    "box", [Box((0,), (1,)), Box((0, 0), (9, 8)), Box((-1, 0), (3, 3)), Box((9, 9), (9, 9))]
)
def test_boxes_outside_are_refused(tmp_path, box):
    image = open_image(write(tmp_path / "a.zarr", np.zeros((8, 8), "u1"), axes_of("yx")))
    with pytest.raises(ValueError, match=r"shape \(8, 8\) along yx.*Clip it"):
        image.read(box)
    with pytest.raises(ValueError, match="times 0 to 0, asked for 1"):
        image.read(Box.of((8, 8)), t=1)
    assert image.read(Box((3, 3), (3, 5))).shape == (1, 0, 2)


# What a mutation puts in the place of a value.
JUNK = st.sampled_from(
    [None, True, -1, 0, 2**70, 1e308, float("nan"), "", "0", "x", "../..", "\0", "\ud800", [], {},
     [[]], [None], {"name": 3}, ["c", "x", "y"], [1, 2, 3], "a" * 5000]
)  # fmt: skip


def places(value, path=()):
    """Yield the path to every value in a JSON document."""
    yield path
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(document, path, how, junk):
    document = json.loads(json.dumps(document))
    if not path:
        return junk if how != "drop" else {}
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if how == "drop":
        del parent[path[-1]]
    elif how == "swap" and isinstance(parent[path[-1]], list):
        parent[path[-1]].reverse()
    else:
        parent[path[-1]] = junk
    return document


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def whole(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "a.zarr"
    steps = [
        {"type": "scale", "scale": [1, 2, 3]},
        {"type": "translation", "translation": [1, 2, 3]},
    ]
    pixels = np.ones((2, 8, 8), "u2")
    write(path, pixels, axes_of("cyx"), version=request.param, transforms=steps)
    group = zarr.open_group(path, mode="r+")
    omero = {"channels": [{"label": "a", "color": "FFFFFF"}, {"label": "b"}]}
    if request.param == "0.5":
        group.attrs["ome"] = {**group.attrs["ome"], "omero": omero}
    else:
        group.attrs["omero"] = omero
    names = ("zarr.json", "0/zarr.json")
    if request.param == "0.4":
        names = (".zattrs", "0/.zarray", ".zgroup")
    return path, {name: json.loads((path / name).read_text()) for name in names}


@settings(max_examples=300)
@given(data=st.data())
def test_broken_metadata_are_refused_in_one_line(whole, data):
    path, documents = whole
    name = data.draw(st.sampled_from(sorted(documents)))
    place = data.draw(st.sampled_from(list(places(documents[name]))))
    how = data.draw(st.sampled_from(["drop", "swap", "junk"]))
    broken = mutated(documents[name], place, how, data.draw(JUNK))
    (path / name).write_text(json.dumps(broken))
    try:
        image = open_image(path)
        if all(n <= 64 for n in image.shape) and image.n_channels <= 64:
            assert image.read(Box.of(image.shape)).ndim == 1 + len(image.shape)
    except (ValueError, OSError) as error:
        assert str(path) in str(error) and "\n" not in str(error)
    finally:
        (path / name).write_text(json.dumps(documents[name]))


@settings(max_examples=100)
@given(data=st.data())
def test_torn_metadata_are_refused_in_one_line(whole, data):
    path, documents = whole
    name = data.draw(st.sampled_from(sorted(documents)))
    content = json.dumps(documents[name]).encode()
    cut = data.draw(st.integers(0, len(content) - 1))
    (path / name).write_bytes(content[:cut] + data.draw(st.binary(max_size=4)))
    try:
        open_image(path)
    except (ValueError, OSError) as error:
        assert str(path) in str(error) and "\n" not in str(error)
    finally:
        (path / name).write_bytes(content)
