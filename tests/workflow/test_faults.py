"""Starts that must not succeed, runs that are killed, and what the user is told."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import tifffile

from cellseg_pipe.ledger import RunLock
from cellseg_pipe.paths import RunPaths
from tests.workflow import runs

PATIENCE_S = 300


def refused(*arguments, cwd):
    """Return what a start says that ends with an error."""
    done = runs.snakemake(*arguments, cwd=cwd)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def test_a_bad_experiment_file_is_explained_in_a_few_lines(tmp_path):
    config = tmp_path / "my.yaml"
    runs.experiment(config, ["missing.tif"], "out", segment={"cellprob_treshold": 1.0})
    said = refused("--configfile", config, cwd=tmp_path)
    assert "segment.cellprob_treshold is no known key. Did you mean cellprob_threshold?" in said
    assert f"{config}:" in said
    assert len(said.splitlines()) < 10
    runs.experiment(config, ["missing.tif"], "out")
    said = refused("--configfile", config, cwd=tmp_path)
    assert "images[0].path is not usable" in said and "missing.tif" in said
    assert len(said.splitlines()) < 10
    assert [file.name for file in tmp_path.iterdir()] == ["my.yaml"]


def test_only_the_users_file_counts(tmp_path):
    """The clone's own experiment is for starts without a file: its images do not creep in."""
    config = tmp_path / "my.yaml"
    config.write_text("output: {dir: out}\n")
    said = refused("--configfile", config, cwd=tmp_path)
    assert "images" in said and "demo/slide" not in said


def test_the_folder_of_the_state_is_not_to_be_chosen(finished):
    said = refused("--configfile", finished.config, "--directory", "out", cwd=finished.cwd)
    assert "--directory needs to be left out" in said


def spoil_a_tile(image):
    """Overwrite compressed pixels: what opening an image reads stays whole."""
    tifffile.imwrite(image, tifffile.imread(image), compression="zlib", tile=(128, 128))
    with tifffile.TiffFile(image) as file:
        start, size = file.pages[0].dataoffsets[1], file.pages[0].databytecounts[1]
    content = bytearray(image.read_bytes())
    content[start : start + size] = bytes(size)
    image.write_bytes(content)


def test_a_corrupt_image_ends_the_run_and_its_log_says_why(tmp_path):
    image = runs.picture(tmp_path / "a.tif")
    spoil_a_tile(image)
    config = runs.experiment(tmp_path / "my.yaml", ["a.tif"], "out")
    said = refused("--configfile", config, cwd=tmp_path)
    (log,) = (tmp_path / "out" / "logs" / "a").glob("plan-*.log")
    assert f"logs/a/{log.name}" in said
    assert f"{image} cannot be read" in log.read_text() and "Traceback" not in log.read_text()
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not list((tmp_path / "out" / "runs").glob("finished-*"))
    with RunLock(RunPaths(tmp_path / "out").run_lock):
        pass  # a failed run lets go of the folder


def test_a_folder_in_use_is_refused_and_may_be_looked_at(finished):
    changed = {"segment": {"cellprob_threshold": 3.0}}
    config = runs.experiment(finished.cwd / "in_use.yaml", ["a.tif"], "out", **changed)
    before = runs.ages(finished.out / "runs" / "a")
    with RunLock(RunPaths(finished.out).run_lock, job="another"):
        said = refused("--configfile", config, cwd=finished.cwd)
        assert f"in use by process {os.getpid()}" in said and "(another)" in said
        assert runs.planned(config, cwd=finished.cwd)["masks"] == 2
    assert runs.ages(finished.out / "runs" / "a") == before
    assert runs.snakemake("--configfile", config, "--unlock", cwd=finished.cwd).returncode == 0


def started(config, cwd):
    """Start a run and stop it (as with Ctrl-Z) in the middle of a job of predict."""
    process = subprocess.Popen(
        runs.command("--configfile", config),
        cwd=cwd,
        env=runs.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + PATIENCE_S
    while not (jobs := jobs_of(process.pid, "predict")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    for pid in (process.pid, *jobs):
        os.kill(pid, signal.SIGSTOP)
    return process, jobs


def jobs_of(pid, stage):
    """Return the processes of a stage's jobs under one process."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if words[2:4] == ["job", stage]:
            found.append(process.pid)
    return found


def test_a_killed_run_goes_on_with_the_same_command(finished, tmp_path):
    config = runs.experiment(tmp_path / "my.yaml", [finished.cwd / "a.tif"], "out")
    process, jobs = started(config, tmp_path)
    said = refused("--configfile", config, cwd=tmp_path)
    assert f"in use by process {process.pid}" in said and "(snakemake)" in said
    process.kill()
    process.wait()
    said = refused("--configfile", config, cwd=tmp_path)
    assert "jobs of an earlier start still work" in said
    assert all(str(job) in said for job in jobs)
    for job in jobs:
        os.kill(job, signal.SIGKILL)
    runs.run(config, cwd=tmp_path)
    assert runs.results(tmp_path / "out") == finished.results
    assert runs.planned(config, cwd=tmp_path) == {}


@pytest.mark.parametrize("given", ["--lint", "--list-rules"])
def test_the_rules_are_in_order(finished, given):
    done = runs.snakemake("--configfile", finished.config, given, cwd=finished.cwd)
    if given == "--lint":
        # The program is one package for all rules: an environment per rule would be another one.
        titles = set(re.findall(r"^    \* (.+):$", done.stdout, re.MULTILINE))
        assert titles == {"Specify a conda environment or container for each rule."}
    else:
        rules = set(done.stdout.split())
        assert {"plan", "predict", "masks", "paint", "measure", "audit", "summary"} <= rules
    assert not Path(finished.cwd / ".snakemake").exists()
