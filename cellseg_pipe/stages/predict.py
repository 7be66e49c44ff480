"""Runs the network on the windows of one batch."""

from __future__ import annotations

import dataclasses
import logging
import time

import numpy as np

from cellseg_pipe.io.slabs import Slabs
from cellseg_pipe.ledger import Batch, open_batch
from cellseg_pipe.nets.windows import View, predict
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.segmentation.plan import network_source
from cellseg_pipe.segmentation.scope import only_needed
from cellseg_pipe.segmentation.stored import record_to_bytes, window_keys
from cellseg_pipe.stages.batches import window_batch
from cellseg_pipe.stages.networks import checked_networks
from cellseg_pipe.stages.pixels import source_of_image
from cellseg_pipe.stages.reading_order import keys_in_reading_order
from cellseg_pipe.stages.restored import restored
from cellseg_pipe.stages.tiles import naming
from cellseg_pipe.stages.tiling import Frozen, read_frozen

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(
    plan_paths: StagePaths,
    paths: StagePaths,
    batch: int,
    *,
    numerics: str = "strict",
    threads: int | None = None,
) -> None:
    """Compute the windows of one batch that are not there yet.

    Parameters
    ----------
    plan_paths, paths : StagePaths
        Of the stages `plan` and `predict`.
    batch : int
        Which batch.
    numerics : {"strict", "relaxed"}
        Whether a machine whose arithmetic differs from that of the plan is refused.
    threads : int, optional
        Threads to use.
    """
    unit = read_frozen(plan_paths)
    keys = window_batch(unit.plan, batch, unit.facts["n_batches"])
    chunk = _chunk_of(unit)
    keys = keys_in_reading_order(keys, plan=unit.plan, restoring=unit.restoring, chunk=chunk)
    with open_batch(paths, batch, keys) as work:
        if work.done:
            return
        if unit.plan.region is not None and not unit.plan.region.size:
            for key in work.missing:  # a class of diameters that was not found: without a network
                work.add(key, b"", blank=True)
        elif work.missing:
            _compute(unit, work, numerics=numerics, threads=threads)
        work.finish()


def _compute(unit: Frozen, work: Batch, *, numerics: str, threads: int | None) -> None:
    engines, restorer, other = checked_networks(unit, numerics=numerics, threads=threads)
    image, chunk = unit.open_image(), _chunk_of(unit)
    raw = source_of_image(image)
    if chunk is not None:
        slabs = Slabs(raw.read, image.shape, chunk, voxel_bytes=image.voxel_bytes)
        raw = dataclasses.replace(raw, read=slabs.read)
    source = restored(raw, unit.restoring, restorer, plan=unit.plan, threads=threads)
    make = only_needed(network_source(source, unit.plan, threads=threads), unit.plan)
    began, missing = time.monotonic(), np.asarray(work.missing)
    for view, first in window_keys(unit.plan):
        places = missing[(missing >= first) & (missing < first + len(view.lattice))] - first
        engine = engines[0] if view == unit.plan.views[0] else engines[-1]
        augment = unit.plan.settings.augment
        indices = [_index(view, int(place)) for place in places]
        records = predict(engine, make, view, indices=indices, augment=augment)
        for place in places.tolist():
            with naming(f"window {_index(view, place)}, pixels {view.box(_index(view, place))}"):
                record = next(records)
            blank = record.style.size == 0
            blob = b"" if blank else record_to_bytes(record)
            work.add(first + place, blob, blank=blank, info={"numerics": other} if other else {})
    took = time.monotonic() - began
    log.info("batch %d: %d windows in %.1f s", work.number, len(missing), took)


def _chunk_of(unit: Frozen) -> tuple[int, ...] | None:
    """Return what is decoded as one, where windows are one voxel thick and may share it.

    Plans of earlier versions do not tell it, and what restores an image reads ahead by itself.
    """
    thin = all(len(view.axes) < len(unit.plan.shape) for view in unit.plan.views)
    chunk = unit.facts["image"].get("chunk")
    return tuple(chunk) if thin and chunk and unit.restoring is None else None


def _index(view: View, place: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(place, view.lattice.counts))
