"""From files to prepared images: manifests, folders, stores, labels of all kinds, and refusals."""

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.stages.synth import Output, spec_of
from cellseg_pipe.stages.synth import run as render_store
from cellseg_pipe.training import prepare as module
from cellseg_pipe.training.manifest import (
    Pair,
    read_folder,
    read_manifest,
    split_by_group,
    write_manifest,
)
from cellseg_pipe.training.prepare import Mapped, prepare
from cellseg_pipe.training.settings import Reading

ONE = Reading(n_inputs=1)


def pair_in(folder, image, labels, **more):
    tifffile.imwrite(folder / "a.tif", image)
    tifffile.imwrite(folder / "a_masks.tif", labels)
    return Pair(str(folder / "a.tif"), str(folder / "a_masks.tif"), **more)


@given(
    groups=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    sets=st.lists(st.integers(0, 2), min_size=40, max_size=40),
    seed=st.integers(0, 3),
)
def test_a_group_is_never_split(groups, sets, seed):
    pairs = [
        Pair(f"{n}.tif", f"{n}m.tif", set=f"s{s}", group=f"g{g}")
        for n, (g, s) in enumerate(zip(groups, sets, strict=False))
    ]
    divided = split_by_group(pairs, seed=seed)
    side = {}
    for pair in divided:
        assert side.setdefault(pair.group, pair.split) == pair.split
    assert [p.image for p in divided] == [p.image for p in pairs]
    assert divided == split_by_group(pairs, seed=seed)


def test_each_set_of_three_groups_has_all_splits():
    pairs = [Pair(f"{n}", "m", set=s, group=f"{s}{n}") for s in "ab" for n in range(10)]
    divided = split_by_group(pairs)
    for name in "ab":
        counts = [
            sum(p.split == s and p.set == name for p in divided) for s in ("train", "tune", "test")
        ]
        assert counts == [7, 1, 2]


def test_a_manifest_comes_back(tmp_path):
    pairs = (Pair("a.tif", "b.tif", "s", "g", "tune", "1,0", "2/1/1", "c.csv"), Pair("x", "y"))
    write_manifest(tmp_path / "list.csv", pairs)
    assert read_manifest(tmp_path / "list.csv") == pairs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,labels\n", "a row for each image"),
        ("image,mask\na,b\n", "needs the columns image, labels"),
        ("image,labels\na,b,c\n", "list.csv:2 needs an entry for each column"),
        ("image,labels\na,\n", "list.csv:2 needs labels, got nothing"),
        ("image,labels,split\na,b,dev\n", "one of train, tune, test, got 'dev'"),
        (
            "image,labels,group,split\na,b,g,train\nc,d,g,test\n",
            "group 'g' needs to be on one side",
        ),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path, text, said):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_manifest(tmp_path / "list.csv")


def test_a_manifest_of_a_spreadsheet(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes("image,labels\na.tif,b.tif\n".encode("utf-8-sig"))
    assert read_manifest(path) == (Pair("a.tif", "b.tif"),)


def test_a_folder_in_which_the_peer_worked(tmp_path):
    for name in ("a.TIF", "a_masks.tif", "a_flows.tif", "._a.tif", "b.tif", "b_masks.TIF"):
        (tmp_path / name).write_bytes(b"x")
    pairs = read_folder(tmp_path, image_suffix="")
    assert pairs == (Pair("a.TIF", "a_masks.tif"), Pair("b.tif", "b_masks.TIF"))


def test_all_that_cannot_be_used_is_told_at_once_by_name(tmp_path, make_scene):
    pixels, labels = make_scene(2)
    pairs = []
    for name, image, masks in (
        ("good", pixels[0], labels),
        ("four", np.stack([pixels[0]] * 4), labels),
        ("nan", np.where(labels > 0, np.nan, pixels[0]).astype(np.float32), labels),
        ("below", pixels[0], np.where(labels == 0, -5, labels.astype(np.int32))),
    ):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="minisblack")
        tifffile.imwrite(tmp_path / f"{name}_masks.tif", masks)
        pairs.append(Pair(str(tmp_path / f"{name}.tif"), str(tmp_path / f"{name}_masks.tif")))
    with pytest.raises(ValueError, match="3 of 4 pairs cannot be used") as refused:
        prepare(pairs, cache=tmp_path / "cache", reading=ONE)
    first, *lines = str(refused.value).splitlines()
    assert [any(f"{name}.tif" in line for line in lines) for name in ("four", "nan", "below")]
    assert "good.tif" not in str(refused.value)


