"""Times the pipeline over sizes of a slide, against `segment` and the peer: a + b x megapixels.

`.venv/bin/python tests/bench/scaling.py [--edges 4096,8192,16384] [--peer PYTHON]`. Each slide goes
through Snakemake with the shipped model; the largest memory of each stage's jobs is compared with
what the plan said. The peer, cellpose 3.1.1.3 with a network of its width, has a part of a slide.
Writes docs/scaling.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "bench"))

from cellseg_pipe.io.images import read_array  # noqa: E402

FOLDER = ROOT / ".cache" / "scaling"
DIAMETER_PX = 30
PERIOD, PEER_EDGE = 2048, 2048
# What the peer brings cells to: cyto, cyto2 and cyto3 to 30 px, nuclei to 17.
PEER_DIAMETERS_PX = (30.0, 17.0)
OURS = """
import json, sys, time
import cellseg_pipe as cs
from cellseg_pipe.io.images import read_array
cs.segment(read_array(sys.argv[1]).squeeze()[:300, :300], diameter_px=30)
began = time.perf_counter()
found = cs.segment(read_array(sys.argv[1]).squeeze(), diameter_px=30)
print(json.dumps([time.perf_counter() - began, found.n_cells]))
"""
THEIRS = """
import json, sys, time
import numpy as np, torch
from cellpose.models import CellposeModel
source, diam_mean = sys.argv[1], float(sys.argv[2])
arrays = np.load(source)
state = {k[4:]: torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith("net.")}
state["diam_mean"] = state["diam_labels"] = torch.tensor([diam_mean])
torch.save(state, source + ".pth")
model = CellposeModel(gpu=False, pretrained_model=source + ".pth")
image = arrays["image"].astype(np.float32)
model.eval(image[:300, :300], channels=[0, 0], diameter=30)
began = time.perf_counter()
found = model.eval(image, channels=[0, 0], diameter=30)[0]
print(json.dumps([time.perf_counter() - began, int(found.max())]))
"""


def last_line(command: list[object]) -> list[float]:
    """Run a program and read what it says at its end."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def slide(edge: int) -> Path:
    """Return a slide that repeats itself, made once."""
    path = FOLDER / f"{edge}.ome.zarr"
    if not path.exists():
        command = ["synth", path, "--shape", f"{edge},{edge}", "--period", f"{PERIOD},{PERIOD}"]
        command += ["--set", f"diameter_px={DIAMETER_PX}", "--image-only", "--seed", "5"]
        subprocess.run([sys.executable, "-m", "cellseg_pipe.cli", *map(str, command)], check=True)
    return path


def pipeline(edge: int) -> dict:
    """Run the pipeline on a slide; return its time, its cells and the memory of its stages."""
    out = FOLDER / f"out-{edge}"
    shutil.rmtree(out, ignore_errors=True)
    config = FOLDER / f"{edge}.yaml"
    said = {
        "images": [{"path": str(slide(edge)), "name": "s"}],
        "output": {"dir": str(out)},
        "targets": {"nuclei": {"model": "nuclei", "diameter_px": DIAMETER_PX}},
    }
    config.write_text(yaml.safe_dump(said))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--quiet"]
    command += ["--profile", ROOT / "profiles" / "local", "--configfile", config]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    began = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, env=os.environ | {"PATH": path}, cwd=FOLDER)
    took = time.perf_counter() - began
    summary = json.loads((out / "summary.json").read_text())
    found = {"edge": edge, "mpx": edge**2 / 1e6, "seconds": took, "cells": summary["n_cells"]}
    return found | {"exact": summary["exact"], "stages": list(stages(out))}


