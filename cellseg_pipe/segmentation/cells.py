"""From the network's answer to numbered cells, and a row of a table for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import (
    Masks,
    border_objects,
    boxes_and_areas,
    diameter_px,
    find_masks,
    object_sums,
    relabel,
    resample_nearest,
    stitch_planes,
)
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.predict import Answer
from cellseg_pipe.tiles import Grid

__all__ = ["Cells", "cells_of", "table_of"]

BLOCK_PX = {2: (2048, 2048), 3: (128, 256, 256)}  # the units of numbering, fixed for ever


@dataclass(frozen=True)
class Cells:
    """Numbered cells and what the network said of them, ascending by label.

    Parameters
    ----------
    labels : uint32 array [*spatial]
        On level 0; ids from 1 without gaps.
    flow_error, probability : float64 array [n]
        Of each cell; nan for an error that was not asked for.
    class_logit : float64 array [n, n_classes]
        Mean of each class output over the cell; no columns without class outputs.
    n_too_far : int
        Particles whose path strays beyond the reach.
    """

    labels: NDArray[np.uint32]
    flow_error: NDArray[np.float64]
    probability: NDArray[np.float64]
    class_logit: NDArray[np.float64]
    n_too_far: int


def cells_of(answer: Answer, plan: Plan, *, threads: int | None = None) -> Cells:
    """Find the cells of a whole image.

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
    if plan.mode == "planes":
        cells = _chained(
            [_plane(answer, plan, z, threads=threads) for z in range(len(answer.logit))], plan
        )
    else:
        masks = _numbered(find_masks(answer.flow, answer.logit, **_rules(plan, answer, threads)))
        cells = Cells(
            masks.labels, masks.flow_error, masks.probability, masks.class_logit, masks.n_too_far
        )
    if not plan.settings.resample and not plan.scale.identity:
        cells = _on_level_0(cells, plan)
    return cells if plan.settings.keep_border else _without(cells, border_objects(cells.labels))


def _rules(plan: Plan, answer: Answer, threads: int | None) -> dict[str, Any]:
    """Return the settings of `find_masks`."""
    settings = plan.settings
    share = 1.0 if settings.resample else float(np.prod(plan.scale.factors))
    # In mode planes the size of the whole chain counts, not that of its planes.
    least = 0 if plan.mode == "planes" else settings.min_size_px
    most = None if plan.mode == "planes" else settings.max_size_px
    return {
        "cellprob_threshold": settings.cellprob_threshold,
        "flow_threshold": settings.flow_threshold,
        "min_size_px": int(np.ceil(least * share)),
        "max_size_px": None if most is None else max(1, int(most * share)),
        "niter": plan.niter,
        "mode": settings.following,
        "sampling": settings.sampling,
        "reach_px": plan.reach_px,
        "spacing": plan.spacing,
        "class_logits": answer.classes if len(answer.classes) > 1 else None,
        "fill": settings.fill,
        "threads": threads,
    }


def _numbered(masks: Masks) -> Masks:
    """Return the same cells with ids in the order of the blocks that hold their peaks."""
    shape = masks.labels.shape
    if len(masks.peak) == 0:
        return masks
    blocks = Grid(shape, BLOCK_PX[len(shape)])
    places = np.ravel_multi_index(tuple(masks.peak.T), shape)
    order = np.lexsort((places, blocks.owners(masks.peak)))
    new = np.empty(order.size, np.uint32)
    new[order] = np.arange(1, order.size + 1)
    old = np.arange(1, order.size + 1, dtype=np.uint32)
    return replace(
        masks,
        labels=masks.labels if (new == old).all() else relabel(masks.labels, old, new),
        peak=masks.peak[order],
        area=masks.area[order],
        flow_error=masks.flow_error[order],
        logit=masks.logit[order],
        class_logit=masks.class_logit[order],
    )


def _plane(answer: Answer, plan: Plan, z: int, *, threads: int | None) -> Masks:
    """Return the cells of one plane."""
    here = Answer(answer.flow[:, z], answer.logit[z], answer.classes[:, z], answer.style)
    return _numbered(find_masks(here.flow, here.logit, **_rules(plan, here, threads)))


