"""Refits the last layer of a model that restores, so that its grey values are those of the light.

`python config/training/fit_greys.py DATA MODEL OUT`

A network that is judged by what a segmenter sees learns slightly less contrast than the light has.
DATA holds the images that config/training/split.csv names: those to tune on, in fluorescence, are
made noisy and restored, and a line is fitted to the light over what was restored (each image counts
the same, the median over images is taken). The line goes into the last layer's weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import cellseg_pipe as cs
from cellseg_pipe.io.images import read_array
from cellseg_pipe.kernels import boxes_and_areas, diameter_px
from cellseg_pipe.nets.checkpoint import load, save
from cellseg_pipe.nets.restore import restorer_for
from cellseg_pipe.training.degrade import with_photons
from cellseg_pipe.training.manifest import Pair, read_manifest

LEFT_OUT = ("Usiigaci", "BBBC050")  # no fluorescence; volumes
PHOTONS = (2.0, 4.0, 16.0, np.inf)
EVERY = 2  # image, which is enough


def light_of(path: Path, pair: Pair) -> NDArray[np.float32]:
    """Return the light of an image: 0 at its 1st percentile, 1 at its 99th."""
    pixels = read_array(path).astype(np.float32)
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        pixels = pixels.mean(axis=2)
    elif pixels.ndim == 3:
        pixels = pixels[int(pair.channels) if pair.channels.isdigit() else 0]
    low, high = np.percentile(pixels, (1, 99))
    return np.maximum((pixels - low) / max(high - low, 1e-6), 0).astype(np.float32)


def diameter_of(labels: NDArray) -> float:
    """Return the median diameter of the cells of an image; nan without any."""
    areas = boxes_and_areas(labels.astype(np.uint32)).area
    return float(np.median(diameter_px(areas, labels.ndim))) if len(areas) else np.nan


def line(data: Path, model: Path | str) -> tuple[float, float]:
    """Return slope and intercept of the light over what is restored, as the network sees both."""
    net, lines = restorer_for(model, device="cpu", precision="fp32"), []
    tune = [
        pair
        for pair in read_manifest(Path(__file__).with_name("split.csv"))
        if pair.split == "tune" and pair.channels not in ("grey", "hematoxylin")
    ]
    real = [p for p in tune if p.set not in LEFT_OUT and (data / p.image).exists()]
    for number, pair in enumerate(real[::EVERY]):
        px, light = diameter_of(read_array(data / pair.labels)), light_of(data / pair.image, pair)
        if not np.isfinite(px):
            continue
        for photons in PHOTONS:
            rng = np.random.default_rng(number)
            seen = light if np.isinf(photons) else with_photons(light, photons, rng)
            found = cs.restore(seen, axes="yx", model=net, diameter_px=px)
            (span,) = found.plan.ranges
            restored, wanted = (
                ((grey - span.low) / (span.high - span.low)).ravel().astype(np.float64)
                for grey in (found.pixels, light)
            )
            lines.append(np.polyfit(restored, wanted, 1))
    slope, intercept = np.median(lines, axis=0)
    found = f"{len(lines)} images: light = {slope:.4f} x restored + {intercept:.4f}"
    sys.stdout.write(f"{found}\n")
    return float(slope), float(intercept)


def main(data: str, model: str, out: str) -> None:
    """Fit, and write the model anew."""
    slope, intercept = line(Path(data), model)
    loaded = load(model)
    last = loaded.net.output[-1]
    with torch.no_grad():
        last.weight.mul_(slope)
        last.bias.mul_(slope).add_(intercept)
    save(Path(out), loaded.net, loaded.info)
    line(Path(data), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
