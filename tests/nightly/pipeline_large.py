"""Tiled equals whole at sizes that a test cannot take: python tests/nightly/pipeline_large.py.

By default 8192 x 8192 px in 2D and 128 x 1024 x 1024 in 3D, synthetic; `--shape` takes another. The
image is segmented in memory by `cellseg_pipe.segment` and by the pipeline, with jobs of each stage
side by side in an order of chance; labels and table have to be equal to the last bit. Prints a line
of JSON per image with times, rates and the largest memory of the processes; exits 1 if one differs,
or if a job took more memory than the plan said.
"""

import argparse
import json
import multiprocessing
import random
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).parents[2]))

import cellseg_pipe as cs
from cellseg_pipe.config import dump, experiment_of
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.result import open_result
from cellseg_pipe.io.tables import read_table
from cellseg_pipe.stages.jobs import jobs_of
from cellseg_pipe.stages.layout import layout_of
from cellseg_pipe.stages.named_jobs import finish, run_one
from cellseg_pipe.stages.opened import unit_runs
from cellseg_pipe.synth import PRESETS, render

SHAPES = ((8192, 8192), (128, 1024, 1024))
TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"
MODES = {2: ("2d",), 3: ("3d", "planes")}


def picture(path, shape, diameter_px):
    """Render an image block by block into a file that is mapped."""
    preset = replace(PRESETS["nuclei" if len(shape) == 2 else "volume"], shape=shape)
    spec = replace(preset, diameter_px=diameter_px, seed=11, anisotropy=1.0)
    image = tifffile.memmap(path, shape=shape, dtype=np.uint16, photometric="minisblack")
    edge = (1024, 1024) if len(shape) == 2 else (64, 256, 256)
    for block in Box.of(shape).cells(edge).points():
        start = tuple(i * e for i, e in zip(block, edge, strict=True))
        box = Box(start, tuple(a + e for a, e in zip(start, edge, strict=True))).clip(Box.of(shape))
        image[box.slices] = render(spec, box).image[0]
    image.flush()
    return image


def in_pieces(chosen, config, n_processes):
    """Run all jobs, those of a stage side by side."""
    layout_of(chosen)
    order = random.Random(0)
    # Each job in a process of its own, as on a cluster: its memory is its own.
    with multiprocessing.get_context("spawn").Pool(n_processes, maxtasksperchild=1) as pool:
        for unit in unit_runs(chosen):
            jobs = list(jobs_of(unit))
            for stage in dict.fromkeys(job.stage for job in jobs):
                batches = [job.batch for job in jobs if job.stage == stage]
                order.shuffle(batches)
                began = time.monotonic()
                calls = [
                    pool.apply_async(one_job, (config, unit.name, stage, batch))
                    for batch in batches
                ]
                peaks = [call.get() for call in calls]
                took = time.monotonic() - began
                print(f"  {stage}: {len(batches)} jobs, {took:.1f} s, {max(peaks):.2f} GB")
                yield stage, took, max(peaks)
    finish(layout_of(chosen).config)


def one_job(config, unit, stage, batch):
    """Run a job; return its largest memory in GB."""
    run_one(config, unit, stage, batch=batch, threads=1)
    # What getrusage tells counts from before the program was loaded: it is that of the parent.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024 / 1e9


def differences(folder, whole):
    """Return what differs: nothing, if all is right."""
    found = []
    labels = np.asarray(open_result(folder).labels()[...])
    if not np.array_equal(labels, whole.labels):
        found.append(f"{np.count_nonzero(labels != whole.labels)} labels")
    table = read_table(folder / "a" / "cells.parquet")
    for name, column in whole.table.items():
        if not np.array_equal(table[name], column, equal_nan=column.dtype.kind == "f"):
            found.append(f"column {name}")
    return found


def exceeding(folder, stages):
    """Return the stages whose jobs took more memory than was said, in GB."""
    plan = json.loads((folder / "plan.json").read_text())["a"]["tiles"]["predicted"]
    said = {cost["stage"]: cost["memory_bytes"] / 1e9 for cost in plan}
    both = {stage: [stages[stage][1], round(gb, 3)] for stage, gb in said.items()}
    return {stage: pair for stage, pair in both.items() if pair[0] > pair[1]}


def compare(shape, mode, *, model, processes, folder):
    """Segment an image both ways."""
    said = {"mode": mode, "reach_px": 24}
    path = folder / "a.tif"
    image = picture(path, shape, 24)
    axes = "zyx"[-len(shape) :]
    began = time.monotonic()
    whole = cs.segment(image, model=model, diameter_px=24, axes=axes, threads=processes, **said)
    whole_s = time.monotonic() - began
    chosen = experiment_of(
        {
            "images": [{"path": str(path), "axes": axes}],
            "output": {"dir": str(folder / "out")},
            "targets": {"nuclei": {"model": str(model), "diameter_px": 24}},
            "segment": said,
            "tiles": {"batches": {"predict": 4, "masks": 5, "paint": 3}},
        }
    )
    config = folder / "a.yaml"
    config.write_text(dump(chosen))
    began = time.monotonic()
    stages = {stage: [took, peak] for stage, took, peak in in_pieces(chosen, config, processes)}
    tiled_s = time.monotonic() - began
    return {
        "shape": shape,
        "mode": mode,
        "n_cells": whole.n_cells,
        "whole_s": round(whole_s, 1),
        "tiled_s": round(tiled_s, 1),
        "rate_of_whole": round(whole_s / tiled_s, 3),
        "peak_gb": round(max(peak for _, peak in stages.values()), 3),
        "more_memory_than_said": exceeding(folder / "out", stages),
        "differs": differences(folder / "out", whole),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", help="such as 4096,4096; by default two large ones")
    parser.add_argument("--model", type=Path, default=TINY)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    shapes = [tuple(map(int, asked.shape.split(",")))] if asked.shape else SHAPES
    wrong = False
    for shape in shapes:
        for mode in MODES[len(shape)]:
            with tempfile.TemporaryDirectory() as folder:
                found = compare(
                    shape,
                    mode,
                    model=asked.model,
                    processes=asked.processes,
                    folder=Path(folder),
                )
            print(json.dumps(found), flush=True)
            wrong |= bool(found["differs"] or found["more_memory_than_said"])
            wrong |= found["n_cells"] == 0
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
