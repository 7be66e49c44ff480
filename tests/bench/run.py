"""Runs both sides of every benchmark, one after the other, and writes docs/benchmarks.md.

`make bench`, or `.venv/bin/python tests/bench/run.py [--only NAME] [--scale 0.25]`. The peer's
environment is made beside ours, in .venv-peer, when it is missing. Ratios are what counts: both
sides of a row run on the same inputs, one straight after the other, in processes of their own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "golden"))

from networks import pictured  # noqa: E402
from synthetic import network_like, scene_labels  # noqa: E402

from cellseg_pipe.kernels import flows_from_labels, overlap_pairs  # noqa: E402
from cellseg_pipe.metrics import evaluate  # noqa: E402
from cellseg_pipe.nets.fused import bf16_instructions, choose_precision  # noqa: E402

CACHE = ROOT / ".cache" / "bench"
REST = "## The table of cells"  # what the page says from here on is written elsewhere
PEER = ROOT / ".venv-peer" / "bin" / "python"
PEER_PACKAGES = (
    "numpy scipy numba tqdm fastremap fill-voids roifile opencv-python-headless tifffile natsort"
    " imagecodecs"
).split()


@dataclass(frozen=True)
class Bench:
    """One benchmark: an input, a task, and the sides of ours that run it."""

    name: str
    task: str
    make: Callable[[float], dict[str, np.ndarray]]
    sides: tuple[str, ...] = ("exact", "fast")
    threads: tuple[int, ...] = (1,)
    repeats: int = 3


def plane(scene: str, *, noise: float = 0.1) -> Callable[[float], dict[str, np.ndarray]]:
    """Return what makes a 2048² image of a scene with its network-like output."""

    def make(scale: float) -> dict[str, np.ndarray]:
        edge = int(2048 * scale)
        return outputs(scene_labels(scene, (edge, edge), seed=0), noise=noise)

    return make


def volume(scale: float) -> dict[str, np.ndarray]:
    """Return a volume of 64 x 512 x 512 with about 500 cells."""
    return outputs(scene_labels("touching", (64, int(512 * scale), int(512 * scale)), seed=2))


def outputs(labels: np.ndarray, *, noise: float = 0.1) -> dict[str, np.ndarray]:
    """Return labels, and the flow and logit of a network that is right but noisy."""
    flow, logit = network_like(flows_from_labels(labels), labels, seed=0, noise=noise)
    return {"labels": labels, "flow": flow, "logit": logit}


def planes(scale: float) -> dict[str, np.ndarray]:
    """Return ten planes of cells that drift by two pixels a plane, numbered anew in each."""
    edge = int(2048 * scale)
    labels = scene_labels("touching", (edge, edge), seed=0)
    drift = [np.roll(labels, 2 * z, axis=(0, 1)) for z in range(10)]
    return {"planes": np.stack(drift).astype(np.uint32)}


BENCHES = (
    Bench("masks, 2,000 touching cells", "compute_masks", plane("touching"), threads=(1, 2)),
    Bench("masks, elongated cells", "compute_masks", plane("elongated")),
    Bench("masks, cells of 200 px", "compute_masks", plane("large")),
    Bench("masks, noisy flows (sigma 1.5 of 5)", "compute_masks", plane("touching", noise=0.3)),
    Bench("masks, 5 % foreground", "compute_masks", plane("sparse")),
    Bench("masks, 3D 64x512x512", "compute_masks_3d", volume, repeats=1),
    Bench("labels to flows", "labels_to_flows", plane("touching"), sides=("exact",)),
    Bench("labels to flows, 3D", "labels_to_flows_3d", volume, sides=("exact",), repeats=1),
    Bench("flow check", "flow_error", plane("touching"), sides=("exact",)),
    Bench("network, full width", "network", pictured, threads=(1, 2), repeats=2),
    Bench("segment, full width", "segment", pictured, threads=(2,), repeats=2),
    Bench("stitching 10 planes", "stitch3d", planes, sides=("exact",), repeats=2),
)


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run those whose name holds this; write nothing")
    parser.add_argument("--scale", type=float, default=1.0, help="edge of the images, as a share")
    parser.add_argument("--peer-python", type=Path, default=PEER)
    options = parser.parse_args()
    if not options.peer_python.exists():
        make_peer(options.peer_python.parents[1])
    rows = []
    for bench in BENCHES:
        if options.only in bench.name:
            for row in run(bench, options.scale, options.peer_python):
                print(row, flush=True)
                rows.append(row)
    for width in ("full", "half"):
        if options.only in (name := f"a step of training, {width} width"):
            rows.append(trained(name, width, options.peer_python))
            print(rows[-1], flush=True)
    if not options.only:
        file = ROOT / "docs" / "benchmarks.md"
        rest = file.read_text().partition(REST)
        file.write_text("\n".join([page(rows, options.scale), "".join(rest[1:])]))


def make_peer(folder: Path) -> None:
    """Make the peer's environment from the pip configuration in force."""
    python = folder / "bin" / "python"
    torch = "torch==2.13.0"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", torch, *PEER_PACKAGES], check=True)
    last = [python, "-m", "pip", "install", "-q", "--no-deps", "cellpose==3.1.1.3"]
    subprocess.run(last, check=True)


def cold_start() -> str:
    """Return a line on how long `cellseg segment` takes for 512² px, loading everything."""
    from PIL import Image

    CACHE.mkdir(parents=True, exist_ok=True)
    image, seconds = CACHE / "cold.png", []
    Image.fromarray(pictured(0.25)["image"].astype(np.uint16)).save(image)
    for _ in range(4):  # the first compiles what is compiled once
        began = time.monotonic()
        command = [sys.executable, "-m", "cellseg_pipe.cli", "segment", image, CACHE / "cold"]
        command += ["--diameter-px", "30", "--overwrite", "--device", "cpu"]
        shutil.rmtree(CACHE / "cold", ignore_errors=True)
        subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=ROOT)
        seconds.append(time.monotonic() - began)
    return (
        "A start of `cellseg segment` on 512² px with the shipped model, from nothing in memory to"
        f" the written labels and table: {min(seconds[1:]):.1f} s (best of 3, after a first that"
        " compiled)."
    )


