"""Judges whether restoring helps to segment, on images that no model was trained on; by hand.

`CELLSEG_DATA=FOLDER .venv/bin/python tests/nightly/restoration.py --restorer FILE [--segmenter A]
[--noise-segmenter D] [--images N]`. FOLDER holds the images that `config/training/split.csv` names;
only its flat test images of one channel are read: fluorescence, and phase contrast of Usiigaci.
Photons are counted at the 99th percentile of the image. Writes the figures into
docs/restoration.md.

A clean-trained segmenter; B a filter, then A; C the restorer, then A; D a segmenter that was
trained with noise; E the restorer, then D. Where only one segmenter is given, D and E are left out.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import cellseg_pipe as cs
from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.engine import Engine, engine_for
from cellseg_pipe.nets.restore import restorer_for
from cellseg_pipe.synth import PRESETS, clear_light, render
from cellseg_pipe.training.degrade import as_light, with_photons

sys.path.insert(0, str(Path(__file__).parent))

from model import ROOT, Image, images

PHOTONS = (1.0, 2.0, 4.0, 8.0, 16.0, np.inf)
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
DRAWS, TAILS = 2000, (2.5, 97.5)


@dataclass(frozen=True)
class Ways:
    """How cells are found, by a letter each."""

    restorer: Engine
    clean: Engine
    noisy: Engine | None

    def all(self) -> dict[str, tuple[str, Engine]]:
        """Return what is done to an image and what segments it, by the letter of the way."""
        ways = {
            "A": ("nothing", self.clean),
            "B gaussian": ("gaussian", self.clean),
            "B median": ("median", self.clean),
            "C": ("restored", self.clean),
        }
        if self.noisy is not None:
            ways |= {"D": ("nothing", self.noisy), "E": ("restored", self.noisy)}
        return ways

    def seen(self, how: str, light: NDArray, px: float, **settings: float) -> NDArray:
        """Return an image after what is done to it, on its own grid."""
        if how == "restored":
            model = self.restorer
            return cs.restore(light, axes="yx", model=model, diameter_px=px, **settings).pixels
        return light if how == "nothing" else filtered(light, how)


def segmented(light: NDArray, engine: Engine, px: float) -> NDArray:
    """Return the cells of an image of one channel."""
    return cs.segment(light, axes="yx", model=engine, channels=[0], diameter_px=px).labels


def filtered(light: NDArray, method: str) -> NDArray:
    """Return an image without its noise, by a filter of the usual size."""
    return cs.restore(light, axes="yx", method=method).pixels


def judged(pair: object) -> bool:
    """Tell whether an image is of one channel and flat: fluorescence, and phase contrast."""
    return pair.channels not in ("grey", "hematoxylin") and not pair.spacing_um  # type: ignore[attr-defined]


def light_of(image: Image) -> NDArray[np.float32]:
    """Return the light of an image's channel."""
    pixels = image.pixels
    if image.axes == "cyx":
        pixels = pixels[image.channels if isinstance(image.channels, int) else 0]
    elif image.axes == "yxc":
        pixels = pixels.mean(axis=2)
    return as_light(pixels)


def noisy(light: NDArray[np.float32], photons: float, name: str) -> NDArray[np.float32]:
    """Return an image of few photons; the same for the same name."""
    if np.isinf(photons):
        return light
    seed = zlib.crc32(f"{name} {photons:g}".encode())
    return with_photons(light, photons, np.random.default_rng(seed))


def scores(
    ways: Ways, some: list[Image]
) -> tuple[dict[float, dict[str, NDArray]], dict[float, NDArray]]:
    """Return the AP at IoU .5 of each image, by photons and way; and how its light came back."""
    found: dict[float, dict[str, NDArray]] = {}
    kept: dict[float, NDArray] = {}
    for photons in PHOTONS:
        shares = []
        rows: dict[str, list[float]] = {name: [] for name in ways.all()}
        for image in some:
            true, px = light_of(image), image.diameter_px
            light = noisy(true, photons, image.pair.image)
            seen: dict[str, NDArray] = {}
            for name, (how, engine) in ways.all().items():
                if how not in seen:
                    seen[how] = ways.seen(how, light, px)
                labels = segmented(seen[how], engine, px)
                rows[name].append(cs.evaluate(labels, image.truth).ap[0.5])
            shares.append(shares_of(seen["restored"], true))
        found[photons] = {name: np.array(row) for name, row in rows.items()}
        kept[photons] = np.array(shares)
        print(photons, {name: f"{row.mean():.3f}" for name, row in found[photons].items()})
    return found, kept


