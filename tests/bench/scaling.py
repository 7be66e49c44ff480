"""Times the pipeline over sizes of a slide, against `segment` and the peer: a + b x megapixels.

`.venv/bin/python tests/bench/scaling.py [--edges 4096,8192,16384,32768] [--peer PYTHON]`. Each
slide goes through Snakemake with the shipped model; the largest memory of each stage's jobs is
compared with what the plan said. The peer, cellpose 3.1.1.3 with a network of its width, has a part
of a slide. Writes the first part of docs/scaling.md and docs/images/memory.png.

`--volume 512x2048x2048` runs a volume, seen from three sides, and writes docs/volume.md instead.
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
JOINED = (8192, 8192)  # of which tiles are joined by IoU, too
LIMIT_GB = 3.0  # of any job
# No multiple of them is an edge of tiles: all seams would lie at one place of the pattern, and what
# chance put there would count as many times.
PERIODS = {2: (1900, 1900), 3: (120, 500, 500)}
PEER_EDGE = 2048
# A volume is mostly background, as light sheets are: windows of nothing are not computed.
BLANK = {2: 0.0, 3: 0.6}
REST = "## Many cells"  # what the page says from here on is written elsewhere
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


def named(shape: tuple[int, ...]) -> str:
    """Return the name of an image."""
    return "x".join(map(str, shape))


def picture(shape: tuple[int, ...]) -> Path:
    """Return an image that repeats itself, made once."""
    path = FOLDER / f"{named(shape)}-of-{named(PERIODS[len(shape)])}.ome.zarr"
    if not path.exists():
        period, size = (",".join(map(str, many)) for many in (PERIODS[len(shape)], shape))
        command = ["synth", path, "--shape", size, "--period", period, "--seed", "5"]
        command += ["--set", f"diameter_px={DIAMETER_PX}", "--image-only"]
        command += ["--set", f"blank_fraction={BLANK[len(shape)]}"]
        subprocess.run([sys.executable, "-m", "cellseg_pipe.cli", *map(str, command)], check=True)
    return path


def pipeline(shape: tuple[int, ...], seams: str = "exact") -> dict:
    """Run the pipeline on an image; return its time, its cells and the memory of its stages."""
    out = FOLDER / f"out-{named(shape)}"
    shutil.rmtree(out, ignore_errors=True)
    config = FOLDER / f"{named(shape)}.yaml"
    said = {
        "images": [{"path": str(picture(shape)), "name": "s"}],
        "output": {"dir": str(out)},
        "targets": {"nuclei": {"model": "nuclei", "diameter_px": DIAMETER_PX}},
        "segment": {"mode": {2: "2d", 3: "3d"}[len(shape)]},
        "stitch": {"seams": seams},
    }
    config.write_text(yaml.safe_dump(said))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--quiet"]
    command += ["--profile", ROOT / "profiles" / "local", "--configfile", config]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    began = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, env=os.environ | {"PATH": path}, cwd=FOLDER)
    took = time.perf_counter() - began
    summary = json.loads((out / "summary.json").read_text())
    found = {"name": named(shape), "mpx": np.prod(shape, dtype=float) / 1e6, "seconds": took}
    found |= {"cells": summary["n_cells"], "exact": summary["exact"], "stages": list(stages(out))}
    found["seams"] = summary["units"]["s"]["qc"].get("seam_score")
    found["numerics"] = summary["units"]["s"]["numerics"][0]
    shutil.rmtree(out)
    print(json.dumps(found), flush=True)
    return found


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

    image = read_array(picture((4096, 4096))).squeeze()[:PEER_EDGE, :PEER_EDGE]
    source = FOLDER / "peer.npz"
    np.savez(source, image=image, **wide_net())
    return {px: last_line([python, "-c", THEIRS, source, px]) for px in PEER_DIAMETERS_PX}


def page(
    runs: list[dict], whole: list[float], theirs: dict[float, list[float]], joined: dict
) -> str:
    """Return the page of the documentation, to where others write."""
    x = np.array([run["mpx"] for run in runs])
    y = np.array([run["seconds"] for run in runs])
    lines = [
        "# Time and memory over size",
        "",
        "Written by `tests/bench/scaling.py`: slides of nuclei of 30 px through Snakemake"
        " (`profiles/local`) with the shipped model,",
        f"on {os.cpu_count()} CPUs; the network as {runs[-1]['numerics']}. Machines are noisy: read"
        " ratios.",
        "",
        *times(runs),
    ]
    if len(runs) > 1:
        slopes = np.diff(y) / np.diff(x)
        b, a = np.polyfit(x, y, 1)
        said = ", ".join(f"{slope:.3f}" for slope in slopes)
        lines += ["", f"Time = {a:.1f} s + {b:.3f} s x Mpx; between neighbouring sizes {said}."]
    rate = whole[0] / (4096**2 / 1e6)
    per_mpx = {run["name"]: run["seconds"] / run["mpx"] for run in runs[-2:]}
    shares = ", ".join(f"{rate / per:.2f} of this rate at {name}" for name, per in per_mpx.items())
    lines += [f"`cs.segment` on 4096²: {rate:.3f} s per Mpx; the pipeline has {shares}."]
    for px, (seconds, _) in theirs.items():
        peers = seconds / (PEER_EDGE**2 / 1e6)
        ratios = (f"**{peers / per:.1f} times** that of {n}" for n, per in per_mpx.items())
        lines += [
            f"cellpose 3.1.1.3 on {PEER_EDGE}², cells brought to {px:g} px: {peers:.2f} s per Mpx,"
            f" {', '.join(ratios)}."
        ]
    lines += [
        f"Tiles joined by IoU (`stitch.seams: iou`) at {joined['name']}: {joined['cells']} cells,"
        f" seam score {joined['seams']:.4f}, {joined['seconds']:.1f} s."
    ]
    lines += ["", "![memory of the largest job of each stage over size](images/memory.png)"]
    return "\n".join([*lines, "", *memories(runs)]) + "\n"


def times(runs: list[dict]) -> list[str]:
    """Return the table of the runs."""
    lines = ["| image | Mpx | seconds | s per Mpx | cells | exact | seam score |"]
    lines += ["|---|---|---|---|---|---|---|"]
    return lines + [
        f"| {run['name']} | {run['mpx']:.1f} | {run['seconds']:.1f} |"
        f" {run['seconds'] / run['mpx']:.3f} | {run['cells']} | {run['exact']} |"
        f" {run['seams']:.4f} |"
        for run in runs
    ]


def memories(runs: list[dict]) -> list[str]:
    """Return the table of the stages of the runs."""
    lines = ["Memory of the largest job of each stage, and what the plan said:", ""]
    lines += ["| image | stage | jobs | GB | said | seconds of all jobs | said |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for run in runs:
        for row in run["stages"]:
            gb, s = (
                f"{row[k]:.{n}f}" if k in row else "" for k, n in (("said_gb", 2), ("said_s", 0))
            )
            lines.append(
                f"| {run['name']} | {row['stage']} | {row['jobs']} | {row['gb']:.2f} | {gb} |"
                f" {row['seconds']:.1f} | {s} |"
            )
    return lines


def plot(runs: list[dict], path: Path) -> None:
    """Draw the memory of the largest job of each stage over the size of the image."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=colormaps["tab20"].colors[::2] + colormaps["tab20"].colors[1::2])
    found: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        for row in run["stages"]:
            found.setdefault(row["stage"].rstrip("0123456789"), []).append((run["mpx"], row["gb"]))
    for stage, points in found.items():
        largest = {x: max(gb for at, gb in points if at == x) for x, _ in points}
        if stage not in ("summary", "gate"):
            axes.plot(list(largest), list(largest.values()), marker="o", label=stage)
    axes.set(xscale="log", xlabel="megapixels", ylabel="GB, largest job", ylim=(0, 3))
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=120)