def run(bench: Bench, scale: float, peer_python: Path) -> list[str]:
    """Return a line of the table for each side of ours and number of threads."""
    CACHE.mkdir(parents=True, exist_ok=True)
    arrays = bench.make(scale)
    source = CACHE / "input.npz"
    np.savez(source, **arrays)
    rows = []
    for threads in bench.threads:
        peer, theirs = work(peer_python, "peer", bench, source, threads=threads)
        for side in bench.sides:
            ours, found = work(Path(sys.executable), side, bench, source, threads=threads)
            speed = min(peer["seconds"]) / min(ours["seconds"])
            memory = ours["peak_rss_growth_bytes"] / max(peer["peak_rss_growth_bytes"], 1)
            rows.append(
                f"| {bench.name} | {side} | {threads} | {min(peer['seconds']):.2f} |"
                f" {min(ours['seconds']):.3f} | **{speed:.1f}** | {memory:.2f} |"
                f" {agreement(found, theirs, arrays)} |"
            )
    return rows


def trained(name: str, width: str, peer_python: Path) -> str:
    """Return the line of a training step; both sides run twice, in turns, and the best counts."""
    seconds: dict[str, list[float]] = {"peer": [], "ours": []}
    for _, (side, python) in itertools.product(
        range(2), (("peer", peer_python), ("ours", sys.executable))
    ):
        command = [python, ROOT / "tests" / "bench" / "training.py", side, "--width", width]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{side} failed at {name}:\n{done.stderr}")
        seconds[side].append(1 / json.loads(done.stdout.splitlines()[-1])["steps_per_s"])
    theirs, ours = min(seconds["peer"]), min(seconds["ours"])
    return (
        f"| {name} | fast | 2 | {theirs:.2f} | {ours:.3f} | **{theirs / ours:.1f}** | |"
        " the same 8 crops of 224 px and net; ours makes the flows in each step |"
    )


def work(
    python: Path, side: str, bench: Bench, source: Path, *, threads: int
) -> tuple[dict, np.ndarray]:
    """Run one side in a process of its own; return its report and its result."""
    target = CACHE / f"{side}.npz"
    worker = ROOT / "tests" / "bench" / "worker.py"
    command = [python, worker, side, bench.task, source, target]
    command += ["--threads", str(threads), "--repeats", str(1 if side == "peer" else bench.repeats)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} failed at {bench.name}:\n{done.stderr}")
    with np.load(target) as archive:
        return json.loads(done.stdout.splitlines()[-1]), archive[archive.files[0]]


def agreement(found: np.ndarray, theirs: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    """Return how far the two results agree, in the measure that fits their kind."""
    if found.ndim > 1 and found.dtype.kind == "f":
        lengths = np.linalg.norm(found, axis=0) * np.linalg.norm(theirs, axis=0)
        cosine = (found * theirs).sum(0)[lengths > 0] / lengths[lengths > 0]
        return f"mean cosine {cosine.mean():.6f}, of 99.9 % above {np.quantile(cosine, 0.001):.5f}"
    if found.dtype.kind == "f":
        return f"largest difference {np.abs(found - theirs).max():.1e}"
    same = f"{same_cells(found, theirs):.6f} of the pixels"
    if "labels" not in arrays:
        return same
    ours, peers = evaluate(found, arrays["labels"]), evaluate(theirs, arrays["labels"])
    return f"{same}; AP.75 on truth {ours.ap[0.75]:.3f}, peer {peers.ap[0.75]:.3f}"


def same_cells(left: np.ndarray, right: np.ndarray) -> float:
    """Return the share of pixels on which two label images agree, whatever the numbers."""
    pairs = overlap_pairs(left, right.astype(np.uint32))
    order = np.argsort(-pairs.count, kind="stable")
    rows = zip(
        *(part[order].tolist() for part in (pairs.left, pairs.right, pairs.count)), strict=True
    )
    used: tuple[set[int], set[int]] = (set(), set())
    agreed = 0
    for a, b, n in rows:
        if (a == 0) == (b == 0) and a not in used[0] and b not in used[1]:
            used[0].add(a)
            used[1].add(b)
            agreed += n
    return agreed / left.size


def page(rows: list[str], scale: float) -> str:
    """Return the page of the documentation."""
    head = (
        "# Benchmarks\n\nWritten by `make bench`: our kernels against cellpose 3.1.1.3, same inputs"
        " (synthetic, tests/golden/synthetic.py), same\nthreads, one side straight after the other,"
        " each in a process of its own after a warm-up. Best of up to 3 runs of\nours, one of the"
        " peer's. Machines are noisy: read the ratio. 2D images have"
        f" {int(2048 * scale)}² px.\n\n"
    )
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    instructions = " ".join([torch.backends.cpu.get_cpu_capability(), *bf16_instructions()])
    return (
        head
        + f"{cpu}, {os.cpu_count()} CPUs, Python {platform.python_version()}. Networks: `exact` in"
        + f" float32, `fast` in {choose_precision('cpu')}"
        + f" ({instructions}).\n\n{cold_start()}\n\n"
        + "| task | mode | threads | peer s | ours s | times faster | peak memory, ours / peer |"
        + " agreement with the peer |\n|---|---|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


if __name__ == "__main__":
    main()
