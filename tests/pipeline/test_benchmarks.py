"""What all jobs of a run took: one table and sums, the same for any engine; unchanged if rerun."""

import json
import os
from pathlib import Path

import pytest
from pyarrow import parquet

from cellseg_pipe import site
from cellseg_pipe.config import load_experiment
from cellseg_pipe.site import Prices
from cellseg_pipe.stages import benchmarks
from cellseg_pipe.stages.jobs import jobs_of
from cellseg_pipe.stages.layout import layout_of
from cellseg_pipe.stages.named_jobs import run_one
from cellseg_pipe.stages.opened import unit_runs
from tests.pipeline.conftest import scene
from tests.pipeline.worker import ages, config_of, experiment, run, save_tiff

TILES = {"window_px": 96, "overlap_px": 16, "core_px": 96, "batches": {"predict": 2, "masks": 2}}


@pytest.fixture
def chosen(tmp_path):
    picture = save_tiff(tmp_path / "a.tif", scene((100, 130), seed=3)[0])
    return experiment(tmp_path, [picture], tiles=TILES, segment={"reach_px": 12})


def out(chosen):
    return Path(chosen.output.dir)


def table(chosen):
    return parquet.read_table(out(chosen) / "benchmarks.parquet").to_pylist()


def summary(chosen):
    return json.loads((out(chosen) / "summary.json").read_text())["resources"]


def test_a_run_has_a_row_for_each_job_and_their_sums(chosen):
    ran = run(chosen)
    rows = table(chosen)
    order = {stage.name: n for n, (_, stage) in enumerate(layout_of(chosen).jobs())}
    assert sorted((r["unit"], r["stage"], r["batch"]) for r in rows) == sorted(ran)
    assert [order[r["stage"]] for r in rows] == sorted(order[r["stage"]] for r in rows)
    assert {r["attempt"] for r in rows} == {1} and {r["failed"] for r in rows} == {None}
    said = summary(chosen)
    assert (said["jobs"], said["attempts"], said["failed_attempts"]) == (len(ran), len(ran), 0)
    hours = sum(r["cpu_s"] for r in rows) / 3600
    assert said["cpu_hours_used"] == pytest.approx(hours, abs=1e-6) and hours > 0
    asked = sum(r["threads"] * r["wall_s"] for r in rows) / 3600
    assert said["cpu_hours_asked"] == pytest.approx(asked, abs=1e-6)
    assert said["gpu_hours_asked"] == said["gpu_hours_used"] == 0
    assert set(said["stages"]) == {stage.rstrip("0123456789") for _, stage, _ in ran}
    for stage in ("predict", "masks", "paint", "measure"):
        facts = said["stages"][stage]
        own = [r for r in rows if r["stage"] == stage]
        assert facts["jobs"] == len(own)
        assert facts["peak_memory_gb"] == pytest.approx(
            max(r["peak_bytes"] for r in own) / 1e9, abs=1e-6
        )
        assert facts["predicted_memory_gb"] > 0
        assert facts["written_gb"] > 0
    assert said["stages"]["number"]["predicted_memory_gb"] is None


def test_nothing_changes_when_nothing_is_done(chosen):
    run(chosen)
    before = ages(out(chosen))
    assert "benchmarks.parquet" in before
    assert run(chosen) == []
    assert ages(out(chosen)) == before


def test_attempts_that_failed_are_rows_and_those_of_other_settings_are_none(chosen, monkeypatch):
    from cellseg_pipe.stages import masks

    def full(*_args, **_settings):
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(masks, "run", full)
        with pytest.raises(OSError, match="no room"):
            run(chosen)
    assert not (out(chosen) / "benchmarks.parquet").exists()
    ran = run(chosen)
    tries = [
        (r["attempt"], r["failed"])
        for r in table(chosen)
        if (r["stage"], r["batch"]) == ("masks", 0)
    ]
    assert tries == [(1, "OSError"), (2, None)]
    assert summary(chosen)["failed_attempts"] == 1
    other = chosen.model_copy(
        update={"segment": chosen.segment.model_copy(update={"min_size_px": 40})}
    )
    again = run(other)
    assert 0 < len(again) < len(ran) + 3
    stages = [(r["stage"], r["batch"]) for r in table(other)]
    assert len(stages) == len(set(stages)) and ("predict", 1) in stages and ("masks", 1) in stages


