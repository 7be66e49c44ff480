from types import SimpleNamespace

import pytest

from cellseg_pipe.engines._snakemake_gates import PART, Gates
from tests.workflow import runs


def jobs(cwd, *, predict, masks):
    """The jobs of a run in which many of `masks` wait for many of `predict`."""
    runs.picture(cwd / "a.tif")
    batches = {"predict": predict, "masks": masks}
    return runs.planned(
        runs.experiment(cwd / "my.yaml", ["a.tif"], "out", tiles={"batches": batches}), cwd=cwd
    )


def test_many_jobs_wait_for_many_through_a_gate(tmp_path):
    found = jobs(tmp_path, predict=100, masks=90)
    assert (found["predict"], found["masks"], found["measure"], found["gate"]) == (100, 90, 90, 1)
    assert "gate_part" not in found


def test_a_gate_of_very_many_jobs_has_parts(tmp_path):
    found = jobs(tmp_path, predict=PART + 1, masks=PART + 1)
    assert found["gate_part"] == 2 * found["gate"] > 0


@pytest.mark.parametrize("n_jobs", [1, PART, PART + 1, 3 * PART, 1000])
def test_a_gate_stands_for_each_job_once(n_jobs):
    outputs = [f"{i}.json" for i in range(n_jobs)]
    layout = SimpleNamespace(outputs=lambda unit, stage: outputs, gate=lambda unit, stage: "all")
    gates, one = Gates(layout), {"unit": "a", "stage": "predict"}
    inputs = gates.inputs(SimpleNamespace(**one))
    if n_jobs <= PART:
        assert inputs == outputs
        return
    parts = [SimpleNamespace(**one, part=name.removeprefix("all-")) for name in inputs]
    assert [name for part in parts for name in gates.inputs_of_part(part)] == outputs
