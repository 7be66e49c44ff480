"""Which nucleus belongs to which cell, and which pixels of a cell are nucleus and cytoplasm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import as_labels, same_shape
from cellseg_pipe.kernels.objects import boxes_and_areas
from cellseg_pipe.kernels.overlap import Pairs, sum_pairs
from cellseg_pipe.kernels.relabel import relabel

__all__ = ["Holders", "Matches", "compartments", "cytoplasm_of", "holders_of", "match_nuclei"]

NONE = np.zeros(0, np.uint32)


@dataclass(frozen=True)
class Holders:
    """The cell that holds most of each nucleus, ascending by nucleus.

    Parameters
    ----------
    nucleus : uint32 array [n]
        Labels.
    cell : uint32 array [n]
        Of several that hold as much of it the lowest; 0 where no cell holds any of it.
    shared, area : int64 array [n]
        Voxels that the two share, and all of the nucleus.
    """

    nucleus: NDArray[np.uint32]
    cell: NDArray[np.uint32]
    shared: NDArray[np.int64]
    area: NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """Which nucleus belongs to which cell, both ways.

    Parameters
    ----------
    nucleus : uint32 array [n]
        All nuclei, ascending.
    cell_of : uint32 array [n]
        The cell of each, 0 for none.
    overlap : float64 array [n]
        Share of the nucleus in the cell that holds most of it, which may be too little.
    cell : uint32 array [m]
        Cells with a nucleus, ascending.
    nucleus_of : uint32 array [m]
        The nucleus that has most voxels in the cell, of equal ones the lowest.
    n_nuclei : int64 array [m]
        How many belong to the cell.
    """

    nucleus: NDArray[np.uint32]
    cell_of: NDArray[np.uint32]
    overlap: NDArray[np.float64]
    cell: NDArray[np.uint32]
    nucleus_of: NDArray[np.uint32]
    n_nuclei: NDArray[np.int64]


def holders_of(tables: Callable[[], Iterable[Pairs]]) -> Holders:
    """Find the cell that holds most of each nucleus, from tables of blocks that do not overlap.

    Parameters
    ----------
    tables : callable
        Gives the tables (nuclei left, cells right), one after the other; called twice. In memory
        are a row per nucleus, and the pairs of those nuclei that lie in several blocks.

    Returns
    -------
    Holders
        Of all nuclei.
    """
    seen = [np.unique(table.left) for table in tables()]
    every, blocks = np.unique(np.concatenate([NONE, *seen]), return_counts=True)
    cut = every[blocks > 1]
    found, parts = [], []
    for table in tables():
        in_several = np.isin(table.left, cut)
        found.append(_best(_rows(table, ~in_several)))
        parts.append(_rows(table, in_several))
    found.append(_best(sum_pairs(parts)))
    nucleus, cell, shared, area = (
        np.concatenate([getattr(part, name) for part in found])
        for name in ("nucleus", "cell", "shared", "area")
    )
    order = np.argsort(nucleus)
    return Holders(nucleus[order], cell[order], shared[order], area[order])


def _rows(table: Pairs, wanted: NDArray[np.bool_]) -> Pairs:
    """Return the pairs of some nuclei."""
    wanted = wanted & (table.left > 0)
    return Pairs(table.left[wanted], table.right[wanted], table.count[wanted])


def _best(pairs: Pairs) -> Holders:
    """Return the holders of nuclei of which a table has all pairs."""
    nucleus, first = np.unique(pairs.left, return_index=True)
    if not len(nucleus):
        none = np.zeros(0, np.int64)
        return Holders(nucleus, NONE, none, none)
    area = np.add.reduceat(pairs.count, first)
    inside = np.where(pairs.right > 0, pairs.count, 0)
    # The table ascends by cell, and the sort is stable: of equal ones the lowest comes first.
    order = np.lexsort((-inside, pairs.left))[first]
    shared = inside[order]
    return Holders(nucleus, np.where(shared > 0, pairs.right[order], 0), shared, area)


def match_nuclei(holders: Holders, *, min_overlap: float = 0.5) -> Matches:
    """Give each nucleus to the cell that holds most of it, if that is enough.

    Parameters
    ----------
    holders : Holders
        Of all nuclei.
    min_overlap : float
        Least share of the nucleus, above 0 and up to 1.

    Returns
    -------
    Matches
        Both ways.
    """
    if not 0 < min_overlap <= 1:
        raise ValueError(f"min_overlap needs a share above 0 and up to 1, got {min_overlap}.")
    overlap = holders.shared / holders.area
    enough = (holders.cell > 0) & (overlap >= min_overlap)
    cell_of = np.where(enough, holders.cell, 0).astype(np.uint32)
    order = np.lexsort((-holders.shared, cell_of))  # stable: of equal ones the lowest comes first
    order = order[cell_of[order] > 0]
    cell, first, n_nuclei = np.unique(cell_of[order], return_index=True, return_counts=True)
    largest = holders.nucleus[order][first]
    return Matches(holders.nucleus, cell_of, overlap, cell, largest, n_nuclei.astype(np.int64))


def compartments(
    nuclei: ArrayLike, cells: ArrayLike, matches: Matches, *, threads: int | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return two label arrays of cells: where each is nucleus, and where it is cytoplasm.

    Parameters
    ----------
    nuclei, cells : integer array [*spatial]
        Labels of one region.
    matches : Matches
        Of the nuclei.
    threads : int, optional
        Threads to use.

    Returns
    -------
    nucleus : uint32 array [*spatial]
        Cells where one of their own nuclei lies. Nuclei of no cell or of another one are none.
    cytoplasm : uint32 array [*spatial]
        Cells where no nucleus lies.
    """
    nuclei, cells = as_labels(nuclei, "nuclei"), as_labels(cells, "cells")
    cytoplasm = cytoplasm_of(nuclei, cells)
    here = boxes_and_areas(nuclei, threads=threads).label
    known = np.isin(here, matches.nucleus)
    if not known.all():
        raise ValueError(
            f"compartments needs the matches of all nuclei, and nucleus {here[~known][0]} is not"
            " among them. Match the nuclei of the whole image first."
        )
    cell_of = matches.cell_of[np.searchsorted(matches.nucleus, here)]
    owner = relabel(nuclei, here, cell_of, threads=threads)
    return np.where(owner == cells, cells, 0).astype(np.uint32), cytoplasm


def cytoplasm_of(nuclei: ArrayLike, cells: ArrayLike) -> NDArray[np.uint32]:
    """Return the cells without all nuclei: also without those of other cells and of none.

    Parameters
    ----------
    nuclei, cells : integer array [*spatial]
        Labels of one region.

    Returns
    -------
    uint32 array [*spatial]
        The cells' labels.
    """
    nuclei, cells = as_labels(nuclei, "nuclei"), as_labels(cells, "cells")
    same_shape(nuclei, cells, "cytoplasm_of")
    return np.where(nuclei == 0, cells, 0).astype(np.uint32, copy=False)
