"""Training and scoring as branches of the workflow: started, killed, gone on with, done once."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import tifffile
import yaml

import cellseg_pipe as cs
from cellseg_pipe.engines._snakemake_branches import typed
from cellseg_pipe.engines.snakemake import Workflow
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.images import read_array
from cellseg_pipe.nets._info import sha256_of
from cellseg_pipe.nets.checkpoint import load
from cellseg_pipe.stages.train import read_plan
from cellseg_pipe.stages.train import run as train
from cellseg_pipe.synth import PRESETS, render
from tests.workflow import runs

PATIENCE_S = 300


def training(folder, **changes):
    """Four small pairs of images and a training file for a small network."""
    (folder / "data").mkdir(exist_ok=True)
    for seed in range(4):
        spec = replace(PRESETS["nuclei"], shape=(96, 96), seed=seed, diameter_px=14.0)
        piece = render(spec, Box.of((96, 96)))
        tifffile.imwrite(folder / "data" / f"n{seed}_img.tif", piece.image[0])
        tifffile.imwrite(folder / "data" / f"n{seed}_masks.tif", piece.labels.astype(np.uint16))
    said = {
        "output": "run",
        "data": {"root": "data", "cache": "cache"},
        "network": {"name": "small", "widths": [4, 8], "channels": ["main"]},
        "augmentation": {"crop_px": 48, "margin_px": 8},
        "recipe": {"steps": 4, "batch": 2, "checkpoint_every": 2, "evaluate_every": 4},
    }
    for key, value in changes.items():
        said[key] = {**said.get(key, {}), **value} if isinstance(value, dict) else value
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(said, sort_keys=False))
    return path


def start(config, *targets, cwd):
    """Start and wait. Targets come first: Snakemake takes what follows a file for another one."""
    given = ("--configfile", config, "--config", "resources={device: cpu, threads: 1}")
    return runs.snakemake(*targets, *given, cwd=cwd)


def weights(path):
    return {name: value.numpy() for name, value in load(path).net.state_dict().items()}


def refused(done):
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def test_a_network_is_trained_once(tmp_path):
    config, out = training(tmp_path), tmp_path / "run"
    dry = start(config, "--dry-run", "train", cwd=tmp_path)
    assert dry.returncode == 0 and "train" in dry.stdout and runs.ages(out) == {}
    done = start(config, "train", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / ".snakemake").exists()
    (marker,) = (out / "runs").glob("trained-*.json")
    about = json.loads(marker.read_text())
    assert about == {"model": "best.safetensors", "sha256": sha256_of(out / "best.safetensors")}
    (log,) = (out / "logs").glob("train-*.log")
    assert "step 4: loss" in log.read_text()
    (benchmark,) = (out / "logs").glob("train-*.tsv")
    assert benchmark.read_text().startswith("s\th:m:s\tmax_rss")
    before = runs.ages(out)
    again = start(config, cwd=tmp_path)  # without a target: a training file trains
    assert again.returncode == 0 and "Nothing to be done" in again.stdout
    assert runs.ages(out) == before
    # The same weights as those of the command.
    plan = replace(read_plan(config), output=str(tmp_path / "other"))
    train(plan, device="cpu", threads=1)
    for name, value in weights(tmp_path / "other" / "best.safetensors").items():
        np.testing.assert_array_equal(weights(out / "best.safetensors")[name], value)
    more_steps_go_on(config, out)
    changed_images_are_told(config, out)


def more_steps_go_on(config, out):
    """The command line goes before the file; what is there is not trained again."""
    given = ("--config", "resources={device: cpu, threads: 1}", "recipe={steps: 6}")
    done = runs.snakemake("train", "--configfile", config, *given, cwd=config.parent)
    assert done.returncode == 0, done.stdout
    assert len(list((out / "runs").glob("trained-*.json"))) == 2
    logs = [log.read_text() for log in (out / "logs").glob("train-*.log")]
    assert any("going on at step 4 of 6" in text for text in logs)


def changed_images_are_told(config, out):
    for image in (config.parent / "data").glob("*_img.tif"):
        tifffile.imwrite(image, tifffile.imread(image)[::-1])
    said = refused(start(config, "train", cwd=config.parent))
    assert "train" in said
    newest = max((out / "logs").glob("train-*.log"), key=lambda log: log.stat().st_mtime)
    assert "data.train" in newest.read_text()


def job_of(process):
    """Return the training job under a start of Snakemake, once it has kept its state."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.NoSuchProcess:
            continue
        if words[2:4] == ["job", "train"]:
            return child.pid
    return None