def shares_of(restored: NDArray, light: NDArray) -> tuple[float, float, float]:
    """Return mean and 99th percentile over those of the light, and by how much the 1st is off.

    The last in shares of the range, as it is 0 in the light.
    """
    (low, high), (least, most) = (np.percentile(seen, (1, 99)) for seen in (restored, light))
    return restored.mean() / light.mean(), high / most, (low - least) / (most - least)


def greys(kept: dict[float, NDArray]) -> list[str]:
    """Return the table of how the light of the test images came back."""
    lines = ["| photons | mean | 99 % | 1 % off |", "|---|---|---|---|"]
    for photons, shares in kept.items():
        told = [
            f"{middle:.3f} ({low:.3f} to {high:.3f})"
            for low, middle, high in np.percentile(shares, (25, 50, 75), axis=0).T
        ]
        lines.append(f"| {said(photons)} | {' | '.join(told)} |")
    return lines


def interval(values: NDArray, groups: list[str]) -> str:
    """Return a mean with its 95 % interval over bootstrap samples of groups."""
    names = sorted(set(groups))
    of_group = [values[[g == name for g in groups]] for name in names]
    sums = np.array([[np.nansum(v), np.isfinite(v).sum()] for v in of_group])
    rng = np.random.default_rng(0)
    drawn = sums[rng.integers(0, len(names), (DRAWS, len(names)))].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / np.maximum(drawn[:, 1], 1), TAILS)
    return f"{np.nanmean(values):+.3f} ({low:+.3f} to {high:+.3f})"


