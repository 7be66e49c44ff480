"""Files of networks: read back as written, equal to the peer's, and refused with a reason."""

import io
import json
import os
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from cellseg_pipe.nets import _info, checkpoint
from cellseg_pipe.nets.checkpoint import ModelInfo, Published, load, save
from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.nets.size import SizeModel

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoints"
FORM = Architecture(widths=(4, 6))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return CPnet(FORM).eval()


@pytest.fixture
def state():
    return torch.load(GOLDEN / "segmentation", weights_only=True)


def saved(state, path, **options):
    torch.save(state, path, **options)
    return path


@pytest.mark.parametrize("name", ["segmentation", "restoration"])
def test_golden_files_of_the_peer_compute_the_same(name):
    model = load(GOLDEN / name)
    results = np.load(GOLDEN / "results.npz")
    with torch.no_grad():
        y, style = model.net(torch.from_numpy(results[f"{name}_x"]))
    np.testing.assert_allclose(y, results[f"{name}_y"], atol=1e-6)
    np.testing.assert_allclose(style, results[f"{name}_style"], atol=1e-6)
    assert model.info.task == name and model.info.name == name
    assert not model.net.training


def test_diameters_and_size_regression_of_the_peer_are_read():
    model = load(GOLDEN / "segmentation")
    assert (model.info.diameter_px, model.info.labels_diameter_px) == (22.0, 41.5)
    assert model.info.channels == ("main", "second (optional)")
    assert model.size.diam_mean_px == 22.0
    assert load(GOLDEN / "restoration").size is None


@pytest.mark.parametrize(
    ("name", "with_diameters", "diameter_px"),
    [
        ("cytotorch_0", False, 30),
        ("my_nuclei.pth", False, 17),
        ("nucleitorch_1", True, 17),
        ("denoise_per_nuclei", True, 17),
        ("my_nuclei", True, 22),
    ],
)
def test_diameter_comes_from_the_file_or_the_name(
    tmp_path, state, name, with_diameters, diameter_px
):
    if not with_diameters:
        del state["diam_mean"], state["diam_labels"]
    model = load(saved(state, tmp_path / name))
    assert model.info.diameter_px == diameter_px == float(model.net.diam_mean)
    assert model.info.name == name.removesuffix(".pth")


def test_old_forms_of_files_are_read(tmp_path, state):
    expected = load(GOLDEN / "segmentation").net.state_dict()
    old = saved(state, tmp_path / "old", _use_new_zipfile_serialization=False)
    wrapped = saved({f"module.{k}": t for k, t in state.items()}, tmp_path / "wrapped")
    for path in (old, wrapped):
        model = load(path)
        assert model.info.diameter_px == 22
        assert all(torch.equal(expected[k], t) for k, t in model.net.state_dict().items())


def test_style_is_off_where_the_name_says_so(tmp_path, state):
    name = "cellpose_residual_on_style_off_concatenation_off_x_2022_01_01.123456"
    model = load(saved(state, tmp_path / name))
    assert not model.info.architecture.style and model.info.name == name


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_ours_is_read_as_written(tmp_path, net, dtype):
    info = ModelInfo(
        "mine", FORM, 18.0, ("DNA", "membrane"), (0.5, 99.5), 25.0, 512, 64, "CC0", "ab", "by hand"
    )
    size = SizeModel(np.arange(6) / 8, np.arange(6) / 4, 0.1, 18.0)
    path = save(tmp_path / "file.safetensors", net, info, dtype=dtype, size=size)
    model = load(path)
    assert model.info == info and model.path == path
    assert model.size.diameter_px(np.ones(6)) == pytest.approx(size.diameter_px(np.ones(6)))
    for key, tensor in net.state_dict().items():
        if key != "diam_mean":
            exact = tensor if tensor.ndim < 2 else tensor.to(getattr(torch, dtype)).float()
            assert torch.equal(model.net.state_dict()[key], exact), key
    assert float(model.net.diam_mean) == 18.0
    assert [p.name for p in tmp_path.iterdir()] == ["file.safetensors"]


