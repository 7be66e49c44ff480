"""What restoring an image where it is read takes: memory, and how often a window is restored."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellseg_pipe.cost import FILES_PER_JOB, Size, StageCost
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.levels import SHARD_PX
from cellseg_pipe.nets.windows import View
from cellseg_pipe.restoration import KEPT_BYTES, RestorePlan
from cellseg_pipe.segmentation.memory import BASE_BYTES
from cellseg_pipe.segmentation.plan import ImageSource, Plan
from cellseg_pipe.segmentation.scope import windows_needed
from cellseg_pipe.segmentation.stored import window_keys
from cellseg_pipe.stages.batches import window_batches
from cellseg_pipe.tiles import Grid

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import Engine

__all__ = [
    "RESTORING_MEND",
    "box_kept_bytes",
    "filtering_s",
    "kept_bytes",
    "n_restored",
    "reading_bytes",
    "saving_costs",
    "whole_restored_bytes",
]

ARRAYS = 4  # of float32 that are held at once on the network's grid and on the image's
RESTORING_MEND = (
    "Raise resources.memory_gb, give fewer restore.channels or a smaller restore.window_px, or"
    " restore the image beforehand with cellseg restore."
)
SAVE_S = 0.05  # per million values, of compressing, and of reading them for coarser levels
MOST_KEPT_BYTES = 1_000_000_000
SLACK_PX = 3  # that interpolation reads beyond a box


def whole_restored_bytes(restoring: RestorePlan | None, restorer: Engine | None) -> int:
    """Return the memory of restoring an image as a whole, beside what else a job takes.

    Parameters
    ----------
    restoring : RestorePlan or None
        What is done to it.
    restorer : Engine or None
        What restores, if a network does.

    Returns
    -------
    int
        Bytes.
    """
    if restoring is None:
        return 0
    n_values = math.prod(restoring.grid_shape) * len(restoring.channels)
    n_values += math.prod(restoring.shape) * restoring.n_channels
    return 4 * ARRAYS * n_values + _running_bytes(restoring, restorer)


def reading_bytes(plan: Plan, restoring: RestorePlan | None, restorer: Engine | None) -> int:
    """Return the memory of restoring what one window of the segmenting network sees.

    Where cells are brought to few pixels, one window of what restores reads more than that.

    Parameters
    ----------
    plan : Plan
        Of the image.
    restoring : RestorePlan or None
        What is done to it.
    restorer : Engine or None
        What restores, if a network does.

    Returns
    -------
    int
        Bytes, beside what else a job takes.
    """
    if restoring is None:
        return 0
    largest = max(math.prod(_read_px(plan, view.lattice.edge)) for view in plan.views)
    largest = max([largest, *(_window_px(restoring, view) for view in restoring.views)])
    on_grid = largest * math.prod(restoring.scale.factors) * len(restoring.channels)
    arrays = 4 * ARRAYS * (largest * restoring.n_channels + on_grid)
    return round(arrays) + _running_bytes(restoring, restorer) + kept_bytes(restoring, plan)


def _window_px(restoring: RestorePlan, view: View) -> float:
    """Return the voxels of level 0 that one window of the network that restores reads itself."""
    sizes = zip(view.lattice.edge, restoring.scale.factors, restoring.shape, strict=True)
    return math.prod(min(e / f + SLACK_PX, n) for e, f, n in sizes)


def _running_bytes(restoring: RestorePlan, restorer: Engine | None) -> int:
    """Return the memory of the network and of one of its windows; nothing for a filter."""
    if restorer is None:
        return 0
    network = restorer.footprint
    window = max(math.prod(view.lattice.edge) for view in restoring.views)
    return network.loaded_bytes + network.px_bytes * window


def kept_bytes(restoring: RestorePlan, plan: Plan | None) -> int:
    """Return up to how many bytes restored windows are kept: those of one box at least.

    Parameters
    ----------
    restoring : RestorePlan
        What is done to the image.
    plan : Plan or None
        Of the image, as the segmenting network sees it; None for the usual number.

    Returns
    -------
    int
        0 for a filter, which has no windows.
    """
    if not restoring.views:
        return 0
    one = _record_bytes(restoring)
    usual = min(KEPT_BYTES, one * sum(len(view.lattice) for view in restoring.views))
    if plan is None:
        return usual
    # Of a column seen from the side: all planes that it goes through.
    boxes = [_read_px(plan, view.lattice.edge) for view in plan.views]
    return max(usual, one * max(_n_windows(restoring, box) for box in boxes))


def n_restored(plan: Plan, restoring: RestorePlan, n_batches: int) -> int:
    """Return about how many windows are restored by all jobs of a unit.

    As if each job kept all that it restored for one side. What does not fit in `kept_bytes` is
    restored again: windows of side views that follow each other along y and x, two to three times.

    Parameters
    ----------
    plan : Plan
        Of the image, as the segmenting network sees it.
    restoring : RestorePlan
        What is done to it.
    n_batches : int
        Jobs; each restores for itself what its windows see.

    Returns
    -------
    int
        Windows of the network that restores.
    """
    if not restoring.channels:
        return 0
    batches, total = window_batches(plan, n_batches), 0
    for view, first in window_keys(plan):
        needed = np.flatnonzero(windows_needed(plan, view))
        index = np.array(np.unravel_index(needed, view.lattice.counts))
        batch = batches[first + needed]
        for number in np.unique(batch):
            mine = index[:, batch == number]
            extent = (mine.max(1) - mine.min(1)) * view.lattice.stride + view.lattice.edge
            total += _n_windows(restoring, _read_px(plan, extent.tolist()))
    return total


def _read_px(plan: Plan, edge: Sequence[int]) -> tuple[float, ...]:
    """Return the edges of what is read on level 0 for a box of the network's grid."""
    halo = plan.filters.support_px if plan.filters else (0,) * len(plan.shape)
    sizes = zip(edge, plan.scale.factors, halo, plan.shape, strict=True)
    return tuple(min(e / f + 2 * h + SLACK_PX, n) for e, f, h, n in sizes)


