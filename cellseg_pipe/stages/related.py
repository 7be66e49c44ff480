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
from cellseg_pipe.stages.pixels import channels_of
from cellseg_pipe.stages.relation import Relation
from cellseg_pipe.stages.spans import Span
from cellseg_pipe.stages.tiling import read_tiling
from cellseg_pipe.stages.unit import UnitRun

__all__ = [
    "measured_channels",
    "read_matches",
    "related_columns",
    "related_facts",
]

Columns = dict[str, NDArray[Any]]


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


def related_columns(unit: UnitRun) -> Callable[[Columns, Span | None], Columns]:
    """Return what adds the columns that relate a unit to another one.

    Parameters
    ----------
    unit : UnitRun
        Any; the stages of its relation are done.

    Returns
    -------
    callable
        From the table of a run of cells, and that run (None for an image without cells), to one
        with more columns.
    """
    relation = unit.relation
    if relation is None:
        return lambda table, _: table
    matches = read_matches(relation)
    if relation.nuclei is unit:
        return lambda table, _: table | nuclei_columns(table["label"], matches)
    if not relation.measures:
        return lambda table, _: table | cells_columns(table["label"], matches)
    n_batches = read_tiling(unit.stage("tiles")).n_masks
    records, nothing = Records(unit.stage("compartments"), n_batches), _nothing(unit)

    def add(table: Columns, span: Span | None) -> Columns:
        parts = (nothing, nothing) if span is None else _compartments(records, span)
        return table | cells_columns(table["label"], matches) | _measured(unit, table, parts)

    return add


def measured_channels(unit: UnitRun) -> list[int]:
    """Return the channels whose intensity is measured.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    list of int
        Their numbers.
    """
    return channels_of(unit) if unit.experiment.measure.intensity else []


def _compartments(records: Records, span: Span) -> tuple[Sums, Sums]:
    """Return nucleus and cytoplasm of a run of cells."""
    found: dict[str, list[Sums]] = {"nucleus": [], "cytoplasm": []}
    for number, _ in span.opened():
        if records.is_blank(number):
            continue
        kinds = tables_from_bytes(records.read(number), nucleus=Sums, cytoplasm=Sums)
        for kind, sums in kinds.items():
            kept = span.holds(sums.label)
            found[kind].append(Sums(**{name: part[kept] for name, part in vars(sums).items()}))
    # Tiles are numbered plane by plane, so sums of floats are added in the order of planes.
    nucleus, cytoplasm = (Sums.add(parts, in_order=True) for parts in found.values())
    return nucleus, cytoplasm


def _measured(unit: UnitRun, table: Columns, parts: tuple[Sums, Sums]) -> Columns:
    """Return sizes and intensities of nucleus and cytoplasm."""
    known = unit.image.channel_names or tuple(map(str, range(unit.image.n_channels)))
    names = tuple(known[i] for i in measured_channels(unit))
    ndim = len(unit.image.shape)
    size = "area" if ndim == 2 else "volume"
    columns = compartment_columns(
        table["label"], table[f"{size}_px"], sums=parts, names=names, size=size
    )
    if unit.spacing_um is not None:
        voxel = float(np.prod(unit.spacing_um))
        columns |= {
            f"{kind}_{size}_um{ndim}": columns[f"{kind}_{size}_px"] * voxel
            for kind in ("nucleus", "cytoplasm")
        }
    return columns


def _nothing(unit: UnitRun) -> Sums:
    """Return the sums of an image without cells."""
    labels = np.zeros((1,) * len(unit.image.shape), np.uint32)
    pixels = np.zeros((len(measured_channels(unit)), *labels.shape), unit.image.dtype)
    ids = np.zeros(0, np.uint32)
    return compartment_sums(labels, pixels, ids=ids, origin=(0,) * labels.ndim)
