"""Packages for bioimage.io: valid by its own library, and the architecture stands alone."""

import importlib.util
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cellseg_pipe.nets.checkpoint import ModelInfo, load, save
from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.stages.export_model import run

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"


def files_of(path):
    with zipfile.ZipFile(path) as package:
        return {name: package.read(name) for name in package.namelist()}


@pytest.fixture
def odd(tmp_path):
    """Return a model with classes, three inputs with odd names, and no known licence."""
    torch.manual_seed(0)
    net = CPnet(Architecture(n_inputs=3, n_outputs=5, widths=(4, 8), concatenate=True)).eval()
    names = ("DAPI (405 nm)", "2nd", "2nd")
    return save(
        tmp_path / "odd.safetensors", net, ModelInfo("odd/1", net.architecture, 12.0, names)
    )


@pytest.mark.filterwarnings("ignore")  # what other packages warn of is theirs
@pytest.mark.parametrize("which", ["tiny", "odd"])
def test_a_package_is_valid(tmp_path, odd, which):
    spec = pytest.importorskip("bioimageio.spec")
    path = run(TINY if which == "tiny" else odd, tmp_path / "out.zip")
    found = spec.load_description(path, perform_io_checks=True)
    summary = found.validation_summary
    assert summary.status in ("passed", "valid-format"), summary.format()
    assert isinstance(found, spec.model.v0_5.ModelDescr)
    assert str(found.license or "") == ("BSD-3-Clause" if which == "tiny" else "")


@pytest.mark.parametrize("which", ["tiny", "odd"])
def test_the_architecture_needs_torch_alone(tmp_path, odd, which):
    files = files_of(run(TINY if which == "tiny" else odd, tmp_path / "out.zip"))
    assert b"cellseg_pipe" not in files["architecture.py"]
    described = yaml.safe_load(files["rdf.yaml"])
    entry = described["weights"]["pytorch_state_dict"]["architecture"]
    (tmp_path / "alone.py").write_bytes(files["architecture.py"])
    module_spec = importlib.util.spec_from_file_location("alone", tmp_path / "alone.py")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules["alone"] = module  # dataclasses look their module up
    try:
        module_spec.loader.exec_module(module)
        net = getattr(module, entry["callable"])(**entry["kwargs"]).eval()
        net.load_state_dict(torch.load(io.BytesIO(files["weights.pt"]), weights_only=True))
    finally:
        del sys.modules["alone"]
    raw = np.load(io.BytesIO(files["test_input.npy"]))
    low, high = np.percentile(raw, (1, 99), axis=(2, 3), keepdims=True)
    with torch.inference_mode():
        answer = net(torch.from_numpy(((raw - low) / (high - low + 1e-6)).astype(np.float32)))
    np.testing.assert_allclose(answer, np.load(io.BytesIO(files["test_output.npy"])), atol=1e-4)


def test_the_same_model_gives_the_same_file(tmp_path):
    first, second = run(TINY, tmp_path / "a.zip"), run(TINY, tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    described = yaml.safe_load(files_of(first)["rdf.yaml"])
    assert described["config"]["cellseg_pipe"]["diameter_px"] == load(TINY).info.diameter_px
    with pytest.raises(ValueError, match=r"NAME\.zip, got a\.rar"):
        run(TINY, tmp_path / "a.rar")
