"""From the cells of tiles to numbered cells of an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import (
    Pairs,
    boxes_and_areas,
    chain_planes,
    overlap_pairs,
    relabel,
    resample_nearest,
)
from cellseg_pipe.segmentation.agreement import agreement
from cellseg_pipe.segmentation.places import in_region
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.predict import Answer
from cellseg_pipe.segmentation.tiled import (
    BLOCK_PX,
    DROPPED,
    Found,
    counts_of,
    find_cells,
    ids_of,
    paint,
)
from cellseg_pipe.tiles import Grid, first_ids

__all__ = [
    "Cells",
    "Rows",
    "add_rows",
    "cells_of",
    "chain_cells",
    "frame_rows",
    "join_chains",
    "join_rows",
    "renamed",
    "to_level_0",
    "with_time",
]


@dataclass(frozen=True)
class Rows:
    """What the network said of cells, ascending by their number.

    Parameters
    ----------
    id : uint32 array [n]
        Numbers.
    area : int64 array [n]
        Pixels before holes are filled; what means over planes are weighted by.
    flow_error, logit : float64 array [n]
        Of each cell; nan for an error that was not asked for.
    class_logit : float64 array [n, n_classes]
        Mean of each class output over the cell; no columns without class outputs.
    spread, seen_again : float64 array [n]
        Sums over the cell of how far windows differ, and of how far more than one sees a pixel.
    peak : int64 array [n, ndim]
        From which its moments count, and which decides its region; of a chain that of its first
        plane.
    """

    id: NDArray[np.uint32]
    area: NDArray[np.int64]
    flow_error: NDArray[np.float64]
    logit: NDArray[np.float64]
    class_logit: NDArray[np.float64]
    spread: NDArray[np.float64]
    seen_again: NDArray[np.float64]
    peak: NDArray[np.int64]

    def take(self, wanted: NDArray[Any]) -> Rows:
        """Return some of the rows.

        Parameters
        ----------
        wanted : array
            Which ones, as numpy takes it.

        Returns
        -------
        Rows
            Of these cells.
        """
        return Rows(*(getattr(self, field.name)[wanted] for field in dataclasses.fields(self)))

    @property
    def probability(self) -> NDArray[np.float64]:
        """How sure the network is that a cell is one."""
        from scipy.special import expit  # here: most jobs do without

        return np.asarray(expit(self.logit))

    @property
    def agreement(self) -> NDArray[np.float64]:
        """How far windows that overlap say the same of a cell; nan where one alone sees it."""
        return agreement(self.spread, self.seen_again)


@dataclass(frozen=True)
class Cells:
    """Numbered cells and what the network said of them.

    Parameters
    ----------
    labels : uint32 array [*spatial]
        On level 0; ids from 1 without gaps.
    rows : Rows
        One per cell; of a series one per cell and time.
    n_too_far : int
        Particles whose path strays beyond the reach.
    """

    labels: NDArray[np.uint32]
    rows: Rows
    n_too_far: int


def cells_of(answer: Answer, plan: Plan, *, threads: int | None = None) -> Cells:
    """Find the cells of a whole image: as one tile, or one for each plane.

    Parameters
    ----------
    answer : Answer
        For all of the image.
    plan : Plan
        Of the image.
    threads : int, optional
        Threads to use.

    Returns
    -------
    Cells
        With ids by block of the image, then by place of the peak.
    """
    found = [
        find_cells(part, plan, window=box, core=box, threads=threads)
        for part, box in _tiles(answer, plan)
    ]
    first = first_ids(_counts(found, plan))
    tiles = [(part, ids_of(part, first, plan)) for part in found]
    labels = np.concatenate([paint(part.box, [(part, ids)]) for part, ids in tiles])
    rows = join_rows(tiles)
    if plan.chained:
        numbers = _chained(labels, rows, tiles=tiles, plan=plan)
        labels = relabel(labels, rows.id, numbers, threads=threads)
        rows = renamed(rows, numbers)
        rows = rows if plan.series else join_chains(rows)
    labels = to_level_0(labels, plan, box=Box.of(plan.shape), start=(0,) * len(plan.shape))
    return Cells(labels, rows, sum(part.n_too_far for part in found))


def _tiles(answer: Answer, plan: Plan) -> Sequence[tuple[Answer, Box]]:
    """Return an image as one tile; each plane where planes know nothing of each other."""
    whole = Box.of(plan.walk_shape)
    if plan.mode != "planes":
        return [(answer, whole)]
    return [
        (
            Answer(
                answer.flow[:, z : z + 1],
                answer.logit[z : z + 1],
                answer.classes[:, z : z + 1],
                answer.spread[z : z + 1],
                answer.style,
            ),
            Box((z, 0, 0), (z + 1, *whole.stop[1:])),
        )
        for z in range(len(answer.logit))
    ]


def _counts(found: Sequence[Found], plan: Plan) -> NDArray[np.int64]:
    counts = np.zeros(len(Grid(plan.walk_shape, BLOCK_PX[plan.mode])), np.int64)
    for part in found:
        block, count = counts_of(part, plan)
        counts[block] += count
    return counts


def join_rows(tiles: Sequence[tuple[Found, NDArray[np.uint32]]]) -> Rows:
    """Return what is known of the numbered cells of several tiles.

    Parameters
    ----------
    tiles : sequence of (Found, uint32 array [n])
        Cells with their numbers.

    Returns
    -------
    Rows
        Ascending.
    """
    ids = np.concatenate([ids for _, ids in tiles])
    order = np.argsort(ids, kind="stable")
    order = order[ids[order] != DROPPED]

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(found, name) for found, _ in tiles])[order]

    return Rows(
        ids[order],
        column("area"),
        column("flow_error"),
        column("logit"),
        column("class_logit"),
        column("spread"),
        column("seen_again"),
        column("peak"),
    )


def add_rows(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several tables as one.

    Parameters
    ----------
    parts : sequence of Rows
        One or more, of different cells.

    Returns
    -------
    Rows
        Ascending.
    """
    order = np.argsort(np.concatenate([part.id for part in parts]), kind="stable")
    names = [field.name for field in dataclasses.fields(Rows)]
    return Rows(**{n: np.concatenate([getattr(part, n) for part in parts])[order] for n in names})


