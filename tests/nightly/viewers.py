"""Opens what the pipeline writes in other programs, each in an environment of its own, by hand.

`python tests/nightly/viewers.py`, or `pytest -s` of this file (`-k napari`: one of them). The
environments are made when they are missing, under CELLSEG_CACHE/viewers or in the folder that
CELLSEG_VIEWERS names; remove one to get its newest version. A line is printed for each program and
kind of store.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from cellseg_pipe.config import experiment_of
from cellseg_pipe.engines.process import run
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.ngff import ImageMeta, create_image
from cellseg_pipe.io.pyramid import downsample_shard
from cellseg_pipe.io.shards import ShardWriter
from cellseg_pipe.synth import PRESETS, render

ROOT = Path(__file__).parents[2]
READERS = Path(__file__).parent / "readers"
CACHE = Path(
    os.environ.get("CELLSEG_VIEWERS")
    or Path(os.environ.get("CELLSEG_CACHE") or ROOT / ".cache") / "viewers"
)
MODEL = ROOT / "tests/golden/models/tiny.safetensors"
TARGET = "nuclei"
DIAMETER_PX = 30
# Two levels each: vizarr shows no labels on an image of one.
SHAPES = {"2d": (560, 700), "planes": (3, 300, 560), "3d": (28, 60, 540)}
SPACING_UM = {"2d": (0.5, 0.5), "planes": (2.0, 0.5, 0.5), "3d": (0.5, 0.5, 0.5)}
OFFSET_UM = {"2d": (12.0, 30.5), "planes": (4.0, 12.0, 30.5), "3d": (4.0, 12.0, 30.5)}
N_LEVELS = 2
FACTORS = {"2d": (2, 2), "planes": (1, 2, 2), "3d": (2, 2, 2)}  # of a level to the one above
PLACES = ("beside the image", "in the image")
TIMEOUT_S = 600


@dataclass(frozen=True)
class Program:
    """What a program needs, and what it is known to leave out of what it shows."""

    packages: tuple[str, ...] = ()
    script: str = ""
    offsets: float | None = 0.0  # how far from the truth, in voxels; None: it shows none
    pixels: bool = True
    levels: int = N_LEVELS


PROGRAMS = {
    # 0.10 takes the first transformation of a level alone, of image and labels alike.
    "napari": Program(("napari", "napari-ome-zarr"), "in_napari.py", offsets=None),
    "ome-zarr": Program(("ome-zarr",), "in_ome_zarr.py"),
    "spatialdata": Program(("spatialdata", "pyarrow"), "in_spatialdata.py", levels=1),
    "neuroglancer": Program(("neuroglancer", "tensorstore"), "in_neuroglancer.py", offsets=0.5),
    "vizarr": Program(("zarrita@~0.6.0", "@zarrita/storage@~0.1.4"), "in_vizarr.mjs"),
    "qupath": Program(("numpy",), "in_qupath.py", pixels=False),
    "schemas": Program(
        ("ngff-zarr", "jsonschema", "ome-zarr-models"), "in_schemas.py", pixels=False
    ),
}
LIMITS = {
    ("qupath", "0.5"): "QuPath reads no zarr v3: choose `ngff: '0.4'` for it",
    ("vizarr", "0.5"): "vizarr 0.3 looks for no labels in images of 0.5; its library reads them",
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("mode", SHAPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_labels_open(name, mode, version, place):
    limit = LIMITS.get((name, version))
    kind = f"{mode} {version} {place}"
    if name == "qupath" and limit:
        print(f"\n{name:12} | {kind:29} | not tried: {limit}")
        return
    case = case_of(mode, version, place)
    seen = look(name, case)
    wrong = list(differences(seen["labels"], case, PROGRAMS[name]))
    assert not wrong, f"{seen['reader']} shows {kind} wrongly: {'; '.join(wrong)}"
    assert seen.get("image", 0) in (0, int(place == PLACES[1])), seen
    facts = f"{len(seen['labels']['levels'])} levels, {case['n_cells']} cells"
    if PROGRAMS[name].offsets is None:
        facts += ", without the image's offset"
    if limit and place == PLACES[1]:
        facts += f" (but {limit})"
    print(f"\n{seen['reader']:12} | {kind:29} | {facts}: opens")


def differences(seen, case, program):
    """Yield what a program shows otherwise than it was written."""
    if "".join(seen["axes"]) != case["axes"]:
        yield f"axes {seen['axes']} instead of {case['axes']}"
    if len(seen["levels"]) != program.levels:
        yield f"{len(seen['levels'])} levels instead of {program.levels}"
    for number, (level, true) in enumerate(zip(seen["levels"], case["levels"], strict=False)):
        for problem in differences_of_level(level, true, program):
            yield f"level {number} {problem}"
    if "scale" not in seen["levels"][0] or "translation" not in seen["levels"][0]:
        yield "no scale or offset of level 0"


def differences_of_level(level, true, program):
    """Yield what a program shows otherwise in one level."""
    for key in ("shape", "dtype", *(("pixels",) if program.pixels else ())):
        if level.get(key) != true[key]:
            yield f"has {key} {level.get(key)} instead of {true[key]}"
    if "scale" in level and not np.allclose(level["scale"], true["scale"]):
        yield f"has scale {level['scale']} instead of {true['scale']}"
    if "translation" in level and program.offsets is not None:
        off = np.abs(np.subtract(level["translation"], true["translation"])) / true["scale"]
        if off.max() > program.offsets + 1e-9:
            yield f"starts at {level['translation']}, not {true['translation']}"


def look(name, case):
    """Ask a program what it sees in a store."""
    home, script = environment(name), READERS / PROGRAMS[name].script
    command = [str(home / "bin/python"), str(script)]
    if script.suffix == ".mjs":
        shutil.copy(script, home)  # node looks for packages beside the script
        command = ["node", str(home / script.name)]
    case = case | {"picture": str(pictures() / f"{name}-{case['kind'].replace(' ', '-')}.png")}
    done = subprocess.run(
        [*command, json.dumps(case)], capture_output=True, text=True, timeout=TIMEOUT_S, cwd=home
    )
    tail = "\n".join(done.stderr.splitlines()[-15:])
    assert done.returncode == 0, f"{name} rejects {case['kind']}, {case['store']}:\n{tail}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def pictures():
    folder = CACHE / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def environment(name):
    """Return the folder where a program is installed; what an earlier call made is used again."""
    packages = PROGRAMS[name].packages
    home = CACHE / name
    done, wanted = home / "packages.txt", "\n".join(packages)
    if done.exists() and done.read_text() == wanted:
        return home
    home.mkdir(parents=True, exist_ok=True)
    if PROGRAMS[name].script.endswith(".mjs"):
        if shutil.which("npm") is None:
            pytest.skip("npm not found: apt-get install nodejs npm")
        install = ["npm", "install", "--silent", "--no-fund", "--no-audit", *packages]
    else:
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        install = [home / "bin/python", "-m", "pip", "install", "--quiet", *packages]
    if packages:
        subprocess.run(install, check=True, cwd=home, stderr=subprocess.DEVNULL)
    done.write_text(wanted)
    return home


@functools.cache
def case_of(mode, version, place):
    """Return a store that the pipeline wrote, and what a program should see in it."""
    root, inside = folder_of(mode, version), place == PLACES[1]
    summary = segment(root, mode, version, inside)
    image, beside = root / "image.ome.zarr", root / "out/s1/labels.ome.zarr"
    labels = image / "labels" / TARGET if inside else beside
    assert (image / "labels" / TARGET).exists() == inside
    levels = [level_of(labels, mode, number) for number in range(N_LEVELS)]
    assert zarr.open_array(labels / "0", mode="r")[...].max() == summary["n_cells"] > 10
    return {
        "kind": f"{mode} {version} {place}",
        "root": str(root),
        "store": str(image if inside else beside),
        "image": str(image),
        "labels": str(labels),
        "table": str(root / "out/s1/cells.parquet"),
        "name": TARGET,
        "inside": inside,
        "version": version,
        "axes": "zyx"[-len(SHAPES[mode]) :],
        "scale": levels[0]["scale"],
        "translation": levels[0]["translation"],
        "levels": levels,
        "n_levels": N_LEVELS,
        "n_cells": summary["n_cells"],
        "chromium": shutil.which("chromium") is not None,
    }


def level_of(labels, mode, number):
    """Return what a program should see of one level: as asked for, but for its pixels."""
    sys.path.append(str(READERS))
    from _seen import level

    factor = np.array(FACTORS[mode]) ** number
    spacing, offset = np.array(SPACING_UM[mode]), np.array(OFFSET_UM[mode])
    pixels = zarr.open_array(labels / str(number), mode="r")[...]
    found = level(pixels, spacing * factor, offset + spacing * (factor - 1) / 2)
    assert found["shape"] == [-(-n // f) for n, f in zip(SHAPES[mode], factor, strict=True)]
    assert found["dtype"] == "uint32"
    return found


@functools.cache
def folder_of(mode, version):
    root = Path(tempfile.mkdtemp(prefix=f"viewers-{mode}-{version}-"))
    write_image(root / "image.ome.zarr", mode, version)
    return root


def write_image(path, mode, version):
    """Write a synthetic image with spacing and offset."""
    preset = PRESETS["nuclei"] if mode == "2d" else replace(PRESETS["volume"], anisotropy=1.0)
    spec = replace(preset, shape=SHAPES[mode], diameter_px=DIAMETER_PX, seed=3)
    pixels = render(spec, Box.of(spec.shape)).image[:1]
    axes = "c" + "zyx"[-len(spec.shape) :]
    meta = ImageMeta(axes, SPACING_UM[mode], ("DAPI",), OFFSET_UM[mode])
    array = {"shape": pixels.shape, "dtype": "uint16"}
    create_image(path, meta, array=array, value_range=(0, 4095), version=version, n_levels=N_LEVELS)
    writer = ShardWriter(path / "0")
    for number in range(len(writer.grid)):
        writer.write_shard(number, pixels[writer.grid.box(number).slices])
    for number in range(len(ShardWriter(path / "1").grid)):
        downsample_shard(path, 1, number, kind="image")


@functools.cache
def segment(root, mode, version, inside):
    """Run the pipeline, first with the labels beside the image, later also in it."""
    experiment = experiment_of(
        {
            "images": [{"path": str(root / "image.ome.zarr"), "name": "s1"}],
            "output": {"dir": str(root / "out"), "ngff": version, "into_image": inside},
            "targets": {TARGET: {"model": str(MODEL), "diameter_px": DIAMETER_PX}},
            "segment": {"mode": mode},
        }
    )
    return json.loads(run(experiment).summary.read_text())


if __name__ == "__main__":
    sys.exit(pytest.main(["-s", "-q", "-p", "no:cacheprovider", __file__, *sys.argv[1:]]))
