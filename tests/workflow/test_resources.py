"""What a job asks of the machine that runs it: from its plan, once there is one."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from cellseg_pipe.engines.snakemake import BESIDE_MB, CLUSTER_THREADS, LEAST_MB, Workflow

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"
COSTS = [
    {"stage": "predict", "n_jobs": 4, "memory_bytes": 700_000_000, "seconds": 36_000.0},
    {"stage": "masks", "n_jobs": 2, "memory_bytes": 4_000_000_000, "seconds": 7_200.0},
    {"stage": "paint", "n_jobs": 1, "memory_bytes": 2_000_000_000, "seconds": 60.0},
]


@pytest.fixture
def workflow(tmp_path, monkeypatch):
    """A run of the rules, as Snakemake's main process makes it, and what it is made of."""
    monkeypatch.setenv("CELLSEG_LAYOUT", "")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", np.zeros((64, 64), np.uint16))
    quiet = SimpleNamespace(enable_file_logging=False, dryrun=False)
    snakemake = SimpleNamespace(
        is_main_process=True,
        overwrite_workdir=None,
        configfiles=[],
        local_exec=True,
        logger_manager=SimpleNamespace(settings=quiet),
    )

    def made(batches=None, **resources):
        config = {
            "images": [{"path": "a.tif"}],
            "output": {"dir": "out"},
            "targets": {"nuclei": {"model": str(TINY), "diameter_px": 30}},
            "resources": resources,
            "tiles": {"batches": batches or {}},
        }
        return Workflow(config, snakemake), snakemake

    return made


UNIT = SimpleNamespace(unit="a")


def test_without_a_plan_there_are_usual_values(workflow, tmp_path):
    run, _ = workflow()
    assert run.memory_mb("masks")(UNIT) == LEAST_MB
    assert run.memory_mb("masks")(UNIT, attempt=3) == pytest.approx(LEAST_MB * 2.25)
    assert [run.minutes("predict")(UNIT, attempt=n) for n in (1, 2)] == [20, 40]
    assert not (tmp_path / "out").exists()  # looking at the rules writes nothing


def test_the_plan_is_read_when_it_is_there(workflow):
    run, _ = workflow()
    memory, minutes = run.memory_mb("masks"), run.minutes("predict")
    assert memory(UNIT) == LEAST_MB
    plan = run._layout.files("a", "tiles").plan
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({"predicted": COSTS}))
    assert memory(UNIT) == 4000 + BESIDE_MB
    assert memory(UNIT, attempt=2) == 1.5 * (4000 + BESIDE_MB)
    assert run.memory_mb("predict")(UNIT) == LEAST_MB  # Python itself needs more
    assert minutes(UNIT) == 225  # 36,000 s in four jobs, and half as much again
    assert run.minutes("paint")(UNIT) == 20
    # What is not predicted takes what its like takes.
    assert run.memory_mb("link")(UNIT) == memory(UNIT)
    assert run.memory_mb("level")(UNIT) == run.memory_mb("paint")(UNIT) == 2000 + BESIDE_MB


@pytest.mark.parametrize(("device", "gpus"), [("auto", 0), ("cpu", 0), ("cuda", 1)])
def test_a_gpu_is_asked_for_where_the_experiment_does(workflow, device, gpus):
    assert workflow(device=device)[0].gpus == gpus


def test_threads_are_those_of_the_experiment(workflow):
    run, _ = workflow(threads=3)
    assert run.threads("predict")(UNIT) == run.threads("train")(None) == 3


@pytest.mark.parametrize(
    ("n_jobs", "cores", "free_gb", "threads"),
    [(1, 8, 64, 8), (4, 8, 64, 2), (6, 8, 64, 1), (50, 8, 64, 1), (50, 8, 3.1, 4), (50, 8, 1, 8)],
)
def test_jobs_share_this_machine(workflow, monkeypatch, n_jobs, cores, free_gb, threads):
    module = "cellseg_pipe.engines.snakemake"
    monkeypatch.setattr(f"{module}.available_threads", lambda: cores)
    monkeypatch.setattr(f"{module}.available_bytes", lambda: int(free_gb * 1e9))
    run, snakemake = workflow(batches={"predict": n_jobs})
    assert run.threads("predict")(UNIT) == threads
    assert run.threads("train")(None) == cores
    snakemake.local_exec = False
    assert run.threads("predict")(UNIT) == CLUSTER_THREADS


def test_jobs_on_other_machines_read_the_layout_alone(workflow, monkeypatch):
    """Each job of a cluster reads the rules again: 50 of them a second must not open images."""
    run, snakemake = workflow()
    run.begin()
    run.end()
    snakemake.is_main_process = False
    os.remove("a.tif")
    monkeypatch.setitem(sys.modules, "cellseg_pipe.stages.unit", None)
    again = Workflow({}, snakemake)
    assert again.inputs("predict")(UNIT) == run.inputs("predict")(UNIT)
    assert (again.root, again.config, again.marker) == (run.root, run.config, run.marker)
    monkeypatch.delenv("CELLSEG_LAYOUT")
    monkeypatch.chdir("out")
    assert Workflow({}, snakemake).marker == run.marker
