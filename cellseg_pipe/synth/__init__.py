"""Lazy, seeded synthetic microscopy with exact truth: arithmetic only, no I/O.

Cells sit on a jittered lattice; everything about a cell follows from the seed and its lattice site.
An image is made of fixed blocks, each rendered whole, and any box is cut out of them: so a box
equals the crop of the whole bit for bit, noise included, however the image is cut.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth._light import OFFSET, expose, light_and_truth
from cellseg_pipe.synth._random import Lattice, Salt
from cellseg_pipe.synth._spec import Spec

__all__ = ["PRESETS", "Rendered", "Spec", "clear_light", "render"]

BLOCK_PX = {2: (512, 512), 3: (64, 128, 128)}
HAZE_DIAMETERS = 0.6  # half width of the haze kernel, which is a box applied twice
CYTOPLASM_CONTRAST = 0.35  # its grain is finer than that of chromatin


@dataclass(frozen=True)
class Rendered:
    """A piece of a synthetic image with its truth.

    Parameters
    ----------
    image : uint16 array [c, *spatial]
        Grey levels.
    labels : uint32 array [*spatial]
        Ids of the cells, 0 for background. Ids are unique in the image, not dense.
    nuclei : uint32 array [*spatial] or None
        The nucleus of cell k has id k; None where the cells are the nuclei.
    """

    image: np.ndarray
    labels: np.ndarray
    nuclei: np.ndarray | None


def clear_light(spec: Spec) -> NDArray[np.float32]:
    """Render the light of a whole image as it is without noise.

    Parameters
    ----------
    spec : Spec
        The image.

    Returns
    -------
    float32 array [c, *shape]
        0 for no light, 1 at full brightness.
    """
    clear = replace(spec, photons=1e12, read_noise_photons=0.0)
    image = render(clear, Box.of(spec.shape)).image.astype(np.float32)
    return (image - OFFSET) / np.float32(spec.level)


def render(spec: Spec, box: Box) -> Rendered:
    """Render a box of the image, identical to the same box of the whole.

    Parameters
    ----------
    spec : Spec
        The image.
    box : Box
        Where, in voxels of the full image; inside it.

    Returns
    -------
    Rendered
        Image and truth of this box.
    """
    if box.ndim != spec.ndim or not Box.of(spec.shape).contains(box):
        raise ValueError(
            f"render needs a box inside the image of shape {spec.shape}, got {box}."
            " Clip the box to Box.of(spec.shape) first."
        )
    lattice = Lattice.of(spec)
    image = np.empty((spec.n_channels, *box.shape), np.uint16)
    truth = np.empty((spec.n_channels, *box.shape), np.uint32)  # nuclei are a second plane
    for index, copy, source, target in _pieces(spec, box):
        block_image, block_truth = _block(spec, index)
        image[:, *target] = block_image[:, *source]
        ids = block_truth[:, *source]
        truth[:, *target] = ids + (ids > 0) * np.uint32(lattice.offset(copy))
    return Rendered(image, truth[0], truth[1] if spec.n_channels == 2 else None)


def _pieces(
    spec: Spec, box: Box
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], list[slice], list[slice]]]:
    """Yield block index, copy of the period, slices of the block, slices of the box."""
    world = spec.period_px or spec.shape
    cuts = [
        list(_cuts(a, b, period=period, block=block))
        for a, b, period, block in zip(box.start, box.stop, world, _block_px(spec), strict=True)
    ]
    for pieces in itertools.product(*cuts):
        index, copy, source, target = zip(*pieces, strict=True)
        yield index, copy, list(source), list(target)


def _cuts(
    start: int, stop: int, *, period: int, block: int
) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield the pieces of one axis, each within one block of one copy of the period."""
    position = start
    while position < stop:
        copy, at_home = divmod(position, period)
        index, inside = divmod(at_home, block)
        length = min(stop - position, block - inside, period - at_home)
        target = slice(position - start, position - start + length)
        yield index, copy, slice(inside, inside + length), target
        position += length


def _block_px(spec: Spec) -> tuple[int, ...]:
    return spec.block_px or BLOCK_PX[spec.ndim]


@functools.lru_cache(maxsize=32)  # 100 to 400 MB when full; a period of 32 blocks is rendered once
def _block(spec: Spec, index: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Render one block: image [c, *spatial] and truth [c, *spatial], ids those of copy 0."""
    edge = _block_px(spec)
    block = Box(
        tuple(i * n for i, n in zip(index, edge, strict=True)),
        tuple((i + 1) * n for i, n in zip(index, edge, strict=True)),
    ).clip(Box.of(spec.period_px or spec.shape))
    random = np.random.default_rng((spec.seed, Salt.NOISE, *index))
    photons, truth = light_and_truth(spec, block)
    return expose(spec, photons, random), truth


SLIDE = (1024, 1024)
PRESETS = MappingProxyType(
    {
        "nuclei": Spec(SLIDE, diameter_px=28, clustering=0.5, haze=0.1, texture=0.2),
        "tissue": Spec(SLIDE, diameter_px=18, crowding=1.1, size_cv=0.22, haze=0.35, photons=60),
        "cells": Spec(
            SLIDE,
            kind="cells",
            diameter_px=64,
            crowding=1.15,
            clustering=0.7,
            elongation=1.6,
            roughness=0.2,
            nucleus_ratio=0.45,
        ),
        "epithelium": Spec(
            SLIDE,
            kind="cells",
            diameter_px=40,
            crowding=1.35,
            clustering=0,
            elongation=1.15,
            membrane=0.7,
            haze=0.25,
            photons=60,
        ),
        "volume": Spec((48, 256, 256), diameter_px=20, anisotropy=2.5, haze=0.3, photons=40),
        "sparse": Spec(SLIDE, crowding=0.35, mix_share=0.2, mix_ratio=1.5, photons=30),
        "elongated": Spec(SLIDE, diameter_px=22, elongation=2.8, alignment=2.0),
    }
)
"""Ready images by name; `dataclasses.replace` changes shape, seed and the rest."""
