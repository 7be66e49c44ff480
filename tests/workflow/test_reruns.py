"""What a start does again: nothing that is there, and all that depends on what was changed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from cellseg_pipe.config import load_experiment
from cellseg_pipe.engines import process
from tests.workflow import runs

PLAN = {"plan": 1}
PREDICT = {"predict": 2, "tiles": 1}
CELLS = {"masks": 2, "number": 1, "paint": 1}
ROWS = {"measure": 2}
LOOKS = {"qc": 1}
END = {"audit": 1, "summary": 1, "report": 1}


def test_all_jobs_of_a_run(finished):
    other = runs.experiment(finished.cwd / "new.yaml", ["a.tif"], "elsewhere")
    assert runs.planned(other, cwd=finished.cwd) == PLAN | PREDICT | CELLS | ROWS | LOOKS | END
    assert not [f for f in runs.ages(finished.cwd) if f.startswith("elsewhere")]


def test_changing_nothing_reruns_nothing(finished):
    before = runs.ages(finished.out)
    assert runs.planned(finished.config, cwd=finished.cwd) == {}
    assert "Nothing to be done" in runs.run(finished.config, cwd=finished.cwd)
    assert runs.ages(finished.out) == before
    assert runs.results(finished.out) == finished.results


def changed_model(cwd):
    """Another last bit of the last weight."""
    content = bytearray(runs.TINY.read_bytes())
    content[-2] ^= 1
    (cwd / "other.safetensors").write_bytes(content)
    return {"nuclei": {"model": str(cwd / "other.safetensors"), "diameter_px": 30}}


def same_model(cwd):
    shutil.copyfile(runs.TINY, cwd / "same.safetensors")
    return {"nuclei": {"model": str(cwd / "same.safetensors"), "diameter_px": 30}}


CHANGES = {
    "what results do not depend on": (
        {"resources": {"memory_gb": 2.5}, "targets": same_model},
        {"summary": 1, "report": 1},
    ),
    "export": ({"output": {"export": ["csv"]}}, END),
    "qc": ({"qc": {"flag": {"border": "flag"}}}, END),
    "labels without dropped cells": (
        {"qc": {"drop": {"min_confidence": 0.5}, "labels": True}},
        {"judge": 1, "sift": 1} | END,
    ),
    "cellprob": (
        {"segment": {"cellprob_threshold": -1.0}},
        {"tiles": 1} | CELLS | ROWS | LOOKS | END,
    ),
    "model": ({"targets": changed_model}, PLAN | PREDICT | CELLS | ROWS | LOOKS | END),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_reruns_what_depends_on_it(finished, name):
    sections, expected = CHANGES[name]
    sections = {k: v(finished.cwd) if callable(v) else v for k, v in sections.items()}
    config = runs.experiment(finished.cwd / "changed.yaml", ["a.tif"], "out", **sections)
    before = runs.ages(finished.out)
    assert runs.planned(config, cwd=finished.cwd) == expected
    assert runs.ages(finished.out) == before  # a dry run writes nothing


def test_a_changed_image_is_segmented_anew(finished):
    image = finished.cwd / "a.tif"
    kept, age = image.read_bytes(), image.stat()
    try:
        runs.picture(image, seed=6)
        expected = PLAN | PREDICT | CELLS | ROWS | LOOKS | END
        assert runs.planned(finished.config, cwd=finished.cwd) == expected
    finally:
        image.write_bytes(kept)
        os.utime(image, ns=(age.st_atime_ns, age.st_mtime_ns))
    assert runs.planned(finished.config, cwd=finished.cwd) == {}


def test_the_command_line_goes_before_the_file(finished):
    given = ("--config", "qc={flag: {border: flag}}")
    assert runs.planned(finished.config, *given, cwd=finished.cwd) == END


def test_a_run_that_was_moved_is_known_again(finished):
    moved = finished.cwd / "moved"
    shutil.copytree(finished.out, moved)
    config = runs.experiment(finished.cwd / "moved.yaml", ["a.tif"], "moved")
    assert runs.planned(config, cwd=finished.cwd) == {"summary": 1, "report": 1}
    shutil.rmtree(moved)


def test_both_engines_give_the_same_files(finished, monkeypatch):
    monkeypatch.chdir(finished.cwd)
    config = runs.experiment(finished.cwd / "process.yaml", ["a.tif"], "process")
    process.run(load_experiment(config), threads=1)
    assert runs.results(finished.cwd / "process") == finished.results
    # Either goes on with what the other made; the page is drawn by the command around it.
    assert runs.planned(config, cwd=finished.cwd) == {"report": 1}


def test_going_back_brings_back_the_results(finished):
    """Other settings replace labels and table; the old ones are not taken for finished then."""
    changed = runs.experiment(
        finished.cwd / "changed.yaml", ["a.tif"], "out", segment={"cellprob_threshold": 2.0}
    )
    windows = {f: t for f, t in runs.ages(finished.out).items() if "/predict-" in f}
    runs.run(changed, cwd=finished.cwd)
    assert windows.items() <= runs.ages(finished.out).items()
    assert runs.results(finished.out) != finished.results
    again = {"paint": 1} | ROWS | LOOKS | END
    assert runs.planned(finished.config, cwd=finished.cwd) == again
    runs.run(finished.config, cwd=finished.cwd)
    assert runs.results(finished.out) == finished.results
    assert runs.planned(finished.config, cwd=finished.cwd) == {}
    assert json.loads((finished.out / "summary.json").read_text())["complete"]


def test_state_and_logs_lie_in_the_folder_of_the_results(finished):
    assert not (finished.cwd / ".snakemake").exists()
    logs = list((finished.out / ".snakemake" / "log").iterdir())
    assert any("SNAKEMAKE" in log.read_text() for log in logs)
    for stage in ("plan", "predict", "masks", "audit"):
        assert list((finished.out / "logs" / "a").glob(f"{stage}-*.log"))
        (first, *_) = sorted((finished.out / "logs" / "a").glob(f"{stage}-*.tsv"))
        assert first.read_text().startswith("s\th:m:s\tmax_rss")
    assert Path(finished.out / "config.yaml").exists()
