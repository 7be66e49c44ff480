"""Runs of the pipeline with small blocks, shards and boxes, so that a small image has many tiles.

Here, in other processes, and in some that are killed.
"""

import hashlib
import importlib
import logging
import multiprocessing
import os
import signal
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
import torch
import zarr

import cellseg_pipe as cs
from cellseg_pipe.config import dump, experiment_of, load_experiment
from cellseg_pipe.engines import process
from cellseg_pipe.io import levels
from cellseg_pipe.io.tables import read_table
from cellseg_pipe.ledger import Batch, _claims, _crash
from cellseg_pipe.segmentation.tiled import BLOCK_PX
from cellseg_pipe.stages import measure, spans, tables
from cellseg_pipe.stages.jobs import jobs_of
from cellseg_pipe.stages.layout import layout_of
from cellseg_pipe.stages.named_jobs import finish, run_one
from cellseg_pipe.stages.opened import unit_runs
from cellseg_pipe.stages.unit import PAINT_PX

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"
SMALL = (
    (BLOCK_PX, {"2d": (32, 48), "planes": (1, 32, 48), "3d": (16, 32, 32)}),
    (PAINT_PX, {"2d": (64, 64), "planes": (16, 64, 64), "3d": (16, 32, 32)}),
    (levels.CHUNK_PX, {2: (16, 16), 3: (8, 16, 16)}),
    (levels.SHARD_PX, {2: (32, 32), 3: (16, 32, 32)}),
)
# What audits put together at once: few cells, so that they take several turns.
AT_ONCE = (
    (measure, "CELLS_AT_ONCE", 5),
    (tables, "OUTLINED_AT_ONCE", 3),
    (spans, "GAP", 1),
    (tables, "POLYGONS_PX", 50),
)
TOP_PX = 64


@contextmanager
def small_tiles():
    """Make everything small for a while."""
    before = [dict(known) for known, _ in SMALL]
    runs = [getattr(module, name) for module, name, _ in AT_ONCE]
    rest = levels.TOP_PX, _claims.GRACE_S, os.fsync, torch.get_num_threads()
    shrink()
    try:
        yield
    finally:
        for (known, _), old in zip(SMALL, before, strict=True):
            known.update(old)
        for (module, name, _), old in zip(AT_ONCE, runs, strict=True):
            setattr(module, name, old)
        levels.TOP_PX, _claims.GRACE_S, os.fsync = rest[:3]
        torch.set_num_threads(rest[3])


def shrink():
    """Make everything small in this process, and quick: nothing here outlives a power cut."""
    for known, small in SMALL:
        known.update(small)
    for module, name, few in AT_ONCE:
        setattr(module, name, few)
    levels.TOP_PX = TOP_PX
    _claims.GRACE_S = 0.05  # what a claim that nobody filled is waited for
    os.fsync = lambda handle: None
    torch.set_num_threads(1)


def experiment(folder, images, **sections):
    """An experiment of images, with what is changed in its sections."""
    said = {
        "images": [i if isinstance(i, dict) else {"path": str(i)} for i in images],
        "output": {"dir": str(Path(folder) / "out")},
        "targets": {"nuclei": {"model": str(TINY), "diameter_px": 24}},
        "engine": "process",
    }
    return experiment_of(said | sections)


def config_of(chosen, path):
    """Write an experiment down, as processes read it."""
    path.write_text(dump(chosen))
    return path


def run(chosen, **settings):
    """Run all of it in this process; return the jobs that ran."""
    ran = []
    process.run(chosen, on_job=lambda unit, job: ran.append((unit.name, job.stage, job.batch)))
    return ran


def run_in(pool, chosen, config, *, order, threads):
    """Run the jobs of each stage side by side, in an order; then sum up here."""
    layout_of(chosen)
    for unit in unit_runs(chosen):
        jobs = list(jobs_of(unit))
        for stage in dict.fromkeys(job.stage for job in jobs):
            batches = [job.batch for job in jobs if job.stage == stage]
            order.shuffle(batches)
            calls = [
                pool.apply_async(
                    one_job, (str(config), unit.name, stage, batch, threads[batch % len(threads)])
                )
                for batch in batches
            ]
            for call in calls:
                call.get(timeout=600)
    finish(layout_of(chosen).config)


def one_job(config, unit, stage, batch, threads):
    """One job, as a process of a pool."""
    run_one(config, unit, stage, batch=batch, threads=threads)


def begin(crash=""):
    """Make a process that was just started ready."""
    warnings.simplefilter("error")
    logging.disable(logging.WARNING)
    os.environ["CELLSEG_CRASH"] = crash
    importlib.reload(_crash)  # whose functions others hold: they see the new name
    shrink()


def whole_run(config, crash, patch, log):
    """All jobs of an experiment, in a process that may be killed; the log has what it computes."""
    begin(crash)
    real, handle = Batch.add, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, key, *args, **settings):
        os.write(handle, f"{self._title} {key}\n".encode())
        real(self, key, *args, **settings)

    Batch.add = add
    if patch:
        patch[0](*patch[1:])
    process.run(load_experiment(config))


def context():
    """Processes that begin with all modules loaded."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.pipeline.worker"])
    return found


def killed_run(config, crash, patch, log):
    """Run in a process of its own; return whether it was killed."""
    child = context().Process(target=whole_run, args=(str(config), crash, patch, log))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode != 0


def published(chosen, unit):
    """Labels and table of a unit."""
    folder = Path(chosen.output.dir) / unit
    labels = zarr.open_array(str(folder / "labels.ome.zarr" / "0"), mode="r")
    return np.asarray(labels[...]), read_table(folder / "cells.parquet")


def compare(found, expected):
    """Assert that labels and table are those of a segmentation in memory."""
    labels, table = found
    np.testing.assert_array_equal(labels, expected.labels)
    assert set(expected.table) <= set(table)
    for name, column in expected.table.items():
        assert table[name].dtype == column.dtype, name
        np.testing.assert_array_equal(table[name], column, err_msg=name)


def save_tiff(path, image):
    """Write an image without compression, as most are."""
    tifffile.imwrite(path, image, photometric="minisblack")
    return path


def segment(image, **settings):
    """The image as one tile in memory."""
    return cs.segment(image, **{"model": TINY, "diameter_px": 24} | settings)


def shards_of(folder):
    """What is stored of the labels in a unit's folder: checksums by file."""
    store = folder / "labels.ome.zarr"
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file() and path.name[0].isdigit()
    }


def results_of(folder):
    """Everything in a unit's folder: checksums by file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def ages(folder):
    """When files were written, but for the lock and layout, which a start takes up, and logs."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
        and not {".locks", "logs"} & set(path.parts)
        and not path.name.startswith("layout-")
    }


def ome_zarr(folder, image, version):
    """An image in chunks of 32 px."""
    group = zarr.create_group(folder, zarr_format=version)
    group.create_array("0", data=image, chunks=(32, 32))
    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = {"type": "scale", "scale": [1.0, 1.0]}
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    about = {"multiscales": [{"axes": axes, "datasets": datasets}]}
    if version == 3:
        group.attrs["ome"] = about | {"version": "0.5"}
    else:
        about["multiscales"][0]["version"] = "0.4"
        group.attrs.update(about)
    return folder
