"""How well a frozen segmenter finds cells in images that were made noisy and restored."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.nets.engine import Engine
from cellseg_pipe.restoration import restore
from cellseg_pipe.segmentation import segment
from cellseg_pipe.training.degrade import with_photons
from cellseg_pipe.training.evaluate import Judged, score_of
from cellseg_pipe.training.prepare import Prepared
from cellseg_pipe.training.targets import Target

__all__ = ["evaluate_restorer", "noisy_of"]


def evaluate_restorer(
    engine: Engine, segmenter: Engine, images: Sequence[Prepared], *, photons: Sequence[float]
) -> list[Judged]:
    """Make images noisy, restore and segment them, and compare with the truth.

    Parameters
    ----------
    engine : Engine
        The network that restores; images keep their grid, also where it is for larger ones.
    segmenter : Engine
        What finds the cells.
    images : sequence of Prepared
        Those without objects have no diameter, and take the network's.
    photons : sequence of float
        At full brightness.

    Returns
    -------
    list of Judged
        Each image at each number, with the set named by it.
    """
    model = engine.model
    plain = replace(model, info=replace(model.info, restores="denoise"))
    restorer = Engine(plain, device=engine.device, precision="fp32", threads=engine.threads)
    return [
        _judged(restorer, segmenter, image, photons=number)
        for image in images
        for number in photons
    ]


def noisy_of(image: Prepared, photons: float) -> NDArray[np.float32]:
    """Return an image of few photons; the same for the same image and number.

    Parameters
    ----------
    image : Prepared
        Normalised.
    photons : float
        At full brightness.

    Returns
    -------
    float32 array [n_inputs, y, x]
        In the same grey scale, 0 for no light.
    """
    seed = zlib.crc32(f"{image.pair.image} {photons:g}".encode())
    light = np.maximum(np.asarray(image.pixels, np.float32), 0)
    return with_photons(light, photons, np.random.default_rng(seed))


def _judged(restorer: Engine, segmenter: Engine, image: Prepared, *, photons: float) -> Judged:
    known = image.diameter_px if math.isfinite(image.diameter_px) else segmenter.diameter_px
    used = [n for n, plane in enumerate(image.pixels) if plane.any()]
    found = restore(
        noisy_of(image, photons), model=restorer, axes="cyx", channels=used, diameter_px=known
    )
    cells = segment(
        found.pixels,
        model=segmenter,
        axes="cyx",
        channels=list(range(len(image.pixels))),
        diameter_px=known,
    )
    score = score_of(image, cells.labels, np.zeros(1, np.int64), target=Target())
    light = np.maximum(np.asarray(image.pixels, np.float32)[used], 0)
    error = float(np.mean((found.pixels[used] - light) ** 2, dtype=np.float64))
    score = replace(
        score,
        set=f"{score.set}, {photons:g} photons",
        psnr_db=-10 * math.log10(max(error, 1e-12)),
    )
    return Judged(score, cells.labels, image)
