"""`cellseg models`: what it prints, and what it refuses."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from cellseg_pipe.cli import main
from cellseg_pipe.nets import catalog
from cellseg_pipe.nets.checkpoint import load

GOLDEN = Path(__file__).parent / "golden" / "checkpoints"
TINY = GOLDEN.parent / "models" / "tiny.safetensors"
SHA256 = hashlib.sha256((GOLDEN / "segmentation").read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSEG_MODELS", f"{tmp_path / 'site'}{os.pathsep}{tmp_path / 'user'}")
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "user"


def facts(capsys):
    lines = capsys.readouterr().out.splitlines()
    return dict(line.split("  ", 1) for line in lines)


def test_add_then_list_then_info(user, capsys):
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out.startswith("No models")
    assert main(["models", "add", str(GOLDEN / "segmentation"), "--name", "mine"]) == 0
    assert capsys.readouterr().out == f"{user / 'mine'}\n"
    assert main(["models", "list"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "origin", "sha256", "what", "path"]
    assert line.split()[:3] == ["mine", "user", SHA256[:12]]
    assert line.endswith(str(user / "mine"))
    assert main(["models", "info", "mine"]) == 0
    found = {key.strip(): value.strip() for key, value in facts(capsys).items()}
    assert found["sha256"] == SHA256
    assert found["diameter"] == "22 px" and found["training cells"] == "41.5 px"
    assert found["widths"] == "4, 6" and found["inputs"] == "2: main, second (optional)"
    assert found["size regression"] == "yes" and found["licence"] == "not told"
    assert found["published as"] == "not a known file"
    assert f"{(user / 'mine').stat().st_size:,} bytes" in found["file"]


def test_broken_files_are_listed_with_the_reason(user, capsys):
    user.mkdir()
    (user / "bad.pth").write_text("<html>")
    assert main(["models", "list"]) == 0
    assert "unusable: is a web page" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nothing"], "no model 'nothing'"),
        (["add", "nothing.pth"], "No such file"),
        (["add", str(Path(__file__))], "text file"),
        (["add", str(GOLDEN / "segmentation_size.npy")], "numpy file"),
        (["export", "nothing", "out.zip"], "no model 'nothing'"),
        (["export", str(TINY), "out.tar"], "a name like NAME.zip, got out.tar"),
    ],
)
def test_refusals_are_one_line(capsys, arguments, message):
    assert main(["models", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("cellseg models: ") and message in error
    assert error.count("\n") == 1


def test_help_does_not_load_torch():
    code = (
        "import sys\nfrom cellseg_pipe.cli import main\n"
        "try:\n    main(['models', 'add', '--help'])\n"
        "finally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--name" in done.stdout


@pytest.mark.filterwarnings("ignore")  # what other packages warn of is theirs
@pytest.mark.parametrize("model", [TINY, GOLDEN / "segmentation", GOLDEN / "restoration"])
def test_an_exported_package_is_valid(tmp_path, capsys, model):
    spec = pytest.importorskip("bioimageio.spec")
    out = tmp_path / "package.zip"
    assert main(["models", "export", str(model), str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    found = spec.load_description(out, perform_io_checks=True)
    assert found.validation_summary.status in ("passed", "valid-format")
    assert isinstance(found, spec.model.v0_5.ModelDescr)
    assert found.weights.pytorch_state_dict.architecture.callable == "Packaged"
    (names,) = (axis.channel_names for axis in found.outputs[0].axes if axis.type == "channel")
    flows = ["flow_y", "flow_x", "inside"]
    assert list(map(str, names)) == (["restored_0"] if model.name == "restoration" else flows)


def test_a_model_is_exported_by_its_name(user, tmp_path, capsys):
    assert main(["models", "add", str(TINY), "--name", "mine"]) == 0
    assert main(["models", "export", "mine", str(tmp_path / "mine.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "mine.zip") as package:
        described = yaml.safe_load(package.read("rdf.yaml"))
        weights = torch.load(io.BytesIO(package.read("weights.pt")), weights_only=True)
    assert described["inputs"][0]["id"] == "image" and described["type"] == "model"
    for name, tensor in load(TINY).net.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=0)
