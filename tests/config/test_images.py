"""Which images are meant, where they are looked for, what they are called."""

import os

import pytest

from cellseg_pipe.config import (
    ConfigError,
    dump,
    expand_images,
    experiment_of,
    load_experiment,
    with_images,
)
from cellseg_pipe.config.images import default_name


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def written(folder, *entries, more=""):
    """Write an experiment file and load it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "\n".join(f"- {entry}" for entry in entries)
    (folder / "my.yaml").write_text(f"images:\n{rows}\noutput: {{dir: out}}\n{more}")
    return load_experiment(folder / "my.yaml")


def places(experiment, root):
    return [(os.path.relpath(i.path, root), i.name) for i in expand_images(experiment)]


def test_a_relative_path_is_beside_the_file_first_then_where_we_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "here.tif", "both.tif", "config/both.tif", "config/sub/a.tif", "m.pth")
    touch(tmp_path, "config/mine.safetensors", "data/p1.tif", "config/mine")
    found = written(
        tmp_path / "config", "path: here.tif", "path: both.tif", "path: sub/*.tif",
        "path: data/*.tif", "path: none/at/all.tif",
        more="targets: {a: {model: mine.safetensors, side_model: ./m.pth}, b: {model: mine},"
        " c: {model: 'cellpose-sam:mine.safetensors'}}",
    )  # fmt: skip
    assert [os.path.relpath(image.path, tmp_path) for image in found.images] == [
        "here.tif", "config/both.tif", "config/sub/*.tif", "data/*.tif", "none/at/all.tif",
    ]  # fmt: skip
    assert found.output.dir == f"{tmp_path}/out"
    models = [(t.model, t.side_model) for t in found.targets.values()]
    assert models == [
        (f"{tmp_path}/config/mine.safetensors", f"{tmp_path}/m.pth"),
        ("mine", None),  # a name is a name
        (f"cellpose-sam:{tmp_path}/config/mine.safetensors", None),
    ]
    mapping = {"images": [{"path": "both.tif"}], "output": {"dir": "."}}
    assert experiment_of(mapping).images[0].path == f"{tmp_path}/both.tif"
    beside = experiment_of(mapping, source=tmp_path / "config" / "my.yaml")
    assert beside.images[0].path == f"{tmp_path}/config/both.tif"


def test_home_variables_and_urls(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", f"{tmp_path}/data")
    touch(tmp_path, "exp/a$b.tif")
    urls = ["https://a.org/x/6001240.zarr", "s3://b/c/brain.ome.zarr/", "http://h/$X~/i.tif?v=1"]
    found = written(
        tmp_path / "exp",
        "path: ~/x.tif",
        "path: $DATA/a.tif",
        "path: ${DATA}/b.tif",
        *(f"path: {url}" for url in urls),
    )
    paths = [image.path for image in found.images]
    assert paths[:3] == [f"{tmp_path}/{name}" for name in ("x.tif", "data/a.tif", "data/b.tif")]
    assert paths[3:] == urls
    touch(tmp_path, "x.tif", "data/a.tif", "data/b.tif")
    names = [image.name for image in expand_images(found)]
    assert names == ["x", "a", "b", "6001240", "brain", "i"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/d/my slide (1).ome.tif", "my_slide_1_"),
        ("/d/x.ome.zarr", "x"),
        ("/d/x.ome.zarr/", "x"),
        ("/d/plate.zarr/A/1/0", "plate-A-1-0"),
        ("s3://b/x.zarr/labels", "x-labels"),
        ("/d/-rf.tif", "rf"),
        ("/d/..tif", "image"),
        ("/d/細胞.tif", "細胞"),
        ("/d/e\u0301.tif", "é"),
        ("/d/(((.tif", "_"),
        ("/d/+.tif", "image"),
        ("/d/a.b-c+d.svs", "a.b-c+d"),
    ],
)
def test_default_names_suit_shells_and_file_systems(path, name):
    assert default_name(path) == name


def test_folders_and_patterns_are_expanded_in_natural_order(tmp_path):
    touch(tmp_path, "p/w10.tif", "p/w9.tif", "p/w9_masks.tif", "p/notes.txt", "q/deep/er/z.tif")
    touch(tmp_path, "s.ome.zarr/zarr.json", "s.ome.zarr/0/x.tif")
    found = written(
        tmp_path, "{path: p, diameter_px: 7}", "path: q/**/*.tif", "{path: s.ome.zarr, name: s1}"
    )
    assert places(found, tmp_path) == [
        ("p/w9.tif", "w9"),
        ("p/w10.tif", "w10"),
        ("q/deep/er/z.tif", "z"),
        ("s.ome.zarr", "s1"),
    ]
    kept = with_images(found)
    assert [image.diameter_px for image in kept.images] == [7.0, 7.0, None, None]
    touch(tmp_path, "p/w11.tif")
    assert len(expand_images(kept)) == 4 < len(expand_images(found))
    assert expand_images(kept) == kept.images
    assert f"- path: {tmp_path}/p/w10.tif\n  name: w10\n" in dump(kept)


def test_one_name_for_two_images_and_images_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a/x.tif", "b/X.png", "c/1.tif", "c/2.tif", "d/y.tif", "d/y.png", "runs.tif")
    found = written(
        tmp_path,
        "path: a/x.tif",
        "path: b/X.png",
        "{path: c, name: one}",
        "path: d",
        "path: none.tif",
        "path: runs.tif",
        "path: a",
    )
    with pytest.raises(ConfigError) as caught:
        expand_images(found)
    rows = str(caught.value).replace(f"{tmp_path}/", "").split("\n  ")
    assert rows[0] == "6 problems in my.yaml:"
    assert rows[1].startswith("my.yaml:3: images[1].name needs a name of its own: a/x.tif and b/X")
    assert rows[2].startswith("my.yaml:4: images[2].path is not usable: c is 2 images, and there")
    assert rows[3].startswith("my.yaml:5: images[3].path is not usable: results are named after")
    assert rows[4].startswith("my.yaml:6: images[4].path is not usable: none.tif needs to name an")
    assert rows[5].startswith("my.yaml:7: images[5].name needs another name: 'runs' is a file or")
    assert rows[6] == (
        "my.yaml:8: images[6].name needs a name of its own: a/x.tif is named twice. Leave one."
    )


def test_a_name_settles_a_collision(tmp_path):
    touch(tmp_path, "a/x.tif", "b/x.tif")
    found = written(tmp_path, "path: a/x.tif", "{path: b/x.tif, name: x-b}")
    assert places(found, tmp_path) == [("a/x.tif", "x"), ("b/x.tif", "x-b")]