def tables(found: dict[float, dict[str, NDArray]], groups: list[str]) -> list[str]:
    """Return the table of means, and that of paired differences."""
    names = list(found[PHOTONS[0]])
    lines = [f"| photons | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for photons, row in found.items():
        values = " | ".join(f"{np.nanmean(row[name]):.3f}" for name in names)
        lines.append(f"| {said(photons)} | {values} |")
    pairs = [("C", "A"), ("C", "B gaussian"), ("C", "B median"), ("E", "D")]
    pairs = [pair for pair in pairs if set(pair) <= set(names)]
    head = " | ".join(f"{a} - {b}" for a, b in pairs)
    lines += ["", f"| photons | {head} |", "|---" * (len(pairs) + 1) + "|"]
    for photons, row in found.items():
        values = " | ".join(interval(row[a] - row[b], groups) for a, b in pairs)
        lines.append(f"| {said(photons)} | {values} |")
    return lines


def by_set(found: dict[float, dict[str, NDArray]], some: list[Image]) -> list[str]:
    """Return a row per set of images and way."""
    sets = np.array([image.pair.set for image in some])
    ways = list(found[np.inf])
    lines = ["| set | images | | " + " | ".join(map(said, found)) + " |"]
    lines.append("|---" * (len(found) + 3) + "|")
    for name, way in itertools.product(sorted(set(sets)), ways):
        about = f"{name} | {(sets == name).sum()}" if way == ways[0] else " | "
        values = [f"{np.nanmean(row[way][sets == name]):.3f}" for row in found.values()]
        lines.append(f"| {about} | {way} | {' | '.join(values)} |")
    return lines


def said(photons: float) -> str:
    """Return a number of photons in words."""
    return "clean" if np.isinf(photons) else f"{photons:g}"


RENDERED = {"nuclei": ("nuclei", 0), "cells": ("cells", 1), "nuclei in cells": ("cells", 0)}
N_RENDERED = 4
N_TIMED = 7


def statistics(ways: Ways) -> list[str]:
    """Return how mean and percentiles of synthetic images come back, noisy and restored."""
    lines = [
        "| image | photons | mean, noisy | 99 % | error, rms | mean, restored | 1 % off |"
        " 10 to 90 % off | 99 % | error, rms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (preset, channel) in RENDERED.items():
        truths = []
        for seed in range(77, 77 + N_RENDERED):
            spec = replace(PRESETS[preset], shape=(512, 512), seed=seed)
            truths.append(clear_light(spec)[channel])
        for photons in PHOTONS:
            rows = []
            for number, truth in enumerate(truths):
                light = noisy(truth, photons, f"synthetic {number}")
                restored = ways.seen("restored", light, spec.diameter_px)
                rows.append([*against(light, truth), *against(restored, truth)])
            mean, _, _, high, error, *ours = np.mean(rows, axis=0)
            values = " | ".join(f"{value:.3f}" for value in (mean, high, error, *ours))
            lines.append(f"| {name} | {said(photons)} | {values} |")
    return lines


def against(seen: NDArray, truth: NDArray) -> tuple[float, float, float, float, float]:
    """Return mean over that of the light, percentiles off, 99th over that of the light, the error.

    The 1st, the farthest off of those from the 10th to the 90th, and the error are in shares of the
    range of the light.
    """
    ours, light = (np.percentile(x, (1, 10, 25, 50, 75, 90, 99)) for x in (seen, truth))
    extent = light[-1] - light[0]
    off = (ours - light) / extent
    middle = off[1:-1][np.abs(off[1:-1]).argmax()]
    error = float(np.sqrt(np.mean((seen - truth) ** 2))) / extent
    return seen.mean() / truth.mean(), off[0], middle, ours[-1] / light[-1], error


def speed(ways: Ways) -> str:
    """Return how much longer it takes to restore and segment than to segment."""
    spec = replace(PRESETS["nuclei"], shape=(1024, 1024), seed=5)
    image = render(spec, Box.of(spec.shape)).image[0].astype(np.float32)
    timed = {"nothing": [], "restored": []}
    px = spec.diameter_px
    for _ in range(N_TIMED):  # the first loads what is compiled
        for how, seconds in timed.items():
            began = time.perf_counter()
            segmented(ways.seen(how, image, px, clear_below=0), ways.clean, px)
            seconds.append(time.perf_counter() - began)
    ratio = np.median(timed["restored"]) / np.median(timed["nothing"])
    return f"Restoring and segmenting 1024 x 1024 px takes {ratio:.2f} times as long as segmenting."


def section(ways: Ways, some: list[Image]) -> list[str]:
    """Return the figures of the page."""
    groups = [image.pair.group for image in some]
    told = [
        f"Restorer `{ways.restorer.name}` ({ways.restorer.sha256[:12]}), segmenter"
        f" `{ways.clean.name}` ({ways.clean.sha256[:12]}); {len(some)} test images of"
        f" {len(set(groups))} groups that training never saw, at their true diameter.",
        "",
        "Mean AP at IoU .5. A: segmented as they are. B: after a filter (gaussian of sigma 1 px,"
        " median of 3 px). C: restored.",
    ]
    if ways.noisy is None:
        told.append(
            "There is one segmenter, so the columns of a second one, trained with noise (D, and E"
            " after restoring), are left out. If the one given was itself trained with noise, A is"
            " what restoring has to beat in earnest."
        )
    else:
        told.append(f"D: the segmenter `{ways.noisy.name}`, trained with noise. E: D, restored.")
    found, kept = scores(ways, some)
    told += ["", *tables(found, groups)]
    told += ["", "Differences are paired by image; 95 % intervals are of a bootstrap over groups."]
    told += ["", "### By set", "Mean AP at IoU .5 of each way.", "", *by_set(found, some)]
    told += ["", "### Grey values", "Of the test images, restored over the light: the median, and"]
    told += ["quartiles over images; the 1st percentile in shares of the range.", "", *greys(kept)]
    told += [
        "",
        f"Of {N_RENDERED} rendered images of each kind, means; the 1st percentile, the farthest",
    ]
    told += ["of the 10th, 25th, 50th, 75th and 90th, and the error in shares of the range.", ""]
    return [*told, *statistics(ways), "", "### Time", speed(ways)]


def main() -> None:
    """Run and write the figures into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--restorer", required=True, help="name or file of the model that restores")
    parser.add_argument("--segmenter", default="nuclei", help="A: name or file (nuclei)")
    parser.add_argument("--noise-segmenter", help="D: another one, trained with noise")
    parser.add_argument("--images", type=int, help="at most so many, evenly over the list (all)")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    some = list(images(Path(os.environ["CELLSEG_DATA"]), judged))
    some = [image for image in some if image.truth.ndim == 2]
    step = max(1, len(some) // asked.images) if asked.images else 1
    second = asked.noise_segmenter
    ways = Ways(
        restorer_for(asked.restorer, device=asked.device),
        engine_for(asked.segmenter, device=asked.device),
        engine_for(second, device=asked.device) if second else None,
    )
    page = ROOT / "docs" / "restoration.md"
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    text = "\n".join(section(ways, some[::step]))
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    print(text)


if __name__ == "__main__":
    main()
