"""What runs again after a change, what a machine or model that differs gives, what audit finds."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from cellseg_pipe.io._attributes import level_paths
from cellseg_pipe.io.tables import read_table
from cellseg_pipe.io.validate import validate
from cellseg_pipe.ledger import Corrupt, LedgerError, NotDone, Records, open_batch
from cellseg_pipe.segmentation.stored import found_from_bytes, found_to_bytes
from cellseg_pipe.stages import _digests, audit, measure, networks, paint, tables
from cellseg_pipe.stages.jobs import jobs_of, run_job
from cellseg_pipe.stages.layout import layout_of
from cellseg_pipe.stages.opened import unit_runs
from cellseg_pipe.stages.room import Room
from cellseg_pipe.stages.tiling import read_tiling
from tests.pipeline.conftest import scene
from tests.pipeline.worker import (
    TINY,
    ages,
    compare,
    experiment,
    ome_zarr,
    published,
    run,
    save_tiff,
    segment,
    shards_of,
)

TILES = {"window_px": 96, "overlap_px": 16, "batches": {"masks": 2, "paint": 2}}
AFTER_MASKS = {"masks", "number", "paint", "measure", "qc", "level1", "audit"}
EVERY = {"plan", "predict", "tiles"} | AFTER_MASKS


@pytest.fixture
def picture(tmp_path):
    return save_tiff(tmp_path / "a.tif", scene((70, 100))[0])


def chosen_of(folder, picture, **sections):
    return experiment(folder, [picture], **{"tiles": TILES, "segment": {"reach_px": 12}} | sections)


def only_unit(chosen):
    """The unit of a run that is laid out, as jobs find it."""
    layout_of(chosen)
    (unit,) = unit_runs(chosen)
    return unit


def stages_of(jobs):
    return {stage for _, stage, _ in jobs}


def summary_of(chosen):
    return json.loads((Path(chosen.output.dir) / "summary.json").read_text())


def test_what_a_change_makes_again(tmp_path, picture):
    """Also back to earlier settings, whose labels and table were replaced meanwhile."""
    first = chosen_of(tmp_path, picture)
    assert stages_of(run(first)) == EVERY
    results, before = published(first, "a"), ages(tmp_path / "out")
    assert run(first) == [] and ages(tmp_path / "out") == before
    assert summary_of(first)["complete"] and summary_of(first)["exact"]

    flagged = chosen_of(tmp_path, picture, qc={"flag": {"border": "flag"}})
    assert stages_of(run(flagged)) == {"audit"}
    table = published(flagged, "a")[1]
    np.testing.assert_array_equal(table["flagged"], table["on_border"])
    assert table["flagged"].any() and not results[1]["flagged"].any()

    fewer = chosen_of(tmp_path, picture, segment={"reach_px": 12, "cellprob_threshold": 2.0})
    assert stages_of(run(fewer)) == AFTER_MASKS | {"tiles"}
    whole = segment(
        scene((70, 100))[0], reach_px=12, cellprob_threshold=2.0, window_px=96, overlap_px=16
    )
    compare(published(fewer, "a"), whole)
    assert (published(fewer, "a")[0] != results[0]).any()

    # Cells of the first settings are still there; labels and table were replaced.
    assert stages_of(run(first)) == {"paint", "level1", "measure", "qc", "audit"}
    again = published(first, "a")
    np.testing.assert_array_equal(again[0], results[0])
    for name, column in results[1].items():
        np.testing.assert_array_equal(again[1][name], column)
    assert summary_of(first)["n_cells"] == len(results[1]["label"])
    assert run(first) == []
    assert stages_of(run(flagged)) >= {"audit"}
    np.testing.assert_array_equal(published(flagged, "a")[1]["flagged"], table["flagged"])


def test_a_summary_speaks_only_of_what_is_published(tmp_path, picture, monkeypatch):
    """Between new labels and their table a run is not complete."""
    first = chosen_of(tmp_path, picture)
    run(first)
    other = chosen_of(tmp_path, picture, segment={"reach_px": 12, "min_size_px": 100})

    def fail(*_args, **_settings):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "write_tables", fail)
        with pytest.raises(OSError, match="disk is full"):
            run(other)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not list((tmp_path / "out" / "runs").glob("finished-*.json"))
    assert stages_of(run(other)) == {"audit"}
    assert summary_of(other)["n_cells"] == len(published(other, "a")[1]["label"])


def test_changed_files_are_noticed(tmp_path, picture):
    model = shutil.copyfile(TINY, tmp_path / "m.safetensors")
    chosen = chosen_of(tmp_path, picture, targets={"n": {"model": str(model), "diameter_px": 24}})
    unit = only_unit(chosen)
    before = unit.digests
    for stage in ("plan", "predict"):
        run_job(unit, stage, batch=0)
    content = bytearray(model.read_bytes())
    content[-2] ^= 1
    model.write_bytes(content)
    os.utime(model, ns=(1, 1))
    after = only_unit(chosen).digests
    assert all(after[group] != before[group] for group in before if group != "prepare")
    # A job that was begun before the change stops.
    shutil.rmtree(unit.stage("predict").root)
    with pytest.raises(ValueError, match="was changed since it was planned"):
        run_job(unit, "predict", batch=0)
    shutil.copyfile(TINY, model)
    assert only_unit(chosen).digests == before
    save_tiff(picture, scene((70, 100), seed=4)[0])
    assert only_unit(chosen).digests["predict"] != before["predict"]
    with pytest.raises(ValueError, match="was changed since it was planned"):
        run_job(unit, "predict", batch=0)


@pytest.mark.parametrize(
    ("group", "sections"),
    [
        ("predict", {"tiles": {"window_px": 128}}),
        ("predict", {"normalise": {"percentiles": [2, 99]}}),
        ("predict", {"resources": {"precision": "bf16"}}),
        ("predict", {"segment": {"augment": True}}),
        ("masks", {"segment": {"niter": 100}}),
        ("masks", {"segment": {"resample": False}}),
        ("masks", {"stitch": {"plane_iou": 0.3}}),
        ("masks", {"stitch": {"seams": "iou"}}),
        ("masks", {"tiles": {"halo_px": 99}}),
        ("labels", {"output": {"ngff": "0.5"}}),
        ("labels", {"tiles": {"batches": {"paint": 3}}}),
        ("judged", {"qc": {"flag": {"min_probability": 0.5}}}),
        ("measure", {"measure": {"channels": []}}),
        ("audit", {"output": {"export": ["csv"]}}),
        (None, {"resources": {"threads": 1, "memory_gb": 5.0, "numerics": "relaxed"}}),
        (None, {"tiles": {"batches": {"predict": 1, "masks": 1}}}),
    ],
)
def test_what_hashes_depend_on(tmp_path, picture, group, sections):
    """A hash changes with its own settings and those upstream, and with nothing else."""
    groups = ["predict", "masks", "labels", "measure", "judged", "audit"]
    folder = {"output": {"dir": str(tmp_path / "out")} | sections.pop("output", {})}
    before = only_unit(experiment(tmp_path, [picture])).digests
    after = only_unit(experiment(tmp_path, [picture], **folder, **sections)).digests
    changed = [name for name in groups if after[name] != before[name]]
    assert changed == ([] if group is None else groups[groups.index(group) :])


def test_how_diameters_are_measured_counts_where_they_are(tmp_path, picture, monkeypatch):
    def digests():
        return [
            only_unit(
                experiment(tmp_path, [picture], targets={"nuclei": {"model": str(TINY)} | given})
            ).digests["predict"]
            for given in ({"diameter_px": 30}, {})
        ]

    before = digests()
    monkeypatch.setattr(_digests, "DIAMETER_VERSION", 99)
    after = digests()
    assert after[0] == before[0] and after[1] != before[1]


def test_axes_that_the_user_says_count(tmp_path):
    path = save_tiff(tmp_path / "a.tif", scene((2, 40, 50), preset="volume")[0][:, :40, :40])
    found = [
        only_unit(experiment(tmp_path, [{"path": str(path), "axes": axes}])).digests["predict"]
        for axes in ("cyx", "cxy")
    ]
    assert found[0] != found[1]


def test_the_overlap_of_seams_counts_where_it_is_used(tmp_path, picture):
    found = [
        only_unit(experiment(tmp_path, [picture], stitch={"seams": "iou", "seam_iou": iou})).digests
        for iou in (0.5, 0.6)
    ]
    assert found[0]["masks"] == found[1]["masks"] and found[0]["joined"] != found[1]["joined"]
    assert found[0]["labels"] != found[1]["labels"]


def test_another_arithmetic_is_refused_or_told(tmp_path, picture, monkeypatch):
    chosen = chosen_of(tmp_path, picture)
    unit = only_unit(chosen)
    run_job(unit, "plan", batch=0)
    monkeypatch.setattr(networks, "canary", lambda engine, plan: "another")
    with pytest.raises(ValueError, match=r"gives other bits than the plan.*numerics to relaxed"):
        run(chosen)
    assert not (tmp_path / "out" / "summary.json").exists()
    # What the message says helps, with the plan that is there.
    relaxed = chosen_of(tmp_path, picture, resources={"numerics": "relaxed"})
    assert "plan" not in stages_of(run(relaxed))
    said = summary_of(relaxed)
    assert said["exact"] is False
    (warning,) = said["units"]["a"]["warnings"]
    assert warning.startswith("some jobs ran as cpu ")


def test_a_damaged_shard_is_found(tmp_path, picture):
    chosen = chosen_of(tmp_path, picture)
    unit = only_unit(chosen)
    for job in jobs_of(unit):
        if job.stage != "audit":
            run_job(unit, job.stage, batch=job.batch)
    store = unit.stage("paint").labels
    shard = sorted(path for path in (store / "0").rglob("*") if path.name.isdecimal())[-1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(Corrupt, match=r"labels of Box.* are not those that were written"):
        run(chosen)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "a").exists()
    with pytest.raises(Corrupt) as error:
        run(chosen)
    for folder in str(error.value).split("Remove ")[1].split(" and start")[0].split(", "):
        shutil.rmtree(folder)  # as the message says
    assert stages_of(run(chosen)) == {"paint", "level1", "audit"}
    whole = segment(scene((70, 100))[0], reach_px=12, window_px=96, overlap_px=16)
    compare(published(chosen, "a"), whole)


def test_a_seam_that_differs_is_found(tmp_path, picture):
    chosen = chosen_of(tmp_path, picture)
    unit = only_unit(chosen)
    stages = ("plan", "predict", "tiles")
    for job in jobs_of(unit):
        if job.stage in stages:
            run_job(unit, job.stage, batch=job.batch)
    run_job(unit, "masks", batch=0)
    run_job(unit, "masks", batch=1)
    tiling = read_tiling(unit.stage("tiles"))
    records = Records(unit.stage("masks"), 2)
    stored = {key: (records.read(key), records.info(key)) for key in records.keys().tolist()}
    shutil.rmtree(unit.stage("masks").root)
    for batch in range(2):
        with open_batch(unit.stage("masks"), batch, tiling.batch(batch)) as work:
            for key in work.missing:
                blob, info = stored[key]
                found = found_from_bytes(blob)
                labels = np.roll(found.labels, 2, axis=-1)
                moved = type(found)(**vars(found) | {"labels": labels})
                blank = len(found.peak) == 0
                work.add(key, found_to_bytes(moved), blank=blank, info=info)
            work.finish()
    with pytest.raises(audit.Incomplete, match=r"cells at the seam Box.* differ between tiles"):
        run(chosen)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "a").exists()


def test_jobs_may_be_run_again(tmp_path, picture):
    """A job whose output is there leaves everything as it is, also after the labels moved."""
    chosen = chosen_of(tmp_path, picture)
    run(chosen)
    unit, before = only_unit(chosen), ages(tmp_path / "out")
    for job in jobs_of(unit):
        run_job(unit, job.stage, batch=job.batch)
    assert ages(tmp_path / "out") == before


def test_results_that_were_removed_are_missed(tmp_path, picture):
    chosen = chosen_of(tmp_path, picture)
    run(chosen)
    shutil.rmtree(tmp_path / "out" / "a" / "labels.ome.zarr")
    with pytest.raises(audit.Incomplete, match="was published and is gone") as error:
        run(chosen)
    named = str(error.value).split("Remove ")[1].split(" and start")[0].replace(" and ", ", ")
    for path in map(Path, named.split(", ")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert stages_of(run(chosen)) == {"paint", "level1", "audit"}


def test_the_table_does_not_depend_on_how_it_is_cut(tmp_path, picture, monkeypatch):
    chosen = chosen_of(tmp_path, picture, output={"dir": str(tmp_path / "out"), "export": ["csv"]})
    run(chosen)
    folder = tmp_path / "out" / "a"
    table = read_table(folder / "cells.parquet")
    as_text = read_table(folder / "cells.csv")
    assert list(as_text) == list(table) and len(table["label"]) > 3
    np.testing.assert_array_equal(as_text["label"], table["label"])
    unit = only_unit(chosen)
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(tables, "GROUPS_IN_FILE", 1)
    tables.write_tables(tmp_path / "few.parquet", measure.tables(unit))
    few = read_table(tmp_path / "few.parquet")
    n_files = len(list((tmp_path / "few.parquet").iterdir()))
    assert n_files == -(-len(table["label"]) // 2)
    for name, column in table.items():
        np.testing.assert_array_equal(few[name], column)


def test_stages_ask_for_those_before(tmp_path, picture):
    unit = only_unit(chosen_of(tmp_path, picture))
    for stage in ("plan", "tiles"):
        run_job(unit, stage, batch=0)
    with pytest.raises(NotDone, match="batch 0 of a predict is not done"):
        run_job(unit, "masks", batch=0)
    with pytest.raises(ValueError, match="there is no stage 'mask'"):
        run_job(unit, "mask", batch=0)


def test_a_store_is_made_once(tmp_path, picture, monkeypatch):
    """Of two jobs that make it at once the second finds it there."""
    unit = only_unit(chosen_of(tmp_path, picture))
    paint.create_store(unit)
    store = unit.stage("paint").labels
    before = ages(store)
    paint.create_store(unit)
    moved = store.with_name("aside")
    store.rename(moved)
    real = paint.create_label_pyramid

    def slowly(*args, **settings):
        real(*args, **settings)  # another job was quicker
        real(*args, **settings)

    monkeypatch.setattr(paint, "create_label_pyramid", slowly)
    paint.create_store(unit)
    assert set(ages(store)) == set(before)


def test_labels_are_stored_with_place_and_size(tmp_path):
    image = zarr.create_group(tmp_path / "a.ome.zarr", zarr_format=2)
    image.create_array("0", data=scene((40, 60))[0], chunks=(32, 32))
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    steps = [
        {"type": "scale", "scale": [0.5, 0.5]},
        {"type": "translation", "translation": [10.0, 20.0]},
    ]
    dataset = {"path": "0", "coordinateTransformations": steps}
    image.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [dataset]}]
    chosen = chosen_of(tmp_path, tmp_path / "a.ome.zarr")
    run(chosen)
    labels = zarr.open_group(tmp_path / "out" / "a" / "labels.ome.zarr", mode="r")
    found = labels.attrs["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert found == steps
    whole = segment(
        scene((40, 60))[0], reach_px=12, window_px=96, overlap_px=16, spacing_um=(0.5, 0.5)
    )
    compare(published(chosen, "a"), whole)
    assert shards_of(tmp_path / "out" / "a")


def test_errors_name_the_place():
    from cellseg_pipe.stages.tiles import naming

    for error in (ValueError("bad"), MemoryError("bad"), LedgerError("bad")):
        with pytest.raises(type(error), match="tile 3: bad"), naming("tile 3"):
            raise error
    with pytest.raises(OSError, match=r"tile 3: No space.*'/x'") as found, naming("tile 3"):
        raise OSError(28, "No space", "/x")
    assert found.value.errno == 28
    with pytest.raises(KeyError), naming("tile 3"):
        raise KeyError(1)


@pytest.mark.parametrize("version", [2, 3])
def test_labels_in_the_image_do_not_change_it(tmp_path, version):
    """A run that adds labels to its image does not take it for another one later."""
    store = ome_zarr(tmp_path / "a.zarr", scene((40, 60))[0], version)
    if version == 3:
        with pytest.warns(UserWarning, match="Consolidated metadata"):
            zarr.consolidate_metadata(store)
    else:
        zarr.consolidate_metadata(store)
    output = {"dir": str(tmp_path / "out"), "into_image": True}
    chosen = chosen_of(tmp_path, store, output=output)
    assert "audit" in stages_of(run(chosen))
    inside = zarr.open_array(str(store / "labels" / "nuclei" / "0"), mode="r")
    np.testing.assert_array_equal(inside[...], published(chosen, "a")[0])
    assert run(chosen) == []


def test_an_image_that_cannot_take_its_labels_is_refused_before_any_work(tmp_path):
    store = ome_zarr(tmp_path / "a.zarr", scene((40, 60))[0], 3)
    output = {"dir": str(tmp_path / "out"), "into_image": True}
    with pytest.raises(ValueError, match=r"labels are OME-Zarr 0\.4 and .* is 0\.5"):
        layout_of(chosen_of(tmp_path, store, output={**output, "ngff": "0.4"}))
    assert not (tmp_path / "out").exists()


def test_labels_in_an_image_have_its_levels(tmp_path):
    store = ome_zarr(tmp_path / "a.zarr", scene((40, 550))[0], 2)  # of one level, ours have more
    out = {"dir": str(tmp_path / "out")}
    run(chosen_of(tmp_path, store, output=out))
    assert len(level_paths(tmp_path / "out" / "a" / "labels.ome.zarr")) > 1
    run(chosen_of(tmp_path, store, output={**out, "into_image": True}))
    assert level_paths(store / "labels" / "nuclei") == ["0"]
    assert [found for found in validate(str(store)) if found.level == "error"] == []


def test_a_copy_that_does_not_fit_is_refused_before_it_is_begun(tmp_path, picture, monkeypatch):
    path = tmp_path / "one_strip.tif"
    tifffile.imwrite(path, tifffile.imread(picture), compression="zlib")
    monkeypatch.setattr("cellseg_pipe.stages.unit.READ_WHOLE_BYTES", 0)
    there = Room(tmp_path, free_bytes=1000, free_files=None)
    monkeypatch.setattr("cellseg_pipe.stages.prepare.room_in", lambda folder: there)
    chosen = chosen_of(tmp_path, path)
    unit = only_unit(chosen)
    with pytest.raises(ValueError, match=r"the disk has 0\.00 GB"):
        run_job(unit, "prepare", batch=0)
    assert not unit.copy.exists()
    there = replace(there, free_bytes=10**9)
    run_job(unit, "prepare", batch=0)
    assert unit.copy.exists()


def test_cores_that_are_no_whole_blocks_are_refused_before_any_work(tmp_path, picture):
    chosen = chosen_of(tmp_path, picture, tiles={"core_px": 40})
    with pytest.raises(ValueError, match=r"^a: tiles.core_px needs multiples of \(32, 48\)"):
        list(unit_runs(chosen))
