"""kill -9 of everything at 50 moments of chance: python tests/nightly/pipeline_faults.py.

A run of the pipeline works in a group of processes that is killed after a time of chance, again and
again until it is done. Each time labels and tables have to be those of a run that nobody disturbed,
byte for byte, and no more tiles may be made twice than were in flight. Exits 1 if not.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import tifffile

sys.path.insert(0, str(Path(__file__).parents[2]))

from cellseg_pipe.config import dump, experiment_of, load_experiment
from cellseg_pipe.engines import process
from cellseg_pipe.geometry import Box
from cellseg_pipe.ledger import Batch
from cellseg_pipe.synth import PRESETS, render

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"
CASES = {"2d": (2500, 2300), "planes": (3, 300, 2300), "3d": (48, 160, 300), "iou": (900, 1100)}
IOU = {"core_px": [400, 400], "halo_px": 30}  # in 2D, joined by overlap


def config_of(folder, mode, shape):
    """Write an image and an experiment."""
    preset = PRESETS["nuclei" if len(shape) == 2 else "volume"]
    spec = replace(preset, shape=shape, diameter_px=24, anisotropy=1.0, seed=5)
    tifffile.imwrite(
        folder / "a.tif", render(spec, Box.of(shape)).image[0], photometric="minisblack"
    )
    iou = mode == "iou"
    batches = {"predict": 3, "masks": 2, "paint": 2}
    return {
        "images": [{"path": str(folder / "a.tif"), "axes": "zyx"[-len(shape) :]}],
        "targets": {"nuclei": {"model": str(TINY), "diameter_px": 24}},
        "segment": {"mode": "2d" if iou else mode, "reach_px": 20},
        "stitch": {"seams": "iou" if iou else "exact"},
        "tiles": {"window_px": 192, "batches": batches, **(IOU if iou else {})},
    }


def checksums(folder):
    """Of all that is published."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def work(config, log):
    """All jobs; the log has each tile that is computed."""
    real, handle = Batch.add, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, key, *args, **settings):
        os.write(handle, f"{self._title} {key}\n".encode())
        real(self, key, *args, **settings)

    Batch.add = add
    process.run(load_experiment(config))


def live(config, log, seconds):
    """Run for so long; return whether it was done before, and what it took."""
    command = [sys.executable, __file__, "--work", str(config), str(log)]
    began = time.monotonic()
    child = subprocess.Popen(command, start_new_session=True)
    try:
        status = child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return False, time.monotonic() - began
    if status:
        raise SystemExit(f"a run failed with status {status}: see above")
    return True, time.monotonic() - began


def config_in(folder, said):
    """Write the experiment for a folder of results."""
    folder.mkdir(parents=True)
    path = folder / "a.yaml"
    path.write_text(dump(experiment_of(said | {"output": {"dir": str(folder / "out")}})))
    return path


def case(folder, mode, shape, *, kills, rng):
    """Kill runs of one image until so many were killed; return what was wrong."""
    said = config_of(folder, mode, shape)
    config = config_in(folder / "undisturbed", said)
    _, whole_s = live(config, folder / "undisturbed" / "computed", 1e6)
    expected = checksums(folder / "undisturbed" / "out" / "a")
    n_killed = n_runs = n_twice = 0
    wrong = []
    while n_killed < kills:
        n_runs += 1
        root = folder / str(n_runs)
        config, before = config_in(root, said), n_killed
        while not live(config, root / "computed", rng.uniform(0.5, whole_s))[0]:
            n_killed += 1
        if checksums(root / "out" / "a") != expected:
            wrong.append(f"run {n_runs} gives other results")
        computed = Counter((root / "computed").read_text().splitlines())
        twice = sum(computed.values()) - len(computed)
        n_twice += twice
        if twice > n_killed - before:
            wrong.append(f"run {n_runs}: {twice} tiles made twice, killed {n_killed - before}")
    facts = {"mode": mode, "killed": n_killed, "runs": n_runs, "twice": n_twice, "wrong": wrong}
    print(json.dumps(facts), flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", nargs=2, help="what the killed processes do")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--modes", nargs="+", default=list(CASES))
    parser.add_argument("--small", action="store_true", help="an image of one tile, to try this")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.work:
        work(*asked.work)
        return 0
    wrong, rng = [], random.Random(asked.seed)
    for mode in asked.modes:
        shape = CASES[mode] if not asked.small else tuple(min(n, 300) for n in CASES[mode])
        kills = -(-asked.kills // len(asked.modes))
        with tempfile.TemporaryDirectory() as folder:
            wrong += case(Path(folder), mode, shape, kills=kills, rng=rng)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
