"""Which files are images: natural order, results left out, names that collide."""

import logging

import pytest

from cellseg_pipe.io.inputs import IMAGE_SUFFIXES, find_inputs, stem_of
from cellseg_pipe.stages.segment import EXTRAS


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return [folder / name for name in names]


@pytest.mark.parametrize(
    "name",
    [
        "a_cp_masks.png", "a_masks.tif", "a_labels.tif", "a_labels.ome.zarr", "a_seg.npy",
        "a_flows.tif", "a_outlines.png", "a_overlay.png", "a_dP.tif", "a_cp_output.png",
        *(f"a{ending}" for ending in EXTRAS.values() if ending.endswith(IMAGE_SUFFIXES)),
    ],
)  # fmt: skip
def test_results_are_no_images(tmp_path, caplog, name):
    image, result = touch(tmp_path, "a.tif", name)
    assert find_inputs([tmp_path]) == [image]
    assert find_inputs([tmp_path / "a*"]) == [image]
    with caplog.at_level(logging.WARNING):
        assert find_inputs([image, result]) == [image]  # as a shell expands a*
    assert f"1 files named like results of a segmentation are left out, as {result}" in caplog.text
    with pytest.raises(FileNotFoundError, match="named like a result"):
        find_inputs([result])


def test_order_is_natural_in_folders_too(tmp_path):
    touch(tmp_path, "p10/w2.tif", "p2/w10.tif", "p2/w9.TIF", "p2/.hidden.tif", "p2/notes.txt")
    found = find_inputs([tmp_path], recursive=True)
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "p2/w9.TIF",
        "p2/w10.tif",
        "p10/w2.tif",
    ]
    with pytest.raises(FileNotFoundError, match="there is none"):
        find_inputs([tmp_path])


def test_a_store_is_one_image(tmp_path):
    touch(tmp_path, "s.ome.zarr/zarr.json", "s.ome.zarr/labels/b.tif", "old/.zgroup")
    assert find_inputs([tmp_path / "s.ome.zarr"]) == [tmp_path / "s.ome.zarr"]
    assert find_inputs([tmp_path], recursive=True) == [tmp_path / "s.ome.zarr"]
    assert find_inputs([tmp_path / "old"]) == [tmp_path / "old"]


def test_one_file_named_twice_is_one_image(tmp_path):
    (image,) = touch(tmp_path, "b/a[1].tif")
    (tmp_path / "b" / "c").mkdir()
    twice = [image, tmp_path / "b", tmp_path / "b" / "c" / ".." / "a[1].tif"]
    assert find_inputs(twice) == [image]


def test_two_images_of_one_name_are_said(tmp_path):
    touch(tmp_path, "b/a.tif", "c/a.ome.tif")
    with pytest.raises(ValueError, match=r"b/a\.tif and .*c/a\.ome\.tif have one name"):
        find_inputs([tmp_path], recursive=True)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("x/a.ome.tif", "a"),
        ("a.OME.TIFF", "a"),
        ("a.ome.zarr", "a"),
        ("a.b.zarr", "a.b"),
        ("a.v1.png", "a.v1"),
        ("plate", "plate"),
        (".tif", ".tif"),
    ],
)
def test_names_without_endings(name, stem):
    assert stem_of(name) == stem
