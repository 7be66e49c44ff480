"""Writes the restored image of a unit, where it is asked for: level 0 by boxes, then the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._attributes import (
    MARKER,
    level_paths,
    marker_of,
    set_attribute,
)
from cellseg_pipe.io._moving import is_of
from cellseg_pipe.io.ngff import ImageMeta, create_image_pyramid, show_values
from cellseg_pipe.io.publish import publish
from cellseg_pipe.io.pyramid import downsample_shard
from cellseg_pipe.io.shards import ShardWriter, Written, read_box
from cellseg_pipe.ledger import Corrupt, Records, open_batch
from cellseg_pipe.ledger._files import explained
from cellseg_pipe.restoration import restored_source
from cellseg_pipe.stages.batches import batch_of
from cellseg_pipe.stages.networks import checked_restorer
from cellseg_pipe.stages.paint import unless_there, withdraw_store
from cellseg_pipe.stages.pixels import source_of_image
from cellseg_pipe.stages.restoring_costs import box_kept_bytes
from cellseg_pipe.stages.tiles import naming
from cellseg_pipe.stages.tiling import read_frozen
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.tiles import Grid

__all__ = ["check_restored", "publish_restored", "run", "run_shrink", "withdraw_restored"]

DTYPE = np.dtype(np.float32)  # what the network that segments sees, to the last bit


def run(unit: UnitRun, *, batch: int, threads: int | None = None) -> None:
    """Write level 0 of those boxes of one batch that are not done yet.

    Parameters
    ----------
    unit : UnitRun
        The unit; its plan is there.
    batch : int
        Which batch; there are as many as of painting.
    threads : int, optional
        Threads to use.
    """
    grid, paths = unit.restored_grid, unit.stage("restore")
    keys = batch_of(np.arange(len(grid)), batch, unit.batches["paint"])
    with open_batch(paths, batch, keys) as work:
        if work.done:  # and published, perhaps
            return
        _create(unit)
        frozen = read_frozen(unit.stage("plan"))
        numerics = unit.experiment.resources.numerics
        restoring, region = frozen.restoring, frozen.plan.region
        assert restoring is not None  # or nobody would ask for it
        restorer, other = checked_restorer(frozen, numerics=numerics, threads=threads)
        source = restored_source(
            source_of_image(frozen.open_image()),
            restoring,
            net=restorer,
            kept_bytes=box_kept_bytes(restoring, grid.pitch),
            threads=threads,
        )
        told = {"numerics": other} if other else {}
        wanted = np.ones(len(grid), bool) if region is None else region.touched_boxes(grid)
        writer = ShardWriter(paths.restored / "0", threads=threads)
        for number in work.missing:
            box, written = grid.box(number), []
            with naming(f"{unit.name}: restored box {number}, {box}"), explained(paths.restored):
                for part, places in _places(unit, writer, box) if wanted[number] else ():
                    pixels = source.read(part).astype(DTYPE, copy=False)
                    written += [
                        writer.write_shard(place, values.reshape(place.shape))
                        for place, values in zip(places, pixels, strict=True)
                    ]
            work.add(number, b"", info={"shards": [_info(one) for one in written], **told})
        work.finish()


def run_shrink(unit: UnitRun, *, threads: int | None = None) -> None:
    """Write the coarser levels, each from the one above, and which grey values viewers show.

    Parameters
    ----------
    unit : UnitRun
        The unit; level 0 is there.
    threads : int, optional
        Threads to use.
    """
    store = _store(unit)
    shards = _shards(store)
    with open_batch(unit.stage("shrink"), 0, range(len(shards))) as work:
        if work.done:
            return
        for key in sorted(work.missing):  # ascending, so that the level above is whole
            level, number = shards[key]
            what = f"{unit.name}: shard {number} of level {level} of the restored image"
            with naming(what), explained(store):
                written = downsample_shard(store, level, number, kind="image", threads=threads)
            work.add(key, b"", info={"shards": [_info(written)]})
        _finish(unit, store)
        work.finish()


def check_restored(unit: UnitRun) -> None:
    """Compare the size of every file of the restored image with what its job wrote down.

    Grey values are not read again, as labels are: they take many times the room.

    Parameters
    ----------
    unit : UnitRun
        The unit; with its restored image, if it is saved.
    """
    if not unit.saves_restored:
        return
    store = _store(unit)
    for level, found, expected in _compared(unit, store):
        if found != expected:
            raise Corrupt(
                f"{unit.name}: level {level} of {store} is not what was written. {_again(unit)}"
            )


def publish_restored(unit: UnitRun) -> None:
    """Bring the restored image to where users look for it, if it is saved.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    """
    if unit.saves_restored:
        paths, published = unit.stage("restore"), unit.run.unit(unit.name).restored
        publish(paths.restored, published, stage_hash=paths.digest)


def withdraw_restored(unit: UnitRun) -> None:
    """Remove a restored image that is not that of this run, and what says that it is done.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    """
    wanted = unit.stage("restore").digest if unit.saves_restored else None
    store = unit.run.unit(unit.name).restored
    withdraw_store(unit, store, stages=("shrink", "restore"), wanted=wanted)


def _store(unit: UnitRun) -> Path:
    """Return where the restored image is: in the making, or published by an earlier audit."""
    paths, published = unit.stage("restore"), unit.run.unit(unit.name).restored
    for store in (paths.restored, published):
        if is_of(marker_of(store), paths.digest):
            return store
    raise Corrupt(f"{unit.name}: the restored image is gone, {published}. {_again(unit)}")


def _again(unit: UnitRun) -> str:
    """Say how the restored image is made anew."""
    folders = [str(unit.stage(stage).root) for stage in ("restore", "shrink")]
    return f"Remove {', '.join(folders)} and start again: it is restored anew."


def _compared(unit: UnitRun, store: Path) -> Iterator[tuple[int, list[list[int]], list[list[int]]]]:
    """Yield level, files and bytes that are stored and that were written, box by box."""
    grid, writer = unit.restored_grid, ShardWriter(store / "0")
    records = Records(unit.stage("restore"), unit.batches["paint"])
    for number in range(len(grid)):
        if wanted := records.info(number)["shards"]:  # else outside the region
            places = itertools.chain(*(p for _, p in _places(unit, writer, grid.box(number))))
            yield 0, [list(writer.size(place)) for place in places], wanted
    records = Records(unit.stage("shrink"), 1)
    writers = [ShardWriter(store / path) for path in level_paths(store)]
    for key, (level, shard) in enumerate(_shards(store)):
        yield level, [list(writers[level].size(shard))], records.info(key)["shards"]


def _create(unit: UnitRun) -> None:
    """Create the store with all its levels, all zero, unless it is there."""
    image, paths = unit.image, unit.stage("restore")
    meta = ImageMeta(
        "tc"[not unit.is_series :] + image.spatial[-unit.n_space :],
        unit.label_spacing,
        image.channel_names or tuple(f"channel {n}" for n in range(image.n_channels)),
        translation_um=(image.offset_um or ()) if unit.spacing_um else (),
        unit="micrometer" if unit.spacing_um else None,
        stage_hash=paths.digest,
    )
    shape = _with_channel(unit, image.shape, image.n_channels)
    with unless_there(paths.restored) as missing:
        if missing:
            array = {"shape": shape, "dtype": DTYPE}
            create_image_pyramid(paths.restored, meta, array=array, version=unit.restored_version)


def _with_channel(unit: UnitRun, edges: tuple[int, ...], channel: int) -> tuple[int, ...]:
    """Return what is said of the image's axes with that of channels: behind times, if any."""
    place = int(unit.is_series)
    return (*edges[:place], channel, *edges[place:])


