"""What is looked at, what is an error, and that each finding says what to do."""

import errno
import fcntl
import importlib.metadata
import json
import os
import stat
from pathlib import Path

import pytest

from cellseg_pipe import site
from cellseg_pipe.cli import main
from cellseg_pipe.kernels._numba import _jit
from cellseg_pipe.stages import (
    _doctor_cluster,
    _doctor_folder,
    _doctor_machine,
    _finding,
    doctor,
)

SINFO = "cpu|up|infinite|2|(null)\ngpu|up|2-00:00:00|2|gpu:a100:4(S:0)\nold|drain|1:00|1|(null)\n"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Programs of these names that say something; no others are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def made(**said):
        for name, (text, status) in said.items():
            (folder / f"{name}.txt").write_text(text)
            where = "" if status == 0 else " >&2"
            script = f"#!/bin/sh\n/bin/cat {folder}/{name}.txt{where}\nexit {status}\n"
            (folder / name).write_text(script)
            (folder / name).chmod(stat.S_IRWXU)

    return made


@pytest.fixture
def said_by_site(tmp_path, monkeypatch):
    """What the site file says."""

    def write(text):
        file = tmp_path / "site.yaml"
        file.write_text(text)
        monkeypatch.setenv("CELLSEG_SITE", str(file))
        site._read.cache_clear()

    write("{}")
    return write


def of(findings, what, level=None):
    """The one finding of a thing, or of a thing and a level."""
    (found,) = [f for f in findings if f.what == what and level in (None, f.level)]
    return found


def errors(findings):
    return {f.what for f in findings if f.level == "error"}


# Folders.


def test_a_good_folder_has_no_errors_and_nothing_is_left_in_it(tmp_path):
    findings = list(_doctor_folder.look_at_folder(tmp_path / "not" / "yet"))
    assert errors(findings) == set() and os.listdir(tmp_path) == []
    works = of(findings, "files").said
    assert works == "exclusive files, rename, fsync, locks, hard links work"
    assert str(tmp_path) in of(findings, "file system").said
    assert "GB" in of(findings, "room").said


@pytest.mark.parametrize(
    ("patched", "what", "level"),
    [
        ((os, "link"), "hard links", "warning"),
        ((os, "replace"), "rename", "error"),
        ((os, "fsync"), "fsync", "error"),
        ((fcntl, "flock"), "locks", "warning"),
    ],
)
def test_what_a_file_system_cannot_do_is_told(tmp_path, monkeypatch, patched, what, level):
    def refused(*_arguments, **_settings):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    with monkeypatch.context() as patch:
        patch.setattr(*patched, refused)
        findings = list(_doctor_folder.look_at_folder(tmp_path))
    found = of(findings, what)
    assert found.level == level and "Operation not supported" in found.said and found.mend
    assert what not in of(findings, "files").said and os.listdir(tmp_path) == []


def test_a_file_that_can_be_made_twice_is_an_error(tmp_path, monkeypatch):
    real = os.open

    def open_any(path, flags, *rest, **settings):
        return real(path, flags & ~os.O_EXCL, *rest, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_any)
        findings = list(_doctor_folder._tried(tmp_path))
    assert errors(findings) == {"exclusive files"}
    assert "made twice" in of(findings, "exclusive files").said


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert errors(_doctor_folder.look_at_folder(tmp_path / "file")) == {"folder"}

    def refused(**_settings):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(_doctor_folder.tempfile, "mkdtemp", refused)
    found = of(_doctor_folder.look_at_folder(tmp_path), "folder")
    assert found.level == "error" and "Read-only file system" in found.said
    assert found.mend == "Name another output.dir."


