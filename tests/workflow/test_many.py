"""Many small images through Snakemake: few jobs, bad images listed, what a start does again."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from pyarrow import parquet

import cellseg_pipe as cs
from tests.workflow import runs

N_IMAGES = 24
SHAPE = (64, 72)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A finished run of small images."""
    cwd = tmp_path_factory.mktemp("many")
    (cwd / "images").mkdir()
    for number in range(N_IMAGES):
        runs.picture(cwd / "images" / f"i{number}.tif", shape=SHAPE, seed=number)
    config = runs.experiment(cwd / "my.yaml", ["images"], "out", tiles={"batches": {"bundles": 3}})
    assert runs.planned(config, cwd=cwd) == {"plan": 1, "bundle": 3, "summary": 1, "report": 1}
    runs.run(config, cwd=cwd)
    return cwd, config


def test_few_jobs_give_the_results_of_many(many):
    cwd, config = many
    run = cs.open_result(cwd / "out")
    assert run.is_complete and run.summary["exact"]
    assert run.units == tuple(f"i{number}" for number in range(N_IMAGES))
    for number in (0, 2, 10):
        image = tifffile.imread(cwd / "images" / f"i{number}.tif")
        whole = cs.segment(image, model=runs.TINY, diameter_px=30)
        np.testing.assert_array_equal(run.labels(f"i{number}")[...], whole.labels)
        table = run.table(f"i{number}").to_pydict()
        for name, column in whole.table.items():
            np.testing.assert_array_equal(table[name], column)
    table = parquet.read_table(cwd / "out" / "cells.parquet")
    assert table.num_rows == run.summary["n_cells"] > N_IMAGES
    pd.testing.assert_frame_equal(run.table().to_pandas(), table.to_pandas())
    order = list(dict.fromkeys(table["image"].to_pylist()))
    assert order == [name for name in run.units if name in order] and "i2" in order
    assert runs.planned(config, cwd=cwd) == {}


def test_a_job_asks_for_what_the_largest_image_takes(many):
    cwd, config = many
    plan = next((cwd / "out" / "runs").glob("small_images~*/plan-*/plan.json"))
    assert 3e8 < json.loads(plan.read_text())["memory_bytes"] < 1.5e9
    said = runs.run(config, "--dry-run", "--forceall", "--set-resources", "plan:runtime=7", cwd=cwd)
    assert runs.jobs_in(said) == {"plan": 1, "bundle": 3, "summary": 1, "report": 1}


def spoil(image):
    """Pixels that cannot be decoded behind a header that can be read."""
    tifffile.imwrite(image, tifffile.imread(image), compression="zlib")
    with tifffile.TiffFile(image) as file:
        start, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    content = bytearray(image.read_bytes())
    content[start : start + size] = bytes(size)
    image.write_bytes(content)


def test_an_image_that_is_added_or_bad_is_done_alone(many):
    """The others' results stay untouched, and the run ends with an error that names the image."""
    cwd, config = many
    before = runs.results(cwd / "out")
    image = runs.picture(cwd / "images" / "z.tif", shape=SHAPE, seed=99)
    spoil(image)
    done = runs.snakemake("--configfile", config, cwd=cwd)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert f"1 of {N_IMAGES + 1} images could not be segmented" in done.stdout
    assert f"z: {image} cannot be read" in done.stdout
    failed = json.loads((cwd / "out" / "failed.json").read_text())
    assert list(failed) == ["z"]
    assert "Images that failed" in (cwd / "out" / "report.html").read_text()
    assert not cs.open_result(cwd / "out").is_complete
    after = runs.results(cwd / "out")
    assert {k: v for k, v in after.items() if k != "cells.parquet/part-00000.parquet"} == {
        k: v for k, v in before.items() if k != "cells.parquet/part-00000.parquet"
    }
    # The next start tries the bad one again, and no other job.
    assert runs.planned(config, cwd=cwd) == {"bundle": 1, "summary": 1, "report": 1}
    runs.picture(image, shape=SHAPE, seed=99)
    assert runs.planned(config, cwd=cwd) == {"bundle": 1, "summary": 1, "report": 1}
    runs.run(config, cwd=cwd)
    run = cs.open_result(cwd / "out")
    assert run.is_complete and len(run.units) == N_IMAGES + 1
    assert not (cwd / "out" / "failed.json").exists()
    assert runs.planned(config, cwd=cwd) == {}


def test_a_bad_image_of_the_usual_stages_is_listed_too(tmp_path):
    runs.picture(tmp_path / "good.tif")
    spoil(runs.picture(tmp_path / "bad.tif", seed=6))
    config = runs.experiment(tmp_path / "my.yaml", ["good.tif", "bad.tif"], "out")
    done = runs.snakemake("--configfile", config, cwd=tmp_path)
    assert done.returncode != 0
    assert "1 of 2 images could not be segmented; the others are done" in done.stdout
    out = tmp_path / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert not summary["complete"] and list(summary["units"]) == ["good"]
    assert list(summary["failed"]) == list(json.loads((out / "failed.json").read_text())) == ["bad"]
    runs.picture(tmp_path / "bad.tif", seed=6)
    runs.run(config, cwd=tmp_path)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["complete"] and list(summary["units"]) == ["good", "bad"]
    assert not (out / "failed.json").exists()
