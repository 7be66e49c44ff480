"""Lists the images that the shipped model is trained, tuned and tested on; renders synthetic ones.

`python config/training/make_split.py DATA SYNTHETIC > config/training/split.csv`

DATA holds `manifest.csv` with the sets named in the model card, SYNTHETIC is a folder for rendered
images. Splits are 70 / 10 / 20 by group within each set; a group is one original field or well.
The list is committed, and was made before the first training.
"""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import replace
from pathlib import Path

import tifffile

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth import PRESETS, render
from cellseg_pipe.training.manifest import Pair, split_by_group, write_manifest

SHAPE = (384, 384)
SYNTHETIC = {"nuclei": "nuclei", "tissue": "nuclei", "sparse": "nuclei", "elongated": "nuclei"}
SYNTHETIC |= {"cells": "cells", "epithelium": "cells"}
SEEDS = range(1000, 1010)  # the demo and the tests use others


def group_of(name: str) -> str:
    """Return the original field or well of an image, which its name tells."""
    if found := re.match(r"dsb_[a-z0-9]+_(g\d+)", name):
        return f"dsb {found[1]}"
    if found := re.match(r"bbbc039_([A-P]\d+)", name):
        return f"bbbc039 {found[1]}"
    if found := re.match(r"aits(?:nuc|cell)_(\w+?_[A-P]\d\d)f", name):
        return f"aits {found[1]}"  # nuclei and cells of one plate are of one experiment
    if found := re.match(r"bbbc050_train_(Emb\d+)", name):
        return f"bbbc050 {found[1]}"
    if found := re.match(r"usiigaci_(\d+)", name):
        return f"usiigaci {int(found[1]) // 6}"  # neighbours may be of one movie
    return name


def real(data: Path) -> list[Pair]:
    """Return the pairs of all sets with masks that a network may learn from."""
    pairs = []
    with open(data / "manifest.csv", newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["split"] in ("train", "train3d") and row["masks"]
        ]
    for row in rows:
        folder, name = row["file"].split("/")
        if folder not in ("train", "train3d") or row["set"].startswith("PlantSeg"):
            continue  # membranes of one volume teach no general network
        group = group_of(name)
        spacing = row["voxel_um_zyx"] if folder == "train3d" else ""
        if folder == "train3d" and not spacing:
            continue
        channels = "grey" if row["axes"].endswith("S") else ""
        pair = Pair(row["file"], row["masks"], row["set"], group, "train", channels, spacing)
        pairs.append(pair)
        if channels:  # stained tissue is also shown as its nuclear stain
            pairs.append(replace(pair, set=f"{pair.set} stain", channels="hematoxylin"))
        if row["extra"]:  # nuclei of the fields whose cells are labelled
            pairs.append(
                replace(pair, labels=row["extra"], set="Aitslab nuclei of cells", channels="1")
            )
    return pairs


def rendered(folder: Path) -> list[Pair]:
    """Return synthetic pairs; the files are made if they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for preset, kind in SYNTHETIC.items():
        for seed in SEEDS:
            name = f"{preset}_{seed}"
            image, labels = folder / f"{name}_img.tif", folder / f"{name}_masks.tif"
            if not labels.exists():
                spec = replace(PRESETS[preset], shape=SHAPE, seed=seed)
                piece = render(spec, Box.of(SHAPE))
                tifffile.imwrite(image, piece.image.squeeze(), compression="zlib")
                tifffile.imwrite(labels, piece.labels, compression="zlib")
            channels = "1,0" if kind == "cells" else ""
            pairs.append(
                Pair(image.name, labels.name, f"synthetic {kind}", name, "train", channels)
            )
    return pairs


def main() -> None:
    """Print the list."""
    data, synthetic = Path(sys.argv[1]), Path(sys.argv[2])
    found = split_by_group(real(data))
    invented = split_by_group(rendered(synthetic), shares=(0.9, 0.1, 0.0))
    write_manifest("/dev/stdout", [*found, *invented])


if __name__ == "__main__":
    main()
