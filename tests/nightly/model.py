"""Judges the shipped model on images it was never trained on, as a newcomer meets it: by hand.

`CELLSEG_DATA=FOLDER .venv/bin/python tests/nightly/model.py [--parts PART,...]`. FOLDER
holds the images that `config/training/split.csv` names; only its test groups are read. Writes
docs/model.md. Images come as they are, and the diameter is measured in each; beside it the true
diameter, and Otsu's threshold with a watershed as the floor that a network has to pass.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.segmentation import watershed

import cellseg_pipe as cs
from cellseg_pipe.io.images import read_array
from cellseg_pipe.stages import train
from cellseg_pipe.training.evaluate import Score, means_by_set
from cellseg_pipe.training.manifest import Pair, read_manifest, write_manifest

ROOT = Path(__file__).parents[2]
WAYS = ("measured", "true", "otsu")
PARTS = ("sets", "volumes", "noise", "robust", "tuned")
TUNED = ("Usiigaci", "Aitslab-bioimaging2 cells (2ch)", "DSB2018/cyto1024")  # five images of each
N_NOISE = 100


@dataclass(frozen=True)
class Image:
    """A test image as it is stored."""

    pair: Pair
    pixels: NDArray
    truth: NDArray
    axes: str
    channels: object

    @property
    def diameter_px(self) -> float:
        """Median over its objects."""
        ndim = self.truth.ndim
        sizes = np.bincount(self.truth[self.truth > 0])
        ball = np.pi / 4 if ndim == 2 else np.pi / 6
        return float(np.median((sizes[sizes > 0] / ball) ** (1 / ndim)))

    @property
    def anisotropy(self) -> float:
        """Distance of planes over the size of a pixel."""
        spacing = [float(step) for step in self.pair.spacing_um.split("/") if step]
        return spacing[0] / spacing[-1] if spacing else 1.0


def images(data: Path, wanted: Callable[[Pair], bool]) -> Iterator[Image]:
    """Yield the test images of some sets."""
    for pair in read_manifest(ROOT / "config" / "training" / "split.csv"):
        if pair.split != "test" or not wanted(pair):
            continue
        pixels, truth = read_array(data / pair.image), read_array(data / pair.labels)
        axes = (
            "zyx" if truth.ndim == 3 else "yxc" if pixels.shape[-1] == 3 else "cyx"[-pixels.ndim :]
        )
        channels = int(pair.channels) if pair.channels.isdigit() else pair.channels or None
        yield Image(pair, pixels, truth.astype(np.uint32), axes, channels)


def otsu(image: Image) -> NDArray[np.uint32]:
    """Return what a threshold and a watershed of distances find."""
    grey = image.pixels.astype(np.float32)
    if image.axes == "yxc":
        grey = 255 - grey.mean(axis=2)
    elif image.axes == "cyx":
        grey = grey[image.channels if isinstance(image.channels, int) else 0]
    smooth = gaussian(grey, 1)
    inside = smooth > threshold_otsu(smooth)
    away = ndimage.distance_transform_edt(inside)
    apart = max(3, round(image.diameter_px / 3))
    peaks = peak_local_max(gaussian(away, 1), min_distance=apart, labels=inside.astype(int))
    seeds = np.zeros(inside.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-away, seeds, mask=inside).astype(np.uint32)


def found(image: Image, way: str, **settings: object) -> NDArray[np.uint32]:
    """Return the cells that one way finds in an image."""
    if way == "otsu":
        return otsu(image)
    px = image.diameter_px if way == "true" else None
    result = cs.segment(
        image.pixels, axes=image.axes, channels=image.channels, diameter_px=px, **settings
    )
    return result.labels


def score(image: Image, labels: NDArray[np.uint32]) -> Score:
    """Compare with the truth."""
    result = cs.evaluate(labels, image.truth)
    numbers = (int(image.truth.max()), int(labels.max(initial=0)))
    return Score(image.pair.image, image.pair.set, result.ap[0.5], result.ap[0.75], *numbers)


def said(values: tuple[float, float, float]) -> str:
    """Return a mean with its interval."""
    return f"{values[0]:.3f} ({values[1]:.3f}-{values[2]:.3f})"


def sets(data: Path, only: set[str]) -> list[str]:
    """Return the table of the sets of plane images."""
    scores: dict[str, list[Score]] = {way: [] for way in WAYS}
    chosen = lambda p: p.set != "BBBC050" and (not only or p.set in only)  # noqa: E731
    for image in images(data, chosen):
        for way in WAYS:
            scores[way].append(score(image, found(image, way)))
        print(image.pair.image, [f"{scores[way][-1].ap50:.3f}" for way in WAYS], flush=True)
    means = {way: means_by_set(scores[way]) for way in WAYS}
    lines = ["| set | images | measured diameter: AP .5 | AP .75 | true diameter: AP .5 | AP .75 |"
             " Otsu: AP .5 | AP .75 |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name in means["measured"]:
        cells = [said(v) for way in WAYS for v in (means[way][name].ap50, means[way][name].ap75)]
        lines.append(f"| {name} | {means['measured'][name].n_images} | {' | '.join(cells)} |")
    return lines


def volumes(data: Path) -> list[str]:
    """Return the table of volumes: from three sides, and plane by plane."""
    lines = [
        "| volume | cells | 3d: AP .5 | AP .75 | planes: AP .5 | AP .75 |",
        "|---|---|---|---|---|---|",
    ]
    rows = []
    for image in images(data, lambda p: p.set == "BBBC050"):
        row = []
        for mode in ("3d", "planes"):
            labels = found(image, "true", mode=mode, anisotropy=image.anisotropy)
            one = score(image, labels)
            row += [one.ap50, one.ap75]
        rows.append(row)
        cells = " | ".join(f"{value:.3f}" for value in row)
        n = len(np.unique(image.truth)) - 1
        lines.append(f"| {Path(image.pair.image).name} | {n} | {cells} |")
        print(lines[-1], flush=True)
    lines.append(f"| mean | | {' | '.join(f'{v:.3f}' for v in np.mean(rows, axis=0))} |")
    return lines


def noise() -> list[str]:
    """Return how many cells are found where there are none."""
    rng = np.random.default_rng(0)
    kinds = {
        "constant": lambda: np.full((256, 256), rng.integers(0, 4000), np.uint16),
        "gaussian": lambda: np.clip(
            rng.normal(rng.integers(100, 2000), rng.integers(5, 100), (256, 256)), 0, 65535
        ).astype(np.uint16),
        "photons": lambda: rng.poisson(rng.integers(2, 200), (256, 256)).astype(np.uint16),
        "uniform": lambda: rng.integers(0, 255, (256, 256)).astype(np.uint8),
    }
    lines = ["| image | images | cells, measured diameter | cells, 30 px |", "|---|---|---|---|"]
    for kind, make in kinds.items():
        made = [make() for _ in range(N_NOISE // len(kinds))]
        n = [sum(cs.segment(i, diameter_px=px).n_cells for i in made) for px in (None, 30)]
        lines.append(f"| {kind} | {len(made)} | {n[0]} | {n[1]} |")
    return lines


def robust(data: Path) -> list[str]:
    """Return how much of the answer stays when grey values are changed."""
    changes: dict[str, tuple[Callable[[NDArray], NDArray], dict]] = {
        "a quarter of the gain": (lambda x: x / 4, {}),
        "four times the gain": (lambda x: x * 4, {}),
        "1000 grey values more": (lambda x: x + 1000, {}),
        "16 bits": (lambda x: np.round(x * (65535 / max(x.max(), 1))).astype(np.uint16), {}),
        "inverted, `invert: true`": (lambda x: x.max() - x, {"invert": True}),
        "inverted, nothing said": (lambda x: x.max() - x, {}),
    }
    lines = ["| change | AP .5 | AP .75 |", "|---|---|---|"]
    some = [
        i for n, i in enumerate(images(data, lambda p: p.set == "DSB2018/fluo256")) if n % 5 == 0
    ]
    before = [found(image, "true") for image in some]
    for name, (change, settings) in changes.items():
        ap = []
        for image, labels in zip(some, before, strict=True):
            pixels = change(image.pixels.astype(np.float32))
            again = cs.segment(
                pixels, axes=image.axes, channels=image.channels,
                diameter_px=image.diameter_px, **settings,
            ).labels  # fmt: skip
            result = cs.evaluate(again, labels)
            ap.append((result.ap[0.5], result.ap[0.75]))
        lines.append(f"| {name} | {' | '.join(f'{v:.3f}' for v in np.nanmean(ap, axis=0))} |")
    return lines


def tuned(data: Path) -> list[str]:
    """Return what five training images of a set, and no others, change for its test images."""
    lines = [
        "| set | test images | before: AP .5 | AP .75 | after: AP .5 | AP .75 |",
        "|---|---|---|---|---|---|",
    ]
    for name in TUNED:
        with tempfile.TemporaryDirectory() as folder:
            model = fine_tuned(name, data, Path(folder))
            test = list(images(data, lambda p: p.set == name))  # noqa: B023
            scores = [
                [score(image, found(image, "true", **settings)) for image in test]
                for settings in ({}, {"model": str(model)})
            ]
        ap = [f"{np.mean([getattr(s, of) for s in way]):.3f}" for way in scores for of in
              ("ap50", "ap75")]  # fmt: skip
        lines.append(f"| {name} | {len(test)} | {' | '.join(ap)} |")
        print(lines[-1], flush=True)
    return lines


def fine_tuned(name: str, data: Path, folder: Path) -> Path:
    """Train the shipped model on five images of a set, as the example of a configuration does."""
    manifest = ROOT / "config" / "training" / "split.csv"
    of_set = [p for p in read_manifest(manifest) if p.set == name and p.split == "train"]
    groups: dict[str, list[Pair]] = {}
    for pair in of_set:
        groups.setdefault(pair.group, []).append(pair)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*groups.values()))
    five = list(itertools.islice(filter(None, turns), 5))
    write_manifest(folder / "five.csv", five)
    config = yaml.safe_load((ROOT / "config/examples/train-fine-tune.yaml").read_text())
    config |= {"output": "run", "data": {"root": str(data), "manifest": "five.csv"}}
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    return train.run(train.read_plan(folder / "train.yaml"))


def page(parts: dict[str, list[str]]) -> str:
    """Return the page of the documentation."""
    about = {
        "sets": ("Test images in 2D", "Mean AP per image with its 95 % interval (bootstrap over"
                 " images); images as they are."),
        "volumes": ("Volumes of BBBC050 (mouse embryos)", "At their true diameter."),
        "noise": ("Images without cells", "256 x 256 px."),
        "tuned": ("Fine-tuning on five images", "The shipped model, trained on five images of a"
                  " set with `config/examples/train-fine-tune.yaml`; all its test images at their"
                  " true diameter."),
        "robust": ("Changed grey values", "AP of the cells that are found after a change, with"
                   " those found before as the truth."),
    }  # fmt: skip
    model = cs.load_model("nuclei")
    lines = ["# How good the shipped model is", "", "Written by `tests/nightly/model.py` with"
             f" `{model.info.name}`, sha256 {model.sha256[:12]}, on test groups that training"
             " never saw."]  # fmt: skip
    for part, table in parts.items():
        title, text = about[part]
        lines += ["", f"## {title}", text, "", *table]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default="", help="names out of the manifest, with commas")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--keep", type=Path, default=ROOT / ".cache" / "model.json")
    asked = parser.parse_args()
    data = Path(os.environ["CELLSEG_DATA"])
    warnings.simplefilter("ignore", RuntimeWarning)
    logging.getLogger("cellseg_pipe").setLevel(logging.ERROR)  # noise has no cells, as it says
    kept = json.loads(asked.keep.read_text()) if asked.keep.exists() else {}
    only = set(filter(None, asked.sets.split(",")))
    make = {
        "sets": lambda: sets(data, only),
        "volumes": lambda: volumes(data),
        "noise": noise,
        "robust": lambda: robust(data),
        "tuned": lambda: tuned(data),
    }
    for part in asked.parts.split(","):
        kept[part] = make[part]()
        asked.keep.parent.mkdir(parents=True, exist_ok=True)
        asked.keep.write_text(json.dumps(kept))
    text = page({part: kept[part] for part in PARTS if part in kept})
    (ROOT / "docs" / "model.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