def killed_midway(config, out):
    """Start, and kill Snakemake and its job when a first checkpoint is there."""
    given = ("--configfile", config, "--config", "resources={device: cpu, threads: 1}")
    process = subprocess.Popen(
        runs.command("train", *given),
        cwd=config.parent,
        env=runs.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + PATIENCE_S
    while not (out / "last.pt").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    job = job_of(process)
    process.kill()
    process.wait()
    os.kill(job, signal.SIGSTOP)
    return job


def test_a_network_that_restores_is_trained_too(tmp_path):
    config = training(tmp_path, restore={"kind": "denoise", "segmenter": str(runs.TINY)})
    said = yaml.safe_load(config.read_text())
    del said["network"]["channels"]  # one goes in, one comes out
    config.write_text(yaml.safe_dump(said, sort_keys=False))
    done = start(config, "train", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    info = load(tmp_path / "run" / "best.safetensors").info
    assert (info.task, info.restores, info.clear_below) == ("restoration", "denoise", 0.0)
    (log,) = (tmp_path / "run" / "logs").glob("train-*.log")
    assert "perceptual" in log.read_text()
    assert "Nothing to be done" in start(config, cwd=tmp_path).stdout


def test_a_killed_training_goes_on_with_the_same_command(tmp_path):
    steps = {"steps": 100, "checkpoint_every": 10, "evaluate_every": 100}
    config, out = training(tmp_path, recipe=steps), tmp_path / "run"
    job = killed_midway(config, out)
    said = refused(start(config, "train", cwd=tmp_path))
    assert "jobs of an earlier start still work" in said and str(job) in said
    os.kill(job, signal.SIGKILL)
    assert not list((out / "runs").glob("trained-*.json"))
    done = start(config, "train", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    (log,) = (out / "logs").glob("train-*.log")
    assert "going on at step" in log.read_text()
    plan = replace(read_plan(config), output=str(tmp_path / "whole"))
    train(plan, device="cpu", threads=1)
    for name, value in weights(tmp_path / "whole" / "last.safetensors").items():
        np.testing.assert_array_equal(weights(out / "last.safetensors")[name], value)
    with open(out / "log.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps)) and steps[-1] == 100


def test_a_wrong_training_file_is_told_with_its_line(tmp_path):
    config = training(tmp_path, recipe={"step": 3})
    said = refused(start(config, "train", cwd=tmp_path))
    assert "recipe.step is no known key. Did you mean steps?" in said
    assert f"{config}:" in said and not (tmp_path / "run").exists()
    done = start(training(tmp_path), "evaluate", cwd=tmp_path)
    assert done.returncode == 1 and "evaluate needs the truth of the images" in done.stdout


@pytest.fixture(scope="module")
def truth(finished, tmp_path_factory):
    """A folder with the truth of the finished run's image."""
    folder = tmp_path_factory.mktemp("truth")
    spec = replace(PRESETS["nuclei"], shape=(300, 340), diameter_px=30, seed=5)
    labels = render(spec, Box.of((300, 340))).labels
    tifffile.imwrite(folder / "a_masks.tif", labels.astype(np.uint16))
    return folder


def evaluated(finished, *arguments):
    given = ("--configfile", finished.config, *arguments)
    return runs.snakemake("evaluate", *given, cwd=finished.cwd)


def test_a_run_is_scored_against_the_truth(finished, truth):
    given = ("--config", f"evaluate={{truth: {truth}, boundary_px: 2.0}}")
    before = runs.results(finished.out)
    done = evaluated(finished, *given)
    assert done.returncode == 0, done.stdout
    labels = read_array(finished.out / "a" / "labels.ome.zarr")
    expected = cs.evaluate(labels, read_array(truth / "a_masks.tif"))
    about = json.loads((finished.out / "evaluation.json").read_text())
    assert about["ap"] == {str(t): value for t, value in expected.ap.items()}
    assert about["ap"]["0.5"] > 0.5 and about["boundary_f1"] > 0.5
    with open(finished.out / "evaluation.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == "a" and float(row["pq"]) == expected.pq
    (marker,) = (finished.out / "runs").glob("evaluated-*.json")
    assert json.loads(marker.read_text())["n_images"] == 1
    assert runs.results(finished.out) == before
    assert "Nothing to be done" in evaluated(finished, *given).stdout
    os.utime(truth / "a_masks.tif", (1, 1))  # another truth gives other scores
    again = evaluated(finished, *given, "--dry-run")
    assert "Nothing to be done" not in again.stdout and again.returncode == 0
    assert runs.planned(finished.config, cwd=finished.cwd) == {}


def test_the_truth_may_be_named_in_the_experiment(finished, truth):
    """A file for a run of one unit; relative to the experiment."""
    tifffile.imwrite(finished.cwd / "truth.tif", tifffile.imread(truth / "a_masks.tif"))
    config = runs.experiment(
        finished.cwd / "scored.yaml", ["a.tif"], "out", evaluate={"truth": "truth.tif"}
    )
    done = runs.snakemake("evaluate", "--dry-run", "--configfile", config, cwd=finished.cwd)
    assert done.returncode == 0, done.stdout
    assert "evaluate" in done.stdout and runs.planned(config, cwd=finished.cwd) == {}
    for engine in ("snakemake", "process"):
        (finished.out / "evaluation.json").unlink(missing_ok=True)
        for marker in (finished.out / "runs").glob("evaluated-*.json"):
            marker.unlink()
        program = [sys.executable, "-m", "cellseg_pipe.cli", "run", config, "--engine", engine]
        subprocess.run(list(map(str, program)), cwd=finished.cwd, check=True)
        assert json.loads((finished.out / "evaluation.json").read_text())["ap"]["0.5"] > 0.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--config", "evaluate={truth: nowhere}"), "file or folder that is there, got nowhere"),
        (("--config", "evaluate={truht: x}"), "evaluate.truht is no known key. Did you mean truth"),
        (("--config", "evaluate={truth: other}"), "each file needs its partner"),
    ],
)
def test_what_is_wrong_with_the_truth_is_told(finished, given, said):
    (finished.cwd / "other").mkdir(exist_ok=True)
    tifffile.imwrite(finished.cwd / "other" / "b_masks.tif", np.ones((300, 340), np.uint16))
    assert said in " ".join(refused(evaluated(finished, *given)).split())


def test_what_a_branch_lacks_is_told(finished):
    done = runs.snakemake("train", "--configfile", finished.config, cwd=finished.cwd)
    assert done.returncode == 1 and "train needs a training file" in done.stdout
    done = evaluated(finished)
    assert done.returncode == 1 and "evaluate needs the truth of the images" in done.stdout


@pytest.fixture
def workflow(monkeypatch):
    """Snakemake's main process."""
    for name in ("CELLSEG_LAYOUT", "CELLSEG_SCORING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    quiet = SimpleNamespace(enable_file_logging=False, dryrun=False)
    return SimpleNamespace(
        is_main_process=True,
        overwrite_workdir=None,
        configfiles=[],
        resource_settings=SimpleNamespace(nodes=None, cores=2, default_resources=None),
        global_resources={"_nodes": None},
        logger_manager=SimpleNamespace(settings=quiet),
    )


def test_what_training_asks_of_a_machine(workflow, tmp_path):
    path = training(tmp_path)
    workflow.configfiles = [path]
    said = yaml.safe_load(path.read_text())
    run = Workflow({**said, "resources": {"device": "cuda", "threads": 3}}, workflow)
    assert run.resources_of_branch("train")["gpu"] == 1 and run.threads("train")(None) == 3
    small = run.branches.memory_mb("train")
    assert 2000 < small(None) < 2100 and small(None, attempt=2) == pytest.approx(
        1.5 * small(None), rel=1e-3
    )
    said["recipe"]["batch"] = 64
    said["augmentation"]["crop_px"] = 256
    large = Workflow(said, workflow).branches.memory_mb("train")(None)
    assert large - small(None) == pytest.approx(400 * 4 * (64 * 256**2 - 2 * 48**2) / 1e6, rel=0.01)
    assert run.goals == [run.branches.trained]


def test_jobs_of_scoring_on_other_machines_read_files_alone(workflow, finished, truth, monkeypatch):
    workflow.configfiles = [finished.config]
    monkeypatch.chdir(finished.cwd)
    said = yaml.safe_load(finished.config.read_text()) | {"evaluate": {"truth": str(truth)}}
    run = Workflow(said, workflow)
    run.begin()
    run.end()
    workflow.is_main_process = False
    assert run.branches.memory_mb("evaluate")(None) == round(2000 + 300 * 340 * 40 / 1e6)
    again = Workflow({}, workflow)
    assert again.branches.scored == run.branches.scored != "runs/evaluated-none.json"
    assert again.branches.inputs("evaluate")(None) == run.audits
    monkeypatch.delenv("CELLSEG_SCORING")
    monkeypatch.delenv("CELLSEG_LAYOUT")
    monkeypatch.chdir("out")
    assert Workflow({}, workflow).branches.scoring == run.branches.scoring


def test_numbers_of_the_command_line_are_numbers():
    """Inside a section Snakemake takes them for text; what the file says keeps its type."""
    given = {"recipe": {"steps": "6", "rate": "0.5"}, "name": "3", "more": ["1", "x", "null"]}
    written = {"recipe": {"steps": 4}, "name": "3"}
    assert typed(given, written) == {
        "recipe": {"steps": 6, "rate": 0.5},
        "name": "3",
        "more": [1, "x", None],
    }
