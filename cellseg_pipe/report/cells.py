"""What the page says of the cells of one image: how many, how large, how sure, and where."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import dataset

from cellseg_pipe.io.tables import read_table
from cellseg_pipe.report.charts import Figure, histogram, lines
from cellseg_pipe.report.counts import CellCounts, Distribution, count_cells, distributions
from cellseg_pipe.report.html import Section, numbers, short
from cellseg_pipe.report.maps import heat_map
from cellseg_pipe.report.source import UnitSource
from cellseg_pipe.report.timing import seconds_by_tile

__all__ = ["counts_of", "depth", "maps", "sizes"]

MOST_FIELDS = 160  # of a map, along its longer edge
CELLS_A_FIELD = 4
CHANNELS = 4
TITLES = {
    "area_um2": ("Area", "µm²"), "area_px": ("Area", "px"), "volume_um3": ("Volume", "µm³"),
    "volume_px": ("Volume", "voxels"), "diameter_um": ("Diameter", "µm"),
    "diameter_px": ("Diameter", "px"), "confidence": ("Confidence", "probability of a true cell"),
    "probability": ("Probability", "of the network"), "flow_error": ("Flow error", "0 is best"),
}  # fmt: skip
FIRST_OF = (
    ("area_um2", "volume_um3", "area_px", "volume_px"),
    ("diameter_um", "diameter_px"),
    ("confidence",),
    ("probability",),
    ("flow_error",),
)


def _columns(unit: UnitSource) -> list[str]:
    there = dataset.dataset(unit.cells, format="parquet").schema.names
    chosen = [next((n for n in names if n in there), "") for names in FIRST_OF]
    means = [name for name in there if re.match(r"mean_(?!nucleus_|cytoplasm_)", name)]
    return [name for name in (*chosen, *means[:CHANNELS]) if name]


def counts_of(unit: UnitSource) -> CellCounts:
    """Count where the cells of a unit lie.

    Parameters
    ----------
    unit : UnitSource
        The unit.

    Returns
    -------
    CellCounts
        Over fields of some cells each.
    """
    n = max(int(unit.facts["n_cells"]), 1)
    longest, area = max(unit.shape[-2:]), math.prod(unit.shape[-2:])
    pitch = max(longest / MOST_FIELDS, math.sqrt(CELLS_A_FIELD * area / n), 1.0)
    pitch = min(2 ** math.ceil(math.log2(pitch)), 2 ** math.ceil(math.log2(longest)))
    return count_cells(unit.cells, axes=unit.axes, shape=unit.shape, pitch_px=int(pitch))


def sizes(unit: UnitSource) -> tuple[Section, list[Figure]]:
    """Return how many cells there are and how their values are spread.

    Parameters
    ----------
    unit : UnitSource
        The unit.

    Returns
    -------
    Section
        Of the page.
    list of Figure
        Its charts.
    """
    found = distributions(unit.cells, _columns(unit)) if unit.facts["n_cells"] else []
    figures = [_figure(one, unit.name) for one in found]
    median = {one.name: one.median for one in found}
    body = numbers(_numbers(unit, median))
    if figures:
        body += f'<div class="grid">{"".join(f.html for f in figures)}</div>'
    else:
        body += '<p class="note">No cells were found, so nothing can be said of their sizes.</p>'
    return Section("Cells", "Cells", body), figures


def _figure(one: Distribution, unit: str) -> Figure:
    title, said = TITLES.get(
        one.name, (one.name.replace("mean_", "Mean of channel "), "grey value")
    )
    data = {"from": one.edges[:-1], "to": one.edges[1:], "cells": one.counts}
    svg = histogram(one.counts, one.edges, unit=said, median=one.median)
    return Figure(f"{unit}-{one.name}", title, svg, data)


def _numbers(unit: UnitSource, median: dict[str, float]) -> dict[str, tuple[str, str]]:
    found = unit.facts
    n = int(found["n_cells"])
    rows = {"Cells": (short(n), ""), "Density": density(unit, n)}
    for name in ("diameter_um", "diameter_px"):
        if name in median and "Median diameter" not in rows:
            rows["Median diameter"] = (short(median[name]), name[-2:].replace("um", "µm"))
    if "confidence" in median:
        rows["Median confidence"] = (short(median["confidence"]), "")
    for what in ("flagged", "dropped"):
        if k := int(found.get(f"n_{what}", 0)):
            rows[what.capitalize()] = (short(k), f"{100 * k / n:.1f} %")
    return rows


def density(unit: UnitSource, n_cells: int) -> tuple[str, str]:
    """Return cells per area or volume, with its unit.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    n_cells : int
        Its cells.

    Returns
    -------
    str
        The number.
    str
        Its unit.
    """
    n_space = len(unit.shape) - (unit.axes[0] == "t")
    frames = unit.shape[0] if unit.axes[0] == "t" else 1
    if unit.spacing_um is None:
        per = math.prod(unit.shape) / 1e6
        return short(n_cells / per), "per million px" if n_space == 2 else "per million voxels"
    extent = math.prod(n * s for n, s in zip(unit.shape[-n_space:], unit.spacing_um, strict=True))
    per = extent * frames / (1e6 if n_space == 2 else 1e9)
    return short(n_cells / per), "per mm²" if n_space == 2 else "per mm³"


def maps(unit: UnitSource, counts: CellCounts, *, first: Figure) -> tuple[Section, list[Figure]]:
    """Return what differs over the image.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    counts : CellCounts
        Where its cells lie.
    first : Figure
        What stands before the maps.

    Returns
    -------
    Section
        Of the page.
    list of Figure
        Its charts.
    """
    figures = [first, *_maps(unit, counts)]
    body = f'<div class="grid">{"".join(figure.html for figure in figures)}</div>'
    note = "Each map is the whole image. Volumes and series are seen along their first axis."
    return Section("Maps", "Over the image", body, note), figures


def _maps(unit: UnitSource, counts: CellCounts) -> Iterator[Figure]:
    if counts.n_cells.any() and counts.n_cells.size > 1:
        per, said = _per_area(unit, counts)
        yield _map(unit, "density", "Density", values=counts.n_cells * per, said=said)
        sure = counts.mean_confidence
        yield _map(unit, "confidence", "Confidence", values=sure, said="mean of the cells")
    yield from _block_maps(unit)
    medians = unit.qc.get("diameter_map", {}).get("median_px")
    if medians is not None:
        grid = np.array(medians, float)  # None becomes nan
        grid = _flat(grid) if grid.ndim == 3 else np.atleast_2d(grid)
        if np.isfinite(grid).sum() > 1:
            yield _map(unit, "diameter", "Typical diameter", values=grid, said="px, median")
    seconds = seconds_by_tile(unit)
    if seconds is not None and np.isfinite(seconds).sum() > 1:
        said = "seconds to find its cells"
        yield _map(unit, "seconds", "Time per tile", values=seconds, said=said)


def _flat(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means along the first axis of what is known."""
    known = np.isfinite(grid)
    total = np.where(known, grid, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _per_area(unit: UnitSource, counts: CellCounts) -> tuple[NDArray[np.float64], str]:
    """Return what makes a density of the cells of each field; those at the edge are smaller."""
    edges = [
        np.minimum(counts.pitch_px, n - counts.pitch_px * np.arange(m))
        for n, m in zip(unit.shape[-2:], counts.n_cells.shape, strict=True)
    ]
    area = np.multiply.outer(*edges).astype(float)
    if unit.spacing_um is None:
        return 1e6 / area, "cells per million px"
    return 1e6 / (area * unit.spacing_um[-2] * unit.spacing_um[-1]), "cells per mm²"


def _block_maps(unit: UnitSource) -> Iterator[Figure]:
    """Yield what quality control measured of blocks."""
    path = unit.run.paths.unit(unit.name).blocks
    if not path.exists():
        return
    columns = read_table(path)
    grid = _grid_of(columns, unit.axes)
    for name in [c for c in columns if c.startswith("focus_")][:2]:
        values = grid(np.asarray(columns[name], float))
        if np.isfinite(values).sum() > 1:
            channel = name.removeprefix("focus_")
            title = f"Focus, channel {channel}"
            yield _map(unit, name, title, values=values, said="fine over coarse detail")
    marked = grid(np.array([bool(text) for text in columns["suspect"].tolist()], float))
    if np.nansum(marked) > 0:
        said = "blocks that are unlike the rest"
        marked[~(marked > 0)] = np.nan
        yield _map(unit, "suspect", "Suspicious blocks", values=marked, said=said, ends=(1.0, 1.0))


def _grid_of(columns: dict[str, NDArray[Any]], axes: str) -> Any:
    """Return what puts a column of blocks where they lie, as means along a first axis."""
    places = [np.unique(columns[f"{axis}_start_px"], return_inverse=True) for axis in axes]
    shape = tuple(len(values) for values, _ in places)
    where = np.ravel_multi_index([index for _, index in places], shape)

    def grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.full(math.prod(shape), np.nan)
        found[where] = values
        found = found.reshape(shape)
        return _flat(found) if found.ndim == 3 else found

    return grid


def _map(
    unit: UnitSource,
    name: str,
    title: str,
    *,
    values: NDArray[np.float64],
    said: str,
    ends: tuple[float, float] | None = None,
) -> Figure:
    y, x = np.indices(values.shape)
    data = {"row": y.ravel(), "column": x.ravel(), "value": np.asarray(values, float).ravel()}
    svg = heat_map(np.asarray(values, float), unit=said, aspect=unit.aspect, ends=ends)
    return Figure(f"{unit.name}-map-{name}", title, svg, data)


def depth(unit: UnitSource, counts: CellCounts) -> list[Figure]:
    """Return how many cells each plane of a volume, or each time of a series, has.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    counts : CellCounts
        Where its cells lie.

    Returns
    -------
    list of Figure
        None of planes.
    """
    n = len(counts.by_plane)
    if len(unit.shape) < 3 or n < 2:
        return []
    series = unit.axes[0] == "t"
    at, along = np.arange(n), "time" if series else "plane"
    some = np.maximum(counts.by_plane, 1)
    sure = np.where(counts.by_plane > 0, counts.confidence_by_plane / some, np.nan)
    cells = lines(at.tolist(), {"cells": counts.by_plane.astype(float).tolist()}, unit=along)
    means = lines(at.tolist(), {"confidence": sure.tolist()}, unit=along)
    title = "Cells over time" if series else "Cells over depth"
    said = "Where the middle of each cell lies."
    return [
        Figure(f"{unit.name}-depth", title, cells, {along: at, "cells": counts.by_plane}, said),
        Figure(f"{unit.name}-depth-confidence", f"Confidence, by {along}", means,
               {along: at, "confidence": sure}),
    ]  # fmt: skip
