"""How well a frozen segmenter finds cells in images that were made noisy and restored."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.nets.engine import Engine
from cellseg_pipe.restoration import restore
from cellseg_pipe.segmentation import segment
from cellseg_pipe.training.degrade import BLUR_DIAMETER_PX, LAWS, degraded, with_photons
from cellseg_pipe.training.evaluate import Judged, score_of
from cellseg_pipe.training.prepare import Prepared
from cellseg_pipe.training.targets import Target

__all__ = ["evaluate_restorer", "noisy_of", "worse_of"]


def evaluate_restorer(
    engine: Engine,
    segmenter: Engine,
    images: Sequence[Prepared],
    *,
    kind: str,
    photons: Sequence[float],
) -> list[Judged]:
    """Make images worse, restore and segment them, and compare with the truth.

    Parameters
    ----------
    engine : Engine
        The network that restores; images keep their grid, also where it is for larger ones.
    segmenter : Engine
        What finds the cells.
    images : sequence of Prepared
        Those without objects have no diameter, and take the network's.
    kind : str
        What was learned; what is more than noise is judged by images as they were in training, too.
    photons : sequence of float
        At full brightness, of images that are only noisy.

    Returns
    -------
    list of Judged
        Each image at each number, with the set named by it.
    """
    ways: dict[str, Callable[[Prepared], NDArray[np.float32]]] = {
        f"{number:g} photons": partial(noisy_of, photons=number) for number in photons
    }
    if kind != "denoise":
        ways[f"worse by {kind}"] = partial(worse_of, kind=kind)
    model = engine.model
    plain = replace(model, info=replace(model.info, restores="denoise"))
    restorer = Engine(plain, device=engine.device, precision="fp32", threads=engine.threads)
    return [
        _judged(restorer, segmenter, image, seen=make(image), name=name)
        for image in images
        for name, make in ways.items()
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


def worse_of(image: Prepared, kind: str) -> NDArray[np.float32]:
    """Return an image that is worse as crops of a kind are; the same for the same image and kind.

    Parameters
    ----------
    image : Prepared
        Normalised.
    kind : str
        Of a restoring network.

    Returns
    -------
    float32 array [n_inputs, y, x]
        In the same grey scale and on the same grid.
    """
    rng = np.random.default_rng(zlib.crc32(f"{image.pair.image} {kind}".encode()))
    law = LAWS[kind][int(rng.integers(len(LAWS[kind])))]
    known = image.diameter_px if math.isfinite(image.diameter_px) else BLUR_DIAMETER_PX
    light = np.asarray(image.pixels, np.float32)
    return np.stack([degraded(plane, law, rng, diameter_px=known) for plane in light])


def _judged(
    restorer: Engine, segmenter: Engine, image: Prepared, *, seen: NDArray[np.float32], name: str
) -> Judged:
    known = image.diameter_px if math.isfinite(image.diameter_px) else segmenter.diameter_px
    used = [n for n, plane in enumerate(image.pixels) if plane.any()]
    found = restore(seen, model=restorer, axes="cyx", channels=used, diameter_px=known)
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
        set=f"{score.set}, {name}",
        psnr_db=-10 * math.log10(max(error, 1e-12)),
    )
    return Judged(score, cells.labels, image)
