"""Measures the cells that the tiles of one batch own, each once and whole."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.shards import read_box
from cellseg_pipe.kernels import Sums
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.segmentation.cells import Rows, join_chains, join_rows, sums_of, table_of
from cellseg_pipe.segmentation.stored import tables_from_bytes, tables_to_bytes
from cellseg_pipe.segmentation.tiled import spread_px
from cellseg_pipe.stages.number import read_numbers
from cellseg_pipe.stages.plan import Tiling, read_tiling
from cellseg_pipe.stages.tiles import FoundTiles
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["channels_of", "run", "table"]

log = logging.getLogger(__name__)


def run(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Measure the cells of those tiles of one batch that are not done yet.

    Parameters
    ----------
    unit : UnitRun
        The unit; its labels are painted.
    batch : int
        Which batch; there are as many as of tiles.
    threads : int, optional
        Threads to use.
    """
    tiling = read_tiling(unit.stage("tiles"))
    first, chain = read_numbers(unit.stage("number"))
    tiles = FoundTiles(tiling, Records(unit.stage("masks"), tiling.n_masks), first)
    with open_batch(unit.stage("measure"), batch, tiling.batch(batch)) as work:
        if work.done:
            return
        for number in work.missing:
            rows = join_rows([tiles.read(number)])
            if not len(rows.id):
                work.add(number, b"", blank=True)
                continue
            sums = _measured(unit, tiling, rows, number=number, chain=chain, threads=threads)
            work.add(number, tables_to_bytes(rows=rows, sums=sums))
        work.finish()


def _measured(
    unit: UnitRun,
    tiling: Tiling,
    rows: Rows,
    *,
    number: int,
    chain: NDArray[np.uint32],
    threads: int | None,
) -> Sums:
    """Return the sums of a tile's cells; in mode planes those of their chains in this plane."""
    box = on_level_0(tiling, tiling.tiles.tile(number).core)
    labels = read_box(unit.stage("paint").labels / "0", box, threads=threads)
    if tiling.plan.mode == "planes":
        # A chain has one cell in a plane at most: its number names the cell there.
        numbers = np.sort(chain[rows.id.astype(np.int64) - 1])
        numbers = numbers[numbers > 0]
        rows = dataclasses.replace(
            rows, id=numbers, peak=np.zeros((len(numbers), len(box.shape)), np.int64)
        )
    pixels = unit.pixels.read(box)[channels_of(unit)]
    return sums_of(labels, pixels, rows, plan=tiling.plan, origin=box.start)


def on_level_0(tiling: Tiling, core: Box) -> Box:
    """Return the part of level 0 that may hold pixels of a core's cells.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    core : Box
        On the grid that particles walk on.

    Returns
    -------
    Box
        On level 0.
    """
    plan = tiling.plan
    wide = core.grow(spread_px(plan)).clip(Box.of(plan.walk_shape))
    return wide if plan.walks_level_0 else plan.scale.source_box(wide, plan.shape)


def channels_of(unit: UnitRun) -> list[int]:
    """Return the channels that are measured.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    list of int
        Their numbers.
    """
    said, names = unit.experiment.measure.channels, unit.image.channel_names
    if said == "all":
        return list(range(unit.image.n_channels))
    found = []
    for channel in said:
        number = names.index(channel) if channel in names else channel
        if not isinstance(number, int) or number >= unit.image.n_channels:
            known = ", ".join(names) or f"0 to {unit.image.n_channels - 1}"
            raise ValueError(
                f"{unit.name}: measure.channels names {channel!r}, the image has {known}."
            )
        found.append(number)
    return found


def table(unit: UnitRun) -> dict[str, NDArray]:
    """Put the measures of all tiles together.

    Parameters
    ----------
    unit : UnitRun
        The unit; its cells are measured.

    Returns
    -------
    dict of str to array [n]
        One row per cell, ascending by label, as `segment` gives it, with sizes in µm and flags.
    """
    tiling = read_tiling(unit.stage("tiles"))
    measured = Records(unit.stage("measure"), tiling.n_masks)
    parts = [
        tables_from_bytes(measured.read(number), rows=Rows, sums=Sums)
        for number in range(len(tiling.tiles))
        if not measured.is_blank(number)
    ]
    if not parts:
        rows, sums = _nothing(unit)
    else:
        rows, sums = _joined(parts)
    if tiling.plan.mode == "planes" and parts:
        _, chain = read_numbers(unit.stage("number"))
        rows = join_chains(rows, chain)
    names = unit.image.channel_names or tuple(map(str, range(unit.image.n_channels)))
    columns = table_of(sums, rows, tiling.plan, tuple(names[i] for i in channels_of(unit)))
    return columns | in_um(columns, unit.spacing_um) | {"flagged": flags(columns, unit)}


def _joined(parts: list[dict]) -> tuple[Rows, Sums]:
    rows = [part["rows"] for part in parts]
    names = [field.name for field in dataclasses.fields(Rows)]
    ids = np.concatenate([part.id for part in rows])
    order = np.argsort(ids, kind="stable")
    joined = {n: np.concatenate([getattr(part, n) for part in rows])[order] for n in names}
    # Tiles are numbered plane by plane, so sums of floats are added in the order of planes.
    return Rows(**joined), Sums.add([part["sums"] for part in parts], in_order=True)


def _nothing(unit: UnitRun) -> tuple[Rows, Sums]:
    from cellseg_pipe.kernels import object_sums

    ndim = len(unit.image.shape)
    few = np.zeros((1,) * ndim, np.uint32)
    image = np.zeros((len(channels_of(unit)), *few.shape), np.uint8)
    none, floats = np.zeros(0, np.int64), np.zeros(0)
    rows = Rows(
        np.zeros(0, np.uint32), none, floats, floats, np.zeros((0, 0)), np.zeros((0, ndim), int)
    )
    return rows, object_sums(few, image)


def in_um(columns: dict[str, NDArray], spacing_um: tuple[float, ...] | None) -> dict[str, NDArray]:
    """Return places and sizes in µm, where the size of a voxel is known.

    Parameters
    ----------
    columns : dict of str to array
        In px.
    spacing_um : tuple of float or None
        Size of a voxel.

    Returns
    -------
    dict of str to array
        Further columns.
    """
    if spacing_um is None:
        return {}
    axes = "zyx"[-len(spacing_um) :]
    found = {
        f"{axis}_um": columns[f"{axis}_px"] * step
        for axis, step in zip(axes, spacing_um, strict=True)
    }
    size, unit = ("area_px", "area_um2") if len(axes) == 2 else ("volume_px", "volume_um3")
    found[unit] = columns[size] * float(np.prod(spacing_um))
    found["diameter_um"] = columns["diameter_px"] * float(np.prod(spacing_um)) ** (
        1 / len(spacing_um)
    )
    return found


def flags(columns: dict[str, NDArray], unit: UnitRun) -> NDArray[np.bool_]:
    """Return which cells the experiment's rules mark.

    Parameters
    ----------
    columns : dict of str to array
        The table.
    unit : UnitRun
        The unit.

    Returns
    -------
    bool array [n]
        Marked cells stay in labels and table.
    """
    rules = unit.experiment.qc.flag
    marked = columns["probability"] < rules.min_probability
    if rules.max_flow_error is not None:
        marked = marked | (columns["flow_error"] > rules.max_flow_error)
    if rules.border == "flag":
        marked = marked | columns["on_border"]
    return np.asarray(marked, bool)
