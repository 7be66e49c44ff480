"""Tries a few tiles of a unit, so that its forecast rests on its own pixels and on this machine."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cellseg_pipe.cost import Rates
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.ngff import ImageMeta, create_label_pyramid
from cellseg_pipe.io.shards import ShardWriter, read_box
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.segmentation.cells import to_level_0
from cellseg_pipe.segmentation.measuring import View
from cellseg_pipe.segmentation.plan import Plan, network_source
from cellseg_pipe.segmentation.scope import windows_needed
from cellseg_pipe.segmentation.seams import view_from_bytes
from cellseg_pipe.segmentation.stored import (
    found_from_bytes,
    stored_records,
    tables_to_bytes,
)
from cellseg_pipe.segmentation.tiled import paint, spread_px
from cellseg_pipe.stages._tried_windows import TimedReading, TriedWindows
from cellseg_pipe.stages.masks import tile_blob
from cellseg_pipe.stages.networks import checked_networks
from cellseg_pipe.stages.paint import shards_of
from cellseg_pipe.stages.pixels import channels_of, source_of_image
from cellseg_pipe.stages.restored import restored
from cellseg_pipe.stages.tiling import Tiling, predicted, read_frozen, read_tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.stages.views import measurer_of, on_level_0
from cellseg_pipe.tiles import Tile

__all__ = ["run"]

log = logging.getLogger(__name__)

SAMPLES = 3
SAMPLE_PX = {"2d": (1280, 1280), "planes": (1, 1280, 1280), "3d": (48, 128, 128)}
LOOKED_AT = 48  # windows, of which the share that is blank is taken
PYRAMID = 4 / 3  # of level 0; in 3D less
# What jobs do before their work.
STARTING = "import cellseg_pipe.stages.jobs, numpy as np"
LOOPS = "import cellseg_pipe; cellseg_pipe.masks_from_flows(np.zeros((2, 8, 8)), np.ones((8, 8)))"
T = TypeVar("T")


def run(unit: UnitRun, *, threads: int | None = None) -> Path:
    """Try a few tiles of a unit, and keep what its stages take.

    Parameters
    ----------
    unit : UnitRun
        The unit; its tiles are planned.
    threads : int, optional
        Threads of a job; by default what the experiment says.

    Returns
    -------
    path
        The rates.
    """
    said = unit.experiment.resources.threads
    threads = threads or (None if said == "auto" else said)
    frozen, tiling = read_frozen(unit.stage("plan")), read_tiling(unit.stage("tiles"))
    began = time.monotonic()
    networks = checked_networks(frozen, numerics="relaxed", threads=threads)
    loading_s = time.monotonic() - began
    raw, plan = source_of_image(frozen.open_image()), tiling.plan
    files = TimedReading(raw)
    timed = dataclasses.replace(raw, read=files.read)
    seen = TimedReading(
        restored(timed, frozen.restoring, networks.restorer, plan=plan, threads=threads), files
    )
    windows = TriedWindows(
        networks.engines,
        network_source(raw, plan, threads=threads),
        network_source(dataclasses.replace(raw, read=seen.read), plan, threads=threads),
        plan=plan,
        reading=seen if frozen.restoring else None,
    )
    places, filled = _places(windows, tiling.plan)
    folder = unit.run.runs / f".calibrate-{secrets.token_hex(8)}"
    folder.mkdir(parents=True)
    try:
        trial = _Trial(unit, _cut(tiling), windows, folder, threads)
        samples = [trial.measured(n, box) for n, box in enumerate(places)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rates: dict[str, Any] = dataclasses.asdict(_rates(samples, filled, tiling))
    rates |= _starts_s(loading_s)
    if windows.n_px:
        # A window of the first view stands for all: see `stage_costs`.
        edge = math.prod(tiling.plan.views[0].lattice.edge)
        restoring_s = frozen.facts.get("restoring_window_s", 0.0)
        rates["window_s"] = windows.seconds / windows.n_px * edge + restoring_s
    path = unit.run.unit(unit.name).rates
    write_whole(path, json.dumps(rates, indent=1).encode())
    costs = predicted(unit, tiling.plan, tiling.tiles, facts=frozen.facts)
    write_whole(unit.stage("tiles").costs, json.dumps({"predicted": costs}, indent=1).encode())
    log.info("%s: %d tiles were tried in %.0f s", unit.name, len(places), time.monotonic() - began)
    return path


def _cut(tiling: Tiling) -> Tiling:
    """Return tiles that end with their core, and see all of it."""
    tiles = dataclasses.replace(tiling.tiles, halo=(0,) * len(tiling.tiles.halo))
    plan = dataclasses.replace(tiling.plan, region=None)
    return dataclasses.replace(tiling, plan=plan, tiles=tiles)


def _places(windows: TriedWindows, plan: Plan) -> tuple[list[Box], float]:
    """Return boxes to try, on the grid that particles walk on, and the share that is not blank."""
    keys = np.flatnonzero(windows_needed(plan, plan.views[0]))
    rng = np.random.default_rng(0)
    looked_at = rng.choice(keys, min(len(keys), LOOKED_AT), replace=False).tolist()
    full = [key for key in looked_at if windows.has_pixels(key)]
    factors = np.asarray(plan.scale.factors) if plan.walks_level_0 else np.ones(len(plan.shape))
    places = []
    for key in full[:SAMPLES]:
        edge = np.minimum(SAMPLE_PX[plan.mode], plan.walk_shape)
        start = np.rint(windows.middle(key) / factors - edge / 2).astype(int)
        start = np.clip(start, 0, np.asarray(plan.walk_shape) - edge)
        places.append(Box(tuple(start.tolist()), tuple((start + edge).tolist())))
    return list(dict.fromkeys(places)), len(full) / max(len(looked_at), 1)


@dataclass(frozen=True)
class _Sample:
    """Seconds and bytes of one tile, per voxel."""

    masks_s: float
    reading_s: float
    paint_s: float
    measure_s: float
    masks_bytes: float
    paint_bytes: float
    measure_bytes: float


@dataclass(frozen=True)
class _Trial:
    """What is tried, and where it is written."""

    unit: UnitRun
    tiling: Tiling
    windows: TriedWindows
    folder: Path
    threads: int | None

    def measured(self, number: int, box: Box) -> _Sample:
        """Find, paint and measure the cells of a tile."""
        tiling, plan = self.tiling, self.tiling.plan
        tile = Tile(0, box, box)
        records = stored_records(self.windows, plan)
        (blob, _), masks_s = _second(
            lambda: tile_blob(tiling, records, tile=tile, threads=self.threads)
        )
        seen, reading_s = _second(lambda: self._seen(blob, tile))
        level_0 = on_level_0(plan, box)
        store = self.folder / f"{number}.ome.zarr"
        meta = ImageMeta(self.unit.image.spatial, self.unit.label_spacing)
        create_label_pyramid(store, meta, shape=level_0.shape, version="0.5", n_levels=1)
        written, paint_s = _second(lambda: self._painted(seen, box, level_0=level_0, store=store))
        sums, measure_s = _second(lambda: self._summed(store, level_0))
        n, n_0 = box.size, level_0.size
        return _Sample(
            masks_s / n,
            reading_s / n,
            paint_s / n_0,
            measure_s / n_0,
            masks_bytes=len(blob) / n,
            paint_bytes=PYRAMID * written / n_0,
            measure_bytes=2 * len(sums) / n_0,  # and the table
        )

    def _seen(self, blob: bytes, tile: Tile) -> Any:
        if self.tiling.seams == "iou":
            return view_from_bytes(blob, tile)
        return found_from_bytes(blob)

    def _painted(self, seen: Any, box: Box, *, level_0: Box, store: Path) -> int:
        """Paint and write the labels of a box; return the bytes."""
        if self.tiling.seams == "iou":
            labels = seen.labels
        else:
            ids = np.arange(1, len(seen.peak) + 1, dtype=np.uint32)
            labels = paint(box, [(seen, ids)])
        labels = to_level_0(labels, self.tiling.plan, box=level_0, start=box.start)
        writer = ShardWriter(store / "0", threads=self.threads)
        parts = shards_of(writer, Box.of(level_0.shape))
        return sum(writer.write_shard(part, labels[part.slices]).n_bytes for part in parts)

    def _summed(self, store: Path, level_0: Box) -> bytes:
        """Read labels and pixels, and measure the cells."""
        labels = read_box(store / "0", Box.of(level_0.shape), threads=self.threads)
        pixels = self.unit.pixels.read(level_0)[channels_of(self.unit)]
        ids = np.unique(labels)
        measurer = measurer_of(self.unit, self.tiling.plan, threads=self.threads)
        view = View(level_0, labels, pixels, level_0, level_0)
        return tables_to_bytes(**vars(measurer.view(view, ids[ids > 0])))


def _second(work: Callable[[], T]) -> tuple[T, float]:
    """Return what work gives and what it takes once loops are compiled and pixels are known."""
    work()
    began = time.monotonic()
    found = work()
    return found, time.monotonic() - began


def _rates(samples: list[_Sample], filled: float, tiling: Tiling) -> Rates:
    """Return what the stages take, from what tiles took."""
    if not samples:
        return Rates(filled=filled)
    mean = {
        field.name: filled * float(np.mean([getattr(sample, field.name) for sample in samples]))
        for field in dataclasses.fields(_Sample)
    }
    # Painting a box reads the tiles around it; measuring reads as far as cells of a core may reach.
    near = math.prod(_near(tiling))
    core = np.minimum(tiling.tiles.core, tiling.plan.walk_shape)
    spread = spread_px(tiling.plan) if tiling.seams == "exact" else (0,) * len(core)
    wide = math.prod(np.minimum(core + 2 * np.asarray(spread), tiling.plan.walk_shape).tolist())
    measure_s = mean["measure_s"] * wide / math.prod(core.tolist()) + mean["reading_s"]
    return Rates(
        masks_s=1e6 * mean["masks_s"],
        paint_s=1e6 * (mean["paint_s"] + near * mean["reading_s"]),
        measure_s=1e6 * measure_s,
        masks_bytes=mean["masks_bytes"],
        paint_bytes=mean["paint_bytes"],
        measure_bytes=mean["measure_bytes"],
        filled=filled,
    )


def _near(tiling: Tiling) -> Iterator[int]:
    """Yield for each axis how many tiles a box of a core's size reads."""
    for halo, count in zip(tiling.tiles.halo, tiling.tiles.cores.counts, strict=True):
        yield min(3, count) if halo else 1


def _starts_s(loading_s: float) -> dict[str, float]:
    """Return what jobs take until they begin with their work; the network was loaded here."""
    _starting_s(f"{STARTING}; {LOOPS}")  # compiles them, if nobody has yet
    start_s, with_loops_s = _starting_s(STARTING), _starting_s(f"{STARTING}; {LOOPS}")
    with_network_s = _starting_s(f"{STARTING}, torch; {LOOPS}") + loading_s
    return {
        "start_s": start_s,
        "loops_start_s": with_loops_s,
        "network_start_s": with_network_s,
    }


def _starting_s(code: str) -> float:
    """Return what a process takes that does no more, of files that were read before."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - began
