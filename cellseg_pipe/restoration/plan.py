"""What one restored image depends on, frozen before any of it is computed."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.nets._info import ModelInfo, Restores
from cellseg_pipe.nets.windows import View, views_from
from cellseg_pipe.preprocess import (
    Pick,
    Range,
    Scale,
    check_finite,
    gather_channels,
    gaussian_halo_px,
    input_ranges,
    noise_of,
    sample_boxes,
)
from cellseg_pipe.restoration._channels import restored_channels
from cellseg_pipe.restoration.settings import Method, RestoreSettings
from cellseg_pipe.segmentation.plan import ImageSource

__all__ = ["RestorePlan", "light_of", "make_restore_plan"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestorePlan:
    """What one restored image depends on, beside pixels and network.

    Parameters
    ----------
    method : {"network", "gaussian", "median"}
        What restores.
    kind : str
        What the network takes from images; "" for a filter, or if that is not known.
    shape : tuple of int
        Spatial shape of level 0.
    n_channels : int
        Channels of the image, and of the result.
    channels : tuple of int
        Those that are restored, ascending.
    floors : tuple of float
        Of each of them, the grey value below which there is no light; none for no such limit.
    ranges : tuple of Range
        Of each of them, the grey values that become 0 and 1 for the network.
    diameter_px : float
        Of a typical cell on level 0.
    scale : Scale
        The network's grid over level 0.
    out : Scale
        The result's grid over level 0.
    views : tuple of View
        From which sides the network looks, in the order of the sum.
    sigma_px : tuple of float
        Of the gaussian filter per axis.
    size_px : tuple of int
        Edge of the median filter per axis.
    clear : tuple of int
        Channels that would have been restored, and have so little noise that they stay.
    """

    method: Method
    kind: Restores
    shape: tuple[int, ...]
    n_channels: int
    channels: tuple[int, ...]
    floors: tuple[float, ...]
    ranges: tuple[Range, ...]
    diameter_px: float
    scale: Scale
    out: Scale
    views: tuple[View, ...]
    sigma_px: tuple[float, ...]
    size_px: tuple[int, ...]
    clear: tuple[int, ...] = ()

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Shape of the network's grid."""
        return self.scale.grid_shape(self.shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Spatial shape of the result."""
        return self.out.grid_shape(self.shape)

    @property
    def back(self) -> Scale:
        """The result's grid over that of the network."""
        pairs = zip(self.out.num, self.out.den, self.scale.num, self.scale.den, strict=True)
        num, den = zip(*((p * s, q * r) for p, q, r, s in pairs), strict=True)
        return Scale(num, den)

    @property
    def pixel_factor(self) -> tuple[float, ...]:
        """Edge of a pixel of the result over that of level 0, per axis."""
        return self.out.inverse.factors

    @property
    def halo_px(self) -> tuple[int, ...]:
        """What a filter reads beyond a box, per axis of level 0."""
        if self.method == "median":
            return tuple(size // 2 for size in self.size_px)
        return gaussian_halo_px(self.sigma_px)

    @property
    def picks(self) -> tuple[Pick, ...]:
        """What is restored, as inputs of a network."""
        return tuple(Pick("channel", channel) for channel in self.channels)


def make_restore_plan(
    source: ImageSource,
    settings: RestoreSettings,
    *,
    model: ModelInfo | None = None,
    seen: Collection[int] | None = None,
) -> RestorePlan:
    """Decide what one restored image depends on.

    Parameters
    ----------
    source : ImageSource
        The image.
    settings : RestoreSettings
        What the user set.
    model : ModelInfo, optional
        What is known of the network; a filter has none.
    seen : collection of int, optional
        Channels that are looked at; others stay. All by default.

    Returns
    -------
    RestorePlan
        The same for the same pixels, however they are stored or cut.
    """
    if (model is None) == (settings.method == "network"):
        raise ValueError(
            "a plan needs a model for method 'network' and none for a filter, got"
            f" {settings.method!r} and {model.name if model else 'no model'}."
        )
    channels, floors = restored_channels(source, settings, seen)
    in_plane = (0,) * (len(source.shape) - 2)
    one = Scale((1,) * len(source.shape), (1,) * len(source.shape))
    scale, out = _scales(source, settings, model) if model else (one, one)
    grid = scale.grid_shape(source.shape)
    kind: Restores = model.restores if model else ""
    diameter_px = settings.diameter_px or (model.diameter_px if model else 0.0)
    ranges: tuple[Range, ...] = ()
    clear: tuple[int, ...] = ()
    if model and channels:
        ranges, noise = _measured(source, channels, floors, model=model)
        said = settings.clear_below
        clear = _clear(channels, noise, limit=model.clear_below if said is None else said)
    kept = [place for place, channel in enumerate(channels) if channel not in clear]
    return RestorePlan(
        method=settings.method,
        kind=kind,
        shape=tuple(source.shape),
        n_channels=source.n_channels,
        channels=tuple(channels[place] for place in kept),
        floors=tuple(floors[place] for place in kept) if floors else (),
        ranges=tuple(ranges[place] for place in kept) if ranges else (),
        diameter_px=float(diameter_px),
        scale=scale,
        out=out,
        views=_views(grid, kind, settings=settings, model=model) if model else (),
        sigma_px=(*(float(n) for n in in_plane), *(float(settings.sigma_px),) * 2),
        size_px=(*(1 for _ in in_plane), *(settings.size_px,) * 2),
        clear=clear,
    )


def light_of(pixels: NDArray[Any], floors: tuple[float, ...]) -> NDArray[np.float32]:
    """Return grey values with what lies below no light raised to it.

    Parameters
    ----------
    pixels : float32 array [C, *box]
        The restored channels.
    floors : tuple of float
        One per channel, or none.

    Returns
    -------
    float32 array [C, *box]
        Grey values still.
    """
    if not floors:
        return pixels
    lowest = np.array(floors, np.float32).reshape(-1, *(1,) * (pixels.ndim - 1))
    return np.asarray(np.maximum(pixels, lowest))


def _measured(
    source: ImageSource, channels: tuple[int, ...], floors: tuple[float, ...], *, model: ModelInfo
) -> tuple[tuple[Range, ...], tuple[float, ...]]:
    """Measure ranges, and noise in shares of them, from the pixels that segmenting takes."""
    picks = tuple(Pick("channel", channel) for channel in channels)
    blocks = []
    for box in sample_boxes(source.shape):
        pixels = gather_channels(source.read(box), picks)
        check_finite(pixels, origin=box.start)
        blocks.append(light_of(pixels, floors))
    found = input_ranges(blocks, picks, percentiles=model.percentiles)
    for channel, span in zip(channels, found, strict=True):
        if span.flat:
            log.warning("channel %d has no contrast and stays as it is", channel)
    sigmas = np.broadcast_to(noise_of(blocks), len(channels)).tolist()
    noise = (
        math.inf if span.flat else sigma / (span.high - span.low)
        for sigma, span in zip(sigmas, found, strict=True)
    )
    return found, tuple(noise)


def _clear(channels: tuple[int, ...], noise: tuple[float, ...], *, limit: float) -> tuple[int, ...]:
    """Return the channels that have less noise than restoring them is worth."""
    found = tuple(c for c, level in zip(channels, noise, strict=True) if level < limit)
    for channel, level in zip(channels, noise, strict=True):
        if channel in found:
            log.info(
                "channel %d is clear and stays as it is: its noise is %.3f of its range, less than"
                " %.3f",
                *(channel, level, limit),
            )
    return found


def _scales(
    source: ImageSource, settings: RestoreSettings, model: ModelInfo
) -> tuple[Scale, Scale]:
    """Return the network's grid and that of the result, over level 0."""
    ndim = len(source.shape)
    factor = 1.0
    if settings.diameter_px is not None:
        factor = model.diameter_px / settings.diameter_px
    elif model.restores == "upsample":
        raise ValueError(
            f"{model.name} gives cells the diameter that it knows ({model.diameter_px:g} px), and"
            " needs to know how large they are: give a diameter."
        )
    else:
        log.warning(
            "no diameter given: the network sees the image as it is, and knows cells of %g px",
            model.diameter_px,
        )
    flat = (1.0,) * (ndim - 2)
    if model.restores != "aniso":
        scale = Scale.of((*flat, factor, factor))
        if model.restores != "upsample":
            return scale, Scale.of((1.0,) * ndim)
        if factor <= 1:
            log.warning(
                "cells of %g px are as large as %s knows them (%g px): the image keeps its pixels",
                *(settings.diameter_px, model.name, model.diameter_px),
            )
            return scale, Scale.of((1.0,) * ndim)
        return scale, scale
    if settings.anisotropy is None or settings.anisotropy <= 1 or source.series:
        known = "" if settings.anisotropy is None else f", got {settings.anisotropy:g}"
        raise ValueError(
            f"{model.name} restores the coarse axis of a volume (z) or an image (y), and needs to"
            f" know how coarse (more than 1){known}: give anisotropy, or the size of a voxel."
            " Times are no such axis."
        )
    out = Scale.of((settings.anisotropy, *(1.0,) * (ndim - 1)))
    return Scale.of((settings.anisotropy * factor, *(factor,) * (ndim - 1))), out


def _views(
    grid: tuple[int, ...], kind: str, *, settings: RestoreSettings, model: ModelInfo
) -> tuple[View, ...]:
    """Return from which sides the network looks: at planes, or along the coarse axis."""
    ndim = len(grid)
    sides: tuple[tuple[int, int], ...] = ((ndim - 2, ndim - 1),)
    if kind == "aniso" and ndim == 3:
        sides = ((0, 1), (0, 2))  # the network's first axis is the coarse one
    return views_from(
        grid,
        sides,
        window_px=settings.window_px,
        overlap_px=settings.overlap_px,
        divisor=model.architecture.divisor,
    )
