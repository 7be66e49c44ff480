"""Compares calibrated forecasts with what runs take: python tests/nightly/forecasts.py [--write].

A synthetic slide of 4096 px, a small volume and a field of another kind (denser, smaller cells).
Each is planned with `--calibrate`, then run by Snakemake; seconds of the jobs of each predicted
stage are those of its benchmarks, bytes those in the stages' folders. Prints a table; `--write`
puts it into docs/scaling.md. Exits 1 if a sum is off by more than 25 %.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

CLONE = Path(__file__).parents[2]
sys.path.insert(0, str(CLONE))

from cellseg_pipe.stages.costs import planned_costs  # noqa: E402
from cellseg_pipe.stages.layout import read_layout  # noqa: E402

OFF = 0.25
DATA = {
    "slide 4096²": (["--shape", "4096,4096", "--period", "2048,2048"], {"diameter_px": 30}),
    "volume 32 x 256²": (
        ["--preset", "volume", "--shape", "32,256,256", "--set", "anisotropy=1"],
        {"diameter_px": 20},
    ),
    "dense field 2048²": (
        ["--preset", "tissue", "--shape", "2048,2048", "--seed", "4"],
        {"diameter_px": 20},
    ),
}
HEADING = "## Calibrated forecasts"


def run(*words, folder):
    environment = os.environ | {
        "PYTHONPATH": str(CLONE),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout)


def compared(number, folder):
    """Return rows of a data set: stage, seconds said and taken, bytes said and taken."""
    synth, target = list(DATA.values())[number]
    store, config, out = (folder / f"{number}{end}" for end in (".ome.zarr", ".yaml", "-out"))
    synth = [*synth, "--set", f"diameter_px={target['diameter_px']}", "--image-only"]
    run("cellseg_pipe.cli", "synth", store, *synth, folder=folder)
    said = {"images": [{"path": str(store), "name": "a"}], "output": {"dir": str(out)}}
    config.write_text(yaml.safe_dump(said | {"targets": {"nuclei": target}}))
    run("cellseg_pipe.cli", "plan", config, "--calibrate", folder=folder)
    layout = read_layout(out)
    costs = planned_costs(layout.files("a", "tiles"))
    profile = ["--profile", CLONE / "profiles" / "local", "--configfile", config]
    run("snakemake", "--snakefile", CLONE / "Snakefile", *profile, "--quiet", "all", folder=folder)
    for cost in costs:
        stage = cost["stage"]
        files = layout.files("a", stage)
        taken = sum(
            float(row["s"])
            for path in layout.paths.logs.glob(f"a/{stage}-{files.digest}*.tsv")
            for row in csv.DictReader(path.read_text().splitlines(), delimiter="\t")
        )
        stored = sum(path.stat().st_size for path in files.root.rglob("*") if path.is_file())
        yield stage, cost["seconds"], taken, cost["disk_bytes"], stored


def table(folder):
    """Return the lines of the table, and whether all sums are near."""
    head = "| image | stage | seconds said | taken | ratio | MB said | stored |"
    lines, near = [head, "|---|---|---|---|---|---|---|"], True
    for number, name in enumerate(DATA):
        rows = list(compared(number, folder))
        total = ("**sum**", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
        for stage, said, taken, n_bytes, stored in [*rows, total]:
            mb = "" if stage == "paint" or stage == "**sum**" else f"{stored / 1e6:.1f}"
            line = f"| {name} | {stage} | {said:.1f} | {taken:.1f} | {said / taken:.2f} |"
            lines.append(f"{line} {n_bytes / 1e6:.1f} | {mb} |")
        near &= abs(total[1] / total[2] - 1) <= OFF
        print("\n".join(lines[-len(rows) - 1 :]), flush=True)
    return lines, near


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into docs/scaling.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines, near = table(Path(folder))
    if asked.write:
        path = CLONE / "docs" / "scaling.md"
        above = rf"({HEADING}\n(?:[^|#\n].*\n)*)\n?(?:\|.*\n)*"
        put = lambda found: "\n".join([found[1], *lines, ""])  # noqa: E731
        text, n = re.subn(above, put, path.read_text())
        assert n == 1, f"{path} has no heading {HEADING!r}."
        path.write_text(text)
    return int(not near)


if __name__ == "__main__":
    sys.exit(main())
