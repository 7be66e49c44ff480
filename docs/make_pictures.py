"""Render the pictures of the documentation: `python docs/make_pictures.py`."""

from __future__ import annotations

import colorsys
import dataclasses
from pathlib import Path

import numpy as np
import zarr
from PIL import Image, ImageDraw

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth import PRESETS, Spec, render

TILE_PX = 240
GAP_PX = 4
CAPTION_PX = 16
N_HUES = 64
COLUMNS = 2
SEAM_PX = 2048  # where tiles of the demo meet


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


def outlines(labels: np.ndarray) -> np.ndarray:
    """Tell which pixels of cells have a neighbour, below or beside, with another label."""
    padded = np.pad(labels, 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    others = (padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2])
    return (centre > 0) & np.logical_or.reduce([centre != other for other in others])


def overlaid(rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a dimmed image with the outline of each label in a colour of its own."""
    hues = [colorsys.hsv_to_rgb((0.618 * n) % 1, 0.75, 1) for n in range(N_HUES)]
    colours = (255 * np.array(hues)).astype(np.uint8)
    result = (rgb * 0.75).astype(np.uint8)
    edge = outlines(labels)
    result[edge] = colours[labels[edge] % N_HUES]
    return result


def pictures(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Render the middle of a preset, one plane of it, and return it without and with outlines."""
    plane = tuple(n // 2 for n in spec.shape[:-2])
    spec = dataclasses.replace(spec, shape=spec.shape[:-2] + (TILE_PX, TILE_PX))
    box = Box(plane + (0, 0), tuple(n + 1 for n in plane) + (TILE_PX, TILE_PX))
    rendered = render(spec, box)
    flat = (-1, TILE_PX, TILE_PX)
    rgb = coloured(rendered.image.reshape(flat))
    return rgb, overlaid(rgb, rendered.labels.reshape(TILE_PX, TILE_PX))


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


def demo(results: Path) -> Image.Image:
    """Return what `make demo` made where four tiles meet: the slide, and the cells found in it."""
    middle = Box((SEAM_PX - 150, SEAM_PX - 240), (SEAM_PX + 150, SEAM_PX + 240))
    slide = zarr.open_array(results.parent / "2d.ome.zarr" / "0", mode="r")
    labels = zarr.open_array(results / "2d" / "labels.ome.zarr" / "0", mode="r")
    grey = coloured(np.asarray(slide[(..., *middle.slices)]).reshape(1, *middle.shape))
    found = overlaid(grey, np.asarray(labels[middle.slices]))
    return Image.fromarray(np.concatenate([grey, np.full_like(grey[:, :GAP_PX], 255), found], 1))


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
    results = Path(__file__).parents[1] / "demo" / "results-2d"
    if results.exists():
        save(demo(results), "demo.png")


if __name__ == "__main__":
    main()
