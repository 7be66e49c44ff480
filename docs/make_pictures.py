"""Render the pictures of the documentation: `python docs/make_pictures.py`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import cellseg_pipe as cs
from cellseg_pipe.geometry import Box
from cellseg_pipe.plot import distinct_colors, outlines
from cellseg_pipe.synth import PRESETS, Spec, clear_light, render
from cellseg_pipe.training.degrade import with_photons

TILE_PX = 240
GAP_PX = 4
CAPTION_PX = 16
COLUMNS = 2
FIELD_PX, PHOTONS = 4096, 3.0  # of the restored field; at full brightness
LAYERS = 3  # image, outlines, fill


def stretch(grey: np.ndarray) -> np.ndarray:
    """Return an 8-bit image between the 0.5th and the 99.8th percentile, a little brightened."""
    low, high = np.percentile(grey, [0.5, 99.8])
    level = np.clip((grey - low) / max(high - low, 1), 0, 1)
    return (255 * level**0.8).astype(np.uint8)


def coloured(image: np.ndarray) -> np.ndarray:
    """Return RGB [y, x, 3]: grey for one channel; cytoplasm green and nuclei blue for two."""
    channels = [stretch(channel) for channel in image]
    if len(channels) == 1:
        return np.repeat(channels[0][..., None], 3, axis=2)
    nuclei, cytoplasm = channels
    green = np.maximum(cytoplasm, nuclei // 3)
    return np.stack([nuclei // 4, green, np.maximum(nuclei, cytoplasm // 4)], axis=-1)


def pictures(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Render the middle of a preset, one plane of it, and return it without and with outlines."""
    plane = tuple(n // 2 for n in spec.shape[:-2])
    spec = dataclasses.replace(spec, shape=spec.shape[:-2] + (TILE_PX, TILE_PX))
    box = Box(plane + (0, 0), tuple(n + 1 for n in plane) + (TILE_PX, TILE_PX))
    rendered = render(spec, box)
    flat = (-1, TILE_PX, TILE_PX)
    rgb = coloured(rendered.image.reshape(flat))
    labels = rendered.labels.reshape(TILE_PX, TILE_PX)
    lines = outlines(labels)[..., 3] > 0
    dimmed = (rgb * 0.75).astype(np.uint8)
    dimmed[lines] = distinct_colors(labels)[lines][:, :3]
    return rgb, dimmed


def sheet(specs: dict[str, Spec]) -> Image.Image:
    """Lay all presets on one sheet, a caption over each pair of pictures."""
    width, height = 2 * TILE_PX + 2 * GAP_PX, TILE_PX + CAPTION_PX + GAP_PX
    n_rows = -(-len(specs) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * width - GAP_PX, n_rows * height), "white")
    pen = ImageDraw.Draw(canvas)
    for n, (name, spec) in enumerate(specs.items()):
        left, top = n % COLUMNS * width, n // COLUMNS * height
        pen.text((left + 2, top + 2), name, fill="black")
        for column, picture in enumerate(pictures(spec)):
            where = (left + column * (TILE_PX + 1), top + CAPTION_PX)
            canvas.paste(Image.fromarray(picture), where)
    return canvas


def demo(report: Path) -> Image.Image:
    """Return the place across a seam in the report of `make demo`: its first layers."""
    file = sorted(report.glob("*-across-a-seam.png"))[0]
    row = Image.open(file)
    return row.crop((0, 0, LAYERS * row.height + (LAYERS - 1) * GAP_PX, row.height))


def restored() -> Image.Image:
    """Return a field of few photons as it is, restored, and without noise; below, across a seam."""
    spec = dataclasses.replace(PRESETS["nuclei"], shape=(FIELD_PX, FIELD_PX), seed=3)
    light = clear_light(spec)[0]
    noisy = with_photons(light, PHOTONS, np.random.default_rng(0))
    found = cs.restore(noisy, axes="yx", diameter_px=spec.diameter_px)
    # Where a window ends and the next one begins, as far as the network's grid is from the image's.
    lattice, scale = found.plan.views[0].lattice, found.plan.scale.factors[0]
    seam = int(4 * (lattice.edge[0] - lattice.overlap[0] / 2) / scale)
    part = slice(seam - TILE_PX // 2, seam + TILE_PX // 2)
    step = FIELD_PX // TILE_PX
    side = FIELD_PX // step
    canvas = Image.new("RGB", (3 * side + 2 * GAP_PX, side + TILE_PX + GAP_PX), "white")
    low, high = np.percentile(light, [0.5, 99.8])
    for column, seen in enumerate((noisy, found.pixels, light)):
        grey = (255 * np.clip((seen - low) / (high - low), 0, 1) ** 0.8).astype(np.uint8)
        small = Image.fromarray(grey).resize((side, side), Image.Resampling.BOX)
        canvas.paste(small, (column * (side + GAP_PX), 0))
        canvas.paste(Image.fromarray(grey[part, part]), (column * (side + GAP_PX), side + GAP_PX))
    return canvas


def save(picture: Image.Image, name: str) -> None:
    """Write a picture beside this script; a palette keeps it small: noise does not compress."""
    path = Path(__file__).parent / "images" / name
    path.parent.mkdir(exist_ok=True)
    picture.quantize(160, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    print(f"{path}: {picture.width} x {picture.height} px, {path.stat().st_size // 1000} kB")


def main() -> None:
    """Write every picture; that of the demo if `make demo` has run."""
    extra = {
        "folds and blanks": dataclasses.replace(
            PRESETS["tissue"], folds=1, blank_fraction=0.35, seed=27
        )
    }
    save(sheet({**PRESETS, **extra}), "synth.png")
    save(restored(), "restored.png")
    report = Path(__file__).parents[1] / "demo" / "results-2d" / "report"
    if report.exists():
        save(demo(report), "demo.png")


if __name__ == "__main__":
    main()