def test_two_saves_give_equal_bytes(tmp_path, net):
    paths = [save(tmp_path / f"{n}.safetensors", net, ModelInfo("a", FORM)) for n in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert load(paths[0]).sha256 == load(paths[1]).sha256


def test_style_switched_off_is_kept_by_the_header(tmp_path):
    form = replace(FORM, style=False)
    path = save(tmp_path / "a.safetensors", CPnet(form), ModelInfo("a", form))
    assert load(path).net.architecture == form


def test_bare_safetensors_are_read_like_the_files_of_the_peer(tmp_path, state):
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").info.diameter_px == 22.0


def test_published_files_are_known_by_checksum(tmp_path, state, monkeypatch):
    path = saved(state, tmp_path / "renamed.pth")
    known = Published("cyto9", ("cytoplasm", "nucleus"), 30.0)
    monkeypatch.setitem(_info.PUBLISHED, load(path).sha256, known)
    model = load(path)
    assert model.published == known
    assert (model.info.name, model.info.channels) == ("cyto9", ("cytoplasm", "nucleus"))
    assert model.info.diameter_px == 30.0 and "CC-BY-NC" in model.info.licence
    assert {entry.name for entry in checkpoint.PUBLISHED.values()} >= {"cyto3", "cpsam"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("output.2.weight"), "missing output.2.weight"),
        (lambda s: s.update(extra=torch.ones(1)), "unexpected extra"),
        (lambda s: s.update({"output.0.bias": torch.ones(9)}), "output.0.bias of shape"),
        (
            lambda s: s.update({"output.0.bias": torch.ones(4, dtype=int)}),
            "output.0.bias is of int",
        ),
        (lambda s: s.update({"output.0.bias": s["output.0.bias"].double()}), "float64"),
        (lambda s: s.update({"output.0.bias": torch.full((4,), torch.nan)}), "not finite"),
        (lambda s: s.update(W2=torch.ones(1)), "cellpose-sam"),
        (lambda s: s.update({"encoder.cls_token": torch.ones(1)}), "cellpose-sam"),
        (lambda s: s.update(epoch=3), "'epoch' is int"),
        (lambda s: s.clear(), "no parameters"),
    ],
)
def test_wrong_parameters_are_named(tmp_path, state, change, message):
    change(state)
    path = saved(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


class Runs:
    def __reduce__(self):
        return os.mkdir, ("was_run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
        (b"Not found\n", "text file"),
        (b'{"error": "quota"}', "JSON"),
        (b"\x93NUMPY\x01\x00", "size_"),
        (bytes(range(128, 256)) * 3, "damaged"),
        (struct.pack("<Q", 900) + b'{"a": 1', "damaged"),
        (pickle.dumps([1, 2]), "damaged|expected parameters by name"),
        (pickle.dumps(Runs()), "damaged|would run code"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "was_run").exists()


def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, new in (("zip", True), ("old", False)):
        torch.save(Runs(), tmp_path / name, _use_new_zipfile_serialization=new)
        with pytest.raises(ValueError, match="would run code when read: .*mkdir"):
            load(tmp_path / name)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("kind", ["pth", "old", "safetensors"])
def test_cut_files_are_refused_in_a_line(tmp_path, state, net, kind):
    whole = tmp_path / "whole.safetensors"
    if kind == "safetensors":
        save(whole, net, ModelInfo("a", FORM))
    else:
        saved(state, whole, _use_new_zipfile_serialization=kind == "pth")
    content = whole.read_bytes()
    cut = tmp_path / "cut"
    for n in (1, 7, 8, 9, 20, 600, len(content) // 2, len(content) - 30, len(content) - 1):
        cut.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"cut|damaged|not") as caught:
            load(cut)
        assert "\n" not in str(caught.value), n


def test_other_archives_and_folders_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("readme.md", "text")
    with pytest.raises(ValueError, match="a.zip is damaged"):
        load(tmp_path / "a.zip")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(format=2), "format 2, this version reads 1"),
        (lambda about: about.pop("name"), "header is damaged"),
        (lambda about: about["architecture"].update(widths=[4, 8]), "header tells of"),
        (lambda about: about["architecture"].update(depth=8), "header is damaged"),
        (lambda about: about.update(diameter_px=-1), "above 0"),
        (lambda about: about.update(size={"mean_log": 1, "diam_mean_px": 2}), "lacks size.weights"),
    ],
)
def test_headers_are_checked(tmp_path, net, change, message):
    about = json.loads(_info.write_header(ModelInfo("a", FORM)))
    change(about)
    path = tmp_path / "a.safetensors"
    path.write_bytes(
        safetensors.torch.save(dict(net.state_dict()), {"cellseg_pipe": json.dumps(about)})
    )
    with pytest.raises(ValueError, match=message):
        load(path)


def test_save_refuses_what_would_not_come_back(tmp_path, net):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="info tells of"):
        save(path, net, ModelInfo("a", replace(FORM, n_inputs=1)))
    with pytest.raises(ValueError, match="NAME.safetensors"):
        save(tmp_path / "a.pth", net, ModelInfo("a", FORM))
    with torch.no_grad():
        net.output[2].weight[0] = 1e6
    with pytest.raises(ValueError, match="output.2.weight has values beyond"):
        save(path, net, ModelInfo("a", FORM))
    assert list(tmp_path.iterdir()) == []
    save(path, net, ModelInfo("a", FORM), dtype="float32")
    assert load(path).net.output[2].weight.max().item() == 1e6


def test_info_is_checked():
    with pytest.raises(ValueError, match="2 inputs needs 2 names"):
        ModelInfo("a", FORM, channels=("DNA",))
    with pytest.raises(ValueError, match="ascend"):
        ModelInfo("a", FORM, percentiles=(99, 1))


def test_a_failed_write_leaves_the_old_file(tmp_path, net, monkeypatch):
    path = save(tmp_path / "a.safetensors", net, ModelInfo("old", FORM))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save(path, net, ModelInfo("new", FORM))
    assert load(path).info.name == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_loading_writes_nothing(tmp_path, net):
    path = save(tmp_path / "a.safetensors", net, ModelInfo("a", FORM))
    before = path.stat().st_mtime_ns
    model = load(path)
    with torch.no_grad():
        model.net.output[2].weight.zero_()
    assert path.stat().st_mtime_ns == before and [*tmp_path.iterdir()] == [path]
    assert load(path).net.output[2].weight.abs().max().item() > 0


def test_size_file_with_code_beside_a_network_is_refused(tmp_path, state):
    saved(state, tmp_path / "net")
    stream = io.BytesIO()
    np.save(stream, {"A": Runs()}, allow_pickle=True)
    (tmp_path / "net_size.npy").write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match="net_size.npy is no size regression: it holds"):
        load(tmp_path / "net")
