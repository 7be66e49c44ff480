"""Where models are found: order of folders, names, what is listed, what may be added."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cellseg_pipe.nets import catalog
from cellseg_pipe.nets.checkpoint import ModelInfo, load, save
from cellseg_pipe.nets.cpnet import Architecture, CPnet

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoints"
FORM = Architecture(widths=(2, 3))


def put(folder, name, *, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    return save(folder / f"{name}.safetensors", CPnet(FORM), ModelInfo(name, FORM))


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Return the folders of site, user and package; a working folder with nothing in it."""
    site, user, shipped = (tmp_path / name for name in ("site", "user", "shipped"))
    monkeypatch.setenv("CELLSEG_MODELS", f"{site}{os.pathsep}{user}")
    monkeypatch.setattr(catalog, "SHIPPED", shipped)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return site, user, shipped


def test_first_folder_wins_and_a_path_before_it(places):
    files = [put(folder, "a", seed=n) for n, folder in enumerate(reversed(places))]
    assert catalog.resolve("a") == files[2]
    files[2].unlink()
    assert catalog.resolve("a") == files[1]
    files[1].unlink()
    assert catalog.resolve("a") == files[0] == catalog.resolve(files[0])
    assert catalog.load_model("a").sha256 == load(files[0]).sha256
    Path("a").write_text("here")
    assert catalog.resolve("a") == Path("a")


def test_suffixes_are_tried_in_order(places):
    site = places[0]
    ours = put(site, "a")
    for name in ("a", "a.pth"):
        (site / name).write_text("x")
    assert catalog.resolve("a") == ours
    assert catalog.resolve("a.pth") == site / "a.pth"
    ours.unlink()
    assert catalog.resolve("a") == site / "a"
    (site / "a").unlink()
    assert catalog.resolve("a") == site / "a.pth"


def test_a_miss_names_what_is_known_and_near(places):
    put(places[0], "neurons")
    with pytest.raises(FileNotFoundError, match="did you mean 'neurons'") as caught:
        catalog.resolve("neuron")
    assert str(places[1]) in str(caught.value) and "models add" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"x/neurons does not exist"):
        catalog.resolve("x/neurons")
    with pytest.raises(ValueError, match="got nothing"):
        catalog.resolve("")


def test_shipped_names_may_share_a_file(places):
    file = put(places[2], "nuclei")
    (places[2] / "aliases.json").write_text(json.dumps({"cells": "nuclei"}))
    assert catalog.resolve("cells") == file == catalog.resolve("nuclei")
    assert [(e.name, e.path, e.origin) for e in catalog.list_models()] == [
        ("nuclei", file, "shipped"),
        ("cells", file, "shipped"),
    ]
    own = put(places[1], "cells")
    assert catalog.resolve("cells") == own


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [("{data}", "user")]),
        ("", [("{data}", "user")]),
        ("/u", [("/u", "user")]),
        ("/s:", [("/s", "site"), ("{data}", "user")]),
        ("/s:/t:/u", [("/s", "site"), ("/t", "site"), ("/u", "user")]),
    ],
)
def test_folders_of_the_variable(monkeypatch, value, expected):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.delenv("CELLSEG_MODELS", raising=False)
    if value is not None:
        monkeypatch.setenv("CELLSEG_MODELS", value.replace(":", os.pathsep))
    found = [(str(f.path), f.origin) for f in catalog.folders()]
    assert found[:-1] == [(p.format(data="/data/cellseg_pipe/models"), o) for p, o in expected]
    assert found[-1] == (str(catalog.SHIPPED), "shipped")


