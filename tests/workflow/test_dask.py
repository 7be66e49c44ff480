"""Engine dask under Snakemake: a job per stage of many batches, and the results of the others."""

import json
import subprocess
import sys

import yaml

from tests.workflow import runs


def experiment(folder, image, **sections):
    """An experiment of engine dask."""
    config = runs.experiment(folder / "my.yaml", [image], "out", dask={"workers": 2}, **sections)
    text = yaml.safe_load(config.read_text()) | {"engine": "dask"}
    config.write_text(yaml.safe_dump(text))
    return config


def test_a_stage_is_one_job_with_the_same_results(finished, tmp_path):
    config = experiment(tmp_path, finished.cwd / "a.tif")
    jobs = runs.planned(config, cwd=tmp_path)
    assert jobs["spread"] == 3  # predict, masks, measure
    assert not {"predict", "masks", "measure", "gate"} & set(jobs)
    runs.run(config, cwd=tmp_path)
    assert runs.results(tmp_path / "out") == finished.results
    assert runs.planned(config, cwd=tmp_path) == {}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"] is True
    (log,) = (tmp_path / "out" / "logs" / "a").glob("masks-*.log")
    assert "dashboard: http://127.0.0.1:" in log.read_text()


def test_snakemake_alone_may_be_asked_for(finished, tmp_path):
    config = experiment(tmp_path, finished.cwd / "a.tif")
    command = [sys.executable, "-m", "cellseg_pipe.cli", "run", config, "--engine", "snakemake"]
    done = subprocess.run(
        [*command, "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    jobs = runs.jobs_in(done.stdout + done.stderr)
    assert (jobs["predict"], jobs["masks"]) == (2, 2)
    assert "spread" not in jobs
