"""From the network's output to cells: following, peaks, size limits, flow check, filling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend
from cellseg_pipe.kernels.follow import Mode, Sampling, follow_flows
from cellseg_pipe.kernels.measure import mean_per_object
from cellseg_pipe.kernels.objects import Objects, boxes_and_areas, select
from cellseg_pipe.kernels.peaks import cells_from_ends
from cellseg_pipe.kernels.quality import flow_quality
from cellseg_pipe.kernels.relabel import relabel
from cellseg_pipe.kernels.shape import fill_holes

__all__ = ["Masks", "find_masks", "masks_from_classes", "masks_from_flows"]


@dataclass(frozen=True)
class Masks:
    """Cells and what is known of each, ascending by label.

    Parameters
    ----------
    labels : uint32 array [*spatial]
        Ids from 1 without gaps, in C order of the peaks; 0 for background.
    peak : int64 array [n, ndim]
        Pixel where most of a cell's particles rest; it names the cell.
    area : int64 array [n]
        Pixels of each cell before holes were filled.
    flow_error : float64 array [n]
        Mean squared distance of the network's flow and the cell's own; nan where not asked for.
    logit : float64 array [n]
        Mean of the network's logit over the cell, without what was filled.
    class_index : int64 array [n]
        Class with the largest mean over the cell; empty without class outputs.
    n_dropped : int
        Particles whose path strays beyond the reach or leaves the window.
    """

    labels: NDArray[np.uint32]
    peak: NDArray[np.int64]
    area: NDArray[np.int64]
    flow_error: NDArray[np.float64]
    logit: NDArray[np.float64]
    class_index: NDArray[np.int64]
    n_dropped: int

    @property
    def probability(self) -> NDArray[np.float64]:
        """How sure the network is that a cell is one: the logistic function of `logit`."""
        return 1 / (1 + np.exp(-self.logit))


def masks_from_flows(flow: ArrayLike, logit: ArrayLike, **settings: Any) -> NDArray[np.uint32]:
    """Return the cells that a network's output describes.

    Parameters
    ----------
    flow : float32 array [ndim, *spatial]
        Unit vectors towards the cells' centres; 2 or 3 spatial axes.
    logit : float32 array [*spatial]
        Above the threshold in cells.
    **settings
        Those of `find_masks`, which returns more than the labels.

    Returns
    -------
    uint32 array [*spatial]
        Ids from 1, 0 for background.
    """
    return find_masks(flow, logit, **settings).labels


def find_masks(
    flow: ArrayLike,
    logit: ArrayLike,
    *,
    cellprob_threshold: float = 0.0,
    flow_threshold: float | None = 0.4,
    min_size_px: int = 15,
    max_size_px: int | None = None,
    niter: int = 200,
    mode: Mode = "exact",
    sampling: Sampling = "linear",
    reach_px: int | Sequence[int] | None = None,
    open_edges: Sequence[tuple[bool, bool]] | None = None,
    spacing: Sequence[float] | None = None,
    class_logits: ArrayLike | None = None,
    fill: bool = True,
    threads: int | None = None,
    backend: Backend = "numba",
) -> Masks:
    """Find the cells that a network's output describes, with what is known of each.

    Cells are dropped by their size, then by their flow error; then holes are filled. Nothing
    depends on the size of the array or on where it was cut out.

    Parameters
    ----------
    flow : float32 array [ndim, *spatial]
        Unit vectors towards the cells' centres; 2 or 3 spatial axes.
    logit : float32 array [*spatial]
        Above the threshold in cells.
    cellprob_threshold : float
        Pixels with a logit above it are foreground.
    flow_threshold : float or None
        Cells with a larger flow error are dropped; None or 0 keeps all and computes no error.
    min_size_px, max_size_px : int, optional
        Smallest and largest area in pixels (volume in voxels) of a cell before filling.
    niter : int
        Steps that particles follow the flow.
    mode : {"exact", "fast"}
        How particles follow, see `follow_flows`.
    sampling : {"linear", "nearest"}
        Where particles read the flow, see `follow_flows`.
    reach_px, open_edges : optional
        Which paths count, see `follow_flows`.
    spacing : sequence of float, optional
        Edges of a voxel in any one unit, equal by default. A particle then walks its flow's length
        in units of the shortest edge, so fewer voxels along the others.
    class_logits : float array [n_classes, *spatial], optional
        Further outputs of a network that tells classes apart.
    fill : bool
        Whether cells get the background that they enclose.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Masks
        Labels, and one row per cell.
    """
    logit = np.asarray(logit)
    _check_settings(logit, flow_threshold, min_size_px)
    run: dict[str, Any] = {"threads": threads, "backend": backend}
    ends = follow_flows(
        _steps(flow, spacing),
        logit > np.float32(cellprob_threshold),
        n_steps=niter,
        mode=mode,
        sampling=sampling,
        reach_px=reach_px,
        open_edges=open_edges,
        **run,
    )
    n_dropped = int(np.count_nonzero(ends.verdict))
    cells = cells_from_ends(ends, **run)
    del ends
    every = np.arange(1, cells.count.size + 1, dtype=np.uint32)
    objects = boxes_and_areas(cells.labels, ids=every, **run)
    fits = objects.area >= max(min_size_px, 1)
    if max_size_px is not None:
        fits &= objects.area <= max_size_px
    objects = select(objects, fits)
    error = np.full(objects.label.size, np.nan)
    if flow_threshold:
        error = flow_quality(cells.labels, flow, objects=objects, spacing=spacing, **run).error
        objects, error = select(objects, error <= flow_threshold), error[error <= flow_threshold]
    peaks = cells.peak[objects.label - 1]
    ids = np.arange(1, objects.label.size + 1, dtype=np.uint32)
    labels = relabel(cells.labels, objects.label, ids, **run)
    objects = replace(objects, label=ids)
    return Masks(
        labels=fill_holes(labels, objects=objects, **run) if fill else labels,
        peak=peaks,
        area=objects.area,
        flow_error=error,
        logit=mean_per_object(np.asarray(logit, np.float32), labels, objects=objects, **run),
        class_index=_classes(labels, class_logits, objects=objects, run=run),
        n_dropped=n_dropped,
    )


def _steps(flow: ArrayLike, spacing: Sequence[float] | None) -> ArrayLike:
    """Return the flow in voxels along each axis."""
    if spacing is None or len(set(spacing)) == 1:
        return flow
    vectors = np.asarray(flow)
    if vectors.shape[0] != len(spacing) or min(spacing) <= 0:
        raise ValueError(
            f"find_masks needs a spacing above 0 for each of {vectors.shape[0]} axes, got"
            f" {tuple(spacing)}."
        )
    voxels = np.asarray([min(spacing) / edge for edge in spacing], np.float32)
    return vectors * voxels.reshape(-1, *(1,) * (vectors.ndim - 1))


def _check_settings(logit: NDArray[Any], flow_threshold: float | None, min_size_px: int) -> None:
    if logit.dtype.kind != "f":
        raise TypeError(f"find_masks needs a logit of floats, got {logit.dtype}.")
    if np.isnan(logit).any():
        raise ValueError(
            "find_masks needs a logit without NaN, got some. The network's output is damaged."
        )
    if (flow_threshold or 0) < 0 or min_size_px < 0:
        raise ValueError(
            "find_masks needs a flow_threshold and a min_size_px of 0 or more, got"
            f" {flow_threshold} and {min_size_px}. 0 switches either off."
        )


def _classes(
    labels: NDArray[np.uint32],
    class_logits: ArrayLike | None,
    *,
    objects: Objects,
    run: dict[str, Any],
) -> NDArray[np.int64]:
    """Return the class of each cell: the one with the largest mean, of equal ones the first."""
    if class_logits is None:
        return np.empty(0, np.int64)
    outputs = np.asarray(class_logits)
    if outputs.shape[1:] != labels.shape or outputs.shape[0] < 2:
        raise ValueError(
            "find_masks needs class_logits [n_classes, *spatial] of 2 classes or more, got shape"
            f" {outputs.shape} for labels of shape {labels.shape}."
        )
    means = [
        mean_per_object(output.astype(np.float32), labels, objects=objects, **run)
        for output in outputs
    ]
    return np.argmax(means, axis=0).astype(np.int64)


def masks_from_classes(
    scores: ArrayLike,
    *,
    min_size_px: int = 15,
    growth_px: int = 2,
    threads: int | None = None,
    backend: Backend = "numba",
) -> NDArray[np.uint32]:
    """Return the cells that a network with outputs interior, boundary, background describes.

    Connected interiors are the cells; each grows over the boundary next to it, one pixel at a
    time. A pixel that several cells reach at once goes to the smallest label.

    Parameters
    ----------
    scores : float array [3, *spatial]
        Interior, boundary, background, in this order: the largest decides.
    min_size_px : int
        Smallest interior that counts as a cell.
    growth_px : int
        How far cells grow over the boundary.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    uint32 array [*spatial]
        Ids from 1 in C order of the cells' first pixels, 0 for background.
    """
    from scipy import ndimage

    outputs = np.asarray(scores)
    if outputs.dtype.kind != "f" or outputs.ndim not in (3, 4) or outputs.shape[0] != 3:
        raise ValueError(
            "masks_from_classes needs floats [3, *spatial] (interior, boundary, background), got"
            f" {outputs.dtype} of shape {outputs.shape}."
        )
    winner = np.argmax(outputs, axis=0)
    pieces = ndimage.label(winner == 0)[0].astype(np.uint32)
    objects = boxes_and_areas(pieces, threads=threads, backend=backend)
    kept = objects.label[objects.area >= min_size_px]
    labels = relabel(pieces, kept, np.arange(1, kept.size + 1), threads=threads, backend=backend)
    open_to_growth = winner == 1
    cross = ndimage.generate_binary_structure(labels.ndim, 1)
    for _ in range(growth_px):
        # The smallest label among neighbours: background counts as the largest.
        beyond = np.where(labels > 0, labels, np.uint32(2**32 - 1))
        nearest = ndimage.minimum_filter(beyond, footprint=cross, mode="nearest")
        grows = open_to_growth & (labels == 0) & (nearest != 2**32 - 1)
        labels = np.where(grows, nearest, labels)
    return labels
