"""Labels put into an image: nothing else of it changes, whoever else works on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from cellseg_pipe.io import embed
from cellseg_pipe.io.embed import add_labels_to_image
from cellseg_pipe.io.ngff import ImageMeta, create_image, create_label_pyramid, create_labels
from cellseg_pipe.io.shards import ShardWriter

VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])
SHAPE = (30, 40)


def new_store(path, value, version, *, stage_hash="aaa"):
    meta = ImageMeta("yx", (1.0, 1.0), stage_hash=stage_hash)
    create_label_pyramid(path, meta, shape=SHAPE, version=version, n_levels=2)
    for level in ("0", "1"):
        writer = ShardWriter(path / level)
        writer.write_shard(0, np.full(writer.grid.shape, value, np.uint32))
    return path


def new_image(path, version):
    array = {"shape": SHAPE, "dtype": "uint8"}
    meta = ImageMeta("yx", (1.0, 1.0))
    create_image(path, meta, array=array, value_range=(0, 9), version=version, n_levels=2)[...] = 7
    return path


def listed(image):
    attributes = dict(zarr.open_group(image / "labels", mode="r").attrs)
    return attributes.get("ome", attributes)["labels"]


def contents(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@VERSIONS
@pytest.mark.parametrize("keep", ["move", "copy"])
def test_labels_are_added_and_nothing_else_changes(tmp_path, version, keep):
    image = new_image(tmp_path / "image.zarr", version)
    before = contents(image)
    store = new_store(tmp_path / "labels.zarr", 5, version)
    add_labels_to_image(store, image, "cells", keep=keep)
    assert store.exists() == (keep == "copy")
    after = contents(image)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("labels/") for name in after.keys() - before.keys())
    group = zarr.open_group(image, mode="r")["labels/cells"]
    about = dict(group.attrs).get("ome", dict(group.attrs))
    assert about["image-label"]["source"] == {"image": "../../"}
    assert (group["0"][...] == 5).all() and group["1"].shape == (15, 20)
    assert listed(image) == ["cells"]
    attributes = dict(zarr.open_group(image / "labels", mode="r").attrs)
    expected = {"labels": ["cells"]}
    if version == "0.5":
        expected = {"ome": {"version": "0.5", "labels": ["cells"]}}
    assert attributes == expected


@VERSIONS
def test_labels_and_metadata_of_others_are_kept(tmp_path, version):
    image = new_image(tmp_path / "image.zarr", version)
    create_labels(
        image, "mine", ImageMeta("yx", (1.0, 1.0)), array={"shape": SHAPE}, version=version
    )
    file = image / "labels" / ("zarr.json" if version == "0.5" else ".zattrs")
    about = json.loads(file.read_text())
    attributes = about["attributes"] if version == "0.5" else about
    attributes["curator"] = {"name": "Zoë"}
    attributes.setdefault("ome", attributes)["note"] = 3 if version == "0.5" else None
    if version == "0.4":
        attributes.pop("ome")
    file.write_text(json.dumps(about))
    before = contents(image / "labels/mine")
    add_labels_to_image(new_store(tmp_path / "a.zarr", 5, version), image, "cells")
    found = json.loads(file.read_text())
    assert listed(image) == ["mine", "cells"]
    attributes.get("ome", attributes)["labels"].append("cells")
    assert found == about and contents(image / "labels/mine") == before


@VERSIONS
def test_a_name_that_is_taken_is_refused(tmp_path, version):
    image = new_image(tmp_path / "image.zarr", version)
    create_labels(
        image, "cells", ImageMeta("yx", (1.0, 1.0)), array={"shape": SHAPE}, version=version
    )
    before = contents(image)
    store = new_store(tmp_path / "a.zarr", 5, version)
    with pytest.raises(FileExistsError, match="has labels named 'cells'. Choose another name"):
        add_labels_to_image(store, image, "cells")
    assert contents(image) == before and store.exists()
    add_labels_to_image(store, image, "cells2")
    other = new_store(tmp_path / "b.zarr", 6, version, stage_hash="bbb")
    with pytest.raises(FileExistsError, match="has labels named 'cells2'"):
        add_labels_to_image(other, image, "cells2")
    assert (zarr.open_array(image / "labels/cells2/0", mode="r")[...] == 5).all()


def test_a_name_that_is_listed_without_its_labels_is_refused(tmp_path):
    image = new_image(tmp_path / "image.zarr", "0.5")
    attributes = {"ome": {"version": "0.5", "labels": ["cells"]}}
    zarr.create_group(image / "labels", attributes=attributes)
    with pytest.raises(FileExistsError, match="lists labels named 'cells'"):
        add_labels_to_image(new_store(tmp_path / "a.zarr", 5, "0.5"), image, "cells")


@VERSIONS
@pytest.mark.parametrize("keep", ["move", "copy"])
@pytest.mark.parametrize("step", ["_put", "_list", "_consolidate", "rename", "set_attribute"])
def test_what_was_cut_short_is_completed(tmp_path, monkeypatch, version, keep, step):
    image = new_image(tmp_path / "image.zarr", version)
    store = new_store(tmp_path / "a.zarr", 5, version)

    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(embed, step, killed)
        add_labels_to_image(store, image, "cells", keep=keep, stage_hash="aaa")
    for _ in range(2):  # once more does no harm
        add_labels_to_image(store, image, "cells", keep=keep, stage_hash="aaa")
    assert listed(image) == ["cells"] and store.exists() == (keep == "copy")
    assert (zarr.open_array(image / "labels/cells/0", mode="r")[...] == 5).all()
    assert {path.name for path in (image / "labels").iterdir()} <= {
        "cells", "zarr.json", ".zgroup", ".zattrs"
    }  # fmt: skip


def test_another_file_system_gets_a_copy(tmp_path, monkeypatch):
    image = new_image(tmp_path / "image.zarr", "0.5")
    store = new_store(tmp_path / "a.zarr", 5, "0.5")
    monkeypatch.setattr(embed, "together", lambda *_: False)
    add_labels_to_image(store, image, "cells")
    assert not store.exists()
    assert (zarr.open_array(image / "labels/cells/0", mode="r")[...] == 5).all()


@pytest.mark.parametrize(
    ("change", "message", "error"),
    [
        ({"image": "s3://bucket/image.zarr"}, "added to local images, got s3://", ValueError),
        ({"image": "https://x.org/image.zarr"}, "added to local images", ValueError),
        ({"name": "a/b"}, "a plain name, got 'a/b'", ValueError),
        ({"name": ""}, "a plain name", ValueError),
        ({"name": ".."}, "a plain name", ValueError),
        ({"image": "no.zarr"}, "needs to be an OME-Zarr image. Name the group", ValueError),
        ({"image": "a.zarr"}, "needs to be an OME-Zarr image", ValueError),
        ({"image": "old.zarr"}, "are OME-Zarr 0.5 and .* is 0.4: labels need the", ValueError),
        ({"store": "flat.zarr"}, "have 1 levels and .* has 2: labels need as many", ValueError),
        ({"store": "no.zarr"}, "no.zarr does not exist", FileNotFoundError),
        ({"store": "image.zarr"}, "of stage aaa, got none", ValueError),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, monkeypatch, change, message, error):
    monkeypatch.chdir(tmp_path)
    new_image(tmp_path / "image.zarr", "0.5")
    new_image(tmp_path / "old.zarr", "0.4")
    new_store(tmp_path / "a.zarr", 5, "0.5")
    flat = ImageMeta("yx", (1.0, 1.0), stage_hash="aaa")
    create_label_pyramid(tmp_path / "flat.zarr", flat, shape=SHAPE, version="0.5")
    before = contents(tmp_path)
    call = {"store": "a.zarr", "image": "image.zarr", "name": "cells"} | change
    with pytest.raises(error, match=message):
        add_labels_to_image(call["store"], call["image"], call["name"], stage_hash="aaa")
    assert contents(tmp_path) == before


def test_images_that_cannot_be_written_are_refused(tmp_path, monkeypatch):
    image = new_image(tmp_path / "image.zarr", "0.5")
    store = new_store(tmp_path / "a.zarr", 5, "0.5")
    before = contents(tmp_path)
    real = os.access  # root may write anywhere but on read-only file systems
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != image and real(path, mode))
    with pytest.raises(PermissionError, match="cannot be written. Leave into_image off"):
        add_labels_to_image(store, image, "cells")
    assert contents(tmp_path) == before


@VERSIONS
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_consolidated_metadata_know_the_new_labels(tmp_path, version):
    image = new_image(tmp_path / "image.zarr", version)
    create_labels(
        image, "old", ImageMeta("yx", (1.0, 1.0)), array={"shape": SHAPE}, version=version
    )
    zarr.consolidate_metadata(image, path="labels")
    zarr.consolidate_metadata(image)
    add_labels_to_image(new_store(tmp_path / "a.zarr", 5, version), image, "cells")
    group = zarr.open_consolidated(image, mode="r")
    assert (group["labels/cells/0"][...] == 5).all() and (group["0"][...] == 7).all()
    assert set(group["labels"].group_keys()) == {"old", "cells"}
    attributes = dict(group["labels"].attrs)
    assert attributes.get("ome", attributes)["labels"] == ["old", "cells"]
    inner = zarr.open_consolidated(image / "labels", mode="r")
    assert (inner["cells/1"][...] == 5).all() and set(inner.group_keys()) == {"old", "cells"}


@pytest.mark.slow
def test_processes_do_not_lose_each_others_names(tmp_path):
    image = new_image(tmp_path / "image.zarr", "0.5")
    names = [f"unit{i}" for i in range(6)]
    for name in names:
        new_store(tmp_path / f"{name}.zarr", 5, "0.5")
    script = (
        "import sys; from cellseg_pipe.io.embed import add_labels_to_image;"
        " sys.stdin.readline(); add_labels_to_image(*sys.argv[1:])"
    )
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / f"{name}.zarr", image, name],
            stdin=subprocess.PIPE,
        )
        for name in names
    ]
    for job in jobs:
        job.stdin.write(b"go\n")
        job.stdin.flush()
    for job in jobs:
        job.communicate()
        assert job.returncode == 0
    assert sorted(listed(image)) == names
    assert not (image / embed.LOCK).exists()
