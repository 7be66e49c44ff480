"""Any box of a restored image, from its plan alone: the bits of the same box cut out of the whole.

A box reads only what it depends on. Windows of the network lie on the global lattice and pass the
door to float16 whether they are stored or not; all else is arithmetic on global indices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import resample
from cellseg_pipe.nets.blending import blend
from cellseg_pipe.nets.restore import restored_windows
from cellseg_pipe.nets.windows import Network, Record, View
from cellseg_pipe.preprocess import (
    Range,
    Scale,
    apply_ranges,
    check_finite,
    gather_channels,
    gaussian,
)
from cellseg_pipe.restoration._seen import Seen
from cellseg_pipe.restoration.plan import RestorePlan, light_of
from cellseg_pipe.segmentation.plan import ImageSource
from cellseg_pipe.segmentation.predict import Records

__all__ = ["as_type", "network_inputs", "restored_box", "restored_records"]


def restored_records(
    net: Network,
    source: ImageSource,
    plan: RestorePlan,
    *,
    progress: Callable[[int], None] | None = None,
    threads: int | None = None,
) -> Records:
    """Return what computes windows when they are asked for.

    Parameters
    ----------
    net : Network
        From one channel to one.
    source : ImageSource
        The image.
    plan : RestorePlan
        What is done to it.
    progress : callable, optional
        Is told of windows that are done.
    threads : int, optional
        Threads to resample with.

    Returns
    -------
    callable
        From a view and a box of the network's grid to its records, ascending.
    """
    inputs = network_inputs(source, plan, threads=threads)

    def compute(view: View, box: Box) -> Iterator[Record]:
        for record in restored_windows(net, inputs, view, indices=view.over(box)):
            yield record
            if progress:
                progress(1)

    return compute


def network_inputs(
    source: ImageSource, plan: RestorePlan, *, threads: int | None = None
) -> Callable[[Box], NDArray[np.float32]]:
    """Return what makes the network's input of a box of its grid.

    Parameters
    ----------
    source : ImageSource
        The image.
    plan : RestorePlan
        What is done to it.
    threads : int, optional
        Threads to use.

    Returns
    -------
    callable
        From a box of the network's grid to float32 [n restored channels, *box].
    """

    def make(box: Box) -> NDArray[np.float32]:
        needed = plan.scale.source_box(box, plan.shape)
        light = apply_ranges(_light(source, plan, needed), plan.ranges)
        return _resampled(light, box, needed, scale=plan.scale, shape=plan.shape, threads=threads)

    return make


def restored_box(
    source: ImageSource,
    plan: RestorePlan,
    box: Box,
    *,
    records: Records | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Compute a box of a restored image.

    Parameters
    ----------
    source : ImageSource
        The image.
    plan : RestorePlan
        What is done to it.
    box : Box
        On the result's grid, inside `plan.out_shape`.
    records : callable, optional
        Gives the network's windows: from `restored_records`, or stored before. A filter needs none.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    float32 array [n_channels, *box]
        Grey values of the image; channels that are not restored as they are.
    """
    result = _kept(source, plan, box, threads=threads)
    if not plan.channels:
        return result
    if plan.method != "network":
        result[list(plan.channels)] = _filtered(source, plan, box, threads=threads)
        return result
    if records is None:
        raise ValueError("a box of a network's plan needs the records of its windows, got none.")
    values, stays = _from_windows(records, plan, box, threads=threads)
    for channel, image, span in zip(plan.channels, values, plan.ranges, strict=True):
        if not span.flat:
            result[channel] = _grey(image, span)
    stays[[span.flat for span in plan.ranges]] = False  # these are as they were, below offsets too
    if stays.any():
        light = _light_on(source, plan, box, threads=threads)
        for channel, image, still in zip(plan.channels, light, stays, strict=True):
            np.copyto(result[channel], image, where=still)
    return result


def as_type(values: NDArray[np.float32], dtype: DTypeLike) -> NDArray[Any]:
    """Return grey values in another type: rounded to the nearest whole number, within its limits.

    Parameters
    ----------
    values : float32 array
        Grey values.
    dtype : dtype
        Of the result.

    Returns
    -------
    array
        Of that type.
    """
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return values.astype(kind)
    if kind.kind == "b":
        return values >= 0.5
    limits = np.iinfo(kind)
    # In float64, which holds the limits of 32 bits; beyond them float32 was the limit before.
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(kind)


