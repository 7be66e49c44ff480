"""From the network's output to cells: following, peaks, size limits, flow check, filling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels._checks import Backend, as_count, loops
from cellseg_pipe.kernels.flows import as_spacing
from cellseg_pipe.kernels.follow import Mode, Sampling, follow_flows
from cellseg_pipe.kernels.measure import mean_per_object
from cellseg_pipe.kernels.objects import Objects, boxes_and_areas, select
from cellseg_pipe.kernels.peaks import cells_from_ends
from cellseg_pipe.kernels.quality import flow_quality
from cellseg_pipe.kernels.relabel import relabel
from cellseg_pipe.kernels.shape import fill_holes

__all__ = ["Masks", "find_masks", "masks_from_flows"]


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
    class_logit : float64 array [n, n_classes]
        Mean of each class output over the cell; no columns without class outputs.
    n_too_far, n_over_edge : int
        Particles that were dropped because their path strays beyond the reach, or leaves over an
        open edge. Both count all particles of the array, those in a window's margins too, so that
        sums over windows depend on the tiling. A whole image has no open edge, and its n_too_far
        does not depend on where it lies; in a window the same particles may count as either.
    """

    labels: NDArray[np.uint32]
    peak: NDArray[np.int64]
    area: NDArray[np.int64]
    flow_error: NDArray[np.float64]
    logit: NDArray[np.float64]
    class_logit: NDArray[np.float64]
    n_too_far: int
    n_over_edge: int

    @property
    def class_index(self) -> NDArray[np.int64]:
        """Class of each cell: the one with the largest mean, of equal ones the first."""
        if self.class_logit.shape[1] == 0:
            return np.empty(0, np.int64)
        return np.argmax(self.class_logit, axis=1).astype(np.int64)

    @property
    def probability(self) -> NDArray[np.float64]:
        """How sure the network is that a cell is one: the logistic function of `logit`."""
        from scipy.special import expit

        return np.asarray(expit(self.logit))


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
    depends on the size of the array. With a reach and open edges a window gives the cells whose
    peak lies more than the reach and `HALO_BEYOND_REACH` from those edges as the whole does.

    Parameters
    ----------
    flow : float32 array [ndim, *spatial]
        Unit vectors towards the cells' centres; 2 or 3 spatial axes.
    logit : float32 array [*spatial]
        Above the threshold in cells; finite.
    cellprob_threshold : float
        Pixels with a logit above it are foreground.
    flow_threshold : float or None
        Cells with a larger flow error are dropped; None or 0 keeps all and computes no error.
    min_size_px, max_size_px : int, optional
        Smallest and largest area in pixels (volume in voxels) of a cell before filling.
    niter : int
        Steps that particles follow the flow; below 24 the modes are the same.
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
        Further outputs of a network that tells classes apart; finite.
    fill : bool
        Whether cells get the background that they enclose. Not with open edges, where a cell that
        the window cuts would leave its holes to another: see `hole_claims`.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    backend : {"numba"}
        Which implementation runs.

    Returns
    -------
    Masks
        Labels, and one row per cell.
    """
    loops(backend, threads)
    _check_thresholds(cellprob_threshold, flow_threshold)
    as_count(niter, "niter")
    as_count(min_size_px, "min_size_px")
    as_count(0 if max_size_px is None else max_size_px, "max_size_px")
    if fill and open_edges is not None and np.any(open_edges):
        raise ValueError(
            "find_masks needs fill=False where edges are open, since other cells may have a better"
            " claim to a hole. Fill through hole_claims, of the cells that a tile owns."
        )
    logit = _as_finite(logit, "logit")
    class_logits = _as_classes(class_logits, logit.shape)
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
    dropped = {"n_too_far": ends.n_too_far, "n_over_edge": ends.n_over_edge}
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
        logit=mean_per_object(logit, labels, objects=objects, **run),
        class_logit=_classes(labels, class_logits, objects=objects, run=run),
        **dropped,
    )


def _steps(flow: ArrayLike, spacing: Sequence[float] | None) -> ArrayLike:
    """Return the flow in voxels along each axis."""
    vectors = np.asarray(flow)
    edges = as_spacing(spacing, max(vectors.ndim - 1, 1))
    if len(set(edges)) == 1:
        return vectors
    voxels = np.asarray([min(edges) / edge for edge in edges], np.float32)
    if vectors.dtype.kind != "f" or vectors.shape[0] != voxels.size:
        return vectors  # follow_flows says what is wrong with it
    return vectors * voxels.reshape(-1, *(1,) * (vectors.ndim - 1))


def _check_thresholds(cellprob_threshold: float, flow_threshold: float | None) -> None:
    if not abs(cellprob_threshold) <= float(np.finfo(np.float32).max):
        raise ValueError(f"find_masks needs a finite cellprob_threshold, got {cellprob_threshold}.")
    if flow_threshold is not None and not flow_threshold >= 0:
        raise ValueError(
            f"find_masks needs a flow_threshold of 0 or more, got {flow_threshold}. 0 or None"
            " switches it off."
        )


def _as_finite(array: ArrayLike, name: str) -> NDArray[np.float32]:
    """Return an output of the network as float32.

    Infinities are refused like NaN: no network of ours gives them (they come of float16 that ran
    over), and the mean over a cell and all that is reported of it would be infinite too.
    """
    values = np.asarray(array)
    if values.dtype.kind != "f":
        raise TypeError(f"find_masks needs {name} of floats, got {values.dtype}.")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise ValueError(
            f"find_masks needs {name} without NaN or infinity, got some. The network's output is"
            " damaged."
        )
    return values


def _as_classes(
    class_logits: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[np.float32] | None:
    """Return the outputs for classes, if there are any."""
    if class_logits is None:
        return None
    outputs = np.asarray(class_logits)
    if outputs.shape[1:] != shape or outputs.shape[0] < 2:
        raise ValueError(
            "find_masks needs class_logits [n_classes, *spatial] of 2 classes or more, got shape"
            f" {outputs.shape} for a logit of shape {shape}."
        )
    return _as_finite(outputs, "class_logits")


def _classes(
    labels: NDArray[np.uint32],
    class_logits: NDArray[np.float32] | None,
    *,
    objects: Objects,
    run: dict[str, Any],
) -> NDArray[np.float64]:
    """Return the mean of each class output over each cell."""
    if class_logits is None:
        return np.empty((objects.label.size, 0))
    means = [mean_per_object(output, labels, objects=objects, **run) for output in class_logits]
    return np.stack(means, axis=1)
