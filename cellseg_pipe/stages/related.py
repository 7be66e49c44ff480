"""What the tables of nuclei and cells say of each other, from the stages that related them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import Matches, Sums
from cellseg_pipe.ledger import Records
from cellseg_pipe.segmentation.relate import (
    cells_columns,
    compartment_columns,
    compartment_sums,
    nuclei_columns,
)
from cellseg_pipe.segmentation.stored import tables_from_bytes
from cellseg_pipe.stages.relation import Relation
from cellseg_pipe.stages.unit import UnitRun, channels_of

__all__ = ["Columns", "read_matches", "related_columns", "related_facts"]

Columns = dict[str, NDArray[Any]]
KINDS = ("nucleus", "cytoplasm")


def read_matches(relation: Relation) -> Matches:
    """Read which nucleus belongs to which cell.

    Parameters
    ----------
    relation : Relation
        Whose nuclei are matched.

    Returns
    -------
    Matches
        Of all nuclei.
    """
    blob = Records(relation.cells.stage("match"), 1).read(0)
    matches: Matches = tables_from_bytes(blob, matches=Matches)["matches"]
    return matches


def related_facts(unit: UnitRun) -> dict[str, Any]:
    """Return what the summary says of a unit's relation.

    Parameters
    ----------
    unit : UnitRun
        Any.

    Returns
    -------
    dict
        Nothing for a unit that is not related.
    """
    relation = unit.relation
    if relation is None:
        return {}
    matches = read_matches(relation)
    nuclei = relation.nuclei is unit
    n_matched = int(np.count_nonzero(matches.cell_of)) if nuclei else len(matches.cell)
    other = relation.cells if nuclei else relation.nuclei
    return {"related": {"to": other.name, "n_matched": n_matched}}


def related_columns(unit: UnitRun) -> Callable[[Columns, NDArray[np.int64]], Columns]:
    """Return what adds the columns that relate a unit to another one.

    Parameters
    ----------
    unit : UnitRun
        Any; the stages of its relation are done.

    Returns
    -------
    callable
        From a table, and the tiles whose cells are in it, to the table with more columns.
    """
    relation = unit.relation
    if relation is None:
        return lambda table, _tiles: table
    matches = read_matches(relation)
    if relation.nuclei is unit:
        return lambda table, _tiles: table | nuclei_columns(table["label"], matches)

    def add(table: Columns, tiles: NDArray[np.int64]) -> Columns:
        found = cells_columns(table["label"], matches)
        if relation.measures:
            found |= _measured(unit, table, tiles)
        return table | found

    return add


def _measured(unit: UnitRun, table: Columns, tiles: NDArray[np.int64]) -> Columns:
    """Return sizes and intensities of nucleus and cytoplasm."""
    records = Records(unit.stage("compartments"), unit.batches["masks"])
    parts = [
        tables_from_bytes(records.read(int(number)), nucleus=Sums, cytoplasm=Sums)
        for number in tiles
        if not records.is_blank(int(number))
    ]
    known = unit.image.channel_names or tuple(map(str, range(unit.image.n_channels)))
    names = tuple(known[i] for i in channels_of(unit))
    # Tiles are numbered plane by plane, so sums of floats are added in the order of planes.
    nucleus, cytoplasm = (
        Sums.add([part[kind] for part in parts] or [_nothing(unit, len(names))], in_order=True)
        for kind in KINDS
    )
    ndim = len(unit.image.shape)
    size = "area" if ndim == 2 else "volume"
    columns = compartment_columns(
        table["label"], table[f"{size}_px"], sums=(nucleus, cytoplasm), names=names, size=size
    )
    if unit.spacing_um is not None:
        voxel = float(np.prod(unit.spacing_um))
        columns |= {
            f"{kind}_{size}_um{ndim}": columns[f"{kind}_{size}_px"] * voxel for kind in KINDS
        }
    return columns


def _nothing(unit: UnitRun, n_channels: int) -> Sums:
    """Return the sums of an image without cells."""
    labels = np.zeros((1,) * len(unit.image.shape), np.uint32)
    pixels = np.zeros((n_channels, *labels.shape), unit.image.dtype)
    ids = np.zeros(0, np.uint32)
    return compartment_sums(labels, pixels, ids=ids, origin=(0,) * labels.ndim)
