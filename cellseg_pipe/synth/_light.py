"""Light of synthetic cells on its way to the camera: arithmetic only, no I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth._masks import OwnedCell, owned_cells
from cellseg_pipe.synth._random import Salt, tissue_depth, uniform, waves

if TYPE_CHECKING:
    from cellseg_pipe.synth._spec import Spec

__all__ = ["expose", "light_and_truth"]

HAZE_DIAMETERS = 0.6  # half width of the haze kernel, a box applied twice
FINE_GRAIN, COARSE_GRAIN = 0.045, 0.13  # of a nucleus' diameter
CYTOPLASM_CONTRAST = 0.35  # of that of chromatin
OFFSET = 100  # grey level without any light


def light_and_truth(spec: Spec, block: Box) -> tuple[np.ndarray, np.ndarray]:
    """Render what a perfect camera would see in a block, with the truth.

    Parameters
    ----------
    spec : Spec
        The image.
    block : Box
        Where, in voxels of the full image or of its period.

    Returns
    -------
    light : float64 array [c, *spatial]
        Mean light per voxel; a median nucleus has about 1.
    truth : uint32 array [c, *spatial]
        Ids of the cells and, where there are two channels, of the nuclei.
    """
    region = block.grow(_halo_px(spec))
    light, truth = _paint(spec, region)
    contrast = np.array([1.0, CYTOPLASM_CONTRAST][: len(light)], np.float32) * np.float32(
        spec.texture
    )
    grain = contrast.reshape(-1, *[1] * spec.ndim) * _texture(spec, region)
    light *= np.clip(1 + grain, 0.15, None)
    core = block.relative_to(region.start).slices
    fold, ground, lamp = _fields(spec, block)
    seen = [_blur(spec, channel, core, fold=fold) + ground * (1 + fold) for channel in light]
    return np.stack(seen) * lamp, truth[:, *core]


def expose(spec: Spec, light: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Count photons and read them out as grey levels.

    Parameters
    ----------
    spec : Spec
        The image: its photons, read noise and level.
    light : float64 array [c, *spatial]
        Mean light per voxel.
    random : numpy.random.Generator
        Source of the noise.

    Returns
    -------
    uint16 array [c, *spatial]
        Grey levels.
    """
    counts = random.poisson(light * spec.photons).astype(np.float64)
    counts += spec.read_noise_photons * random.standard_normal(light.shape)
    counts *= spec.level / spec.photons
    return np.clip(np.rint(counts + OFFSET), 0, 65535).astype(np.uint16)


def _paint(spec: Spec, region: Box) -> tuple[np.ndarray, np.ndarray]:
    """Lay the cells' light and ids, each [c, *spatial], into a region."""
    light = np.zeros((spec.n_channels, *region.shape), np.float32)
    truth = np.zeros((spec.n_channels, *region.shape), np.uint32)
    for cell in owned_cells(spec, region):
        for channel, glow in zip(light, PAINTERS[spec.kind](spec, cell), strict=True):
            channel[cell.target] += np.float32(cell.brightness) * glow[cell.source]
        for channel, mask in zip(truth, (cell.truth, cell.nucleus_truth), strict=False):
            channel[cell.target][mask[cell.source]] = cell.id
    return light, truth


def _nucleus_light(spec: Spec, cell: OwnedCell) -> list[np.ndarray]:
    """Make it thickest in the middle; a little shines through where other nuclei lie on it."""
    covered = np.float32(0.25) * (cell.distance < 1)
    return [(1 - 0.4 * cell.distance**2) * np.where(cell.lit, np.float32(1), covered)]


def _cell_light(spec: Spec, cell: OwnedCell) -> list[np.ndarray]:
    """Make it thick round the nucleus and thin at free edges; a little leaks between channels."""
    slope = np.sqrt(np.clip(2 - 2 * cell.distance, 0, 1))
    body = np.exp(-1.2 * cell.distance**2) * slope * (0.8 + 0.2 * np.clip(10 * cell.rim, 0, 1))
    rim = np.exp(-((10 * cell.rim) ** 2))
    cytoplasm = cell.lit * ((1 - spec.membrane) * body + spec.membrane * rim)
    nucleus = (cell.lit & (cell.nucleus_distance < 1)) * (1 - 0.35 * cell.nucleus_distance**2)
    return [nucleus + 0.06 * cytoplasm, cytoplasm]


PAINTERS = {"nuclei": _nucleus_light, "cells": _cell_light}