def _chained(
    labels: NDArray[np.uint32],
    rows: Rows,
    *,
    tiles: Sequence[tuple[Found, NDArray[np.uint32]]],
    plan: Plan,
) -> NDArray[np.uint32]:
    """Return the number of the chain of each cell of a plane, 0 for those that are dropped."""
    ids = np.concatenate([ids for _, ids in tiles])
    on_border = np.concatenate([found.on_border for found, _ in tiles])
    counts = np.bincount(rows.peak[:, 0], minlength=plan.walk_shape[0])
    return chain_cells(
        counts,
        [overlap_pairs(old, new) for old, new in zip(labels[:-1], labels[1:], strict=True)],
        plan=plan,
        area=boxes_and_areas(labels, ids=rows.id).area,
        on_border=on_border[np.argsort(ids, kind="stable")][: len(rows.id)],
        inside=in_region(rows.peak, plan),
    )


def chain_cells(
    counts: NDArray[np.int64],
    tables: Iterable[Pairs],
    *,
    plan: Plan,
    area: NDArray[np.int64],
    on_border: NDArray[np.bool_],
    inside: NDArray[np.bool_],
) -> NDArray[np.uint32]:
    """Join the cells of neighbouring planes; sizes count for the whole of a chain.

    Parameters
    ----------
    counts : int64 array [n_planes]
        Cells of each plane, which are numbered plane by plane from 1.
    tables : iterable of Pairs
        For each plane but the last the pixels that its numbers share with the next one's.
    plan : Plan
        Of the image.
    area : int64 array [n]
        Pixels of each cell with its holes filled.
    on_border : bool array [n]
        Whether it touches the border of its plane.
    inside : bool array [n]
        Whether its peak lies in the region; of a chain the first cell's counts.

    Returns
    -------
    uint32 array [n]
        Number of each cell's chain, from 1 by the plane where it begins and then by its first
        cell; 0 for chains that are dropped.
    """
    settings, last = plan.settings, np.cumsum(counts)
    iou = settings.time_iou if plan.series else settings.stitch_threshold
    # One plane at a time: of all of them only what decides about chains is in memory.
    labels = (np.arange(b - n + 1, b + 1) for b, n in zip(last, counts, strict=True))
    chain = np.empty(len(area), np.uint32)
    for part in chain_planes(labels, tables, iou_threshold=1.0 if iou is None else iou):
        chain[part.label.astype(np.int64) - 1] = part.chain
    if plan.series:  # each time is whole by itself: its cells were dropped where they were found
        return chain
    n = int(chain.max(initial=0))
    # Areas are counted on the grid that was walked on, sizes are meant on level 0.
    share = 1.0 if plan.walks_level_0 else float(np.prod(plan.scale.factors))
    size = np.bincount(chain, area, n + 1)[1:]
    fits = size >= max(1, int(np.ceil(settings.min_size_px * share)))
    if settings.max_size_px is not None:
        fits &= size <= max(1, int(settings.max_size_px * share))
    if not settings.keep_border:
        edge = on_border.copy()
        edge[: counts[0]] = edge[len(edge) - counts[-1] :] = True
        fits &= np.bincount(chain, edge, n + 1)[1:] == 0
    if not inside.all():
        fits &= inside[_firsts(chain, n)]
    numbers = np.zeros(n + 1, np.uint32)
    numbers[1:][fits] = np.arange(1, np.count_nonzero(fits) + 1, dtype=np.uint32)
    return numbers[chain]


