"""Decides which cells are dropped, and writes the second label image without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.io.publish import publish
from cellseg_pipe.io.shards import ShardWriter, Written, read_box
from cellseg_pipe.kernels import boxes_and_areas, relabel
from cellseg_pipe.ledger import Corrupt, Records, open_batch
from cellseg_pipe.ledger._files import explained
from cellseg_pipe.stages.batches import batch_of
from cellseg_pipe.stages.measure import tables
from cellseg_pipe.stages.paint import (
    create_store,
    paint_grid,
    shards_of,
    stored_labels,
    withdraw_store,
)
from cellseg_pipe.stages.tiles import naming
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["publish_sifted", "run", "run_judge", "withdraw_sifted"]


def run_judge(unit: UnitRun) -> None:
    """List the cells that the rules of the experiment drop.

    Parameters
    ----------
    unit : UnitRun
        The unit; its cells are measured.
    """
    with open_batch(unit.stage("judge"), 0, [0]) as work:
        if work.done:
            return
        if work.missing:  # an earlier attempt may have come so far and no further
            parts = [table["label"][table["dropped"]] for table in tables(unit)]
            work.add(0, pack({"dropped": np.concatenate(parts).astype(np.uint32)}))
        work.finish()


@dataclass(frozen=True)
class _Piece:
    """What is written at once: a box of a level."""

    level: int
    box: Box


def _pieces(unit: UnitRun) -> Iterator[_Piece]:
    """Yield what there is to write: boxes of level 0 as they are painted, shards of the others."""
    grid = paint_grid(unit)
    yield from (_Piece(0, grid.box(number)) for number in range(len(grid)))
    for level in range(1, unit.n_levels):
        grid = unit.level_grid(level)
        yield from (_Piece(level, grid.box(number)) for number in range(len(grid)))


def run(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Write those boxes of one batch that are not done yet, of all levels.

    Parameters
    ----------
    unit : UnitRun
        The unit; labels of all levels are there, and dropped cells are known.
    batch : int
        Which batch; there are as many as of painting.
    threads : int, optional
        Threads to use.
    """
    pieces = list(_pieces(unit))
    paths = unit.stage("sift")
    with open_batch(paths, batch, _batch(len(pieces), batch, unit)) as work:
        if work.done:  # and published, perhaps
            return
        create_store(unit, stage="sift")
        dropped = unpack(Records(unit.stage("judge"), 1).read(0))[0]["dropped"]
        for number in work.missing:
            piece = pieces[number]
            writer = ShardWriter(paths.labels / str(piece.level), threads=threads)
            what = f"{unit.name}: level {piece.level}, {piece.box}"
            with naming(what), explained(paths.labels):
                source = stored_labels(unit) / str(piece.level)
                labels = without(read_box(source, piece.box, threads=threads), dropped)
                written = [
                    writer.write_shard(part, labels[part.relative_to(piece.box.start).slices])
                    for part in shards_of(writer, piece.box)
                ]
            work.add(number, b"", info={"shards": [_info(one) for one in written]})
        work.finish()


def _batch(n_pieces: int, batch: int, unit: UnitRun) -> list[int]:
    return batch_of(np.arange(n_pieces), batch, unit.batches["paint"])


def _info(written: Written) -> list[int]:
    return [written.n_files, written.n_bytes, written.crc32]


def without(labels: NDArray[np.uint32], dropped: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return labels without some cells; the others keep their numbers.

    Parameters
    ----------
    labels : uint32 array [*spatial]
        Labels.
    dropped : uint32 array [n]
        Cells that go.

    Returns
    -------
    uint32 array [*spatial]
        0 where they were.
    """
    present = boxes_and_areas(labels).label
    kept = present[~np.isin(present, dropped)]
    return labels if len(kept) == len(present) else relabel(labels, kept, kept)


def publish_sifted(unit: UnitRun) -> None:
    """Compare every file of the second label image with what its job wrote down, and publish it.

    Parameters
    ----------
    unit : UnitRun
        The unit; its own labels are published.
    """
    paths = unit.stage("sift")
    store = stored_labels(unit, stage="sift")
    records = Records(paths, unit.batches["paint"])
    for number, piece in enumerate(_pieces(unit)):
        writer = ShardWriter(store / str(piece.level))
        wanted = records.info(number)["shards"]
        for part, expected in zip(shards_of(writer, piece.box), wanted, strict=True):
            if _info(writer.stored(part)) != expected:
                raise Corrupt(
                    f"{unit.name}: {part} in {store / str(piece.level)} is not what was written."
                    f" Remove {paths.root} and start again: it is written anew."
                )
    publish(paths.labels, unit.run.unit(unit.name).sifted, stage_hash=paths.digest)


def withdraw_sifted(unit: UnitRun) -> None:
    """Remove a second label image that is not that of this run, and what says that it is done.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    """
    wanted = unit.stage("sift").digest if unit.experiment.qc.labels else None
    withdraw_store(unit, unit.run.unit(unit.name).sifted, stages=("sift",), wanted=wanted)
