"""Numbers 10^8 simulated cells: python tests/nightly/numbering.py [--cells N] [--folder DIR].

Tiles of 2048 px with 1,600 cells each, of which only what numbering reads is written, by the real
writers: with exact seams the counts of blocks, with seams joined by IoU the cells of each window
and the pairs of cells that two windows show, neighbours that touch among them. Then the stage runs
in a process of its own. Prints a line of JSON for each: seconds and the largest memory. Exits 1 if
a cell has no number or two, or if the stage took more than 4 GB.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.packing import unpack
from cellseg_pipe.kernels import Overlaps
from cellseg_pipe.ledger import Records, Sync, open_batch
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.segmentation import ImageSource, Settings, make_plan
from cellseg_pipe.segmentation.frozen import plan_to_json
from cellseg_pipe.segmentation.seams import Nodes, SeamTable, part_from_bytes, seams_to_bytes
from cellseg_pipe.segmentation.stored import found_to_bytes
from cellseg_pipe.segmentation.tiled import Found
from cellseg_pipe.stages import number
from cellseg_pipe.stages.tiling import read_tiling, write_plan

CORE, HALO, PITCH, AREA = 2048, 32, 51, 1600
LIMIT_BYTES = 4e9
N_BATCHES = 16
STAGES = ("tiles", "masks", "seams", "number")
SELDOM = Sync(every_tiles=1 << 20, every_s=1e9)


class Network:
    """What a plan asks of a network."""

    ndim, n_inputs, n_outputs, divisor = 2, 1, 3, 8


def stages(folder):
    unit = RunPaths(folder).unit("s")
    return {stage: unit.stage(stage, "0" * 12) for stage in STAGES}


def write_tiling(folder, edge, seams):
    source = ImageSource((edge, edge), 1, lambda box: np.zeros((1, *box.shape), np.uint16))
    plan = make_plan(
        source,
        Settings(diameter_px=45.0, normalise="off"),
        network=Network,
        diameter_px=45.0,
        network_diameter_px=45.0,
    )
    facts = {"block": (1, 1), "core": (CORE, CORE), "halo": (HALO, HALO), "seams": seams}
    facts |= {"n_predict": 1, "n_masks": N_BATCHES, "region": None, "plan": plan_to_json(plan)}
    write_plan(stages(folder)["tiles"].plan, facts)


def cells_in(box):
    """Return row and column of all cells whose middle lies in a box, and the middle."""
    low, high = (np.asarray(edge) for edge in (box.start, box.stop))
    lines = [
        np.arange(max(a // PITCH - 1, 0), b // PITCH + 1) for a, b in zip(low, high, strict=True)
    ]
    cell = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    # Middles are moved by up to 8 px, the same for all tiles that see the cell.
    moved = (cell * (7919, 104729) + cell[:, ::-1] * (31, 17)) % 17 - 8
    middle = cell * PITCH + PITCH // 2 + moved
    inside = ((middle >= low) & (middle < high)).all(axis=1)
    cell, middle = cell[inside], middle[inside]
    order = np.lexsort(middle.T[::-1])
    return cell[order], middle[order]


def nodes_of(tile, middle):
    inner = ((middle >= tile.core.start) & (middle < tile.core.stop)).all(axis=1)
    n = len(middle)
    return Nodes(
        number=tile.number,
        peak=middle,
        anchor=middle,
        size=np.full(n, AREA),
        core_size=np.where(inner, AREA, 0),
        complete=np.ones(n, bool),
        kept=np.ones(n, bool),
        on_border=np.zeros(n, bool),
    )


def table_of(tile, other, cells):
    """Return what two windows show: each cell itself, and the next one, which it touches."""
    shared = other.outer.clip(tile.outer)
    rows, keys = [], []
    for cell, middle in cells:
        here = np.flatnonzero(((middle >= shared.start) & (middle < shared.stop)).all(axis=1))
        rows.append(here)
        keys.append(cell[here, 0] * (1 << 20) + cell[here, 1])
    found = []
    for step, in_both in ((0, AREA - 40), (1, 12)):
        _, left, right = np.intersect1d(keys[0] + step, keys[1], return_indices=True)
        counts = np.broadcast_to((in_both, 2 * AREA - in_both), (len(left), 2))
        found.append(np.column_stack([rows[0][left] + 1, rows[1][right] + 1, counts]))
    pairs = np.concatenate(found)
    left, right, shared_px, union = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].T.copy()
    overlaps = Overlaps(left.astype(np.uint32), right.astype(np.uint32), shared_px, union)
    return SeamTable(tile.number, other.number, overlaps, shared_px // 2, np.zeros_like(left))


def seams_of(tiles, number):
    tile = tiles.tile(number)
    cell, middle = cells_in(tile.outer)
    others = [tiles.tile(n) for n in tiles.cores.over(tile.outer.grow(tiles.halo)) if n > number]
    tables = [
        table_of(tile, other, [(cell, middle), cells_in(other.outer)])
        for other in others
        if other.outer.meets(tile.outer)
    ]
    return seams_to_bytes(nodes_of(tile, middle), tables), {}


def found_of(tiles, number):
    tile = tiles.tile(number)
    _, middle = cells_in(tile.core)
    n, none = len(middle), np.zeros(0, np.int64)
    floats, flags = np.zeros(n), np.ones(n, bool)
    found = Found(
        box=Box(tile.core.start, tile.core.start),
        labels=np.zeros((0, 0), np.uint32),
        claim_index=none,
        claim_label=none.astype(np.uint32),
        peak=middle,
        area=np.full(n, AREA),
        flow_error=floats,
        logit=floats,
        spread=floats,
        seen_again=floats,
        class_logit=np.zeros((n, 0)),
        on_border=~flags,
        kept=flags,
        n_too_far=0,
        n_over_edge=0,
    )
    return found_to_bytes(found), {"n_cells": n, "blocks": [number], "counts": [n]}


def write_batch(folder, stage, batch):
    """Write the tiles of one batch; return how many cells have their middle in them."""
    paths = stages(folder)
    tiling = read_tiling(paths["tiles"])
    make, n_cells = {"masks": found_of, "seams": seams_of}[stage], 0
    with open_batch(paths[stage], batch, tiling.batch(batch), sync=SELDOM) as work:
        for tile in work.missing:
            blob, info = make(tiling.tiles, tile)
            work.add(tile, blob, info=info)
            n_cells += len(cells_in(tiling.tiles.tile(tile).core)[0])
        work.finish()
    return n_cells


def number_cells(folder):
    """Run the stage; return seconds, seconds of CPU and the largest memory."""
    paths, began = stages(folder), time.monotonic()
    number.run(
        paths["tiles"],
        paths["masks"],
        paths["number"],
        seams_paths=paths["seams"],
        seam_iou=0.5,
    )
    took, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def numbers_given(folder, seams):
    """Return how many cells have a number, and the highest."""
    paths = stages(folder)
    n_tiles, records = len(read_tiling(paths["tiles"]).tiles), Records(paths["number"], 1)
    if seams == "exact":
        first = unpack(records.read(0))[0]["first"]
        counts = dict.fromkeys(range(n_tiles), 0)
        for _, info in Records(paths["masks"], N_BATCHES).infos():
            counts[info["blocks"][0]] += info["counts"][0]
        ends = first + [counts[block] for block in range(n_tiles)]
        return int(sum(counts.values())) * bool((ends[:-1] == first[1:]).all()), int(ends[-1]) - 1
    total = highest = 0
    for tile in range(n_tiles):
        part = part_from_bytes(records.read(tile))
        own = part.id[part.owner & (part.id > 0)]
        total, highest = total + len(own), max(highest, int(own.max(initial=0)))
    return total, highest


def measured(n_cells, seams, folder, processes):
    per_axis = max(2, round((n_cells / (CORE / PITCH) ** 2) ** 0.5))
    edge = per_axis * CORE
    write_tiling(folder, edge, seams)
    stage = "masks" if seams == "exact" else "seams"
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        calls = [(folder, stage, batch) for batch in range(N_BATCHES)]
        there = sum(pool.starmap(write_batch, calls, chunksize=1))
    with context.Pool(1) as pool:
        seconds, cpu_s, peak = pool.apply(number_cells, (folder,))
    given, highest = numbers_given(folder, seams)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "seams": seams,
        "tiles": per_axis**2,
        "cells": there,
        "numbered": given,
        "highest": highest,
        "seconds": round(seconds, 1),
        "cpu_s": round(cpu_s, 1),
        "peak_gb": round(peak / 1e9, 2),
        "disk_gb": round(size / 1e9, 2),
        "right": there == given == highest and peak < LIMIT_BYTES,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000_000)
    parser.add_argument("--seams", choices=("exact", "iou"))
    parser.add_argument("--folder", type=Path, help="for what is simulated; removed after")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    wrong = False
    for seams in [asked.seams] if asked.seams else ["exact", "iou"]:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            found = measured(asked.cells, seams, Path(folder), asked.processes)
        print(json.dumps(found), flush=True)
        wrong |= not found["right"]
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