def renamed(rows: Rows, numbers: NDArray[np.uint32]) -> Rows:
    """Return what is known of cells under other numbers.

    Parameters
    ----------
    rows : Rows
        Of one or several times.
    numbers : uint32 array [n]
        New number of each cell, in the order of the numbers that it replaces.

    Returns
    -------
    Rows
        In the same order.
    """
    return dataclasses.replace(rows, id=numbers[rows.id.astype(np.int64) - 1])


def frame_rows(rows: Rows, time: int) -> Rows:
    """Return the cells of one time of a series, as those of an image y, x.

    Parameters
    ----------
    rows : Rows
        Of one or several times.
    time : int
        Which one.

    Returns
    -------
    Rows
        Ascending.
    """
    here = np.flatnonzero(rows.peak[:, 0] == time)
    here = here[np.argsort(rows.id[here], kind="stable")]
    names = [field.name for field in dataclasses.fields(Rows)]
    found = {name: getattr(rows, name)[here] for name in names}
    return Rows(**{**found, "peak": found["peak"][:, 1:]})


def with_time(columns: dict[str, NDArray[Any]], time: int) -> dict[str, NDArray[Any]]:
    """Return the table of one time of a series with a column that says which.

    Parameters
    ----------
    columns : dict of str to array [n]
        As of an image y, x.
    time : int
        From 0.

    Returns
    -------
    dict of str to array [n]
        `t` follows `label`.
    """
    times = np.full(len(columns["label"]), time, np.int64)
    return {"label": columns["label"], "t": times} | columns


def _firsts(numbers: NDArray[Any], n: int) -> NDArray[np.intp]:
    """Return the row of the first cell of each of n chains: rows go plane by plane."""
    found, first = np.unique(numbers, return_index=True)
    return first[np.searchsorted(found, np.arange(1, n + 1))]


def join_chains(rows: Rows, *, first: int = 1) -> Rows:
    """Return what is known of chains: sums over their planes, and means weighted by area.

    Parameters
    ----------
    rows : Rows
        Cells of all planes under the numbers of their chains, plane by plane; those that are
        dropped under the number before `first`.
    first : int
        The lowest number of a chain.

    Returns
    -------
    Rows
        One per chain; none is left out between the first and the last.
    """
    numbers = rows.id.astype(np.int64) - (first - 1)
    n = int(numbers.max(initial=0))

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(numbers, values, n + 1)[1:], np.float64)

    weight = total(rows.area)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return total(rows.area * values) / weight

    classes = [mean(column) for column in rows.class_logit.T]
    return Rows(
        np.arange(first, first + n, dtype=np.uint32),
        weight.astype(np.int64),
        mean(rows.flow_error),
        mean(rows.logit),
        np.array(classes).reshape(len(classes), n).T,
        total(rows.spread),
        total(rows.seen_again),
        rows.peak[_firsts(numbers, n)],
    )


def to_level_0(
    labels: NDArray[np.uint32], plan: Plan, *, box: Box, start: tuple[int, ...]
) -> NDArray[np.uint32]:
    """Bring labels from the grid that was walked on to level 0.

    Parameters
    ----------
    labels : uint32 array [*walked]
        On the grid that was walked on.
    plan : Plan
        Of the image.
    box : Box
        Which part of level 0 is wanted.
    start : tuple of int
        Where the labels begin on their grid.

    Returns
    -------
    uint32 array [*box]
        The label of the nearest pixel.
    """
    if plan.walks_level_0:
        return labels
    return resample_nearest(
        labels,
        box=box,
        origin=start,
        source_shape=plan.grid_shape,
        num=plan.scale.den,
        den=plan.scale.num,
    )
