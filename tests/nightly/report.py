"""The report of a slide with a million cells: its size, its time, its memory.

    python tests/nightly/report.py [N_CELLS]

Makes the results of such a run (table, blocks, labels and image with cells in a corner) without
running it, then `cellseg report` in a process of its own, and fails above 15 MB, 60 s of CPU or
2 GB.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import zarr
from pyarrow import parquet

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.tables import write_table
from cellseg_pipe.synth import PRESETS, render

EDGE, PART, BLOCK = 32_768, 1 << 20, 256
MOST_BYTES, MOST_S, MOST_MEMORY = 15e6, 60, 2e9


def main(n_cells):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "slide"
        make(root, n_cells)
        subprocess.run([sys.executable, "-m", "cellseg_pipe.cli", "report", str(root)], check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        n_bytes = os.path.getsize(root / "report.html")
    seconds, memory = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
    print(f"{n_cells} cells: {n_bytes / 1e6:.2f} MB, {seconds:.1f} s of CPU, {memory / 1e9:.2f} GB")
    assert n_bytes < MOST_BYTES and seconds < MOST_S and memory < MOST_MEMORY


def make(root, n_cells):
    unit = root / "slide"
    (unit / "cells.parquet").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, first in enumerate(range(0, n_cells, PART)):
        n = min(PART, n_cells - first)
        area = rng.gamma(9, 60, n)
        columns = {
            "label": np.arange(first + 1, first + n + 1), "y_px": rng.uniform(0, EDGE - 1, n),
            "x_px": rng.uniform(0, EDGE - 1, n), "area_px": area.astype(np.int64),
            "area_um2": area / 4, "diameter_px": 2 * np.sqrt(area / np.pi),
            "diameter_um": np.sqrt(area / np.pi), "confidence": rng.beta(9, 1, n),
            "probability": rng.beta(20, 1, n), "flow_error": rng.gamma(2, 0.03, n),
            **{f"mean_{k}": rng.gamma(5, 300, n) for k in range(4)},
        }  # fmt: skip
        parquet.write_table(pa.table(columns), unit / "cells.parquet" / f"{part}.parquet")
    drawn = render(PRESETS["nuclei"], Box((0, 0), (1024, 1024)))
    store(root / "image.ome.zarr", drawn.image[0], "uint16")
    store(unit / "labels.ome.zarr", drawn.labels, "uint32")
    blocks(unit / "qc.parquet", rng)
    verdict = {"about": "focus", "level": "ok", "text": "0.0 % of the image is out of focus"}
    facts = {
        "image": str(root / "image.ome.zarr"), "target": "nuclei", "mode": "2d", "axes": "yx",
        "labels": "slide/labels.ome.zarr", "table": "slide/cells.parquet", "models": [],
        "shape": [EDGE, EDGE], "spacing_um": [0.5, 0.5], "n_cells": n_cells, "exact": True,
        "qc": {"level": "ok", "verdicts": [verdict]}, "numerics": [], "warnings": [],
    }  # fmt: skip
    summary = {"version": "0", "complete": True, "exact": True, "n_cells": n_cells, "failed": {}}
    (root / "summary.json").write_text(json.dumps(summary | {"units": {"slide": facts}}))


def store(path, corner, dtype):
    """Write an image of which only a corner holds anything."""
    group = zarr.create_group(path, zarr_format=2)
    array = group.create_array("0", shape=(EDGE, EDGE), chunks=(1024, 1024), dtype=dtype)
    array[:1024, :1024] = corner
    small = group.create_array("1", shape=(EDGE // 64, EDGE // 64), chunks=(512, 512), dtype=dtype)
    small[:16, :16] = corner[::64, ::64]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    datasets = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": [0.5 * f] * 2}]}
        for k, f in enumerate((1, 64))
    ]
    about = {"version": "0.4", "axes": axes, "datasets": datasets}
    group.attrs.update({"multiscales": [about], "image-label": {"version": "0.4"}})


def blocks(path, rng):
    """Write what quality control says of blocks."""
    n = EDGE // BLOCK
    y, x = (place.ravel() * BLOCK for place in np.indices((n, n)))
    columns = {"y_start_px": y, "y_stop_px": y + BLOCK, "x_start_px": x, "x_stop_px": x + BLOCK}
    columns |= {"focus_0": rng.gamma(9, 0.01, n * n)}
    columns["suspect"] = np.where(rng.random(n * n) < 0.01, "focus", "").astype(object)
    write_table(path, columns)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
