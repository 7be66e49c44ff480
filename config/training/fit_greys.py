"""Fits what training leaves of a model that restores: its grey values, and which light is clear.

`python config/training/fit_greys.py DATA MODEL[,MODEL..] OUT`

A network that is judged by what a segmenter sees learns slightly less contrast than the light has.
DATA holds the images that config/training/split.csv names: those to tune on, in fluorescence, and
rendered ones are made noisy and restored. The line that brings mean and 99th percentile of what was
restored to those of the light (each image counts the same, the median over images is taken) goes
into the last layer's weights. Of several models, each trained on from the one before, weights are
the mean first.

Light is clear whose noise lies below the middle (of logarithms) between the noisiest of the images
to tune on and the least noisy of them at 16 photons, two of a hundred left out on either side: such
channels stay as they are.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import cellseg_pipe as cs
from cellseg_pipe.io.images import read_array
from cellseg_pipe.kernels import boxes_and_areas, diameter_px
from cellseg_pipe.nets.checkpoint import Model, load, save
from cellseg_pipe.nets.restore import restorer_for
from cellseg_pipe.preprocess import noise_of
from cellseg_pipe.synth import PRESETS, clear_light
from cellseg_pipe.training.degrade import as_light, with_photons
from cellseg_pipe.training.manifest import Pair, read_manifest

VOLUMES, PHASE_CONTRAST = "BBBC050", "Usiigaci"
PHOTONS = (2.0, 4.0, 16.0, np.inf)
EVERY = 2  # image, which is enough
NOISY = 16.0  # photons at which restoring still helps a network that knows clear light
RENDERED = (("nuclei", 0), ("cells", 0), ("cells", 1))  # preset and channel
N_RENDERED = 6


def light_of(path: Path, pair: Pair) -> NDArray[np.float32]:
    """Return the light of an image's channel."""
    pixels = read_array(path)
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        pixels = pixels.mean(axis=2)
    elif pixels.ndim == 3:
        pixels = pixels[int(pair.channels) if pair.channels.isdigit() else 0]
    return as_light(pixels)


def diameter_of(labels: NDArray) -> float:
    """Return the median diameter of the cells of an image; nan without any."""
    areas = boxes_and_areas(labels.astype(np.uint32)).area
    return float(np.median(diameter_px(areas, labels.ndim))) if len(areas) else np.nan


def tuned_on(data: Path, *left_out: str) -> list[Pair]:
    """Return the images to tune on of which one channel is seen."""
    return [
        pair
        for pair in read_manifest(Path(__file__).with_name("split.csv"))
        if pair.split == "tune" and pair.channels not in ("grey", "hematoxylin")
        if pair.set not in left_out and (data / pair.image).exists()
    ]


def real(data: Path) -> Iterator[tuple[NDArray[np.float32], float]]:
    """Yield light and diameter of the images to tune on, in fluorescence."""
    for pair in tuned_on(data, VOLUMES, PHASE_CONTRAST)[::EVERY]:
        px = diameter_of(read_array(data / pair.labels))
        if np.isfinite(px):
            yield light_of(data / pair.image, pair), px


def rendered() -> Iterator[tuple[NDArray[np.float32], float]]:
    """Yield light and diameter of synthetic images."""
    for (preset, channel), seed in itertools.product(RENDERED, range(N_RENDERED)):
        spec = replace(PRESETS[preset], shape=(384, 384), seed=seed)
        yield clear_light(spec)[channel], spec.diameter_px


def line(data: Path, model: Model | Path | str) -> tuple[float, float]:
    """Return slope and intercept that bring what is restored to the light, as the network sees."""
    net, lines = restorer_for(model, device="cpu", precision="fp32"), []
    for number, (light, px) in enumerate(itertools.chain(real(data), rendered())):
        for photons in PHOTONS:
            rng = np.random.default_rng(number)
            seen = light if np.isinf(photons) else with_photons(light, photons, rng)
            found = cs.restore(seen, axes="yx", model=net, diameter_px=px, clear_below=0)
            (span,) = found.plan.ranges
            (ours, bright), (mean, brightest) = (
                (grey.mean(), np.percentile(grey, 99))
                for grey in ((x - span.low) / (span.high - span.low) for x in (found.pixels, light))
            )
            slope = (brightest - mean) / (bright - ours)
            lines.append((slope, mean - slope * ours))
    slope, intercept = np.median(lines, axis=0)
    told = f"{len(lines)} images: light = {slope:.4f} x restored + {intercept:.4f}"
    sys.stdout.write(f"{told}\n")
    return float(slope), float(intercept)


def clear_below(data: Path) -> float:
    """Return the noise, in shares of the range, below which light with cells is clear."""
    clear, noisy = [], []
    for number, pair in enumerate(tuned_on(data, VOLUMES)):
        if not read_array(data / pair.labels).any():  # its range is that of its noise
            continue
        light = light_of(data / pair.image, pair)
        for found, seen in (
            (clear, light),
            (noisy, with_photons(light, NOISY, np.random.default_rng(number))),
        ):
            low, high = np.percentile(seen, [1, 99])
            found.append(noise_of([seen[None]])[0] / (high - low))
    most, least = float(np.percentile(clear, 98)), float(np.percentile(noisy, 2))
    sys.stdout.write(f"noise of {len(clear)} images up to {most:.3f}, noisy from {least:.3f} on\n")
    if most >= least:
        raise ValueError("noise does not tell clear light from noisy light.")
    return round(float(np.sqrt(most * least)), 3)


def mean_of(models: list[str]) -> Model:
    """Return the last model with the mean of the weights of all."""
    loaded = [load(model) for model in models]
    states = [model.net.state_dict() for model in loaded]
    for key, tensor in states[-1].items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([state[key] for state in states]).mean(0))
    return loaded[-1]


def main(data: str, models: str, out: str) -> None:
    """Fit, and write the model anew."""
    loaded = mean_of(models.split(","))
    slope, intercept = line(Path(data), loaded)
    last = loaded.net.output[-1]
    with torch.no_grad():
        last.weight.mul_(slope)
        last.bias.mul_(slope).add_(intercept)
    save(Path(out), loaded.net, replace(loaded.info, clear_below=clear_below(Path(data))))
    line(Path(data), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