def _n_windows(restoring: RestorePlan, box: tuple[float, ...]) -> int:
    """Return how many windows may meet a box of so many pixels of level 0, from all sides."""
    return sum(_met(view, box, restoring.scale.factors) for view in restoring.views)


def _met(view: View, box: tuple[float, ...], factors: tuple[float, ...]) -> int:
    lattice, n = view.lattice, 1
    axes = zip(box, factors, lattice.edge, lattice.stride, lattice.counts, strict=True)
    for length, factor, edge, stride, count in axes:
        n *= min(int(length * factor + edge) // stride + 1, count)
    return n


def box_kept_bytes(restoring: RestorePlan, box: Sequence[int]) -> int:
    """Return up to how many bytes restored windows are kept while a box is written, in parts.

    Parameters
    ----------
    restoring : RestorePlan
        What is done to the image.
    box : sequence of int
        Edges of the box.

    Returns
    -------
    int
        All windows that it meets, as far as a usual machine has room; 0 for a filter.
    """
    if not restoring.views:
        return 0
    n_windows = _n_windows(restoring, _within(restoring, box))
    return min(_record_bytes(restoring) * n_windows, MOST_KEPT_BYTES)


def _record_bytes(restoring: RestorePlan) -> int:
    """Return the bytes of a restored window that is kept."""
    return 2 * len(restoring.channels) * max(math.prod(v.lattice.edge) for v in restoring.views)


def _within(restoring: RestorePlan, box: Sequence[int]) -> tuple[int, ...]:
    return tuple(min(edge, n) for edge, n in zip(box, restoring.shape, strict=True))


def saving_costs(
    restoring: RestorePlan, plan: Plan, size: Size, *, facts: Mapping[str, Any], grid: Grid
) -> list[StageCost]:
    """Return what writing the restored image takes.

    Parameters
    ----------
    restoring : RestorePlan
        What is done to the image.
    plan : Plan
        Of the image, as the segmenting network sees it.
    size : Size
        What else decides; its files are those of the restored image.
    facts : mapping
        Of the plan: what restoring took.
    grid : Grid
        The boxes that are written.

    Returns
    -------
    list of StageCost
        Of level 0, and of the coarser levels.
    """
    n_boxes = len(grid) if plan.region is None else int(plan.region.touched_boxes(grid).sum())
    share = n_boxes / len(grid)
    n_values = math.prod(restoring.shape) * restoring.n_channels * share
    if restoring.views:
        restored_s = facts.get("restored_window_s", 0.0) * n_boxes
        restored_s *= _n_windows(restoring, _within(restoring, grid.pitch))
    else:
        n_windows = sum(int(windows_needed(plan, view).sum()) for view in plan.views)
        restored_s = facts.get("restoring_window_s", 0.0) * n_windows
    shard = math.prod(_within(restoring, SHARD_PX[min(len(grid.shape), 3)]))
    on_grid = math.prod(restoring.scale.factors) * len(restoring.channels)
    n_jobs, start_s = size.n_jobs["paint"], size.rates.network_start_s
    writing = StageCost(
        stage="restore",
        n_tiles=n_boxes,
        n_jobs=n_jobs,
        # A job holds what predict does, and a shard with what it meets instead of a window.
        memory_bytes=round(
            (size.predict_bytes or 0)
            + box_kept_bytes(restoring, grid.pitch)
            + 4 * ARRAYS * shard * (restoring.n_channels + on_grid)
        ),
        seconds=restored_s + SAVE_S * n_values / 1e6 + n_jobs * start_s,
        disk_bytes=round(4 * n_values),  # noise does not compress
        n_files=math.ceil(size.n_files * share) + FILES_PER_JOB * n_jobs,
    )
    shrinking = dataclasses.replace(
        writing,
        stage="shrink",
        n_jobs=1,
        memory_bytes=BASE_BYTES + 4 * ARRAYS * shard,
        seconds=SAVE_S * n_values / 1e6 + size.rates.start_s,
        disk_bytes=round(4 * n_values / 3),
        n_files=FILES_PER_JOB,
    )
    return [writing, shrinking]


def filtering_s(source: ImageSource, plan: Plan) -> float:
    """Return what it takes to read the windows of an image that a filter restores.

    Parameters
    ----------
    source : ImageSource
        The restored image.
    plan : Plan
        Of the image, as the segmenting network sees it.

    Returns
    -------
    float
        Seconds, of all windows.
    """
    seconds = 0.0
    for view in plan.views:
        box = view.box((0,) * len(view.shape)).clip(Box.of(view.shape))
        began = time.monotonic()
        source.read(plan.scale.source_box(box, plan.shape))
        seconds += (time.monotonic() - began) * int(windows_needed(plan, view).sum())
    return seconds
