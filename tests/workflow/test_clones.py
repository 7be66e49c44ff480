"""One clone that nobody may write to serves all; names and folders are what users make of them."""

import hashlib
import json
import os
import shutil
import subprocess

import pytest

from cellseg_pipe.io.images import read_array
from cellseg_pipe.io.tables import read_table
from tests.workflow import runs

PARTS = ("workflow", "profiles", "config")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a clone")
    shutil.copyfile(runs.CLONE / "Snakefile", folder / "Snakefile")
    for part in PARTS:
        shutil.copytree(runs.CLONE / part, folder / part)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def everything(folder):
    """Return all files and folders with their contents: root may write where nobody may."""
    return {
        path.relative_to(folder): path.is_file() and hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
    }


def start(config, clone):
    """Start where a user would: in the clone."""
    return subprocess.Popen(
        runs.command("--configfile", config, clone=clone),
        cwd=clone,
        env=runs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_runs_at_once_from_one_clone(clone, tmp_path):
    """One with two targets of an image with an odd name, one with two images."""
    mine, theirs = tmp_path / "my data", tmp_path / "their {data}"
    mine.mkdir()
    theirs.mkdir()
    one = {"batches": {"predict": 1, "masks": 1}}
    target = {"model": str(runs.TINY), "diameter_px": 30}
    runs.picture(mine / "the slide (1).tif", shape=(120, 150))
    first = runs.experiment(
        mine / "my.yaml",
        [{"path": "the slide (1).tif", "name": "é+1.-_x"}],
        mine / "my results",
        tiles=one,
        targets={"large": target | {"diameter_px": 34}},
    )
    for name in ("b.tif", "b-2.tif"):
        runs.picture(theirs / name, shape=(110, 130), seed=len(name))
    second = runs.experiment(
        theirs / "my.yaml", ["b.tif", "b-2.tif"], theirs / "out'put", tiles=one
    )
    before = everything(clone)
    starts = [start(config, clone) for config in (first, second)]
    said = [process.communicate()[0] for process in starts]
    assert [process.returncode for process in starts] == [0, 0], said
    assert everything(clone) == before
    check(mine / "my results", ["é+1.-_x-large", "é+1.-_x-nuclei"])
    check(theirs / "out'put", ["b", "b-2"])


def check(out, names):
    summary = json.loads((out / "summary.json").read_text())
    assert summary["complete"] and summary["exact"] and sorted(summary["units"]) == sorted(names)
    for name, facts in summary["units"].items():
        labels = read_array(out / facts["labels"])
        assert labels.max() == facts["n_cells"] > 3
        assert len(read_table(out / facts["table"])["label"]) == labels.max()
        assert os.listdir(out / "logs" / name)


def test_jobs_of_two_images_and_two_targets(clone, tmp_path):
    for name in ("b.tif", "c.tif"):
        runs.picture(tmp_path / name, shape=(64, 64))
    target = {"model": str(runs.TINY), "diameter_px": 30}
    config = runs.experiment(
        tmp_path / "my.yaml", ["b.tif", "c.tif"], tmp_path / "out", targets={"large": target}
    )
    done = runs.snakemake("--configfile", config, "--dry-run", cwd=clone, clone=clone)
    assert done.returncode == 0, done.stdout
    once = dict.fromkeys(("plan", "tiles", "number", "paint", "qc", "audit"), 4)
    twice = dict.fromkeys(("predict", "masks", "measure"), 8)
    assert runs.jobs_in(done.stdout) == once | twice | {"summary": 1, "report": 1}
    for unit in ("b-nuclei", "b-large", "c-nuclei", "c-large"):
        assert f"unit={unit}," in done.stdout
