"""Plans a slide of 100,000 px and a volume of 1 TB: python tests/nightly/plans.py.

Both are OME-Zarr stores without a chunk on the disk. `cellseg plan` says what they take and
Snakemake lists their jobs; prints seconds, seconds of CPU and the largest memory of each as JSON.
Exits 1 if a plan took more than a minute of CPU or 2 GB.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
import zarr

CLONE = Path(__file__).parents[2]
IMAGES = {"slide": ((100_000, 100_000), (4096, 4096)), "volume": ((4096, 11008, 11008), (128,) * 3)}
LIMIT_S, LIMIT_BYTES = 60, 2e9


def store(path, shape, chunks):
    """An image whose chunks are missing: zeros."""
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("0", shape=shape, chunks=chunks, dtype="uint16")
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"[-len(shape) :]]
    scale = [{"type": "scale", "scale": [0.5] * len(shape)}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return path


def measured(command, folder):
    """Run a program; return what it said, seconds, seconds of CPU and bytes of memory."""
    began = time.monotonic()
    environment = os.environ | {
        "PYTHONPATH": str(CLONE),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(
            list(map(str, command)), cwd=folder, env=environment, stdout=said, stderr=said
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    took = time.monotonic() - began
    return text, took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def jobs_of(name, folder):
    """Plan an image and list its jobs."""
    shape, chunks = IMAGES[name]
    config = folder / f"{name}.yaml"
    said = {
        "images": [{"path": str(store(folder / f"{name}.ome.zarr", shape, chunks))}],
        "output": {"dir": str(folder / name)},
        "targets": {"nuclei": {"diameter_px": 30}},
        "resources": {"memory_gb": 8.0, "disk": "relaxed"},
    }
    config.write_text(yaml.safe_dump(said))
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", CLONE / "Snakefile", "--dry-run"]
    snakemake += ["--profile", CLONE / "profiles" / "local", "--configfile", config]
    commands = {"plan": [sys.executable, "-m", "cellseg_pipe.cli", "plan", config]}
    commands["dry run"] = [*snakemake, "--quiet", "all"]
    right = True
    for what, command in commands.items():
        text, seconds, cpu_s, peak = measured(command, folder)
        tiles = re.search(r"masks +(\d+)", text)
        found = {"image": name, "what": what, "said": int(tiles[1]) if tiles else text[-500:]}
        found |= {"seconds": round(seconds, 1), "cpu_s": round(cpu_s, 1)}
        print(json.dumps(found | {"peak_gb": round(peak / 1e9, 2)}), flush=True)
        right &= tiles is not None
        right &= what != "plan" or (cpu_s < LIMIT_S and peak < LIMIT_BYTES)
    return right


def main():

    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        right = [jobs_of(name, Path(folder)) for name in IMAGES]
    return int(not all(right))


if __name__ == "__main__":
    sys.exit(main())