def test_without_a_home_the_shipped_ones_are_found(places, monkeypatch):
    file = put(places[2], "nuclei")
    monkeypatch.delenv("CELLSEG_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert catalog.resolve("nuclei") == file
    assert [entry.name for entry in catalog.list_models()] == ["nuclei"]
    with pytest.raises(OSError, match="CELLSEG_MODELS"):
        catalog.add(file, name="b")


def test_a_home_that_is_no_folder_breaks_nothing(places, tmp_path, monkeypatch):
    file = put(places[2], "nuclei")
    (tmp_path / "home").write_text("a file")
    monkeypatch.delenv("CELLSEG_MODELS")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert catalog.resolve("nuclei") == file
    assert len(catalog.list_models()) == 1


def test_list_tells_origin_checksum_and_shadows(places):
    site, user, shipped = places
    first, second = put(site, "a"), put(user, "a", seed=1)
    shutil.copy(GOLDEN / "segmentation", user / "peer_2022.123456")
    (user / "broken.pth").write_bytes(b"<html>")
    for name in ("notes.txt", "peer_size.npy", ".hidden"):
        (user / name).write_text("x")
    last = put(shipped, "nuclei")
    entries = {entry.path.name: entry for entry in catalog.list_models() if entry.path != first}
    assert set(entries) == {second.name, "peer_2022.123456", "broken.pth", last.name}
    assert entries[second.name].shadowed_by == first
    assert entries[second.name].sha256 == load(second).sha256
    peer = entries["peer_2022.123456"]
    assert (peer.name, peer.origin, peer.usable) == ("peer_2022.123456", "user", True)
    assert peer.summary == "2D segmentation, 2 in, 3 out, widths 4,6, 22 px"
    assert catalog.resolve(peer.name) == peer.path
    broken = entries["broken.pth"]
    assert not broken.usable and broken.summary.startswith("is a web page")
    assert entries[last.name].origin == "shipped" and not entries[last.name].shadowed_by


def test_add_copies_what_can_be_loaded(places):
    user = places[1]
    copy = catalog.add(GOLDEN / "segmentation", name="mine")
    assert copy == user / "mine" == catalog.resolve("mine")
    assert copy.read_bytes() == (GOLDEN / "segmentation").read_bytes()
    assert load(copy).size.diam_mean_px == 22
    assert catalog.add(GOLDEN / "segmentation", name="mine") == copy  # the same again
    with pytest.raises(FileExistsError, match="--name"):
        catalog.add(GOLDEN / "restoration", name="mine")
    with pytest.raises(FileExistsError, match="another file"):
        catalog.add(put(places[0], "site"), name="mine")
    assert {file.name for file in user.iterdir()} == {"mine", "mine_size.npy"}


def test_what_a_name_tells_is_kept_under_another_one(places, tmp_path):
    without = tmp_path / "cellpose_residual_on_style_off_concatenation_off_x_2022_01_01.123456"
    denoising = tmp_path / "denoise_nuclei"
    shutil.copy(GOLDEN / "segmentation", without)
    shutil.copy(GOLDEN / "restoration", denoising)
    for path in (without, denoising):
        before, after = load(path), load(catalog.add(path, name=f"my{path.name[:3]}"))
        assert after.path.suffix == ".safetensors"
        assert replace(after.info, name=before.info.name) == before.info
        for key, tensor in before.net.state_dict().items():
            torch.testing.assert_close(after.net.state_dict()[key], tensor, rtol=0, atol=0)
    assert load(places[1] / "myden.safetensors").info.restores == "denoise"
    assert not load(places[1] / "mycel.safetensors").info.architecture.style


def test_add_refuses_without_a_trace(places, tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="damaged"):
        catalog.add(tmp_path / "bad.pth")
    for name in ("../a", ".a", "", "-a", "a.txt", "a.pth", "a\n"):
        with pytest.raises(ValueError, match="name|looked for"):
            catalog.add(GOLDEN / "restoration", name=name)
    assert not places[1].exists()


def test_add_warns_when_hidden(places, caplog):
    hidden = put(places[0], "mine")
    copy = catalog.add(GOLDEN / "restoration", name="mine")
    assert catalog.resolve("mine") == hidden != copy
    assert "is hidden by" in caplog.text


@pytest.mark.parametrize("fault", ["read-only", "no folder"])
def test_a_folder_that_cannot_be_written_is_named(places, monkeypatch, fault):
    user = places[1]
    if fault == "no folder":
        user.write_text("a file")
    else:
        deny = PermissionError(30, "Read-only file system")
        monkeypatch.setattr(catalog, "open", lambda *_: (_ for _ in ()).throw(deny), raising=False)
    reason = "Read-only file system" if fault == "read-only" else ".*"
    with pytest.raises(OSError, match=f"cannot write to {user}: {reason}.*CELLSEG_MODELS"):
        catalog.add(GOLDEN / "restoration")
