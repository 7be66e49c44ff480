"""The setup script: which Python it takes, and what it says where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments, path, **variables):
    command = ["/bin/sh", str(ROOT / "envs" / "setup.sh"), *arguments]
    return subprocess.run(
        command, env={"PATH": str(path), **variables}, capture_output=True, text=True
    )


@pytest.fixture
def tools(tmp_path):
    """A PATH with what the script needs, and no Python."""
    for name in ("sed", "dirname", "uname", "grep", "rm", "touch", "cat"):
        (tmp_path / name).symlink_to(shutil.which(name))
    return tmp_path


def fake(folder, name, body):
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def test_a_new_enough_python_is_found_past_an_old_one(tools):
    fake(tools, "python3", "exit 1")
    assert run("--find-python", path=tools).returncode == 1
    (tools / "python3.12").symlink_to(sys.executable)
    assert run("--find-python", path=tools).stdout.strip() == str(tools / "python3.12")


def test_the_users_python_is_the_only_one_tried(tools):
    (tools / "python3").symlink_to(sys.executable)
    assert run("--find-python", path=tools, PYTHON="/none/python3").returncode == 1


@pytest.mark.parametrize("torch", ["gpu", "CPU"])
def test_an_unknown_torch_is_refused_before_anything_is_made(tools, torch):
    done = run(path=tools, TORCH=torch)
    assert done.returncode == 1 and f"cpu, cuda or keep, got '{torch}'" in done.stderr


def copy_of_clone(tools, tmp_path_factory):
    clone = tmp_path_factory.mktemp("clone")
    (clone / "envs").mkdir()
    for name in ("envs/setup.sh", "envs/constraints.txt"):
        shutil.copy(ROOT / name, clone / name)
    return clone


def start(clone, path, **variables):
    return subprocess.run(
        ["/bin/sh", str(clone / "envs" / "setup.sh")],
        env={"PATH": str(path), **variables},
        capture_output=True,
        text=True,
    )


def test_without_python_uv_or_conda_one_message_names_them(tools, tmp_path_factory):
    done = start(copy_of_clone(tools, tmp_path_factory), tools)
    assert done.returncode == 1
    for line in ("apt-get install python3", "dnf install python3.12", "conda create"):
        assert line in done.stderr


@pytest.mark.parametrize("program", ["uv", "conda"])
def test_uv_and_conda_are_used_where_no_python_is(tools, tmp_path_factory, program):
    clone = copy_of_clone(tools, tmp_path_factory)
    fake(tools, program, f'echo "$0 $*" >"{clone}/called"; exit 3')
    done = start(clone, tools)
    assert done.returncode == 3 and f"using {program}" in done.stdout
    assert ".venv" in (clone / "called").read_text()


def test_keep_wants_a_torch_that_is_there(tools, tmp_path_factory):
    clone = copy_of_clone(tools, tmp_path_factory)
    (clone / ".venv" / "bin").mkdir(parents=True)
    fake(clone / ".venv" / "bin", "python", "exit 1")
    done = start(clone, tools, TORCH="keep")
    assert done.returncode == 1 and "has no torch" in done.stderr
    assert os.listdir(clone / ".venv") == ["bin"]


def test_the_constraints_pin_the_torch_that_is_tested():
    lines = (ROOT / "envs" / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in lines
    assert all("==" in line for line in lines if not line.startswith("#"))
