"""Fits the regression that guesses the diameter of cells from the network's style."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.engine import Engine
from cellseg_pipe.nets.size import SizeModel, fit
from cellseg_pipe.segmentation import segment
from cellseg_pipe.training.prepare import Prepared

__all__ = ["fit_size"]

OCTAVES = (-1.0, 0.0, 1.0)  # the images are also seen smaller and larger than they are
LEAST = 2  # images; a line through fewer is none
WIDEST_PX = 512


def fit_size(engine: Engine, images: Sequence[Prepared]) -> SizeModel | None:
    """Fit the regression on images whose diameter is known.

    Parameters
    ----------
    engine : Engine
        The trained network.
    images : sequence of Prepared
        Those it was trained on.

    Returns
    -------
    SizeModel or None
        None if fewer than two images have cells.
    """
    known = [image for image in images if math.isfinite(image.diameter_px)]
    if len(known) < LEAST:
        return None
    styles, diameters = [], []
    for image in known:
        for style, diameter in _seen(engine, image):
            styles.append(style)
            diameters.append(diameter)
    return fit(np.stack(styles), diameters, diam_mean_px=engine.diameter_px)


def _seen(engine: Engine, image: Prepared) -> Iterator[tuple[np.ndarray, float]]:
    """Yield style and diameter of an image at several scales, as if it had been taken so."""
    for octaves in OCTAVES:
        factor = 2.0**octaves
        box = _middle(image.labels.shape, WIDEST_PX / factor)
        pixels = np.asarray(image.pixels[(slice(None), *box.slices)], np.float32)
        # The network sees as many of its pixels per pixel of the image as the factor says.
        found = segment(
            pixels,
            model=engine,
            axes="cyx",
            channels=list(range(len(pixels))),
            normalise="off",
            mode="2d",
            diameter_px=engine.diameter_px / factor,
        )
        yield found.style, image.diameter_px * factor


def _middle(shape: Sequence[int], edge: float) -> Box:
    sizes = [min(n, max(1, round(edge))) for n in shape]
    starts = tuple((n - size) // 2 for n, size in zip(shape, sizes, strict=True))
    return Box(starts, tuple(s + size for s, size in zip(starts, sizes, strict=True)))
