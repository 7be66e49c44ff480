"""Experiments, starts of Snakemake as a user types them, and what lies in a folder afterwards."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import tifffile
import yaml

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth import PRESETS, render

CLONE = Path(__file__).parents[2]
TINY = CLONE / "tests" / "golden" / "models" / "tiny.safetensors"


def picture(path, *, shape=(300, 340), seed=5):
    """Write cells of 30 px, which the tiny model knows."""
    spec = replace(PRESETS["nuclei"], shape=shape, diameter_px=30, seed=seed)
    tifffile.imwrite(path, render(spec, Box.of(shape)).image[0])
    return path


def experiment(path, images, out, **sections):
    """Write an experiment file: two jobs at a time of predict and masks."""
    content = {
        "images": [image if isinstance(image, dict) else {"path": str(image)} for image in images],
        "output": {"dir": str(out)},
        "targets": {"nuclei": {"model": str(TINY), "diameter_px": 30}},
        "tiles": {"batches": {"predict": 2, "masks": 2}},
        "resources": {"threads": 1, "device": "cpu"},
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section}
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    return path


def command(*arguments, clone=CLONE):
    """What a user types, in an environment that is not active."""
    program = [sys.executable, "-m", "snakemake", "--snakefile", clone / "Snakefile"]
    profile = ["--profile", clone / "profiles" / "local", "--cores", 2]
    return [str(word) for word in (*program, *profile, *arguments)]


def environment():
    """Without the programs of this environment on the path."""
    mine = str(Path(sys.executable).parent)
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != mine]
    return os.environ | {"PATH": os.pathsep.join(path)}


def snakemake(*arguments, cwd, clone=CLONE):
    """Start and wait."""
    return subprocess.run(
        command(*arguments, clone=clone),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def run(config, *arguments, cwd):
    """Start, wait, and have it finished."""
    done = snakemake("--configfile", config, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout
    return done.stdout


def planned(config, *arguments, cwd):
    """Return how many jobs of each rule a dry run lists."""
    return jobs_in(run(config, "--dry-run", *arguments, cwd=cwd))


def jobs_in(text):
    """Return how many jobs of each rule Snakemake has listed."""
    if "Nothing to be done" in text:
        return {}
    table = text.rsplit("Job stats:", 1)[1]
    jobs = {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    assert jobs.pop("total") == sum(jobs.values())
    assert jobs.pop("all") == 1
    return jobs


def copied(finished, folder):
    """Copy a finished run, whose last job is then to be done again; return its file and results."""
    out, config = folder / "out", folder / "my.yaml"
    shutil.copytree(finished.out, out, symlinks=True)
    said = yaml.safe_load(finished.config.read_text())
    said["images"] = [{"path": str(finished.cwd / "a.tif")}]
    said["output"]["dir"] = str(out)
    config.write_text(yaml.safe_dump(said))
    return config, out


def results(out):
    """Return a checksum of each file that is published; pages tell times, which differ."""
    return {
        file.relative_to(out).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for folder in out.iterdir()
        if folder.is_dir() and folder.name not in ("runs", "logs", "report", ".snakemake")
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def ages(folder):
    """Return when each file was written, Snakemake's own state aside."""
    return {
        file.relative_to(folder).as_posix(): file.stat().st_mtime_ns
        for file in folder.rglob("*")
        if file.is_file() and ".snakemake" not in file.parts
    }
