"""What the pixels in and round objects are like: quantiles, texture, background near by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels._checks import Backend, as_labels, loops
from cellseg_pipe.kernels.measure import as_image
from cellseg_pipe.kernels.objects import Objects, boxes_and_areas
from cellseg_pipe.kernels.tally import Tally

__all__ = ["object_quantiles", "object_rings", "object_texture", "ring_reach"]


def object_quantiles(
    labels: ArrayLike,
    intensities: ArrayLike,
    *,
    shares: Sequence[float],
    ids: ArrayLike | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.float64]:
    """Return quantiles of the pixels of each object, linear between two values as numpy's.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 2 or 3 axes.
    intensities : uint8, uint16, float32 or float64 array [c, *spatial]
        The image.
    shares : sequence of float
        Which quantiles, from 0 to 1.
    ids : integer array [n], optional
        Objects to measure, ascending; by default all that occur.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    float64 array [n, c, len(shares)]
        0 for objects that are not there.
    """
    wanted = np.array(shares, np.float64)
    if not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError(f"object_quantiles needs shares from 0 to 1, got {list(shares)}.")
    volume, image, objects = _volumes(labels, intensities, ids=ids, threads=threads)
    run = loops(backend, threads)
    return run.object_quantiles(volume, image, objects, wanted, threads=threads)


def object_texture(
    labels: ArrayLike,
    intensities: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    inner: Box | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Tally:
    """Sum up squares of differences of neighbours over faces, both of one object.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 2 or 3 axes.
    intensities : uint8, uint16, float32 or float64 array [c, *spatial]
        The image.
    ids : integer array [n], optional
        Objects to measure, ascending; by default all that occur.
    inner : Box, optional
        In the array: pairs whose later pixel lies in it count, so that blocks that know a layer
        before them add up to the whole. All by default.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Tally
        Number of pairs, then a sum per channel; int64 and exact where the image is of integers.
    """
    volume, image, objects = _volumes(labels, intensities, ids=ids, threads=threads)
    run = loops(backend, threads)
    box = _rows(inner, volume.shape)
    return Tally(objects.label, run.object_texture(volume, image, objects, box, threads=threads))


def object_rings(
    labels: ArrayLike,
    intensities: ArrayLike,
    *,
    ring_px: float,
    proportions: Sequence[float],
    ids: ArrayLike | None = None,
    inner: Box | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Tally:
    """Sum up the background within a distance of each object; other objects are left out.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 2 or 3 axes.
    intensities : uint8, uint16, float32 or float64 array [c, *spatial]
        The image.
    ring_px : float
        Distance of pixel centres up to which background counts, with the edges given next.
    proportions : sequence of float
        Edges of a voxel; infinite along an axis that rings do not extend along.
    ids : integer array [n], optional
        Objects to measure, ascending; by default all that occur.
    inner : Box, optional
        In the array: background in it counts. All by default.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Tally
        Number of pixels, then a sum per channel; int64 and exact where the image is of integers.
    """
    volume, image, objects = _volumes(labels, intensities, ids=ids, threads=threads)
    edges = (1.0,) * (3 - len(proportions)) + tuple(proportions)
    lines = _near(ring_px, edges, volume.shape)
    run = loops(backend, threads)
    box = _rows(inner, volume.shape)
    sums = run.object_rings(volume, image, objects, lines, box, threads=threads)
    return Tally(objects.label, sums)


def ring_reach(ring_px: float, proportions: Sequence[float]) -> tuple[int, ...]:
    """Return how many voxels a ring extends along each axis.

    Parameters
    ----------
    ring_px : float
        Its width.
    proportions : sequence of float
        Edges of a voxel.

    Returns
    -------
    tuple of int
        Voxels.
    """
    return tuple(int(ring_px // edge) for edge in proportions)


def _near(ring_px: float, edges: Sequence[float], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return rows (z, y, n) of the lines near a voxel; last how far they reach on each axis."""
    reach = [min(r, n) for r, n in zip(ring_reach(ring_px, edges), shape, strict=True)]
    found = []
    for z, y in itertools.product(*(range(-r, r + 1) for r in reach[:2])):
        # An infinite edge times a step of 0 is no number.
        away = sum((step * edge) ** 2 for step, edge in zip((z, y), edges, strict=False) if step)
        if away <= ring_px**2:
            found.append((z, y, int(math.sqrt(ring_px**2 - away) // edges[2])))
    return np.array([*found, reach], np.int64)


def _volumes(
    labels: ArrayLike, intensities: ArrayLike, *, ids: ArrayLike | None, threads: int | None
) -> tuple[NDArray[np.uint32], NDArray[Any], Objects]:
    """Return labels z, y, x and channels as flat rows, and the objects in them."""
    array = as_labels(labels, "labels")
    if array.ndim not in (2, 3):
        raise ValueError(f"labels need 2 or 3 axes, got shape {array.shape}.")
    image = as_image(intensities, array.shape)
    volume = array.reshape((1,) * (3 - array.ndim) + array.shape)
    objects = boxes_and_areas(volume, ids=ids, threads=threads)
    return volume, image.reshape(len(image), array.size), objects


def _rows(inner: Box | None, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return start and stop of a box in a volume; all of it where none is given."""
    if inner is None:
        inner = Box.of(shape)
    lead = 3 - inner.ndim
    return np.array([(0,) * lead + inner.start, (1,) * lead + inner.stop], np.int64)
