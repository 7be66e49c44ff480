"""File names: fixed where people rely on them, and one folder per name whatever the name."""

import os
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellseg_pipe.paths import NAME_BYTES, RunPaths, safe_name

DIGEST = "0123456789ab"
NAMES = st.text(st.characters(), min_size=1, max_size=300).filter(
    lambda name: name not in (".", "..")
)


def test_published_names_are_the_contract():
    run = RunPaths("out")
    unit = run.unit("s1-nuclei")
    names = [run.config, run.plan, run.summary, run.report, run.logs, run.runs, run.benchmarks]
    names += [unit.labels, unit.cells, unit.outlines, unit.conflicts]
    assert [path.as_posix() for path in names] == [
        "out/config.yaml",
        "out/plan.json",
        "out/summary.json",
        "out/report.html",
        "out/logs",
        "out/runs",
        "out/benchmarks.parquet",
        "out/s1-nuclei/labels.ome.zarr",
        "out/s1-nuclei/cells.parquet",
        "out/s1-nuclei/outlines.parquet",
        "out/s1-nuclei/conflicts.parquet",
    ]


def test_scratch_names_are_the_contract():
    stage = RunPaths("out").unit("s1").stage("masks", DIGEST)
    assert stage.root.as_posix() == f"out/runs/s1/masks-{DIGEST}"
    paths = [stage.claim(3, 2), stage.data(3, 2), stage.ledger(3, 2), stage.done(3), stage.labels]
    assert [path.relative_to(stage.root).as_posix() for path in paths] == [
        "claims/0003.2",
        "data/0003.2.bin",
        "ledger/0003.2.jsonl",
        "done/0003.json",
        "labels.ome.zarr",
    ]
    assert stage.plan.name == "masks.json"
    assert stage.done(12345).name == "12345.json"
    assert stage.title == "s1 masks"


def test_attempts_are_found_by_any_of_their_files(tmp_path):
    stage = RunPaths(tmp_path).unit("s1").stage("masks", DIGEST)
    assert stage.attempts() == {}
    others = stage.claim(0, 0).with_name("note"), stage.done(9), stage.done(7).with_name(".0007.1")
    files = [stage.claim(3, 2), stage.claim(3, 10), stage.data(3, 1), stage.ledger(12345, 4)]
    for path in (*files, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert stage.attempts() == {3: (1, 2, 10), 12345: (4,)}


@pytest.mark.parametrize(
    ("stage", "digest"),
    [("masks", "0123"), ("masks", "0123456789AB"), ("", DIGEST), ("a/b", DIGEST), ("a-b", DIGEST)],
)
def test_stages_and_hashes_are_checked(stage, digest):
    with pytest.raises(ValueError, match="12 hex digits, got"):
        RunPaths("out").unit("s1").stage(stage, digest)


@pytest.mark.parametrize("name", ["s1", "Slide_1.ome-2+b", "µm", "Zürich", "9", "_x", "a" * 251])
def test_plain_names_stay(name):
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("my slide #3.tif", "my_slide_3.tif"),
        ("/data/../x", "data_.._x"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("Zu\u0308rich", "Zürich"),
        ("plan.json", "plan.json"),
        ("RUNS", "RUNS"),
        ("a~b", "a_b"),
        ("///", "image"),
        ("a" * 252, "a" * 80),
        ("\udcff.tif", "tif"),
    ],
)
def test_other_names_stay_readable(name, readable):
    found, _, digest = safe_name(name).rpartition("~")
    assert found == readable
    assert len(digest) == 10


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_no_name_is_refused(name):
    with pytest.raises(ValueError, match=r"not empty, '\.' or '\.\.', got"):
        safe_name(name)
    with pytest.raises(ValueError, match="a folder needs a name"):
        RunPaths("out").unit(name)


@given(st.lists(NAMES, unique=True, min_size=2, max_size=5))
@example(["a b", "a_b", "a/b", "a\tb", "a\\b"])
@example(["Zürich", "Zu\u0308rich"])
@example(["logs", "LOGS", "logs/", "./logs"])
def test_two_names_never_share_a_folder(names):
    folders = [safe_name(name) for name in names]
    assert len(set(folders)) == len(names)
    # What was made from a name is no plain name itself, so that no third name can be made into it.
    assert all("~" in folder for folder, name in zip(folders, names, strict=True) if folder != name)


@given(NAMES)
def test_a_folder_name_is_one_that_shells_and_file_systems_take(name):
    folder = safe_name(name)
    assert 0 < len(folder.encode()) <= NAME_BYTES
    assert not set(folder) & set("/\\\0\n\t '\"*?[]{}$&;|<>:#%")
    assert folder[0] not in ".-~+"
    run = RunPaths("out")
    unit = run.unit(name)
    assert unit.root.parent == run.root
    assert unit.scratch.parent == run.runs
    assert {unit.root, unit.scratch}.isdisjoint(
        {run.logs, run.plan, run.runs, run.locks, run.caches}
    )


@pytest.mark.parametrize("name", ["x" * 300, "ü" * 125, "\udcff\udcfe", "a\nb", "猫" * 200])
def test_a_folder_of_that_name_can_be_made(tmp_path, name):
    folder = RunPaths(tmp_path).unit(name).root
    folder.mkdir()
    assert os.listdir(tmp_path) == [folder.name]
    listed = subprocess.run(["sh", "-c", f"echo {folder}"], capture_output=True, check=True)
    assert listed.stdout.decode().rstrip("\n") == str(folder)
