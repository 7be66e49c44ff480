"""Writes the labels of a unit, each shard once; then the coarser levels, each from that above."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._attributes import marker_of
from cellseg_pipe.io._moving import is_of, remove
from cellseg_pipe.io.ngff import ImageMeta, create_label_pyramid
from cellseg_pipe.io.pyramid import downsample_shard
from cellseg_pipe.io.shards import ShardWriter, Written
from cellseg_pipe.ledger import Corrupt, Records, open_batch
from cellseg_pipe.ledger._files import explained
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.stages.batches import batch_of
from cellseg_pipe.stages.chain import read_chain
from cellseg_pipe.stages.number import numbered_tiles
from cellseg_pipe.stages.tiles import naming, painted
from cellseg_pipe.stages.tiling import read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.tiles import Grid

__all__ = [
    "check_stored",
    "create_store",
    "level_keys",
    "paint_again",
    "paint_grid",
    "run",
    "run_level",
    "stored_labels",
    "unless_there",
    "withdraw_store",
    "write_boxes",
]

log = logging.getLogger(__name__)

Kind = Literal["paint", "sift"]


def create_store(unit: UnitRun, *, stage: Kind = "paint") -> None:
    """Create a label store of a unit, all background, unless it is there.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    stage : {"paint", "sift"}
        Of all cells, or without those that are dropped.
    """
    paths = unit.stage(stage)
    paths.root.mkdir(parents=True, exist_ok=True)
    meta = ImageMeta(
        unit.image.spatial,
        unit.label_spacing,
        translation_um=unit.image.offset_um or (),
        unit="micrometer" if unit.spacing_um else None,
        stage_hash=paths.digest,
    )
    shape, levels = unit.image.shape, unit.n_levels
    with unless_there(paths.labels) as missing:
        if missing:
            create_label_pyramid(
                paths.labels, meta, shape=shape, version=unit.version, n_levels=levels
            )


@contextlib.contextmanager
def unless_there(store: Path) -> Iterator[bool]:
    """Let one of several jobs create a store.

    Parameters
    ----------
    store : path
        It appears whole.

    Yields
    ------
    bool
        Whether to create it. Of two jobs that do at once, one comes second and finds it there.
    """
    missing = not store.exists()
    try:
        yield missing
    except OSError as error:
        second = isinstance(error, FileExistsError) or error.errno == errno.ENOTEMPTY
        if not (missing and second and store.exists()):
            raise


def withdraw_store(
    unit: UnitRun, store: Path, *, stages: tuple[str, ...], wanted: str | None
) -> None:
    """Remove a published store that is not of this run, and what says that it is done.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    store : path
        Where users look for it.
    stages : tuple of str
        That make it.
    wanted : str or None
        Hash of the stages that this run has; None if it makes no such store.
    """
    marker = marker_of(store)
    if marker is not None and marker.get("stage_hash") != wanted:
        for stage in stages:
            remove(unit.run.unit(unit.name).scratch / f"{stage}-{marker.get('stage_hash')}")
        remove(store)  # last: it tells which folders those were


def stored_labels(unit: UnitRun, *, stage: Kind = "paint") -> Path:
    """Return where the labels of a unit are: in the making, or published by an earlier audit.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    stage : {"paint", "sift"}
        Of all cells, or without those that are dropped.

    Returns
    -------
    path
        The store.
    """
    paths, files = unit.stage(stage), unit.run.unit(unit.name)
    published = files.labels if stage == "paint" else files.sifted
    if paths.labels.exists():
        return paths.labels
    if is_of(marker_of(published), paths.digest):
        return published
    again = paint_again(unit) if stage == "paint" else paths.root
    raise Corrupt(
        f"{unit.name}: the labels are gone, there is neither {paths.labels} nor {published} of this"
        f" run. Remove {again} and start again: they are painted anew."
    )


def paint_again(unit: UnitRun) -> str:
    """Return the folders without which all labels of a unit are painted again.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    str
        For a message.
    """
    return ", ".join(str(stage_of_level(unit, level).root) for level in range(unit.n_levels))


def paint_grid(unit: UnitRun) -> Grid:
    """Return the boxes that are painted, each by one job: whole shards.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    Grid
        On level 0.
    """
    return Grid(unit.image.shape, unit.paint_px)


def run(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Paint the boxes of one batch that are not done yet.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    batch : int
        Which batch.
    threads : int, optional
        Threads to use.
    """
    tiling = read_tiling(unit.stage("tiles"))
    tiles = numbered_tiles(unit, tiling)
    chain = read_chain(unit)

    def paint(box: Box) -> NDArray[np.uint32]:
        return painted(tiling, tiles, box, chain=chain)

    write_boxes(unit, paint, batch=batch, threads=threads)


