"""A finished run, opened: nothing is read before it is asked for."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import zarr
from pyarrow import parquet

from cellseg_pipe.io.ngff import ImageMeta, create_label_pyramid
from cellseg_pipe.io.result import open_result
from cellseg_pipe.io.shards import ShardWriter

LABELS = np.arange(30 * 40, dtype=np.uint32).reshape(30, 40)


def new_run(folder, units, version="0.5"):
    for offset, unit in enumerate(units):
        (folder / unit).mkdir(parents=True)
        store = folder / unit / "labels.ome.zarr"
        meta = ImageMeta("yx", (1.0, 1.0))
        create_label_pyramid(store, meta, shape=LABELS.shape, version=version, n_levels=2)
        ShardWriter(store / "0").write_shard(0, LABELS + np.uint32(offset))
        table = pa.table({"label": pa.array([1, 2], pa.uint32()), "area_px": [offset, 9]})
        parquet.write_table(table, folder / unit / "cells.parquet")
    summary = {"version": "0.1.0", "units": {unit: {"n_cells": 2} for unit in units}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_read_where_they_are_indexed(tmp_path, version):
    run = open_result(new_run(tmp_path, ["s1"], version))
    labels = run.labels()
    assert (labels.shape, labels.dtype, labels.ndim) == ((30, 40), np.uint32, 2)
    part = np.asarray(labels[10:20, 5:9])
    np.testing.assert_array_equal(part, LABELS[10:20, 5:9])
    np.testing.assert_array_equal(np.asarray(labels), LABELS)
    assert run.labels(level=1).shape == (15, 20) and not run.labels("s1", 1)[...].any()
    with pytest.raises(ValueError, match="read-only|read only"):
        labels[0, 0] = 3
    assert zarr.open_array(tmp_path / "s1/labels.ome.zarr/0", mode="r")[0, 0] == 0


def test_units_have_labels_and_a_table_each(tmp_path):
    run = open_result(str(new_run(tmp_path, ["s1-nuclei", "s1-cells"])))
    assert run.units == ("s1-nuclei", "s1-cells") and run.is_complete
    assert run.summary["units"]["s1-cells"] == {"n_cells": 2}
    assert run.labels("s1-cells")[0, 0] == 1 and run.labels("s1-nuclei")[0, 0] == 0
    table = run.table("s1-cells")
    assert table.to_pydict() == {"label": [1, 2], "area_px": [1, 9]}
    assert table.schema.field("label").type == pa.uint32()
    assert run.table("s1-nuclei", columns=["area_px"]).to_pydict() == {"area_px": [0, 9]}
    for ask in (run.labels, run.table):
        with pytest.raises(ValueError, match="several units: s1-nuclei, s1-cells. Name one"):
            ask()
        with pytest.raises(KeyError, match="has the units s1-nuclei, s1-cells, asked for 's2'"):
            ask("s2")


def test_a_table_may_be_a_folder_of_parts(tmp_path):
    run = open_result(new_run(tmp_path, ["s1"]))
    file = tmp_path / "s1/cells.parquet"
    whole = parquet.read_table(file)
    file.unlink()
    file.mkdir()
    for part in range(2):
        parquet.write_table(whole.slice(part, 1), file / f"part-{part:04}.parquet")
    assert run.table() == whole and run.is_complete


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    new_run(tmp_path, ["s1"])
    shutil.rmtree(tmp_path / "s1")
    run = open_result(tmp_path)
    assert run.units == ("s1",) and not run.is_complete
    with pytest.raises(FileNotFoundError, match="needs to be the labels of a finished run"):
        run.labels()
    with pytest.raises(FileNotFoundError, match="cells.parquet needs to be the table"):
        run.table()


def test_a_run_with_a_hole_is_not_complete(tmp_path):
    new_run(tmp_path, ["s1", "s2"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "complete": False}))
    assert not open_result(tmp_path).is_complete
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "complete": True}))
    assert open_result(tmp_path).is_complete
    (tmp_path / "s2/cells.parquet").unlink()
    assert not open_result(tmp_path).is_complete


def test_the_summary_may_name_other_places(tmp_path):
    new_run(tmp_path / "run", ["s1"])
    (tmp_path / "run/s1/labels.ome.zarr").rename(tmp_path / "moved.zarr")
    summary = {"units": {"s1": {"labels": str(tmp_path / "moved.zarr")}}}
    (tmp_path / "run/summary.json").write_text(json.dumps(summary))
    run = open_result(tmp_path / "run")
    assert run.labels()[1, 1] == 41 and run.is_complete
    (tmp_path / "run/summary.json").write_text('{"units": ["s1"]}')
    assert open_result(tmp_path / "run").units == ("s1",)


def test_levels_that_are_not_there_are_refused(tmp_path):
    run = open_result(new_run(tmp_path, ["s1"]))
    for level in (-1, 2):
        with pytest.raises(ValueError, match=rf"has levels 0 to 1, asked for {level}"):
            run.labels(level=level)


def test_folders_that_are_no_finished_run_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="needs to be the folder of a run, and has no"):
        open_result(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="Name the output.dir of the experiment"):
        open_result(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match="a run that is not finished: it has no summary"):
        open_result(tmp_path)
    for content, message in (
        ("{", "cannot be read as JSON"),
        ("[]", "needs units, a name for each"),
        ("{}", "needs units, a name for each"),
    ):
        (tmp_path / "summary.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            open_result(tmp_path)
