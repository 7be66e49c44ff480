"""Puts together the table of simulated cells: python tests/nightly/tables.py [--cells N].

Tiles of 8,464 cells, measured once in two channels and stored under other labels again and again by
the real writers: planes with each cell through ten of them, planes joined by IoU, and tiles joined
by IoU that share a row of cells with the next one. Then what `audit` does to publish the table runs
in a process of its own, for a quarter of the cells and for all of them. Prints a line of JSON for
each: seconds and the largest memory. Exits 1 if a cell is missing or twice, or if four times the
cells take more than 1.3 times the memory.
"""

import argparse
import dataclasses
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from pyarrow import dataset

sys.path.insert(0, str(Path(__file__).parents[2]))

from cellseg_pipe.config import experiment_of
from cellseg_pipe.geometry import Box
from cellseg_pipe.ledger import Sync, open_batch
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.segmentation import ImageSource, Rows, Settings, make_plan
from cellseg_pipe.segmentation.frozen import plan_to_json
from cellseg_pipe.segmentation.measuring import View
from cellseg_pipe.segmentation.stored import tables_to_bytes
from cellseg_pipe.stages.measure import tables
from cellseg_pipe.stages.spans import reach_of
from cellseg_pipe.stages.tables import write_tables
from cellseg_pipe.stages.tiling import read_tiling, write_plan
from cellseg_pipe.stages.views import measurer_of

EDGE, PITCH, CELL = 2048, 22, 18  # px: of tiles, from cell to cell, of a cell
THROUGH, SHARED = 10, 92  # planes of a cell; cells that a tile joined by IoU and the next one see
MOST_GROWTH = 1.3
SELDOM = Sync(every_tiles=1 << 20, every_s=1e9)
TIFF = {"images": [{"path": "a.tif"}], "targets": {"cells": {}}}


class Network:
    """What a plan asks of a network."""

    ndim, n_inputs, n_outputs, divisor = 2, 2, 3, 8


def unit_of(folder, shape, seams):
    """What the stages ask of a unit."""
    paths = RunPaths(folder).unit("s")
    said = TIFF | {"output": {"dir": str(folder)}, "stitch": {"seams": seams}}
    image = SimpleNamespace(n_channels=2, channel_names=("DAPI", "GFP"), shape=shape, dtype="u2")
    return SimpleNamespace(
        experiment=experiment_of(said),
        stage=lambda name: paths.stage(name, "0" * 12),
        image=image,
        spacing_um=None,
        relation=None,
        sources=(),
        is_series=False,
    )


def write_tiling(unit, shape, seams):
    source = ImageSource(shape, 2, lambda box: np.zeros((2, *box.shape), np.uint16))
    settings = Settings(
        diameter_px=30.0, normalise="off", mode="planes" if len(shape) == 3 else "2d"
    )
    plan = make_plan(source, settings, network=Network, diameter_px=30.0, network_diameter_px=30.0)
    core = (1, EDGE, EDGE)[-len(shape) :]
    facts = {"block": core, "core": core, "halo": (0, 32, 32)[-len(shape) :], "seams": seams}
    facts |= {"n_predict": 1, "n_masks": 1, "region": None, "plan": plan_to_json(plan)}
    write_plan(unit.stage("tiles").plan, facts)


def measured_tile(unit, plan):
    """Return what is measured of a tile of squares, and what the network says of them."""
    plane = np.zeros((EDGE, EDGE), np.uint32)
    per_axis = (EDGE - CELL) // PITCH
    for k, (y, x) in enumerate(np.ndindex(per_axis, per_axis)):
        plane[y * PITCH : y * PITCH + CELL, x * PITCH : x * PITCH + CELL] = k + 1
    labels = plane if len(plan.shape) == 2 else plane[None]
    pixels = np.random.default_rng(0).integers(0, 999, (2, *labels.shape), np.uint16)
    box, ids = Box.of(labels.shape), np.arange(1, per_axis**2 + 1, dtype=np.uint32)
    measurer = measurer_of(unit, plan)
    measured = measurer.view(View(box, labels, pixels, box, box), ids)
    floats, peak = np.full(len(ids), 0.1), np.zeros((len(ids), len(plan.shape)), np.int64)
    area = np.full(len(ids), CELL**2)
    return measured, Rows(ids, area, floats, floats, np.zeros((len(ids), 0)), floats, floats, peak)


def shifted(table, by):
    """Return a table with labels that are so much higher."""
    return dataclasses.replace(table, label=(table.label + by).astype(np.uint32))


def write_tiles(folder, shape, seams):
    """Write what `measure` would; return how many cells there are."""
    unit = unit_of(folder, shape, seams)
    write_tiling(unit, shape, seams)
    tiling = read_tiling(unit.stage("tiles"))
    measured, rows = measured_tile(unit, tiling.plan)
    with open_batch(unit.stage("measure"), 0, tiling.batch(0), sync=SELDOM) as work:
        for tile in work.missing:
            planes = len(shape) == 3
            first = len(rows.id) * (tile // THROUGH) if planes else (len(rows.id) - SHARED) * tile
            tallies = ("sums", "contours", "texture", "ring", "corners")
            parts = vars(measured) | {
                name: shifted(getattr(measured, name), first) for name in tallies
            }
            ids = (rows.id + first).astype(np.uint32)
            own = dataclasses.replace(rows, id=ids).take(
                slice(0 if planes or not tile else SHARED, None)
            )
            work.add(tile, tables_to_bytes(rows=own, **parts), info=reach_of(ids))
        work.finish()
    return int(ids[-1])


def write_table(folder, shape, seams):
    """Put the table together; return seconds and the largest memory."""
    began = time.monotonic()
    write_tables(folder / "cells.parquet", tables(unit_of(folder, shape, seams)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return time.monotonic() - began, peak


def measured(mode, seams, n_cells, folder):
    n_tiles = max(1, round(n_cells / ((EDGE - CELL) // PITCH) ** 2))
    shape = (n_tiles * THROUGH, EDGE, EDGE) if mode == "planes" else (EDGE * n_tiles, EDGE)
    call = (folder, shape, seams)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        there = pool.apply(write_tiles, call)
    with context.Pool(1) as pool:
        seconds, peak = pool.apply(write_table, call)
    table = dataset.dataset(folder / "cells.parquet")
    label = table.to_table(columns=["label"])["label"].to_numpy()
    return {
        "mode": mode,
        "seams": seams,
        "cells": there,
        "seconds": round(seconds, 1),
        "peak_gb": round(peak / 1e9, 2),
        "right": bool(np.array_equal(label, np.arange(1, there + 1))),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=800_000)
    parser.add_argument("--folder", type=Path, help="for what is simulated; removed after")
    asked = parser.parse_args()
    right = True
    for mode, seams in (("planes", "exact"), ("planes", "iou"), ("2d", "iou")):
        peaks = []
        for n_cells in (asked.cells // 4, asked.cells):
            with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
                found = measured(mode, seams, n_cells, Path(folder))
            print(json.dumps(found), flush=True)
            right &= found["right"]
            peaks.append(found["peak_gb"])
        right &= peaks[1] < MOST_GROWTH * peaks[0]
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
