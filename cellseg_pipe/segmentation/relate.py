"""Nuclei and cells of one image, related: columns for the tables of both, and the cytoplasm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels import (
    Matches,
    Sums,
    boxes_and_areas,
    compartments,
    cytoplasm_of,
    holders_of,
    match_nuclei,
    object_sums,
    overlap_pairs,
)

__all__ = [
    "Related",
    "cells_columns",
    "compartment_columns",
    "compartment_sums",
    "nuclei_columns",
    "relate",
]

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Related:
    """Nuclei and cells of one image.

    Parameters
    ----------
    nuclei : dict of str to array [n]
        A row per nucleus: `label`, `cell_id` (0 for none), `cell_overlap` (share of the nucleus in
        the cell that holds most of it).
    cells : dict of str to array [m]
        A row per cell: `label`, `nucleus_id` (the largest, 0 for none), `n_nuclei`, `no_nucleus`,
        sizes of both compartments and, of an image, their mean intensities.
    cytoplasm : uint32 array [*spatial]
        The cells without all nuclei.
    """

    nuclei: Columns
    cells: Columns
    cytoplasm: NDArray[np.uint32]


def relate(
    nuclei: ArrayLike,
    cells: ArrayLike,
    *,
    image: ArrayLike | None = None,
    channel_names: Sequence[str] = (),
    min_overlap: float = 0.5,
    threads: int | None = None,
) -> Related:
    """Find out which nucleus belongs to which cell, and measure nucleus and cytoplasm of cells.

    A nucleus belongs to the cell that holds most of it; of two that hold as much to the lower one.

    Parameters
    ----------
    nuclei, cells : integer array [*spatial]
        Labels of one image, 0 for background.
    image : uint8, uint16, float32 or float64 array [c, *spatial], optional
        What is measured, channels first.
    channel_names : sequence of str, optional
        Of its channels; their numbers by default.
    min_overlap : float
        Least share of a nucleus in its cell.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.

    Returns
    -------
    Related
        Tables of both, and the cytoplasm.
    """
    pairs = overlap_pairs(nuclei, cells, threads=threads)
    matches = match_nuclei(holders_of(lambda: [pairs]), min_overlap=min_overlap)
    objects = boxes_and_areas(cells, threads=threads)
    pixels = np.empty((0, *np.shape(cells)), np.uint8) if image is None else np.asarray(image)
    names = tuple(channel_names) or tuple(map(str, range(len(pixels))))
    if len(names) != len(pixels):
        raise ValueError(f"relate needs a name for each of {len(pixels)} channels, got {names}.")
    parts = compartments(nuclei, cells, matches, threads=threads)
    origin = (0,) * np.ndim(cells)
    found = [
        compartment_sums(part, pixels, ids=objects.label, origin=origin, threads=threads)
        for part in parts
    ]
    table: Columns = {"label": objects.label} | cells_columns(objects.label, matches)
    size = "volume" if np.ndim(cells) == 3 else "area"
    table |= compartment_columns(
        objects.label, objects.area, sums=(found[0], found[1]), names=names, size=size
    )
    rows: Columns = {"label": matches.nucleus} | nuclei_columns(matches.nucleus, matches)
    return Related(rows, table, cytoplasm_of(nuclei, cells))


def nuclei_columns(label: NDArray[np.uint32], matches: Matches) -> Columns:
    """Return what the table of nuclei says of their cells.

    Parameters
    ----------
    label : uint32 array [n]
        Nuclei.
    matches : Matches
        Of all nuclei.

    Returns
    -------
    dict of str to array [n]
        Columns.
    """
    return {
        "cell_id": _looked_up(label, matches.nucleus, matches.cell_of),
        "cell_overlap": _looked_up(label, matches.nucleus, matches.overlap),
    }


def cells_columns(label: NDArray[np.uint32], matches: Matches) -> Columns:
    """Return what the table of cells says of their nuclei.

    Parameters
    ----------
    label : uint32 array [n]
        Cells.
    matches : Matches
        Of all nuclei.

    Returns
    -------
    dict of str to array [n]
        Columns.
    """
    n_nuclei = _looked_up(label, matches.cell, matches.n_nuclei)
    return {
        "nucleus_id": _looked_up(label, matches.cell, matches.nucleus_of),
        "n_nuclei": n_nuclei,
        "no_nucleus": n_nuclei == 0,
    }


def compartment_sums(
    labels: NDArray[np.uint32],
    pixels: NDArray[Any],
    *,
    ids: NDArray[np.uint32],
    origin: Sequence[int],
    threads: int | None = None,
) -> Sums:
    """Sum up a compartment of cells, such that the parts of a cell can be added.

    Parameters
    ----------
    labels : uint32 array [*box]
        The compartment under the labels of its cells.
    pixels : array [C, *box]
        The image.
    ids : uint32 array [n]
        Cells that are meant, ascending.
    origin : sequence of int
        Where the box begins in the image.
    threads : int, optional
        Threads to use.

    Returns
    -------
    Sums
        A row for each of them that has any.
    """
    here = boxes_and_areas(labels, threads=threads).label
    here = here[np.isin(here, ids)]
    image = pixels if pixels.dtype in (np.uint8, np.uint16, np.float64) else pixels.astype("f4")
    peaks = np.zeros((len(here), labels.ndim), np.int64)
    return object_sums(labels, image, peaks=peaks, ids=here, origin=origin, threads=threads)


def compartment_columns(
    label: NDArray[np.uint32],
    area: NDArray[np.int64],
    *,
    sums: tuple[Sums, Sums],
    names: Sequence[str],
    size: str = "area",
) -> Columns:
    """Return sizes and mean intensities of nucleus and cytoplasm.

    Parameters
    ----------
    label : uint32 array [n]
        Cells.
    area : int64 array [n]
        All of each cell.
    sums : (Sums, Sums)
        Of nucleus and cytoplasm; cells that have none of it may be missing.
    names : sequence of str
        Of the channels; where two are equal, their numbers tell them apart.
    size : {"area", "volume"}
        What a number of voxels is called.

    Returns
    -------
    dict of str to array [n]
        Columns; the mean of a compartment that a cell has not is nan.
    """
    kinds = dict(zip(("nucleus", "cytoplasm"), sums, strict=True))
    areas = {kind: _looked_up(label, part.label, part.area) for kind, part in kinds.items()}
    columns = {f"{kind}_{size}_px": found for kind, found in areas.items()}
    columns["nucleus_share"] = areas["nucleus"] / area
    for kind, part in kinds.items():
        there = areas[kind] > 0
        for channel, name in enumerate(names):
            told_apart = f"{name}_{channel}" if list(names).count(name) > 1 else name
            total = _looked_up(label, part.label, part.total[:, channel])
            mean = np.full(len(label), np.nan)
            columns[f"mean_{kind}_{told_apart}"] = np.divide(
                total, areas[kind], out=mean, where=there
            )
    return columns


def _looked_up(
    wanted: NDArray[np.uint32], keys: NDArray[np.uint32], values: NDArray[Any]
) -> NDArray[Any]:
    """Return the value of each key that is wanted, 0 for those that are not there."""
    if not len(keys):
        return np.zeros(len(wanted), values.dtype)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0).astype(values.dtype)