def stages(out: Path) -> list[dict]:
    """Yield what Snakemake measured of each stage's jobs, beside what was predicted."""
    plan = json.loads((out / "plan.json").read_text())["s"]["tiles"]["predicted"]
    said = {cost["stage"]: cost for cost in plan}
    found: dict[str, list[tuple[float, float]]] = {}
    for file in (out / "logs").rglob("*.tsv"):
        with file.open() as opened:
            for row in csv.DictReader(opened, delimiter="\t"):
                memory = float(row["max_rss"]) if row["max_rss"] not in ("NA", "-") else 0.0
                stage = file.name.split("-")[0].split(".")[0]
                found.setdefault(stage, []).append((float(row["s"]), memory * 2**20 / 1e9))
    for stage, jobs in sorted(found.items()):
        seconds, memory = np.array(jobs).T
        row = {"stage": stage, "jobs": len(jobs), "seconds": seconds.sum(), "gb": memory.max()}
        if stage in said:
            row |= {"said_gb": said[stage]["memory_bytes"] / 1e9, "said_s": said[stage]["seconds"]}
        yield row


def peer(python: Path) -> dict[float, list[float]]:
    """Time the peer on a part of a slide, at each of its diameters."""
    from networks import wide_net

    image = read_array(slide(4096)).squeeze()[:PEER_EDGE, :PEER_EDGE]
    source = FOLDER / "peer.npz"
    np.savez(source, image=image, **wide_net())
    return {px: last_line([python, "-c", THEIRS, source, px]) for px in PEER_DIAMETERS_PX}


def page(runs: list[dict], whole: list[float], theirs: dict[float, list[float]]) -> str:
    """Return the page of the documentation."""
    x = np.array([run["mpx"] for run in runs])
    y = np.array([run["seconds"] for run in runs])
    lines = [
        "# Time and memory over size",
        "",
        "Written by `tests/bench/scaling.py`: slides of nuclei of 30 px through Snakemake"
        " (`profiles/local`) with the shipped model,",
        f"on {os.cpu_count()} CPUs. Machines are noisy: read ratios.",
        "",
        "| slide | Mpx | seconds | s per Mpx | cells | exact |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {run['edge']}² | {run['mpx']:.1f} | {run['seconds']:.1f} |"
        f" {run['seconds'] / run['mpx']:.3f} | {run['cells']} | {run['exact']} |"
        for run in runs
    ]
    if len(runs) > 1:
        slopes = np.diff(y) / np.diff(x)
        b, a = np.polyfit(x, y, 1)
        said = ", ".join(f"{slope:.3f}" for slope in slopes)
        lines += ["", f"Time = {a:.1f} s + {b:.3f} s x Mpx; between neighbouring sizes {said}."]
    rate = whole[0] / (4096**2 / 1e6)
    last = runs[-1]["seconds"] / runs[-1]["mpx"]
    lines += [f"`cs.segment` on 4096²: {rate:.3f} s per Mpx; the largest slide has"]
    lines[-1] += f" {rate / last:.2f} of its rate."
    for px, (seconds, _) in theirs.items():
        per = seconds / (PEER_EDGE**2 / 1e6)
        lines += [
            f"cellpose 3.1.1.3 on {PEER_EDGE}², cells brought to {px:g} px: {per:.2f} s per Mpx,"
            f" **{per / last:.1f} times** as long."
        ]
    lines += ["", "Memory of the largest job of each stage, and what the plan said:", ""]
    lines += ["| slide | stage | jobs | GB | said | seconds of CPU jobs | said |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for run in runs:
        for row in run["stages"]:
            gb, s = (
                f"{row[k]:.{n}f}" if k in row else "" for k, n in (("said_gb", 2), ("said_s", 0))
            )
            lines.append(
                f"| {run['edge']}² | {row['stage']} | {row['jobs']} | {row['gb']:.2f} | {gb} |"
                f" {row['seconds']:.1f} | {s} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", default="4096,8192,16384")
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-peer" / "bin" / "python")
    asked = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    runs = []
    for edge in map(int, asked.edges.split(",")):
        runs.append(pipeline(edge))
        print(json.dumps(runs[-1]), flush=True)
        shutil.rmtree(FOLDER / f"out-{edge}")
    whole = last_line([sys.executable, "-c", OURS, slide(4096)])
    theirs = peer(asked.peer) if asked.peer.exists() else {}
    text = page(runs, whole, theirs)
    (ROOT / "docs" / "scaling.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
