"""Publishing: the old store or the new one is there whenever it is cut short, and others' never."""

import os

import numpy as np
import pytest
import zarr

from cellseg_pipe.io import _moving
from cellseg_pipe.io._attributes import marker_of
from cellseg_pipe.io.ngff import ImageMeta, create_label_pyramid
from cellseg_pipe.io.publish import publish
from cellseg_pipe.io.shards import ShardWriter


def new_store(path, value, stage_hash="aaa"):
    path.parent.mkdir(exist_ok=True, parents=True)
    meta = ImageMeta("yx", (1.0, 1.0), stage_hash=stage_hash)
    create_label_pyramid(path, meta, shape=(30, 40), version="0.5")
    ShardWriter(path / "0").write_shard(0, np.full((30, 40), value, np.uint32))
    return path


def value_of(path):
    return int(zarr.open_array(path / "0", mode="r")[3, 3])


@pytest.fixture
def places(tmp_path):
    return tmp_path / "runs/s1/paint-1/labels.ome.zarr", tmp_path / "s1/labels.ome.zarr"


def test_a_store_is_moved(places):
    store, destination = places
    new_store(store, 3)
    publish(store, destination)
    assert value_of(destination) == 3 and not store.exists()
    assert [path.name for path in destination.parent.iterdir()] == ["labels.ome.zarr"]


def test_an_older_store_is_replaced(places):
    store, destination = places
    for value in (3, 4):
        new_store(store, value)
        publish(store, destination)
        assert value_of(destination) == value and not store.exists()
    assert [path.name for path in destination.parent.iterdir()] == ["labels.ome.zarr"]


@pytest.mark.parametrize("step", range(4))
def test_whenever_it_is_cut_short_the_next_call_completes_it(places, monkeypatch, step):
    store, destination = places
    publish(new_store(store, 3, "aaa"), destination, stage_hash="aaa")
    new_store(store, 4, "bbb")
    calls = []

    def failing(real):
        def called(*arguments, **settings):
            if len(calls) == step:
                raise KeyboardInterrupt
            calls.append(real.__name__)
            return real(*arguments, **settings)

        return called

    with monkeypatch.context() as patch:
        patch.setattr(_moving.os, "rename", failing(os.rename))
        patch.setattr(_moving.shutil, "rmtree", failing(_moving.shutil.rmtree))
        if step < 3:
            with pytest.raises(KeyboardInterrupt):
                publish(store, destination, stage_hash="bbb")
        else:
            publish(store, destination, stage_hash="bbb")
    assert calls == ["rename", "rename", "rmtree"][:step]
    kept = [path for path in destination.parent.iterdir() if path.is_dir()]
    assert value_of(kept[0]) in (3, 4)  # one of them is always there, whole
    publish(store, destination, stage_hash="bbb")
    assert value_of(destination) == 4 and marker_of(destination)["stage_hash"] == "bbb"
    assert [path.name for path in destination.parent.iterdir()] == ["labels.ome.zarr"]
    publish(store, destination, stage_hash="bbb")
    assert value_of(destination) == 4


def test_what_is_cut_short_before_the_end_is_mended_without_a_hash(places):
    store, destination = places
    publish(new_store(store, 4), destination)
    new_store(destination.with_name(".old-labels.ome.zarr"), 3)
    publish(store, destination)
    assert value_of(destination) == 4
    assert [path.name for path in destination.parent.iterdir()] == ["labels.ome.zarr"]


def test_what_others_made_is_left_alone(places, tmp_path):
    store, destination = places
    new_store(store, 3)
    destination.mkdir(parents=True)
    (destination / "mine.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="was not made by cellseg_pipe. Rename it"):
        publish(store, destination)
    assert (destination / "mine.txt").read_text() == "dear" and value_of(store) == 3
    foreign = tmp_path / "foreign.zarr"
    zarr.create_group(foreign, attributes={"ome": {"version": "0.5"}})
    with pytest.raises(FileExistsError, match="was not made by cellseg_pipe"):
        publish(store, foreign)
    link = tmp_path / "link.zarr"
    link.symlink_to(new_store(tmp_path / "elsewhere.zarr", 5))
    with pytest.raises(FileExistsError, match="was not made by cellseg_pipe"):
        publish(store, link)
    (tmp_path / "file.zarr").write_text("x")
    with pytest.raises(FileExistsError, match="was not made by cellseg_pipe"):
        publish(store, tmp_path / "file.zarr")
    with pytest.raises(ValueError, match="a store that cellseg_pipe made, and is not"):
        publish(foreign, tmp_path / "new.zarr")


def test_a_missing_store_is_not_taken_for_a_published_one(places):
    store, destination = places
    with pytest.raises(FileNotFoundError, match="does not exist. Run the stage again"):
        publish(store, destination)
    publish(new_store(store, 3, "aaa"), destination)
    for stage_hash in (None, "bbb"):
        with pytest.raises(FileNotFoundError, match="does not exist. Run the stage again"):
            publish(store, destination, stage_hash=stage_hash)
    publish(store, destination, stage_hash="aaa")
    new_store(store, 4, "aaa")
    with pytest.raises(ValueError, match="needs to be of stage bbb, got aaa"):
        publish(store, destination, stage_hash="bbb")
    assert value_of(destination) == 3


def test_files_that_killed_jobs_had_begun_are_removed(places):
    store, destination = places
    new_store(store, 3)
    (store / "0/c/0/.0.x1y2").write_bytes(b"half")
    publish(store, destination)
    assert [file.name for file in (destination / "0/c/0").iterdir()] == ["0"]


def test_another_file_system_is_refused_before_anything_moves(places, monkeypatch):
    store, destination = places
    publish(new_store(store, 3), destination)
    new_store(store, 4)
    monkeypatch.setattr("cellseg_pipe.io.publish.together", lambda *_: False)
    with pytest.raises(ValueError, match="another file system. Keep the scratch folder"):
        publish(store, destination)
    assert (value_of(store), value_of(destination)) == (4, 3)