@pytest.mark.parametrize(
    ("kind", "level", "said"),
    [
        ("nfs4", "ok", "shared by nodes"),
        ("lustre", "ok", "shared by nodes"),
        ("tmpfs", "warning", "goes with this machine"),
        ("fuse.sshfs", "warning", "slow"),
        ("ext4", "ok", "on ext4"),
    ],
)
def test_file_systems_are_named(tmp_path, monkeypatch, kind, level, said):
    mounts = [
        type("Mount", (), {"mountpoint": place, "fstype": fstype})
        for place, fstype in (("/", "xfs"), (str(tmp_path), kind), (f"{tmp_path}/b", "zfs"))
    ]
    monkeypatch.setattr(_doctor_folder.psutil, "disk_partitions", lambda all: mounts)
    found = _doctor_folder._kind(tmp_path / "a")
    assert found.level == level and said in found.said


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    full = _doctor_folder.room_in(tmp_path)
    full = type(full)(tmp_path, 10**6, 100, quota_bytes=5 * 10**9, quota_files=7)
    monkeypatch.setattr(_doctor_folder, "room_in", lambda root: full)
    found = of(_doctor_folder._room(tmp_path), "room")
    assert found.level == "warning" and "quota leaves 5.0 GB, quota leaves 7 files" in found.said


# The cluster.


def test_no_slurm_is_no_fault(programs, said_by_site):
    findings = list(_doctor_cluster.look_at_cluster())
    assert errors(findings) == set()
    assert "profiles/local" in of(findings, "slurm").said
    assert "says nothing" in of(findings, "site file").said


def test_a_slurm_that_answers_is_told(programs, said_by_site):
    assoc = "c|lab_7|me|||\nc|lab_9|me|||\n"
    programs(sinfo=(SINFO, 0), squeue=("1\n2\n", 0), sacct=("", 0), sacctmgr=(assoc, 0))
    said_by_site("{partition: cpu, account: lab_7, gpu: {partition: gpu}}")
    findings = list(_doctor_cluster.look_at_cluster())
    assert errors(findings) == set() and not [f for f in findings if f.level == "warning"]
    assert of(findings, "partitions").said == "cpu (up to infinite), gpu (up to 2-00:00:00)"
    assert of(findings, "gpus of slurm").said == "in gpu"
    assert "2 jobs of yours" in of(findings, "squeue").said
    assert of(findings, "accounts").said == "lab_7, lab_9"
    assert of(findings, "site file").said.endswith("says account, gpu, partition")


def test_what_the_site_file_says_must_be_there(programs, said_by_site):
    programs(sinfo=(SINFO, 0), squeue=("", 0), sacctmgr=("c|lab_7|me|||\n", 0))
    said_by_site("{partition: 'cpu,old', account: lab, gpu: {partition: none, account: lab_7}}")
    findings = list(_doctor_cluster.look_at_cluster())
    assert errors(findings) == {"partition", "gpu.partition", "account"}
    assert of(findings, "partition").said == "old is no partition that is up"
    said_by_site("{partitions: cpu}")
    findings = list(_doctor_cluster.look_at_cluster())
    assert errors(findings) == {"site file"} and "site.yaml:1: " in of(findings, "site file").said


def test_gpus_that_nobody_asks_for_or_that_are_not_there(programs, said_by_site):
    programs(sinfo=(SINFO, 0), squeue=("", 0))
    findings = list(_doctor_cluster.look_at_cluster())
    assert "gpu: {}" in of(findings, "gpus of slurm", "warning").mend
    programs(sinfo=("cpu|up|infinite|2|(null)\n", 0))
    said_by_site("{gpu: {model: a100}}")
    assert errors(_doctor_cluster.look_at_cluster()) == {"gpus of slurm"}


def test_a_slurm_that_does_not_answer_is_an_error(programs, said_by_site, monkeypatch):
    programs(sinfo=("Unable to contact slurm controller\n", 1))
    found = of(_doctor_cluster.look_at_cluster(), "slurm")
    assert found.level == "error" and "Unable to contact" in found.said
    with monkeypatch.context() as patch:
        patch.delenv("CELLSEG_SITE")
        patch.setattr(site, "PLACES", ())
        assert of(_doctor_cluster.look_at_cluster(), "slurm").level == "warning"
    programs(sinfo=(SINFO, 0), squeue=("no\n", 1), sacct=("no database\n", 1))
    findings = list(_doctor_cluster.look_at_cluster())
    assert errors(findings) == {"squeue"}
    assert of(findings, "sacct").level == "ok"
    monkeypatch.setattr(_finding, "PATIENCE_S", 0.2)
    slow = Path(os.environ["PATH"]) / "sinfo"
    slow.write_text("#!/bin/sh\nexec /bin/sleep 20\n")
    assert "did not answer" in of(_doctor_cluster.look_at_cluster(), "slurm").said


