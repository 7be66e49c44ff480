"""Relates the painted nuclei and cells of an image: shared pixels, matches, compartments."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from cellseg_pipe.io.shards import read_box
from cellseg_pipe.kernels import Pairs, compartments, holders_of, match_nuclei, overlap_pairs
from cellseg_pipe.ledger import Records, open_batch
from cellseg_pipe.segmentation.measuring import View
from cellseg_pipe.segmentation.relate import compartment_sums
from cellseg_pipe.segmentation.stored import tables_from_bytes, tables_to_bytes
from cellseg_pipe.stages.batches import batch_of
from cellseg_pipe.stages.chain import read_chain
from cellseg_pipe.stages.number import numbered_tiles
from cellseg_pipe.stages.paint import paint_grid, stored_labels
from cellseg_pipe.stages.related import measured_channels, read_matches
from cellseg_pipe.stages.relation import Relation
from cellseg_pipe.stages.tiles import naming
from cellseg_pipe.stages.tiling import read_frozen, read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.stages.views import counted, named_rows, seen_of

__all__ = ["run_compartments", "run_match", "run_overlap"]

log = logging.getLogger(__name__)


def _relation(unit: UnitRun) -> Relation:
    relation = unit.relation
    if relation is None or relation.cells is not unit:
        raise ValueError(
            f"{unit.name} is not related as cells to any nuclei. Name it in relate.cells."
        )
    return relation


def run_overlap(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Count the pixels that nuclei and cells share, in one batch of boxes.

    Parameters
    ----------
    unit : UnitRun
        The cells; they and their nuclei are painted.
    batch : int
        Which batch; there are as many as of boxes that are painted.
    threads : int, optional
        Threads to use.
    """
    relation, grid = _relation(unit), paint_grid(unit)
    keys = batch_of(np.arange(len(grid)), batch, unit.batches["paint"])
    with open_batch(unit.stage("overlap"), batch, keys) as work:
        if work.done:
            return
        for number in work.missing:
            box = grid.box(number)
            with naming(f"{unit.name}: box {number}, {box}"):
                nuclei, cells = (
                    read_box(stored_labels(one) / "0", box, threads=threads)
                    for one in (relation.nuclei, unit)
                )
            pairs = overlap_pairs(nuclei, cells, threads=threads)
            inside = pairs.left > 0
            found = Pairs(pairs.left[inside], pairs.right[inside], pairs.count[inside])
            blank = not len(found.left)
            work.add(number, b"" if blank else tables_to_bytes(pairs=found), blank=blank)
            log.info("box %d of %d: %d pairs", number, len(grid), len(found.left))
        work.finish()


def run_match(unit: UnitRun) -> None:
    """Give each nucleus to a cell.

    Parameters
    ----------
    unit : UnitRun
        The cells.
    """
    relation = _relation(unit)
    with open_batch(unit.stage("match"), 0, [0]) as work:
        if work.done:
            return
        if work.missing:  # an earlier attempt may have come so far and no further
            overlap = Records(unit.stage("overlap"), unit.batches["paint"])

            def tables() -> Iterator[Pairs]:
                for number in overlap.keys():
                    if not overlap.is_blank(int(number)):
                        yield tables_from_bytes(overlap.read(int(number)), pairs=Pairs)["pairs"]

            matches = match_nuclei(holders_of(tables), min_overlap=relation.min_overlap)
            work.add(0, tables_to_bytes(matches=matches))
        work.finish()


def run_compartments(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Measure nucleus and cytoplasm of the cells of one batch of tiles.

    Parameters
    ----------
    unit : UnitRun
        The cells; their nuclei are matched.
    batch : int
        Which batch; there are as many as of tiles.
    threads : int, optional
        Threads to use.
    """
    relation, tiling = _relation(unit), read_tiling(unit.stage("tiles"))
    tiles, chain = numbered_tiles(unit, tiling), read_chain(unit)
    with open_batch(unit.stage("compartments"), batch, tiling.batch(batch)) as work:
        if work.done:
            return
        image = read_frozen(unit.stage("plan")).open_image()
        matches, channels = read_matches(relation), measured_channels(unit)
        for number in work.missing:
            core = tiling.tiles.tile(number).core
            rows = named_rows(tiling, tiles.rows(number), core, chain=chain)
            if tiling.seams == "exact" and not len(rows.id):
                work.add(number, b"", blank=True)
                continue
            box = seen_of(tiling, core)
            with naming(f"{unit.name}: tile {number}, {core}"):
                nuclei, cells = (
                    read_box(stored_labels(one) / "0", box, threads=threads)
                    for one in (relation.nuclei, unit)
                )
                pixels = image.read(box)[channels]
            ids, _ = counted(tiling, rows, View(box, cells, pixels, box, box))
            nucleus, cytoplasm = (
                compartment_sums(part, pixels, ids=ids, origin=box.start, threads=threads)
                for part in compartments(nuclei, cells, matches, threads=threads)
            )
            work.add(number, tables_to_bytes(nucleus=nucleus, cytoplasm=cytoplasm))
        work.finish()
