"""What work will take, said before it is begun."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.slabs import SLAB_BYTES
from cellseg_pipe.machine import available_bytes
from cellseg_pipe.nets._footprint import Footprint
from cellseg_pipe.qc import margin_px
from cellseg_pipe.segmentation.memory import BASE_BYTES, FOLLOW_BYTES, NETWORK_BYTES_PER_PX
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.scope import core_needed, cores_needed, windows_needed
from cellseg_pipe.tiles import Grid, TilePlan

__all__ = [
    "Cost",
    "Rates",
    "Size",
    "StageCost",
    "bundle_cost",
    "check_fits",
    "kept_tiles_bytes",
    "made_costs",
    "masks_bytes",
    "measure_bytes",
    "paint_bytes",
    "predict_bytes",
    "related_costs",
    "stage_costs",
    "whole_bytes",
]

LABELS_BYTES = 4
KEPT_BYTES = 200_000_000  # chunks that are kept while pixels are read, and what freeing leaves
# The same where arrays of many sizes come and go: returning it would cost a tenth of the time.
LEFT_BYTES = 500_000_000
STORED_BYTES = 0.12
RECORD_BYTES = 300  # of a tile's record, beside its cells
STYLE_BYTES = 1024  # of a window's record
FILES_PER_JOB = 4  # claim, data, ledger, done
# Seconds per million voxels on one core: see `Rates`.
MEASURE_S = 0.1  # and channel
FORM_S = {2: 0.03, 3: 0.3}  # of measuring forms, by the number of axes
LOOK_S, SIFT_S = 0.1, 0.05
# Of a small image: opening and publishing it, its metadata and tables, its files and folders.
IMAGE_S, IMAGE_BYTES, IMAGE_FILES = 0.15, 60_000, 18
LOOK_BYTES, PIXEL_BYTES = 24, 8  # per voxel of labels that are looked at, and of pixels
AS_SOURCE = ("qc", "sift")  # stages that take as much where labels are made from others
GROW_BYTES = 24  # per voxel of labels that grow: two arrays of labels, two of distances
GROW_S, OVERLAP_S = 0.1, 0.02  # per million voxels
VIEWS = 6  # tiles in memory where they are joined by IoU
TILES = 4  # in memory, where cells are seen whole
SEEN = 3  # copies of what is measured: as it was read, of the cells alone, framed or as floats
PAINTED = 6  # arrays of labels of a box that painting it takes at most


@dataclass(frozen=True)
class Cost:
    """What one job takes.

    Parameters
    ----------
    memory_bytes : int
        At most.
    """

    memory_bytes: int


def predict_bytes(plan: Plan, networks: Sequence[Footprint] = ()) -> int:
    """Return the memory of running the network on one window.

    Parameters
    ----------
    plan : Plan
        Of the image.
    networks : sequence of Footprint
        Of the network, and of that of the side views if there is one; a network of full width
        where nothing is known.

    Returns
    -------
    int
        Bytes.
    """
    window = max(math.prod(view.lattice.edge) for view in plan.views)
    source = window / math.prod(min(f, 1.0) for f in plan.scale.factors)
    loaded = sum(network.loaded_bytes for network in networks)
    of_px = max((network.px_bytes for network in networks), default=NETWORK_BYTES_PER_PX)
    # Windows of a volume meet hundreds of chunks, in the threads that decode them.
    left = KEPT_BYTES if len(plan.shape) == 2 else LEFT_BYTES + SLAB_BYTES
    reading = left + 16 * len(plan.picks) * source
    return round(BASE_BYTES + loaded + of_px * window + reading)


def whole_bytes(plan: Plan, networks: Sequence[Footprint], *, pixels_bytes: int) -> int:
    """Return the memory of segmenting and measuring an image as one tile.

    Parameters
    ----------
    plan : Plan
        Of the image.
    networks : sequence of Footprint
        As for `predict_bytes`.
    pixels_bytes : int
        Of all channels of the image.

    Returns
    -------
    int
        Bytes.
    """
    voxels, walked = math.prod(plan.shape), math.prod(plan.walk_shape)
    plane = math.prod(plan.walk_shape[1:]) if plan.mode == "planes" else walked
    answer = 4 * (plan.n_outputs + 4) * (math.prod(plan.grid_shape) + walked)
    labels = LABELS_BYTES * PAINTED * (voxels + walked)
    cells = answer + labels + FOLLOW_BYTES[len(plan.flow_axes)] * plane
    return predict_bytes(plan, networks) + 2 * pixels_bytes + cells


def masks_bytes(plan: Plan, tiles: TilePlan) -> int:
    """Return the memory of finding the cells of one tile.

    Parameters
    ----------
    plan : Plan
        Of the image.
    tiles : TilePlan
        Its tiles.

    Returns
    -------
    int
        Bytes.
    """
    outer = _seen_px(tiles)
    on_grid = outer * (math.prod(plan.scale.factors) if plan.walks_level_0 else 1.0)
    answer = 4 * (plan.n_outputs + 4) * (outer + on_grid)
    return round(BASE_BYTES + answer + FOLLOW_BYTES[len(plan.flow_axes)] * outer)


def _seen_px(tiles: TilePlan) -> int:
    """Return how many pixels a tile sees."""
    return math.prod(
        min(core + 2 * halo, n)
        for core, halo, n in zip(tiles.core, tiles.halo, tiles.shape, strict=True)
    )


def kept_tiles_bytes(tiles: TilePlan) -> int:
    """Return the memory of the tiles that are kept while boxes are painted or measured.

    Parameters
    ----------
    tiles : TilePlan
        All tiles.

    Returns
    -------
    int
        Bytes.
    """
    return TILES * LABELS_BYTES * _seen_px(tiles)


def paint_bytes(shape: tuple[int, ...], plan: Plan) -> int:
    """Return the memory of painting one box.

    Parameters
    ----------
    shape : tuple of int
        Of the box on level 0.
    plan : Plan
        Of the image.

    Returns
    -------
    int
        Bytes.
    """
    shape = tuple(min(edge, n) for edge, n in zip(shape, plan.shape, strict=True))
    # In mode planes one plane is painted at a time.
    at_once = math.prod(shape[1:] if plan.mode == "planes" else shape)
    walked = at_once if plan.walks_level_0 else round(at_once * math.prod(plan.scale.factors))
    return (
        BASE_BYTES
        + KEPT_BYTES
        + LABELS_BYTES * (2 * math.prod(shape) + PAINTED * (at_once + walked))
    )


def measure_bytes(plan: Plan, tiles: TilePlan, *, voxel_bytes: int) -> int:
    """Return the memory of measuring the cells of one tile.

    Parameters
    ----------
    plan : Plan
        Of the image.
    tiles : TilePlan
        Its tiles.
    voxel_bytes : int
        Of all channels of the image.

    Returns
    -------
    int
        Bytes.
    """
    outer = _seen_px(tiles)
    share = 1.0 if plan.walks_level_0 else math.prod(plan.scale.factors)
    seen = SEEN * (LABELS_BYTES + voxel_bytes) / share
    return round(BASE_BYTES + LEFT_BYTES + kept_tiles_bytes(tiles) + seen * outer)


def look_bytes(plan: Plan, size: Size) -> int:
    """Return the memory of looking at one box of an image and its labels.

    Parameters
    ----------
    plan : Plan
        Of the image.
    size : Size
        Of the boxes.

    Returns
    -------
    int
        Bytes.
    """
    margin = margin_px(plan.diameter_px)
    seen = math.prod(min(p + 2 * margin, n) for p, n in zip(size.look_px, plan.shape, strict=True))
    pixels = math.prod(min(p, n) for p, n in zip(size.look_px, plan.shape, strict=True))
    bytes_px = PIXEL_BYTES * size.n_channels
    return BASE_BYTES + LEFT_BYTES + LOOK_BYTES * seen + bytes_px * pixels


MEND = (
    "Raise resources.memory_gb, give a smaller segment.reach_px or tiles.core_px, or set"
    " segment.resample to false."
)


def check_fits(cost: Cost, limit_bytes: int | None, *, what: str, mend: str = MEND) -> None:
    """Refuse work that does not fit.

    Parameters
    ----------
    cost : Cost
        What it takes.
    limit_bytes : int or None
        What it may take; None for what this machine has.
    what : str
        What it is, for the message.
    mend : str
        What helps, for the message.
    """
    there = available_bytes() if limit_bytes is None else limit_bytes
    if there is not None and cost.memory_bytes > there:
        raise MemoryError(
            f"{what} needs about {cost.memory_bytes / 1e9:.1f} GB, and may take"
            f" {there / 1e9:.1f} GB. {mend}"
        )


@dataclass(frozen=True)
class Rates:
    """What the stages take per voxel and job: usual values, or those of an image and a machine.

    Parameters
    ----------
    masks_s, paint_s : float
        Seconds per million voxels: that tiles look at, and of the image.
    measure_s : float, optional
        The same of the image, with all its channels; by default as channels and axes say.
    masks_bytes, paint_bytes, measure_bytes : float
        Stored per voxel, of labels with their pyramid; a little above what was measured.
    filled : float
        Share of the windows that are not blank, which the network leaves out.
    start_s, loops_start_s, network_start_s : float
        Until a job begins with its work, one that loads compiled loops, and one that loads the
        network besides.
    """

    masks_s: float = 0.4
    paint_s: float = 0.08
    measure_s: float | None = None
    masks_bytes: float = STORED_BYTES
    paint_bytes: float = STORED_BYTES
    measure_bytes: float = STORED_BYTES
    filled: float = 1.0
    start_s: float = 0.0
    loops_start_s: float = 0.0
    network_start_s: float = 0.0


@dataclass(frozen=True)
class Size:
    """How large a unit is, and into what it is cut.

    Parameters
    ----------
    paint_px : tuple of int
        Edge of a box that is painted at once.
    n_channels, voxel_bytes : int
        Of the image: its channels, and their bytes.
    n_files : int
        Files of the labels.
    n_jobs : dict
        Jobs of each stage.
    window_s : float
        What one window of the network took.
    predict_bytes : int, optional
        Memory of running it, where the network is known.
    seams : {"exact", "iou"}
        How tiles are joined.
    rates : Rates
        What the stages take.
    look_px : tuple of int
        Edge of a box that quality control looks at; empty where it does not.
    """

    paint_px: tuple[int, ...]
    n_channels: int
    voxel_bytes: int
    n_files: int
    n_jobs: dict[str, int]
    window_s: float
    predict_bytes: int | None = None
    seams: str = "exact"
    rates: Rates = Rates()
    look_px: tuple[int, ...] = ()


@dataclass(frozen=True)
class StageCost:
    """What one stage of a unit takes.

    Parameters
    ----------
    stage : str
        Its name.
    n_tiles, n_jobs : int
        Windows, tiles or boxes, and into how many jobs they are cut.
    memory_bytes : int
        Of one job.
    seconds : float
        Of all its jobs after each other.
    disk_bytes, n_files : int
        That it writes.
    """

    stage: str
    n_tiles: int
    n_jobs: int
    memory_bytes: int
    seconds: float
    disk_bytes: int
    n_files: int


def stage_costs(plan: Plan, tiles: TilePlan, size: Size) -> list[StageCost]:
    """Return what the stages of a unit take.

    Parameters
    ----------
    plan : Plan
        Of the image.
    tiles : TilePlan
        Its tiles.
    size : Size
        What else decides.

    Returns
    -------
    list of StageCost
        In order.
    """
    rates, millions = size.rates, math.prod(plan.shape) / 1e6
    outer = math.prod(c + 2 * h for c, h in zip(tiles.core, tiles.halo, strict=True))
    n_tiles, walked, stored = _searched(plan, tiles, seams=size.seams)
    asked = [windows_needed(plan, view) for view in plan.views]
    n_windows = sum(int(needed.sum()) for needed in asked)
    windows = sum(view.lattice.size(n) for view, n in zip(plan.views, asked, strict=True))
    boxes = math.prod(math.ceil(n / p) for n, p in zip(plan.shape, size.paint_px, strict=True))
    in_tile = masks_bytes(plan, tiles)
    kept = rates.masks_bytes * stored + RECORD_BYTES * n_tiles
    records = rates.filled * (2 * plan.n_outputs * windows + STYLE_BYTES * n_windows)
    # What tiles see is kept while a box is painted, where more than one tile may paint a cell.
    views = VIEWS * LABELS_BYTES * outer if size.seams == "iou" else 0
    painting = paint_bytes(size.paint_px, plan) + views
    # What was timed is a window of the first view: those of other sides may be flatter.
    network_s = rates.filled * size.window_s * windows / math.prod(plan.views[0].lattice.edge)
    running = predict_bytes(plan) if size.predict_bytes is None else size.predict_bytes
    measure_s = rates.measure_s
    if measure_s is None:
        measure_s = MEASURE_S * size.n_channels + FORM_S[len(plan.shape)]
    rows = {
        "predict": (n_windows, running, network_s, records, 0),
        "masks": (n_tiles, in_tile, rates.masks_s * walked / 1e6, kept, 0),
        "paint": (
            boxes,
            painting,
            rates.paint_s * millions,
            rates.paint_bytes * millions * 1e6,
            size.n_files,
        ),
        "measure": (
            n_tiles,
            measure_bytes(plan, tiles, voxel_bytes=size.voxel_bytes),
            measure_s * millions,
            rates.measure_bytes * millions * 1e6,
            2,
        ),
    }
    if "qc" in size.n_jobs:
        looks = Grid(plan.shape, size.look_px)
        n_looks = len(looks)
        if plan.region is not None:
            n_looks = int(plan.region.touched_boxes(looks).sum())
        looking_s = LOOK_S * size.n_channels * millions * n_looks / len(looks)
        rows["qc"] = (n_looks, look_bytes(plan, size), looking_s, 0, 0)
    if "sift" in size.n_jobs:
        memory, disk = paint_bytes(size.paint_px, plan), STORED_BYTES * millions * 1e6
        rows["sift"] = (boxes, memory, SIFT_S * millions, disk, size.n_files)
    starts = {"predict": rates.network_start_s, "qc": rates.start_s}
    found = []
    for stage, (n, memory, seconds, disk, files) in rows.items():
        n_jobs = size.n_jobs[stage]
        seconds += n_jobs * starts.get(stage, rates.loops_start_s or rates.start_s)
        n_files = files + FILES_PER_JOB * n_jobs
        found.append(StageCost(stage, n, n_jobs, memory, seconds, round(disk), n_files))
    return found


def bundle_cost(stage: str, *, n_images: int, voxels: int, timed: Mapping[str, float]) -> StageCost:
    """Return what segmenting many small images takes, told by the largest of them.

    Parameters
    ----------
    stage : str
        Its name.
    n_images, voxels : int
        How many there are, and what they have together.
    timed : mapping
        Of the largest one: `voxels`, `seconds`, `memory_bytes`, `kept_bytes`.

    Returns
    -------
    StageCost
        Of one job.
    """
    kept = timed.get("kept_bytes", 0) / timed["voxels"]  # beside labels
    return StageCost(
        stage=stage,
        n_tiles=n_images,
        n_jobs=1,
        memory_bytes=int(timed["memory_bytes"]),
        seconds=voxels * timed["seconds"] / timed["voxels"] + n_images * IMAGE_S,
        disk_bytes=round((STORED_BYTES + kept) * voxels) + n_images * IMAGE_BYTES,
        n_files=n_images * IMAGE_FILES + FILES_PER_JOB,
    )


def _searched(plan: Plan, tiles: TilePlan, *, seams: str) -> tuple[int, int, int]:
    """Return how many tiles are looked at, with how many pixels, and of how many labels are kept.

    Tiles look at their halos, too; they keep the cells of their cores, or all they see where seams
    are joined by IoU.
    """
    if plan.region is None or seams == "iou":
        along = zip(plan.walk_shape, tiles.core, tiles.halo, strict=True)
        walked = math.prod(_seen_along(*axis) for axis in along)
        return len(tiles), walked, walked if seams == "iou" else math.prod(plan.walk_shape)
    n = walked = stored = 0
    for number in np.flatnonzero(cores_needed(plan, tiles.cores)).tolist():
        core = core_needed(plan, tiles.cores.box(number))
        if core is not None:
            n += 1
            walked += core.grow(tiles.halo).clip(Box.of(plan.walk_shape)).size
            stored += core.size
    return n, walked, stored


def _seen_along(n: int, core: int, halo: int) -> int:
    """Return the sum over the tiles along an axis of what each of them sees."""
    starts = range(0, n, core)
    return sum(min(start + core + halo, n) - max(start - halo, 0) for start in starts)


def made_costs(
    known: Sequence[StageCost],
    plan: Plan,
    tiles: TilePlan,
    *,
    paint_px: tuple[int, ...],
    grown_px: tuple[int, ...],
) -> list[StageCost]:
    """Return what a unit takes whose labels are made from those of others.

    Parameters
    ----------
    known : sequence of StageCost
        What the unit takes that its ids are from.
    plan : Plan
        Of that unit.
    tiles : TilePlan
        Its tiles.
    paint_px : tuple of int
        Edge of a box that is painted at once.
    grown_px : tuple of int
        How far labels are grown.

    Returns
    -------
    list of StageCost
        Of painting, measuring, and what takes as much in both.
    """
    of = {cost.stage: cost for cost in known}
    box = [min(edge, n) for edge, n in zip(paint_px, plan.shape, strict=True)]
    wide = [edge + 2 * grown for edge, grown in zip(box, grown_px, strict=True)]
    at_once = wide if grown_px[0] or len(wide) == 2 else wide[1:]  # plane by plane, if they may
    arrays = LABELS_BYTES * (3 * math.prod(wide)) + GROW_BYTES * math.prod(at_once)
    in_tile = [c + 2 * h for c, h in zip(tiles.core, tiles.halo, strict=True)]
    larger = math.prod(1 + 2 * g / n for g, n in zip(grown_px, in_tile, strict=True))
    painting = dataclasses.replace(
        of["paint"],
        memory_bytes=BASE_BYTES + KEPT_BYTES + arrays,
        seconds=of["paint"].seconds + GROW_S * math.prod(plan.shape) / 1e6,
    )
    measuring = dataclasses.replace(
        of["measure"],
        memory_bytes=round(of["measure"].memory_bytes * larger),
        seconds=of["measure"].seconds * larger,
    )
    same = [cost for cost in known if cost.stage in AS_SOURCE]
    return [painting, measuring, *same]


def related_costs(known: Sequence[StageCost], shape: tuple[int, ...]) -> list[StageCost]:
    """Return what it takes to relate cells to nuclei.

    Parameters
    ----------
    known : sequence of StageCost
        What the cells take.
    shape : tuple of int
        Of the image.

    Returns
    -------
    list of StageCost
        Of counting shared pixels, and of measuring compartments.
    """
    of = {cost.stage: cost for cost in known}
    n_files = FILES_PER_JOB * of["paint"].n_jobs
    overlap = dataclasses.replace(
        of["paint"],
        stage="overlap",
        seconds=OVERLAP_S * math.prod(shape) / 1e6,
        disk_bytes=round(of["paint"].disk_bytes / 10),
        n_files=n_files,
    )
    return [overlap, dataclasses.replace(of["measure"], stage="compartments")]