def _kept(
    source: ImageSource, plan: RestorePlan, box: Box, *, threads: int | None
) -> NDArray[np.float32]:
    """Return all channels as they are, on the result's grid."""
    flat = any(span.flat for span in plan.ranges)
    if len(plan.channels) == plan.n_channels and not flat:
        return np.empty((plan.n_channels, *box.shape), np.float32)
    needed = plan.out.source_box(box, plan.shape)
    pixels = np.asarray(source.read(needed))
    return _resampled(pixels, box, needed, scale=plan.out, shape=plan.shape, threads=threads)


def _light(source: ImageSource, plan: RestorePlan, box: Box) -> NDArray[np.float32]:
    """Return the channels that are restored, finite and not below no light."""
    pixels = gather_channels(source.read(box), plan.picks)
    check_finite(pixels, origin=box.start)
    return light_of(pixels, plan.floors)


def _light_on(
    source: ImageSource, plan: RestorePlan, box: Box, *, threads: int | None
) -> NDArray[np.float32]:
    """Return the channels that are restored as they were, on the result's grid."""
    needed = plan.out.source_box(box, plan.shape)
    light = _light(source, plan, needed)
    return _resampled(light, box, needed, scale=plan.out, shape=plan.shape, threads=threads)


def _from_windows(
    records: Records, plan: RestorePlan, box: Box, *, threads: int | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Blend windows, take the mean of the sides, and bring them to the result's grid.

    Also return where none of them had anything to restore: weights that add up to one by and
    large would make a little contrast of none, and background that nobody acquired stays as it is.
    """
    needed, n = plan.back.source_box(box, plan.grid_shape), len(plan.channels)
    total, seen = np.zeros((n, *needed.shape), np.float32), Seen(n, needed)
    for view in plan.views:
        total += blend(seen.noted(records(view, needed), view), view, needed, n_outputs=n)[0]
    if len(plan.views) > 1:
        total /= np.float32(len(plan.views))

    def on_result(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return _resampled(
            image, box, needed, scale=plan.back, shape=plan.grid_shape, threads=threads
        )

    if not seen.any_stays:
        return on_result(total), np.zeros((n, *box.shape), bool)
    return on_result(total), on_result(seen.restored) == 0


def _resampled(
    pixels: NDArray[Any],
    box: Box,
    needed: Box,
    *,
    scale: Scale,
    shape: tuple[int, ...],
    threads: int | None,
) -> NDArray[np.float32]:
    """Bring the pixels of a box that a scale needs to the box itself."""
    return resample(
        pixels,
        box=box,
        origin=needed.start,
        source_shape=shape,
        num=scale.num,
        den=scale.den,
        threads=threads,
    )


def _grey(image: NDArray[np.float32], span: Range) -> NDArray[np.float32]:
    """Bring normalised values back to grey values: the inverse of `apply_ranges`."""
    return np.asarray(image * np.float32(span.high - span.low) + np.float32(span.low))


def _filtered(
    source: ImageSource, plan: RestorePlan, box: Box, *, threads: int | None
) -> NDArray[np.float32]:
    wide = box.grow(plan.halo_px).clip(Box.of(plan.shape))
    light = _light(source, plan, wide)
    if plan.method == "median":
        return _median(light, plan, box, wide=wide)
    return gaussian(
        light, plan.sigma_px, box=box, origin=wide.start, shape=plan.shape, threads=threads
    )


def _median(
    light: NDArray[np.float32], plan: RestorePlan, box: Box, *, wide: Box
) -> NDArray[np.float32]:
    """Return medians over a square, mirrored at the image's borders and nowhere else."""
    reach = box.grow(plan.halo_px)
    more = [
        (a - low, high - b)
        for low, a, b, high in zip(reach.start, wide.start, wide.stop, reach.stop, strict=True)
    ]
    inner = tuple(slice(h, h + n) for h, n in zip(plan.halo_px, box.shape, strict=True))
    images = (np.pad(image, more, mode="symmetric") for image in light)
    # A value of the pixels themselves, whatever the order: no sum whose last bits could differ.
    return np.stack([ndimage.median_filter(image, plan.size_px)[inner] for image in images])
