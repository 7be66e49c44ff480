"""The command line: what is typed, what comes out, and what is refused."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import cellseg_pipe as cs
from cellseg_pipe.cli import main

LABELS = np.kron(np.arange(16, dtype=np.uint16).reshape(4, 4), np.ones((6, 6), np.uint16))


@pytest.fixture
def two_folders(tmp_path):
    for name in ("pred", "truth"):
        (tmp_path / name).mkdir()
    shifted = np.roll(LABELS, 1, axis=0)
    tifffile.imwrite(tmp_path / "pred" / "a_cp_masks.tif", shifted)
    tifffile.imwrite(tmp_path / "truth" / "a_masks.tif", LABELS)
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "pred" / "b_cp_masks.png")
    np.save(tmp_path / "truth" / "b_masks.npy", LABELS)
    return tmp_path, cs.evaluate([shifted, LABELS], [LABELS, LABELS])


def test_folders_are_scored_like_the_arrays_in_them(two_folders, capsys):
    folder, expected = two_folders
    files = [str(folder / "scores.json"), str(folder / "scores.csv")]
    arguments = ["evaluate", str(folder / "pred"), str(folder / "truth")]
    assert main([*arguments, "--json", files[0], "--csv", files[1]]) == 0
    about = json.loads((folder / "scores.json").read_text())
    assert about["ap"]["0.75"] == expected.ap[0.75] < 1
    assert [image["name"] for image in about["images"]] == ["a", "b"]
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert [float(row["ap_0.5"]) for row in rows] == [image.ap[0.5] for image in expected.images]
    assert f"{expected.pq:.4f}" in capsys.readouterr().out


def test_thresholds_ignored_label_and_outlines_reach_the_scores(tmp_path, capsys):
    np.save(tmp_path / "p.npy", LABELS)
    truth = np.where(LABELS == 5, 0, LABELS)
    np.save(tmp_path / "t.npy", np.where(LABELS == 5, 99, truth))
    arguments = ["evaluate", str(tmp_path / "p.npy"), str(tmp_path / "t.npy")]
    options = ["--thresholds", "0.3", "--ignore-label", "99", "--boundary-px", "1"]
    assert main([*arguments, *options, "--json", str(tmp_path / "s.json")]) == 0
    about = json.loads((tmp_path / "s.json").read_text())
    assert about["ap"] == {"0.3": 1.0} and about["n_true"] == 14
    assert about["boundary_f1"] == 1.0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: (f / "pred" / "c.tif").write_bytes(b""), "1 without a truth: c.tif"),
        (lambda f: (f / "truth" / "c.png").write_bytes(b""), "1 without a prediction: c.png"),
        (lambda f: np.save(f / "pred" / "a.npy", LABELS), "got a.npy and a_cp_masks.tif for 'a'"),
        (lambda f: np.save(f / "truth" / "b_masks.npy", LABELS[1:]), "two views of one region"),
        (lambda f: np.save(f / "truth" / "b_masks.npy", LABELS / 2), "array of integers"),
    ],
)
def test_files_that_do_not_fit_are_named_and_nothing_is_written(two_folders, capsys, make, message):
    folder, _ = two_folders
    make(folder)
    arguments = ["evaluate", str(folder / "pred"), str(folder / "truth")]
    assert main([*arguments, "--json", str(folder / "s.json")]) == 1
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["pred", "truth"]


def test_patterns_choose_files(two_folders, capsys):
    folder, _ = two_folders
    arguments = ["evaluate", str(folder / "pred"), str(folder / "truth")]
    assert main([*arguments, "--pred-pattern", "b*", "--truth-pattern", "b*"]) == 0
    assert "n_images                     1" in capsys.readouterr().out


def test_a_missing_path_and_a_mixed_pair_are_refused(two_folders, capsys):
    folder, _ = two_folders
    assert main(["evaluate", str(folder / "none"), str(folder / "truth")]) == 1
    assert "none does not exist" in capsys.readouterr().err
    assert main(["evaluate", str(folder / "pred"), str(folder / "truth" / "b_masks.npy")]) == 1
    assert "two files or two folders" in capsys.readouterr().err


def test_an_unknown_command_is_misuse(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["segmentate"])
    assert exit_.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_the_package_loads_light_and_without_torch():
    code = """
import sys
import cellseg_pipe, cellseg_pipe.cli
heavy = {"torch", "numba", "numpy", "scipy", "zarr"} & set(sys.modules)
assert not heavy, heavy
try:
    cellseg_pipe.nonsense
except AttributeError as error:
    assert "nonsense" in str(error)
assert callable(cellseg_pipe.evaluate) and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_label_image_in_a_store_is_scored(tmp_path, capsys):
    store = tmp_path / "image.ome.zarr"
    assert main(["synth", str(store), "--shape", "90,110", "--seed", "3"]) == 0
    truth = str(store / "labels" / "truth")
    assert main(["evaluate", truth, truth]) == 0
    assert main(["evaluate", str(store / "labels"), truth]) == 1
    assert "has no multiscales" in capsys.readouterr().err
    assert zarr.open_array(store / "labels" / "truth" / "0", mode="r").dtype == np.uint32


INTERRUPTED = """
import argparse, sys
from cellseg_pipe.cli import main

def interrupted(options):
    exec("raise KeyboardInterrupt")

argparse.ArgumentParser.parse_args = lambda *_: argparse.Namespace(
    command=interrupted, name="run", verbose=False
)
sys.exit(main())
"""


def test_an_interrupt_ends_with_its_status_wherever_it_came(tmp_path):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    command = [sys.executable, "-m", "interrupted"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 130
    assert ended.stderr == "cellseg run: stopped. The same command goes on.\n"