def _halo_px(spec: Spec) -> list[int]:
    """How far light travels, per axis in voxels."""
    haze = [2 * half for half in _haze_half_px(spec)]
    psf = [len(weights) // 2 for weights in _psf(spec)]
    return [max(pair) for pair in zip(haze, psf, strict=True)]


def _haze_half_px(spec: Spec) -> list[int]:
    return [math.ceil(HAZE_DIAMETERS * spec.diameter_px / step) for step in spec.step_px]


def _psf(spec: Spec) -> list[np.ndarray]:
    axial = (spec.psf_axial, 1.0, 1.0)[-spec.ndim :]
    return [_gaussian(spec.psf_px * a / s) for a, s in zip(axial, spec.step_px, strict=True)]


def _gaussian(sigma: float) -> np.ndarray:
    """Weights of a Gaussian, cut at four sigma."""
    support = math.ceil(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-support, support + 1) / sigma) ** 2)
    return weights / weights.sum()


def _twice_box(half: int) -> np.ndarray:
    """Weights of a box of 2 half + 1 applied twice."""
    box = np.full(2 * half + 1, 1 / (2 * half + 1))
    return np.convolve(box, box)


def _smooth(values: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    for axis, line in enumerate(weights):
        values = ndimage.correlate1d(values, line, axis)
    return values


def _smooth_wide(values: np.ndarray, half_px: Sequence[int]) -> np.ndarray:
    """Apply a box twice per axis by running sums, at a cost that does not grow with its width."""
    for axis, half in enumerate(half_px):
        for _ in range(2):
            values = ndimage.uniform_filter1d(values, 2 * half + 1, axis)
    return values


def _texture(spec: Spec, region: Box) -> np.ndarray:
    """Grain of chromatin at two scales, of about unit variance, that hangs on position only."""
    nucleus_px = spec.diameter_px * (spec.nucleus_ratio if spec.kind == "cells" else 1.0)
    narrow = [_gaussian(FINE_GRAIN * nucleus_px / step) for step in spec.step_px]
    half_px = [math.ceil(COARSE_GRAIN * nucleus_px / step) for step in spec.step_px]
    wide = [np.convolve(w, _twice_box(h)) for w, h in zip(narrow, half_px, strict=True)]
    margin = [len(weights) // 2 for weights in wide]
    fine = _smooth(_white(spec, region.grow(margin)), narrow)
    coarse = _smooth_wide(fine, half_px)
    gains = [math.prod(map(np.linalg.norm, weights)) for weights in (narrow, wide)]
    mixed = np.float32(0.6 / gains[0]) * fine + np.float32(0.8 / gains[1]) * coarse
    return mixed[tuple(slice(m, -m) for m in margin)]


def _white(spec: Spec, region: Box) -> np.ndarray:
    """White noise of unit variance at each voxel, float32."""
    axes = [np.arange(a, b) for a, b in zip(region.start, region.stop, strict=True)]
    if spec.period_px is not None:
        axes = [x % period for x, period in zip(axes, spec.period_px, strict=True)]
    noise = uniform(spec.seed, Salt.TEXTURE, np.ix_(*axes))
    return ((noise - 0.5) * math.sqrt(12)).astype(np.float32)


def _blur(
    spec: Spec, light: np.ndarray, core: tuple[slice, ...], *, fold: np.ndarray | float
) -> np.ndarray:
    """Blur the light of one channel and add what is out of focus, more of it in folds."""
    sharp = _smooth(light, _psf(spec))[core]
    haze = _smooth_wide(light, _haze_half_px(spec))[core]
    unsharp = spec.haze + (1 - spec.haze) * 0.6 * fold
    return ((1 - unsharp) * sharp + unsharp * haze) * (1 + fold)


def _fields(spec: Spec, block: Box) -> tuple[np.ndarray | float, np.ndarray, np.ndarray]:
    """Return what varies slowly: folds, light of the medium (less on blank glass), the lamp."""
    mesh = np.ix_(*(np.arange(a, b) for a, b in zip(block.start, block.stop, strict=True)))
    far_px = 30 * spec.diameter_px
    cloud = np.exp(0.25 * waves(spec, mesh, salt=Salt.GROUND, wavelength_px=0.4 * far_px))
    tissue = 1 / (1 + np.exp(-12 * tissue_depth(spec, mesh)))
    lamp = np.exp(spec.uneven_light * waves(spec, mesh, salt=Salt.LAMP, wavelength_px=far_px))
    return _folds(spec, mesh), spec.background * (0.4 + 0.6 * tissue * cloud), lamp


def _folds(spec: Spec, mesh: Sequence) -> np.ndarray | float:
    """Creases along lines of the tissue, each of finite length: 0 to 1."""
    if not spec.folds:
        return 0.0
    line = waves(spec, mesh, salt=Salt.FOLD, wavelength_px=30 * spec.diameter_px)
    stretch = waves(spec, mesh, salt=Salt.CREASE, wavelength_px=15 * spec.diameter_px)
    return spec.folds * np.exp(-((line / 0.12) ** 2)) / (1 + np.exp(-8 * stretch))