def write_boxes(
    unit: UnitRun,
    paint: Callable[[Box], NDArray[np.uint32]],
    *,
    batch: int,
    threads: int | None = None,
) -> None:
    """Write the boxes of one batch that are not done yet.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    paint : callable
        Gives the labels of a box of level 0.
    batch : int
        Which batch.
    threads : int, optional
        Threads to use.
    """
    grid, paths = paint_grid(unit), unit.stage("paint")
    keys = batch_of(np.arange(len(grid)), batch, unit.batches["paint"])
    with open_batch(paths, batch, keys) as work:
        if work.done:  # and published, perhaps
            return
        create_store(unit)
        writer = ShardWriter(paths.labels / "0", threads=threads)
        for number in work.missing:
            box = grid.box(number)
            with naming(f"{unit.name}: labels of box {number}, {box}"), explained(paths.labels):
                labels = paint(box)
                written = [
                    writer.write_shard(part, labels[part.relative_to(box.start).slices])
                    for part in shards_of(writer, box)
                ]
            work.add(number, b"", info={"shards": [_info(one) for one in written]})
            log.info("box %d of %d: %d bytes", number, len(grid), sum(w.n_bytes for w in written))
        work.finish()


def shards_of(writer: ShardWriter, box: Box) -> Iterator[Box]:
    """Yield the shards of a box, or in OME-Zarr 0.4 its boxes of whole chunks.

    Parameters
    ----------
    writer : ShardWriter
        Of level 0.
    box : Box
        What is painted at once.

    Yields
    ------
    Box
        On level 0.
    """
    for number in writer.grid.over(box):
        yield writer.grid.box(number)


def _info(written: Written) -> list[int]:
    return [written.n_files, written.n_bytes, written.crc32]


def level_keys(unit: UnitRun, level: int) -> range:
    """Return the shards of a coarser level.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    level : int
        1 or more.

    Returns
    -------
    range
        Their numbers.
    """
    return range(unit.level_shards(level))


def run_level(unit: UnitRun, *, level: int, threads: int | None = None) -> None:
    """Write a coarser level of the labels from the one above.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    level : int
        1 or more.
    threads : int, optional
        Threads to use.
    """
    store = unit.stage("paint").labels
    with open_batch(unit.stage(f"level{level}"), 0, level_keys(unit, level)) as work:
        if work.done:
            return
        for number in work.missing:
            with naming(f"{unit.name}: shard {number} of level {level}"), explained(store):
                written = downsample_shard(store, level, number, threads=threads)
            work.add(number, b"", info={"shards": [_info(written)]})
        work.finish()


def stage_of_level(unit: UnitRun, level: int) -> StagePaths:
    """Return the stage that writes a level.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    level : int
        0 for the finest.

    Returns
    -------
    StagePaths
        Its files.
    """
    return unit.stage("paint" if level == 0 else f"level{level}")


def check_stored(unit: UnitRun) -> int:
    """Compare every file of the labels with what its job wrote down.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    int
        Bytes of all levels.
    """
    store, total = stored_labels(unit), 0
    for level in range(unit.n_levels):
        writer = ShardWriter(store / str(level))
        n_batches = unit.batches["paint"] if level == 0 else 1
        records = Records(stage_of_level(unit, level), n_batches)
        grid = paint_grid(unit) if level == 0 else writer.grid
        for number in range(len(grid)):
            wanted = records.info(number)["shards"]
            parts = shards_of(writer, grid.box(number)) if level == 0 else [grid.box(number)]
            for part, expected in zip(parts, wanted, strict=True):
                found = writer.stored(part)
                total += found.n_bytes
                if [found.n_files, found.n_bytes, found.crc32] != expected:
                    raise Corrupt(
                        f"{unit.name}: the labels of {part} in {store / str(level)} are not those"
                        f" that were written. Remove {paint_again(unit)} and start again: they are"
                        " painted anew."
                    )
    return total