def test_single_jobs_give_the_same_table_as_a_run(chosen, tmp_path):
    """As the rules call them: each with a process of its own, here in any."""
    config = config_of(chosen, tmp_path / "my.yaml")
    layout = layout_of(load_experiment(config))
    for unit in unit_runs(load_experiment(config)):
        for job in jobs_of(unit):
            run_one(layout.config, unit.name, job.stage, batch=job.batch, threads=1)
    rows = benchmarks.gather(layout)
    names = list(rows[0])
    assert names == ["unit", "stage", "batch", "attempt", *names[4:-1], "predicted_bytes"]
    assert {row["threads"] for row in rows} == {1}
    assert [(r["unit"], r["stage"], r["batch"]) for r in rows] == [
        ("a", stage.name, batch) for _, stage in layout.jobs() for batch in range(stage.n_batches)
    ]
    assert set(parquet.read_schema(layout.paths.benchmarks).names) == set(names)


def test_a_killed_job_leaves_no_row_and_a_torn_line_no_trace(chosen):
    layout = layout_of(chosen)
    half = layout.files("a", "masks").took(1)
    half.parent.mkdir(parents=True)
    half.write_text('{"host": "somewhere", "wall_')
    ran = run(chosen)
    assert len(table(chosen)) == len(ran)
    os.truncate(half, 20)
    assert run(chosen) == []
    assert len(table(chosen)) == len(ran) - 1


def test_jobs_of_small_images_are_rows_too(tmp_path):
    images = [
        save_tiff(tmp_path / f"{name}.tif", scene((64, 64), seed=seed)[0])
        for seed, name in enumerate("ab")
    ]
    tiles = {"window_px": 96, "overlap_px": 16, "batches": {"bundles": 2}, "bundle_px": 10_000}
    chosen = experiment(tmp_path, images, tiles=tiles, segment={"reach_px": 12})
    run(chosen)
    rows = {row["stage"]: row for row in table(chosen)}
    assert list(rows) == ["plan", "bundle0", "bundle1"]
    assert {row["unit"] for row in rows.values()} == {"small images"}
    assert rows["bundle1"]["predicted_bytes"] > 10**8 and rows["plan"]["predicted_bytes"] is None
    facts = summary(chosen)["stages"]
    assert list(facts) == ["plan", "bundle"] and facts["bundle"]["jobs"] == 2


def rows_of(*some):
    """Rows that say only what differs."""
    usual = {"unit": "a", "stage": "masks", "batch": 0, "threads": 1, "gpus": 0, "wall_s": 0.0}
    usual |= {"cpu_s": 0.0, "computed_on_gpu": False, "peak_bytes": 0, "predicted_bytes": None}
    usual |= {"read_bytes": None, "written_bytes": None, "failed": None}
    return [usual | one for one in some]


def test_what_was_asked_is_charged_and_what_was_used_is_told_beside_it():
    said = benchmarks.summed(
        rows_of(
            {"threads": 4, "wall_s": 1800.0, "cpu_s": 3600.0, "peak_bytes": 3 * 10**9},
            {"gpus": 2, "wall_s": 3600.0, "computed_on_gpu": True, "stage": "level1"},
            {"gpus": 1, "wall_s": 7200.0, "stage": "level2", "failed": "OSError", "batch": 1},
        ),
        Prices(cpu_hour=0.5, gpu_hour=2.0, currency="EUR"),
    )
    assert (said["cpu_hours_asked"], said["cpu_hours_used"]) == (5.0, 1.0)
    assert (said["gpu_hours_asked"], said["gpu_hours_used"]) == (4.0, 1.0)
    assert said["cost"] == {"cpu": 2.5, "gpu": 8.0, "total": 10.5, "currency": "EUR"}
    assert (said["jobs"], said["failed_attempts"], said["read_gb"]) == (3, 1, 0)
    assert list(said["stages"]) == ["masks", "level"]
    assert said["stages"]["level"]["cpu_hours_asked"] == 3.0
    assert said["stages"]["masks"]["peak_memory_gb"] == 3.0
    assert said["stages"]["masks"]["predicted_memory_gb"] is None
    assert "cost" not in benchmarks.summed(rows_of({}))


def test_prices_are_those_of_the_site_file_if_it_can_be_read(tmp_path, monkeypatch, caplog):
    file = tmp_path / "site.yaml"
    monkeypatch.setenv("CELLSEG_SITE", str(file))
    site._read.cache_clear()
    file.write_text("prices: {cpu_hour: 0.01, currency: CHF}")
    assert benchmarks.known_prices() == Prices(cpu_hour=0.01, gpu_hour=0.0, currency="CHF")
    site._read.cache_clear()
    file.write_text("prices: {cpu_hour: 0.01}")
    assert benchmarks.known_prices() is None
    assert "currency" in caplog.text and "what the run cost is not told" in caplog.text
