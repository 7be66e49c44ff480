"""Sums per object from which its size, place, form and intensity follow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_ids, as_labels, loops
from cellseg_pipe.kernels.objects import Objects, boxes_and_areas, check_boxes

__all__ = ["Sums", "as_image", "mean_per_object", "object_sums"]

PIXEL_TYPES = ("uint8", "uint16", "float32", "float64")
INT64_RANGE = 2.0**63


@dataclass(frozen=True)
class Sums:
    """What is summed per object, ascending by label; sums of tiles add up to those of the whole.

    All is int64 and exact where the image is of integers. An object of area 0 (asked for but not
    there) has a box whose start is after its stop, and a minimum above its maximum.

    Parameters
    ----------
    label : uint32 array [n]
        Labels, without background.
    reference : int64 array [n, ndim]
        The voxel from which the moments of an object count.
    area : int64 array [n]
        Voxels of each object; its volume in 3D.
    first : int64 array [n, ndim]
        Sums of the distance d to the reference along each axis.
    second : int64 array [n, ndim, ndim]
        Sums of d_i * d_j.
    start, stop : int64 array [n, ndim]
        Half-open box.
    total, square : int64 array [n, channels], float64 for a float image
        Sums of intensities and of their squares.
    low, high : int64 array [n, channels], float64 for a float image
        Smallest and largest intensity.
    """

    label: NDArray[np.uint32]
    reference: NDArray[np.int64]
    area: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    total: NDArray[Any]
    square: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]

    @staticmethod
    def add(tables: Iterable[Sums], *, in_order: bool = False) -> Sums:
        """Add the tables of blocks that do not overlap.

        Parameters
        ----------
        tables : iterable of Sums
            One or more, with one reference per object. Sums of float images depend on the order
            of the pixels, so no object may have voxels in two tables of a float image.
        in_order : bool
            Unless the tables come in an order that is always the same, such as that of planes.

        Returns
        -------
        Sums
            The table of all the blocks together.
        """
        parts = list(tables)
        if not parts:
            raise ValueError("Sums.add needs one table or more, got none.")
        if len(kinds := {_kind(part) for part in parts}) > 1:
            raise ValueError(
                f"Sums.add needs tables of equal axes, channels and types, got {sorted(kinds)}."
            )
        names = [item.name for item in fields(Sums)]
        rows = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        order = np.argsort(rows["label"], kind="stable")
        return _merged({name: column[order] for name, column in rows.items()}, in_order=in_order)


def _kind(sums: Sums) -> tuple[int, int, str]:
    """Return what the tables of one data set share: axes, channels, type of the sums."""
    return sums.reference.shape[1], sums.total.shape[1], str(sums.total.dtype)


def _merged(rows: dict[str, NDArray[Any]], *, in_order: bool) -> Sums:
    """Unite the rows of equal labels, which are neighbours."""
    label = rows["label"]
    if label.size == 0:
        return Sums(**rows)
    again = label[1:] == label[:-1]
    if (again[:, None] & (rows["reference"][1:] != rows["reference"][:-1])).any():
        raise ValueError(
            "Sums.add needs one reference per object, got tables that differ. Give the same peaks"
            " to object_sums for all tiles."
        )
    begins = np.flatnonzero(np.r_[True, ~again])
    if rows["total"].dtype == np.float64 and not in_order:
        shared = np.add.reduceat((rows["area"] > 0).astype(int), begins) > 1
        if shared.any():
            raise ValueError(
                f"Sums.add needs object {label[begins][shared][0]} of a float image in one table,"
                " got two. Let the tile that owns it measure it whole."
            )
    reduced: dict[str, NDArray[Any]] = {}
    for name, column in rows.items():
        how = {"start": np.minimum, "low": np.minimum, "stop": np.maximum, "high": np.maximum}
        once = name in ("label", "reference")
        reduced[name] = column[begins] if once else how.get(name, np.add).reduceat(column, begins)
    return _exact(Sums(**reduced))


def _exact(sums: Sums) -> Sums:
    """Return sums that stay in the range of int64; refuse others."""
    there = sums.area > 0
    area = sums.area[there].astype(float)[:, None]
    away = [np.abs(edge - sums.reference.astype(float)) for edge in (sums.start, sums.stop)]
    largest = [np.maximum(*away)[there]]
    if sums.total.dtype == np.int64:
        largest.append(sums.high[there].astype(float))
    for values in largest:
        beyond = (area * values**2 >= INT64_RANGE).any(axis=1)
        if beyond.any():
            worst = beyond.argmax()
            raise OverflowError(
                "object_sums needs sums of squares below 2^63, got object"
                f" {sums.label[there][worst]} of {sums.area[there][worst]} voxels, up to"
                f" {values[worst].max():.0f} from zero. Put its peak inside it, or remove it."
            )
    return sums


def object_sums(
    labels: ArrayLike,
    intensities: ArrayLike | None = None,
    *,
    peaks: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    origin: Sequence[int] | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Sums:
    """Sum up voxels, positions and intensities of each object.

    Sums over an integer image are exact, so the tables of tiles with equal peaks add up to that
    of the whole. Those over a float image are float64 sums in C order: equal in every crop that
    holds the object whole, and with any number of threads.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 1 to 4 axes.
    intensities : uint8, uint16, float32 or float64 array [c, *spatial], optional
        The image, channels first; without it the table has no channels.
    peaks : integer array [n, ndim], optional
        Reference point of each object; by default the start of its box in this array, which
        serves if it is measured once.
    ids : integer array [n], optional
        Objects to measure, ascending; by default all that occur.
    origin : sequence of int, optional
        Where the first voxel of `labels` lies in the full image; 0 by default. Peaks and boxes are
        in full-image voxels.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Sums
        One row per object.
    """
    labels = as_labels(labels, "labels")
    image = as_image(intensities, labels.shape)
    first_voxel = _as_points(np.zeros(labels.ndim, int) if origin is None else origin, "origin")
    if first_voxel.shape != (labels.ndim,):
        raise ValueError(f"origin needs {labels.ndim} numbers, one per axis, got {origin}.")
    numbers, reference = _objects(labels, peaks=peaks, ids=ids, origin=first_voxel, threads=threads)
    run = loops(backend, threads)
    geometry = run.object_moments(labels, numbers, reference, first_voxel, threads=threads)
    channels = run.object_intensities(labels, image, numbers, threads=threads)
    return _exact(Sums(numbers, reference, *geometry, *channels))


def _as_points(points: ArrayLike, name: str) -> NDArray[np.int64]:
    """Return voxel positions as int64."""
    array = np.asarray(points)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} needs whole voxels, got {array.dtype}. Round on purpose.")
    return np.ascontiguousarray(array, np.int64)


def as_image(intensities: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a C-contiguous image [c, *shape] of a known pixel type.

    Parameters
    ----------
    intensities : array [c, *spatial] or None
        None for no channels.
    shape : tuple of int
        Of the labels.

    Returns
    -------
    uint8, uint16, float32 or float64 array [c, *spatial]
        The same memory where it already fits.
    """
    image = np.empty((0, *shape), np.uint8) if intensities is None else np.asarray(intensities)
    if image.dtype.name not in PIXEL_TYPES:
        raise TypeError(
            f"object_sums needs intensities of {', '.join(PIXEL_TYPES)}, got {image.dtype}."
            " Cast to float32 if exact sums are not needed."
        )
    if image.shape[1:] != shape or image.ndim != len(shape) + 1:
        raise ValueError(
            f"object_sums needs intensities [c, *spatial] with spatial shape {shape}, got"
            f" {image.shape}. A single channel needs a leading axis: image[None]."
        )
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))


