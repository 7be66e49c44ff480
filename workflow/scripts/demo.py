"""Runs the whole pipeline on a synthetic slide or volume whose truth is known, and judges it.

`python workflow/scripts/demo.py [2d | 3d] [FOLDER]`, which `make demo` and `make demo-3d` call.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

from cellseg_pipe.io.images import read_array
from cellseg_pipe.metrics import evaluate

LEAST_AP = 0.90
# A cleared sample under a light sheet: the blur along z joins nuclei that nearly touch.
VOLUME = {"anisotropy": 1, "diameter_px": 28, "crowding": 0.5, "psf_axial": 2, "haze": 0.1}
SHARPER = [word for name, value in VOLUME.items() for word in ("--set", f"{name}={value}")]
IMAGES = {
    "2d": ["--preset", "nuclei", "--shape", "4096,4096"],
    "3d": ["--preset", "volume", "--shape", "96,384,384", *SHARPER],
}
SETTINGS = {"2d": {}, "3d": {"segment": {"mode": "3d"}}}


def call(*command: str | Path) -> None:
    """Run a command of the package, and stop where it fails."""
    print("$ cellseg", *command, flush=True)
    subprocess.run([sys.executable, "-m", "cellseg_pipe.cli", *map(str, command)], check=True)


def experiment(folder: Path, kind: str) -> Path:
    """Write the experiment file of the demo."""
    file = folder / f"demo-{kind}.yaml"
    settings = {
        "images": [{"path": str(folder / f"{kind}.ome.zarr"), "name": kind}],
        "output": {"dir": str(folder / f"results-{kind}")},
        "targets": {"nuclei": {"model": "nuclei"}},
        **SETTINGS[kind],
    }
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return file


def main() -> int:
    """Make the image, run the pipeline, compare with the truth."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "2d"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "demo").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    image, results = folder / f"{kind}.ome.zarr", folder / f"results-{kind}"
    if not image.exists():
        call("synth", image, "--seed", "7", *IMAGES[kind])
    shutil.rmtree(results, ignore_errors=True)
    began = time.monotonic()
    call("run", experiment(folder, kind))
    took = time.monotonic() - began
    summary = json.loads((results / "summary.json").read_text())
    labels = read_array(results / kind / "labels.ome.zarr")
    truth = read_array(image / "labels" / "truth")
    scores = evaluate(np.squeeze(labels), np.squeeze(truth))
    unit = summary["units"][kind]
    print(f"\n{unit['n_cells']} cells in {took:.0f} s, diameter {unit['diameter_px']:g} px")
    print(f"AP at IoU .5 {scores.ap[0.5]:.3f}, at .75 {scores.ap[0.75]:.3f} against the truth")
    seams = unit["seams"]
    print(f"exact: {unit['exact']}; {seams['cells']} cells at {seams['checked']} seams compared")
    print(
        f"labels  {results / kind / 'labels.ome.zarr'}\ntable   {results / kind / 'cells.parquet'}"
    )
    print(
        f"look at it: napari --plugin napari-ome-zarr {image} {results / kind / 'labels.ome.zarr'}"
    )
    return 0 if scores.ap[0.5] >= LEAST_AP and unit["exact"] else 1


if __name__ == "__main__":
    sys.exit(main())