# The machine.


def test_libraries_are_compared_with_what_is_asked_for(monkeypatch):
    known = {"numpy": "2.4.0", "zarr": "2.18.0", "tifffile": "2026.1"}

    def version(name):
        if name not in known:
            raise importlib.metadata.PackageNotFoundError(name)
        return known[name]

    asked = ["numpy>=2.0", "zarr>=3.1", "dask[distributed]>=2025.1", "cupy>=13; extra == 'gpu'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = list(_doctor_machine._libraries())
    assert errors(findings) == {"zarr", "dask"} and len(findings) == 2
    assert of(findings, "zarr").said == "is 2.18.0, >=3.1 is needed"
    assert of(findings, "dask").mend == "pip install 'dask[distributed]>=2025.1'"
    known |= {"zarr": "3.1.6", "dask": "2026.8.0"}
    (found,) = _doctor_machine._libraries()
    assert found.level == "ok" and "numpy 2.4.0, zarr 3.1.6, dask 2026.8.0" in found.said


def test_a_gpu_that_torch_does_not_use_is_a_warning(programs, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (found,) = _doctor_machine._gpus("auto")
    assert found.level == "ok" and "the CPU" in found.said
    (found,) = _doctor_machine._gpus("cuda")
    assert found.level == "error" and "auto or cpu" in found.mend
    programs(**{"nvidia-smi": ("NVIDIA H100, 550.54\n", 0)})
    (found,) = _doctor_machine._gpus("auto")
    assert found.level == "warning" and "NVIDIA H100" in found.said and "TORCH=cuda" in found.mend


def test_compiled_loops_that_cannot_be_kept_are_a_warning(tmp_path, monkeypatch):
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "masks.ready").touch()
    monkeypatch.setattr(_doctor_machine, "cache_folder", lambda: tmp_path / "key")
    assert _doctor_machine._loops().said == f"1 kept in {tmp_path / 'key'}"
    monkeypatch.setattr(_jit, "_bases", lambda: iter(()))
    alone = _jit.cache_folder.__wrapped__()
    monkeypatch.setattr(_doctor_machine, "cache_folder", lambda: alone)
    found = _doctor_machine._loops()
    assert found.level == "warning" and "CELLSEG_CACHE" in found.mend
    alone.rmdir()


def test_models_that_cannot_be_used_are_named(tmp_path, monkeypatch):
    (tmp_path / "torn.safetensors").write_bytes(b"\x05" * 40)
    monkeypatch.setenv("CELLSEG_MODELS", str(tmp_path))
    findings = list(_doctor_machine._models(None))
    assert "torn" in of(findings, "model").said and of(findings, "model").level == "warning"
    assert "generalist" in of(findings, "models").said


# All of it.


@pytest.fixture
def quick(monkeypatch, said_by_site, programs):
    """Without this machine's own state, which may be anything."""
    monkeypatch.setattr(doctor, "look_at_machine", lambda experiment: iter(()))


def test_the_command_says_it_for_people_and_for_programs(tmp_path, quick, capsys, monkeypatch):
    assert main(["doctor", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok      files: ") for line in said)
    assert said[-1].startswith("0 errors, ")
    config = tmp_path / "my.yaml"
    config.write_text("images: [a.tif]\noutput: {dir: out}\nsegmint: {}\n")
    assert main(["doctor", str(config), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == 1 and found["findings"][0]["what"] == "experiment"
    assert "segmint" in found["findings"][0]["said"]


def test_an_experiment_names_folder_and_models(tmp_path, quick, monkeypatch):
    config = tmp_path / "my.yaml"
    config.write_text(
        f"images: [{{path: {tmp_path}/a.tif}}]\noutput: {{dir: {tmp_path}/here}}\n"
        "targets: {nuclei: {model: nobody}}\n"
    )
    seen = []
    monkeypatch.setattr(doctor, "look_at_machine", lambda e: seen.append(e) or iter(()))
    findings = doctor.examine(config)
    assert of(findings, "experiment").level == "ok" and str(tmp_path) in str(findings)
    (model,) = [f for f in _doctor_machine._models(seen[0]) if f.level == "error"]
    assert model.what == "model of nuclei" and "nobody" in model.said
