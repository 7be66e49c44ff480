"""What a job asks of the machine that runs it: from its plan, once there is one."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from snakemake.exceptions import WorkflowError

from cellseg_pipe import site
from cellseg_pipe.engines._snakemake_needs import BESIDE_MB, CLUSTER_THREADS, LEAST_MB
from cellseg_pipe.engines.snakemake import Workflow, on_cluster

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
        logger_manager=SimpleNamespace(settings=quiet),
    )

    def made(batches=None, *, nodes=None, **resources):
        cores = None if nodes else 2
        snakemake.resource_settings = SimpleNamespace(
            nodes=nodes, cores=cores, default_resources=None
        )
        snakemake.global_resources = {"_nodes": SimpleNamespace(value=nodes)}
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
    assert run.resources("masks")["mem_mb"](UNIT) == LEAST_MB
    assert run.resources("masks")["mem_mb"](UNIT, attempt=3) == pytest.approx(LEAST_MB * 2.25)
    assert [run.resources("predict")["runtime"](UNIT, attempt=n) for n in (1, 2)] == [20, 40]
    assert not (tmp_path / "out").exists()  # looking at the rules writes nothing


def test_the_plan_is_read_when_it_is_there(workflow):
    run, _ = workflow()
    memory, minutes = run.resources("masks")["mem_mb"], run.resources("predict")["runtime"]
    assert memory(UNIT) == LEAST_MB
    plan = run._layout.files("a", "tiles").plan
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({"predicted": COSTS}))
    assert memory(UNIT) == 4000 + BESIDE_MB
    assert memory(UNIT, attempt=2) == 1.5 * (4000 + BESIDE_MB)
    assert run.resources("predict")["mem_mb"](UNIT) == LEAST_MB  # Python itself needs more
    assert minutes(UNIT) == 225  # 36,000 s in four jobs, and half as much again
    assert run.resources("paint")["runtime"](UNIT) == 20
    # What is not predicted takes what its like takes.
    assert run.resources("link")["mem_mb"](UNIT) == memory(UNIT)
    levels, paints = (run.resources(stage)["mem_mb"](UNIT) for stage in ("level", "paint"))
    assert levels == paints == 2000 + BESIDE_MB


def test_what_all_classes_have_in_common_takes_what_the_largest_takes(workflow):
    run, _ = workflow()
    plan = run._layout.files("a", "tiles").plan
    plan.parent.mkdir(parents=True)
    masks = next(cost for cost in COSTS if cost["stage"] == "masks")
    of_classes = [
        masks | {"stage": f"masks{n}", "memory_bytes": n * 2_000_000_000} for n in (1, 2, 3)
    ]
    plan.write_text(json.dumps({"predicted": of_classes}))
    memory = run.resources("number")["mem_mb"]
    assert memory(UNIT) == 6000 + BESIDE_MB
    assert memory(SimpleNamespace(unit="a", number="2")) == 4000 + BESIDE_MB


@pytest.mark.parametrize(("device", "gpus"), [("auto", None), ("cpu", None), ("cuda", 1)])
def test_a_gpu_is_asked_for_where_the_experiment_does(workflow, device, gpus):
    run, _ = workflow(device=device)
    for stage in ("plan", "predict", "bundle"):
        assert run.resources(stage).get("gpu") == gpus
    assert run.resources_of_branch("train").get("gpu") == gpus
    for stage in ("tiles", "masks", "paint", "measure", "audit"):
        assert "gpu" not in run.resources(stage)
    assert "gpu" not in run.resources_of_branch("evaluate")


@pytest.fixture
def site_of(workflow, tmp_path, monkeypatch):
    """A run on a cluster whose site file says something."""

    def made(text, **resources):
        file = tmp_path / "site.yaml"
        file.write_text(text)
        site._read.cache_clear()
        monkeypatch.setenv("CELLSEG_SITE", str(file))
        return workflow(**{"nodes": 200} | resources)

    return made


SITE = """\
partition: long
account: lab
extra: --exclude=n7
gpu: {partition: gpus, model: a100, qos: fast}
walltime_minutes: 30
max_jobs: 50
"""
CPU = {"slurm_partition": "long", "slurm_account": "lab", "slurm_extra": "--exclude=n7"}
GPU = CPU | {"slurm_partition": "gpus", "qos": "fast", "gpu": 1, "gpu_model": "a100"}


def said(resources):
    return {name: value for name, value in resources.items() if not callable(value)}


def test_the_site_says_where_jobs_run(site_of):
    run, _ = site_of(SITE)
    assert said(run.resources("masks")) == CPU
    assert said(run.resources("predict")) == GPU
    assert said(run.resources_of_branch("train")) == GPU | {"runtime": 30}
    run, _ = site_of(SITE, device="cpu")
    assert said(run.resources("predict")) == CPU
    run, _ = site_of("account: lab", device="cuda")
    assert said(run.resources("predict")) == {"slurm_account": "lab", "gpu": 1}
    run, _ = site_of("account: lab")
    assert said(run.resources("predict")) == {"slurm_account": "lab"}


def test_a_job_asks_for_no_more_time_than_the_site_gives(site_of):
    run, _ = site_of(SITE)
    assert [run.resources("masks")["runtime"](UNIT, attempt=n) for n in (1, 2)] == [20, 30]


@pytest.mark.parametrize(
    ("nodes", "cores", "defaults", "cluster"),
    [(None, 4, None, False), (9, 4, None, False), (9, None, None, True), (9, 1, {}, True)],
)
def test_a_cluster_is_known_by_its_settings(nodes, cores, defaults, cluster):
    settings = SimpleNamespace(nodes=nodes, cores=cores, default_resources=defaults)
    snakemake = SimpleNamespace(resource_settings=settings, is_main_process=True)
    assert on_cluster(snakemake) == cluster


@pytest.mark.parametrize(("given", "jobs"), [(200, 50), (7, 7)])
def test_the_site_limits_the_jobs_in_the_queue(site_of, given, jobs):
    run, snakemake = site_of(SITE, nodes=given)
    assert snakemake.global_resources["_nodes"] == jobs


def test_the_site_changes_nothing_that_is_computed(site_of, workflow):
    here, there = workflow()[0]._layout, site_of(SITE)[0]._layout
    assert here == there


def test_a_site_file_that_is_wrong_is_refused(site_of):
    with pytest.raises(WorkflowError, match="acount is no known key. Did you mean account?"):
        site_of("acount: lab")


def test_threads_are_those_of_the_experiment(workflow):
    run, _ = workflow(threads=3)
    assert run.threads("predict")(UNIT) == run.threads("train")(None) == 3


@pytest.mark.parametrize(
    ("n_jobs", "cores", "free_gb", "threads"),
    [(1, 8, 64, 8), (4, 8, 64, 2), (6, 8, 64, 1), (50, 8, 64, 1), (50, 8, 3.1, 4), (50, 8, 1, 8)],
)
def test_jobs_share_this_machine(workflow, monkeypatch, n_jobs, cores, free_gb, threads):
    module = "cellseg_pipe.engines._snakemake_needs"
    monkeypatch.setattr(f"{module}.available_threads", lambda: cores)
    monkeypatch.setattr(f"{module}.available_bytes", lambda: int(free_gb * 1e9))
    run, _ = workflow(batches={"predict": n_jobs})
    assert run.threads("predict")(UNIT) == threads
    assert run.threads("train")(None) == cores
    run, _ = workflow(batches={"predict": n_jobs}, nodes=9)
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
    there = Workflow({}, snakemake)
    assert there.marker == run.marker
    assert there.threads("predict")(UNIT) == CLUSTER_THREADS  # as the main process asked for
