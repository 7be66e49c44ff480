"""The environments for conda and Apptainer have all that the package needs, in the tested set."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMES = {"pytorch-cpu": "torch", "pytorch-gpu": "torch", "matplotlib-base": "matplotlib"}
EXTRAS = {"dask[distributed]": "distributed"}


def pinned():
    """The tested set."""
    lines = (ROOT / "envs" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def environment(kind):
    """What a file of conda asks for: all of it, and versions by the names of pip."""
    said = yaml.safe_load((ROOT / "envs" / f"{kind}.yaml").read_text())
    words = [word.partition("=") for word in said["dependencies"] if isinstance(word, str)]
    return said, {NAMES.get(name, name): version for name, _, version in words}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_conda_gets_every_dependency_in_the_tested_version(kind):
    said, versions = environment(kind)
    assert said["channels"] == ["conda-forge", "bioconda", "nodefaults"]
    known = pinned()
    for line in PROJECT["dependencies"]:
        needed = Requirement(line)
        name = canonicalize_name(needed.name)
        assert versions[name] == known[name], line
        assert needed.specifier.contains(versions[name]), line
        for extra in needed.extras:
            extra = EXTRAS[f"{needed.name}[{extra}]"]
            assert versions[extra] == known[extra]
    assert SpecifierSet(PROJECT["requires-python"]).contains(versions["python"])
    assert said["dependencies"][-1] == {"pip": ["--editable .."]} and "pip" in versions
    assert (ROOT / "envs" / ".." / "pyproject.toml").exists()
    assert set(versions) <= set(known) | {"python", "pip"}


def test_they_differ_in_torch_alone():
    both = [environment(kind)[0] for kind in ("cpu", "gpu")]
    mine, other = ({str(word) for word in each["dependencies"]} for each in both)
    version = pinned()["torch"]
    assert mine ^ other == {f"pytorch-cpu={version}", f"pytorch-gpu={version}"}


def sections():
    """The parts of the definition of a container."""
    text = (ROOT / "envs" / "cellseg_pipe.def").read_text()
    head, *rest = re.split(r"^%(\w+)\n", text, flags=re.MULTILINE)
    return head, dict(zip(rest[::2], rest[1::2], strict=True))


def test_the_container_is_one_that_can_be_built():
    head, parts = sections()
    assert "Bootstrap: docker" in head
    (python,) = re.findall(r"^From: python:(\S+)-slim$", head, re.MULTILINE)
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert list(parts) == ["arguments", "files", "post", "environment", "runscript", "test"]
    files = [line.split() for line in parts["files"].split("\n") if line.strip()]
    assert all((ROOT / source).exists() and to == "/opt/cellseg_pipe/" for source, to in files)
    assert {"cellseg_pipe", "workflow", "Snakefile", "pyproject.toml"} <= {one for one, _ in files}
    used = set(re.findall(r"\{\{ (\w+) \}\}", parts["post"]))
    assert used == {line.split("=")[0].strip() for line in parts["arguments"].split("\n") if line}
    for name in ("post", "environment", "runscript", "test"):
        script = re.sub(r"\{\{ \w+ \}\}", "cpu", parts[name])
        done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_the_container_takes_the_tested_set(tmp_path):
    """What its script installs, told by a pip that installs nothing."""
    (tmp_path / "envs").mkdir()
    constraints = (ROOT / "envs" / "constraints.txt").read_text()
    (tmp_path / "envs" / "constraints.txt").write_text(constraints)
    for kind, expected in (("cpu", "torch=={}+cpu"), ("cuda", "torch=={}")):
        script = sections()[1]["post"].replace("/tmp/", f"{tmp_path}/")
        script = script.replace("/opt/cellseg_pipe", str(tmp_path)).replace("{{ TORCH }}", kind)
        told = 'pip() { printf "%s\\n" "$*"; }\n'
        done = subprocess.run(["sh"], input=told + script, text=True, capture_output=True)
        first, second = done.stdout.splitlines()
        assert first.endswith(expected.format(pinned()["torch"])), done.stderr
        assert second.endswith("--editable .") and "--constraint" in second
    script = script.replace("case cuda in", "case gpu in")
    wrong = subprocess.run(["sh"], input=told + script, text=True, capture_output=True)
    assert wrong.returncode == 1 and "cpu or cuda" in wrong.stderr


def test_the_catalog_of_workflows_is_told_what_there_is():
    said = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(said) == {"mandatory-flags", "software-stack-deployment"}
    methods = said["software-stack-deployment"]
    assert set(methods) == {"conda", "apptainer", "apptainer+conda", "report"}
    assert {type(value) for value in methods.values()} == {bool}
    words = said["mandatory-flags"]["flags"].split()
    assert words[::2] == ["--profile", "--configfile"]
    assert all((ROOT / word).exists() for word in words[1::2])
    assert (ROOT / "config" / "README.md").exists() and (ROOT / "Snakefile").exists()