def _objects(
    labels: NDArray[np.uint32],
    *,
    peaks: ArrayLike | None,
    ids: ArrayLike | None,
    origin: NDArray[np.int64],
    threads: int | None,
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the ascending ids to measure and the reference of each."""
    if ids is None or peaks is None:
        found = boxes_and_areas(labels, threads=threads)
    numbers = found.label if ids is None else as_ids(ids)
    if peaks is None:
        reference = np.tile(origin, (numbers.size, 1))
        _, here, there = np.intersect1d(numbers, found.label, return_indices=True)
        reference[here] += found.start[there]
    else:
        reference = _as_points(peaks, "peaks")
        if reference.size == numbers.size == 0:
            reference = reference.reshape(0, labels.ndim)
    if reference.shape != (numbers.size, labels.ndim):
        raise ValueError(
            f"peaks needs a row for each of {numbers.size} objects and {labels.ndim} axes, got"
            f" shape {reference.shape}."
        )
    return numbers, reference


def mean_per_object(
    values: ArrayLike,
    labels: ArrayLike,
    *,
    objects: Objects | None = None,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.float64]:
    """Return the mean of a float array over each object.

    The sum runs in float64 and C order: equal in every crop that holds the object whole.

    Parameters
    ----------
    values : float32 or float64 array [*spatial]
        For example the probability of each voxel.
    labels : integer array [*spatial]
        Labels of any values with gaps, 0 for background; 1 to 4 axes.
    objects : Objects, optional
        The objects of the array, where they are known already: saves a pass over it.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    float64 array [n]
        Means of the labels that occur, ascending by label.
    """
    labels = as_labels(labels, "labels")
    if (found := np.asarray(values).dtype).kind != "f":
        raise TypeError(f"mean_per_object needs an array of floats, got {found}.")
    image = as_image(np.asarray(values)[None], labels.shape)
    if objects is None:
        objects = boxes_and_areas(labels, threads=threads, backend=backend)
    check_boxes(objects, labels.shape, "mean_per_object")
    run = loops(backend, threads)
    total = run.object_intensities(labels, image, objects.label, threads=threads)[0]
    return total[:, 0] / objects.area
