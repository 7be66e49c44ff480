"""Cellpose 4 networks: found by file, refused in clear words, run window by window as given."""

import importlib.metadata
import sys
import types

import numpy as np
import pytest
import torch

from cellseg_pipe.nets.engine import engine_for
from cellseg_pipe.segmentation import segment


class Echo(torch.nn.Module):
    """Says that all is cell, pointing nowhere, and notes what it is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        y = torch.zeros(len(x), 3, *x.shape[2:])
        y[:, 2] = x[:, 0] * 8 - 4
        return y, torch.zeros(len(x), 256)


@pytest.fixture
def package(monkeypatch):
    """A stand-in for cellpose 4, which is too large for a test; the real one was tried by hand."""
    net, made = Echo(), {}

    def model(**settings):
        made.update(settings)
        return types.SimpleNamespace(net=net)

    models = types.ModuleType("cellpose.models")
    models.CellposeModel = model
    monkeypatch.setitem(sys.modules, "cellpose", types.ModuleType("cellpose"))
    monkeypatch.setitem(sys.modules, "cellpose.models", models)
    real = importlib.metadata.version
    version = {"cellpose": "4.2.1.1"}
    monkeypatch.setattr(
        "cellseg_pipe.nets.sam.importlib.metadata.version", lambda n: version.get(n) or real(n)
    )
    return net, made, version


def test_windows_of_the_one_size_and_three_inputs(package, tmp_path):
    net, made, _ = package
    (tmp_path / "cpsam").write_bytes(b"weights")
    engine = engine_for(f"cellpose-sam:{tmp_path / 'cpsam'}", device="cpu")
    assert made["pretrained_model"] == str(tmp_path / "cpsam") and not made["use_bfloat16"]
    assert engine.name == "cpsam" and "cellpose 4.2.1.1" in engine.numerics
    image = np.zeros((1, 300, 280), np.float32)
    image[:, 40:90, 50:100] = 1
    found = segment(image, axes="cyx", model=engine, diameter_px=30)
    assert set(net.seen) == {(1, 3, 256, 256)}
    assert found.plan.settings.window_px == 256
    np.testing.assert_array_equal(found.logit > 0, image[0] > 0)


def test_windows_of_another_size_are_refused_and_threads_are_kept_to(package, tmp_path):
    net = package[0]
    (tmp_path / "cpsam").write_bytes(b"weights")
    engine = engine_for(f"cellpose-sam:{tmp_path / 'cpsam'}", device="cpu", threads=1)
    image, before = np.eye(90, dtype=np.float32), torch.get_num_threads()
    with pytest.raises(ValueError, match="cpsam takes windows of 256 px alone, got 512"):
        segment(image, model=engine, diameter_px=30, window_px=512)
    seen = []
    net.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        segment(image, model=engine, diameter_px=30, window_px=256)
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_package_must_be_of_version_4(package, tmp_path):
    (tmp_path / "cpsam").write_bytes(b"weights")
    package[2]["cellpose"] = "3.1.1.3"
    with pytest.raises(ValueError, match=r"needs cellpose of version 4, got 3\.1\.1\.3"):
        engine_for(f"cellpose-sam:{tmp_path / 'cpsam'}", device="cpu")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cellpose", None)
    (tmp_path / "cpsam").write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"Install cellseg_pipe\[cellpose-sam\]"):
        engine_for(f"cellpose-sam:{tmp_path / 'cpsam'}", device="cpu")


def test_a_missing_file_is_not_downloaded(package, tmp_path):
    with pytest.raises(FileNotFoundError, match="Nothing is downloaded"):
        engine_for(f"cellpose-sam:{tmp_path / 'none'}", device="cpu")
    assert package[1] == {}
