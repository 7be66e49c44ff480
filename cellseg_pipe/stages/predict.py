"""Runs the network on the windows of one batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellseg_pipe.ledger import Batch, open_batch
from cellseg_pipe.nets.engine import AnyEngine
from cellseg_pipe.nets.windows import View, predict
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.segmentation.plan import network_source
from cellseg_pipe.segmentation.stored import record_to_bytes, window_keys
from cellseg_pipe.stages.plan import Frozen, checked_engines, read_frozen, window_batch
from cellseg_pipe.stages.unit import source_of_image

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(plan_paths: StagePaths, paths: StagePaths, batch: int, **resources: Any) -> None:
    """Compute the windows of one batch that are not there yet.

    Parameters
    ----------
    plan_paths, paths : StagePaths
        Of the stages `plan` and `predict`.
    batch : int
        Which batch.
    **resources
        `device` and `threads` of this job.
    """
    unit = read_frozen(plan_paths)
    keys = window_batch(unit.plan, batch, unit.facts["n_batches"])
    with open_batch(paths, batch, keys) as work:
        if work.done:
            return
        if work.missing:
            _compute(unit, work, resources)
        work.finish()


def _compute(unit: Frozen, work: Batch, resources: dict[str, Any]) -> None:
    engines = checked_engines(unit, {"device": unit.facts["device"], **resources})
    source = source_of_image(unit.open_image())
    make = network_source(source, unit.plan, threads=resources.get("threads"))
    began, missing = time.monotonic(), np.asarray(work.missing)
    for view, first in window_keys(unit.plan):
        keys = missing[(missing >= first) & (missing < first + len(view.lattice))]
        engine = engines[0] if view == unit.plan.views[0] else engines[-1]
        _view(unit, work, engine=engine, make=make, view=view, keys=keys - first, first=first)
    took = time.monotonic() - began
    log.info("batch %d: %d windows in %.1f s", work.number, len(missing), took)


def _view(
    unit: Frozen,
    work: Batch,
    *,
    engine: AnyEngine,
    make: Any,
    view: View,
    keys: Sequence[int] | np.ndarray,
    first: int,
) -> None:
    indices = [
        tuple(int(i) for i in np.unravel_index(int(key), view.lattice.counts)) for key in keys
    ]
    records = predict(engine, make, view, indices=indices, augment=unit.plan.settings.augment)
    for key, record in zip(keys, records, strict=True):
        blank = record.style.size == 0
        work.add(first + int(key), b"" if blank else record_to_bytes(record), blank=blank)