def test_a_value_that_is_no_number_is_found_wherever_it_lies(tmp_path, make_scene, monkeypatch):
    monkeypatch.setattr(module, "sample_boxes", lambda shape: [Box((0, 0), (8, 8))])
    pixels, labels = make_scene(2)
    pixels = pixels[0].astype(np.float32)
    pixels[-1, -1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        prepare([pair_in(tmp_path, pixels, labels)], cache=tmp_path / "cache", reading=ONE)


def test_bright_spots_stay_numbers(tmp_path, make_scene):
    pixels, labels = make_scene(2)
    pixels = pixels[0].astype(np.float32) / pixels.max()
    pixels[0, 0] = 1e9
    pair = pair_in(tmp_path, pixels, labels)
    (image,) = prepare([pair], cache=tmp_path / "cache", reading=ONE).images
    assert np.isfinite(np.asarray(image.pixels, np.float32)).all() and image.pixels[0, 0, 0] > 5e4


def test_thousands_of_images_need_no_thousands_of_open_files(tmp_path, make_scene):
    pixels, labels = make_scene(2)
    images = []
    for n in range(30):
        (tmp_path / str(n)).mkdir()
        pair = pair_in(tmp_path / str(n), pixels + np.uint16(n), labels)
        images += prepare([pair], cache=tmp_path / "cache", reading=ONE).images
    before = len(os.listdir("/proc/self/fd"))
    views = [image.pixels[:, :5, :5].copy() for image in images]
    assert len(views) == 30 and len(os.listdir("/proc/self/fd")) == before
    assert not any("cache" in os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                   if os.path.islink(f"/proc/self/fd/{n}"))  # fmt: skip


def test_a_folder_is_paired_by_names(folder):
    pairs = read_folder(folder)
    assert [(p.image, p.labels) for p in pairs] == [
        (f"n{n}_img.tif", f"n{n}_masks.tif") for n in range(4)
    ]
    (folder / "n1_masks.tif").unlink()
    with pytest.raises(ValueError, match="n1 has only one of the two"):
        read_folder(folder)
    with pytest.raises(ValueError, match="and has none"):
        read_folder(folder, labels_suffix="_seg")


def test_what_is_prepared_is_normalised_and_numbered(tmp_path, make_scene):
    image, labels = make_scene(1)
    gapped = np.where(labels > 0, labels * 7 + 3, 0).astype(np.uint16)
    (found,) = prepare([pair_in(tmp_path, image[0], gapped)], cache=tmp_path, reading=ONE).images
    low, high = np.percentile(image[0], (1, 99))
    np.testing.assert_allclose(
        found.pixels[0], (image[0] - low) / (high - low), atol=2e-2, rtol=2e-3
    )
    expected = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    np.testing.assert_array_equal(found.labels, expected)
    areas = np.bincount(labels.ravel())[1:]
    assert found.diameter_px == pytest.approx(np.median(2 * np.sqrt(areas[areas > 0] / np.pi)))
    assert found.n_objects == np.count_nonzero(areas) and not found.classes.any()
    assert isinstance(found.pixels, Mapped) and found.pixels[:].dtype == np.float16


def test_strips_give_what_the_whole_gives(tmp_path, make_scene, monkeypatch):
    image, labels = make_scene(2, edge=130)
    pair = pair_in(tmp_path, image[0], labels.astype(np.uint16))
    (whole,) = prepare([pair], cache=tmp_path / "a", reading=ONE).images
    monkeypatch.setattr(module, "STRIP_VOXELS", 130 * 17)
    monkeypatch.setattr(module, "WHOLE_VOXELS", 1)
    (strips,) = prepare([pair], cache=tmp_path / "b", reading=ONE).images
    np.testing.assert_array_equal(strips.pixels, whole.pixels)
    np.testing.assert_array_equal(strips.labels, whole.labels)
    assert strips.diameter_px == whole.diameter_px and strips.key == whole.key


def test_what_was_prepared_is_taken_until_the_content_changes(tmp_path, make_scene, monkeypatch):
    image, labels = make_scene(1)
    pair = pair_in(tmp_path, image[0], labels.astype(np.uint16))
    cache = tmp_path / "cache"
    first = prepare([pair], cache=cache, reading=ONE).images[0]
    files = sorted(p.name for p in cache.iterdir())
    monkeypatch.setattr(module, "open_image", None)  # it must not be read again
    again = prepare([replace(pair, split="tune", set="x")], cache=cache, reading=ONE).images[0]
    assert again.key == first.key and again.pair.split == "tune"
    monkeypatch.undo()
    tifffile.imwrite(pair.image, image[0][::-1])
    other = prepare([pair], cache=cache, reading=ONE).images[0]
    assert other.key != first.key and len(list(cache.iterdir())) == 2 * len(files)
    assert hashlib.sha256(other.pixels[:].tobytes()) != hashlib.sha256(first.pixels[:].tobytes())


def test_a_mask_of_one_value_is_refused_with_a_hint(tmp_path, make_scene):
    image, labels = make_scene(1)
    pair = pair_in(tmp_path, image[0], (labels > 0).astype(np.uint8) * 255)
    with pytest.raises(ValueError, match=r"the one value 255 in \d+ pieces.*scipy\.ndimage\.label"):
        prepare([pair], cache=tmp_path, reading=ONE)
    one = np.zeros((96, 96), np.uint8)
    one[20:40, 20:40] = 255  # a single cell is none
    assert (
        prepare([pair_in(tmp_path, image[0], one)], cache=tmp_path, reading=ONE).images[0].n_objects
        == 1
    )


def test_labels_that_are_none_are_refused(tmp_path, make_scene):
    image, labels = make_scene(1)
    with pytest.raises(ValueError, match="whole numbers as labels, got float32"):
        prepare(
            [pair_in(tmp_path, image[0], labels.astype(np.float32))], cache=tmp_path, reading=ONE
        )
    with pytest.raises(
        ValueError, match=r"needs the shape of .*a\.tif, \(96, 96\), got \(96, 95\)"
    ):
        prepare([pair_in(tmp_path, image[0], labels[:, 1:])], cache=tmp_path, reading=ONE)
    with pytest.raises(ValueError, match="0 or more, got -1. Say ignore_label: -1"):
        signed = labels.astype(np.int16) - 1
        prepare([pair_in(tmp_path, image[0], signed)], cache=tmp_path, reading=ONE)


def test_the_ignore_label_is_no_object(tmp_path, make_scene):
    image, labels = make_scene(1)
    marked = labels.astype(np.uint16)
    marked[:20] = 999
    reading = Reading(n_inputs=1, ignore_label=999)
    (found,) = prepare(
        [pair_in(tmp_path, image[0], marked)], cache=tmp_path, reading=reading
    ).images
    np.testing.assert_array_equal(found.labels[:] < 0, marked == 999)
    assert found.n_objects == len(np.unique(labels[20:])) - 1


def test_what_is_dropped_is_listed(tmp_path, folder):
    pairs = [
        replace(p, image=str(folder / p.image), labels=str(folder / p.labels))
        for p in read_folder(folder)
    ]
    tifffile.imwrite(pairs[0].labels, np.zeros((96, 96), np.uint16))
    found = prepare(pairs, cache=tmp_path, reading=Reading(n_inputs=1, min_objects=2))
    assert len(found.images) == 3
    assert found.dropped == (f"{pairs[0].image}: 0 objects, min_objects is 2",)
    assert len(prepare(pairs, cache=tmp_path, reading=ONE).images) == 4  # without cells is of use


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_store_with_labels_is_a_pair(tmp_path, version):
    store = tmp_path / "a.ome.zarr"
    render_store(spec_of("nuclei", {"shape": (90, 100), "seed": 1}), Output(store, version=version))
    pair = Pair(str(store), str(store / "labels" / "truth"))
    (found,) = prepare([pair], cache=tmp_path / "cache", reading=ONE).images
    truth = np.squeeze(np.asarray(zarr.open_group(store, mode="r")["labels/truth/0"]))
    np.testing.assert_array_equal(found.labels[:] > 0, truth > 0)
    assert found.n_objects == len(np.unique(truth)) - 1


def test_a_volume_gives_slices_along_each_axis(tmp_path):
    labels = np.zeros((16, 40, 40), np.uint16)
    labels[2:14, 4:28, 4:28] = 5
    labels[3:13, 30:38, 30:38] = 9
    tifffile.imwrite(tmp_path / "v.tif", labels * 100)
    tifffile.imwrite(tmp_path / "v_masks.tif", labels)
    pair = Pair(str(tmp_path / "v.tif"), str(tmp_path / "v_masks.tif"), spacing_um="2/1/1")
    found = prepare([pair], cache=tmp_path / "c", reading=ONE).images
    assert {image.labels.shape for image in found} == {(40, 40), (32, 40)}  # 16 planes of 2 px
    assert all(image.n_objects in (1, 2) for image in found)
    middle = max(found, key=lambda image: image.n_objects)
    np.testing.assert_array_equal(np.unique(middle.labels), [0, 1, 2])
    volume = np.array([12 * 24 * 24, 10 * 8 * 8]) * 2  # in cubes of a pixel
    diameters = 2 * (volume * 3 / (4 * np.pi)) ** (1 / 3)
    assert found[0].diameter_px == pytest.approx(np.median(diameters))
    with pytest.raises(ValueError, match="needs the size of its voxels"):
        prepare([replace(pair, spacing_um="")], cache=tmp_path / "c", reading=ONE)