def write_slides(shapes: list[tuple[int, ...]], peer_python: Path) -> list[dict]:
    """Run the slides, and the others on a part; write the page, and return the runs."""
    runs = [pipeline(shape) for shape in shapes]
    joined = pipeline(JOINED, seams="iou")
    whole = last_line([sys.executable, "-c", OURS, picture((4096, 4096))])
    theirs = peer(peer_python) if peer_python.exists() else {}
    plot(runs, ROOT / "docs" / "images" / "memory.png")
    file = ROOT / "docs" / "scaling.md"
    rest = file.read_text().partition(REST)
    text = page(runs, whole, theirs, joined)
    file.write_text("\n".join([text, "".join(rest[1:])]))
    return runs


def write_volume(shape: tuple[int, ...]) -> list[dict]:
    """Run a volume; write its page, and return the run."""
    run = pipeline(shape)
    lines = [
        "# A volume larger than memory",
        "",
        f"Written by `tests/bench/scaling.py --volume {run['name']}`: nuclei of 30 px in"
        f" {1 - BLANK[3]:.0%} of the volume, seen from three sides (`mode: 3d`),",
        f"through Snakemake (`profiles/local`) with the shipped model on {os.cpu_count()} CPUs.",
        "",
        *times([run]),
        "",
        *memories([run]),
    ]
    (ROOT / "docs" / "volume.md").write_text("\n".join(lines) + "\n")
    return [run]


def main() -> int:
    """Run all of it; 1 if a job took more memory than any may, or a result is not exact."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", default="4096,8192,16384")
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-peer" / "bin" / "python")
    parser.add_argument("--volume", help="Z x Y x X, as 512x2048x2048")
    asked = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if asked.volume:
        runs = write_volume(tuple(map(int, asked.volume.split("x"))))
    else:
        runs = write_slides([(int(edge),) * 2 for edge in asked.edges.split(",")], asked.peer)
    largest = max(row["gb"] for run in runs for row in run["stages"])
    print(f"largest job {largest:.2f} GB, of {LIMIT_GB} at most")
    return int(largest > LIMIT_GB or not all(run["exact"] for run in runs))


if __name__ == "__main__":
    sys.exit(main())