def _places(unit: UnitRun, writer: ShardWriter, box: Box) -> Iterator[tuple[Box, list[Box]]]:
    """Yield the shards of a box of the image, each with where its channels are stored."""
    pitch = list(writer.grid.pitch)
    pitch.pop(int(unit.is_series))
    grid = Grid(unit.image.shape, tuple(pitch))
    for part in map(grid.box, grid.over(box)):
        yield (
            part,
            [
                Box(_with_channel(unit, part.start, c), _with_channel(unit, part.stop, c + 1))
                for c in range(unit.image.n_channels)
            ],
        )


def _shards(store: Path) -> list[tuple[int, int]]:
    """Return level and number of all shards but those of level 0."""
    levels = range(1, len(level_paths(store)))
    return [(n, k) for n in levels for k in range(len(ShardWriter(store / str(n)).grid))]


def _finish(unit: UnitRun, store: Path) -> None:
    """Write down which grey values of each channel viewers show, as the coarsest level has them."""
    top = store / level_paths(store)[-1]
    grid, axis = ShardWriter(top).grid, int(unit.is_series)
    ends: dict[int, list[float]] = {}
    for box in map(grid.box, range(len(grid))):
        values = read_box(top, box)
        known = ends.setdefault(box.start[axis], [math.inf, -math.inf])
        known[:] = min(known[0], float(values.min())), max(known[1], float(values.max()))
    show_values(store, [(low, high) for _, (low, high) in sorted(ends.items())])
    if unit.image.rgb:
        set_attribute(store, (MARKER, "rgb"), value=True)


def _info(written: Written) -> list[int]:
    return [written.n_files, written.n_bytes]