def _chained(planes: list[Masks], plan: Plan) -> Cells:
    """Join the cells of neighbouring planes; sizes count for the whole of a chain."""
    labels = stitch_planes(
        np.stack([plane.labels for plane in planes]), plan.settings.stitch_threshold
    )
    objects = boxes_and_areas(labels)
    fits = objects.area >= max(plan.settings.min_size_px, 1)
    if plan.settings.max_size_px is not None:
        fits &= objects.area <= plan.settings.max_size_px
    kept = objects.label[fits]
    labels = relabel(labels, kept, np.arange(1, kept.size + 1, dtype=np.uint32))
    members = [_members(plane, labels[z]) for z, plane in enumerate(planes)]
    chain, area, error, logit, classes = (
        np.concatenate(part) for part in zip(*members, strict=True)
    )
    weight = np.bincount(chain, area, kept.size + 1)[1:]

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean over a chain's planes, each with its area as weight."""
        columns = values.reshape(values.shape[0], -1).T
        sums = [np.bincount(chain, area * column, kept.size + 1)[1:] for column in columns]
        return (np.array(sums).reshape(len(columns), kept.size) / weight).T

    return Cells(
        labels,
        mean(error)[:, 0],
        expit(mean(logit)[:, 0]),
        mean(classes),
        sum(plane.n_too_far for plane in planes),
    )


def _members(plane: Masks, chained: NDArray[np.uint32]) -> tuple[NDArray[Any], ...]:
    """Return chain (0 where it was dropped), area, error and logits of a plane's cells."""
    chain = np.zeros(plane.area.size + 1, np.int64)
    chain[plane.labels.ravel()] = chained.ravel()
    return chain[1:], plane.area, plane.flow_error, plane.logit, plane.class_logit


def _on_level_0(cells: Cells, plan: Plan) -> Cells:
    """Bring labels from the network's grid to level 0; cells that vanish there are dropped."""
    labels = resample_nearest(
        cells.labels,
        box=Box.of(plan.shape),
        origin=(0,) * len(plan.shape),
        source_shape=plan.grid_shape,
        num=plan.scale.den,
        den=plan.scale.num,
    )
    every = np.arange(1, cells.probability.size + 1, dtype=np.uint32)
    moved = Cells(labels, cells.flow_error, cells.probability, cells.class_logit, cells.n_too_far)
    return _without(moved, every[boxes_and_areas(labels, ids=every).area == 0])


def _without(cells: Cells, ids: NDArray[np.uint32]) -> Cells:
    """Drop cells and number the others anew."""
    if ids.size == 0:
        return cells
    keep = np.ones(cells.probability.size, bool)
    keep[ids.astype(np.int64) - 1] = False
    old = (np.flatnonzero(keep) + 1).astype(np.uint32)
    return Cells(
        relabel(cells.labels, old, np.arange(1, old.size + 1, dtype=np.uint32)),
        cells.flow_error[keep],
        cells.probability[keep],
        cells.class_logit[keep],
        cells.n_too_far,
    )


def table_of(cells: Cells, pixels: NDArray[Any], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Measure each cell.

    Parameters
    ----------
    cells : Cells
        The cells.
    pixels : array [C, *spatial]
        The image.
    names : tuple of str
        Names of the channels.

    Returns
    -------
    dict of str to array [n]
        Columns, one row per cell, ascending by label; positions in px of level 0.
    """
    image = pixels if pixels.dtype in (np.uint8, np.uint16, np.float64) else pixels.astype("f4")
    sums = object_sums(cells.labels, image)
    ndim = cells.labels.ndim
    axes = "zyx"[-ndim:]
    centre = sums.reference + sums.first / sums.area[:, None]
    columns: dict[str, NDArray[Any]] = {"label": sums.label}
    columns |= {f"{axis}_px": centre[:, i] for i, axis in enumerate(axes)}
    for i, axis in enumerate(axes):
        columns[f"{axis}_start_px"], columns[f"{axis}_stop_px"] = sums.start[:, i], sums.stop[:, i]
    columns["area_px" if ndim == 2 else "volume_px"] = sums.area
    columns["diameter_px"] = diameter_px(sums.area, ndim)
    columns["probability"] = cells.probability
    columns["flow_error"] = cells.flow_error
    if cells.class_logit.shape[1]:
        chances = softmax(cells.class_logit, axis=1)
        columns["class"] = np.argmax(cells.class_logit, axis=1)
        columns |= {f"class_{k}_probability": chance for k, chance in enumerate(chances.T)}
    on_border = np.isin(sums.label, border_objects(cells.labels))
    columns["on_border"] = on_border
    for channel, name in enumerate(names):
        columns[f"mean_{name}"] = sums.total[:, channel] / sums.area
    return columns
