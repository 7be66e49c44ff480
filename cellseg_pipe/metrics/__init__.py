"""Scores of segmentations against a truth, all from sparse counts of overlapping voxels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.kernels import Quality, flow_quality, overlap_pairs, sum_pairs
from cellseg_pipe.kernels._checks import as_labels, same_shape
from cellseg_pipe.metrics._graph import OverlapTable, graph_of, matched_edges
from cellseg_pipe.metrics._ratios import score_image, score_images
from cellseg_pipe.metrics._scores import Scores, table
from cellseg_pipe.metrics._tally import Tally, tally_overlaps
from cellseg_pipe.metrics.boundaries import OutlineCounts, count_outlines

__all__ = [
    "IOU_THRESHOLDS",
    "Matches",
    "OverlapTable",
    "Quality",
    "Scores",
    "Tally",
    "count_overlaps",
    "evaluate",
    "flow_quality",
    "match_objects",
    "score_images",
    "score_overlaps",
    "sum_overlaps",
    "table",
    "tally_image",
    "tally_overlaps",
]

IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# Copies of the voxels in and out of the ignore region are made for this many at a time.
SLAB_VOXELS = 1 << 24


@dataclass(frozen=True)
class Matches:
    """Objects matched one to one, ascending by predicted label.

    Parameters
    ----------
    pred, true : uint32 array [n]
        Labels of each pair.
    iou : float64 array [n]
        Their intersection over union.
    """

    pred: NDArray[np.uint32]
    true: NDArray[np.uint32]
    iou: NDArray[np.float64]


def evaluate(
    pred: ArrayLike | Sequence[ArrayLike],
    truth: ArrayLike | Sequence[ArrayLike],
    *,
    ignore: Any = None,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    boundary_tolerance_px: float | None = None,
) -> Scores:
    """Score predicted objects against true ones.

    Parameters
    ----------
    pred, truth : integer array [*spatial], or list or tuple of them
        Labels with any values and gaps, 0 for background. One image, or as many as there are
        items; a 3D array is one volume.
    ignore : bool or integer array [*spatial], or list or tuple of them, or int, optional
        Voxels that nobody annotated: where the array is not 0, or where `truth` has this label.
        They are left out of all counts. An object with more than half of its voxels there is
        no error if nothing matches it, on either side.
    thresholds : sequence of float
        Least IoU of a match, above 0 and at most 1. Above 0.5 a match is unique; at and below
        it, objects are matched one to one for the greatest number, then the greatest IoU.
    boundary_tolerance_px : float, optional
        Greatest distance of outlines that agree. Without it the boundary scores are nan: they
        alone need the voxels once more.

    Returns
    -------
    Scores
        For a list, pooled over images, with scores per image, their mean and intervals.
    """
    steps = _checked_thresholds(thresholds)
    tallies = [
        tally_image(
            one_pred,
            one_truth,
            ignore=one_ignore,
            thresholds=steps,
            boundary_tolerance_px=boundary_tolerance_px,
        )
        for one_pred, one_truth, one_ignore in _images(pred, truth, ignore)
    ]
    if isinstance(truth, (list, tuple)):
        return score_images(tallies, thresholds=steps)
    return score_image(tallies[0], thresholds=steps)


def tally_image(
    pred: ArrayLike,
    truth: ArrayLike,
    *,
    ignore: Any = None,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    boundary_tolerance_px: float | None = None,
) -> Tally:
    """Sum up one image of many, so that its voxels need not stay; `score_images` ends it.

    Parameters
    ----------
    pred, truth : integer array [*spatial]
        Labels, 0 for background.
    ignore : bool or integer array [*spatial], or int, optional
        As in `evaluate`.
    thresholds : sequence of float
        As in `evaluate`; the same for all images.
    boundary_tolerance_px : float, optional
        As in `evaluate`.

    Returns
    -------
    Tally
        Sums of the image.
    """
    return tally_overlaps(
        count_overlaps(pred, truth, ignore=ignore),
        thresholds=_checked_thresholds(thresholds),
        outlines=_outlines(pred, truth, ignore=ignore, tolerance_px=boundary_tolerance_px),
    )


def count_overlaps(pred: ArrayLike, truth: ArrayLike, *, ignore: Any = None) -> OverlapTable:
    """Count the voxels of every pair of predicted and true label in an image or a block of one.

    Parameters
    ----------
    pred, truth : integer array [*spatial]
        Labels, 0 for background.
    ignore : bool or integer array [*spatial], or int, optional
        As for `evaluate`.

    Returns
    -------
    OverlapTable
        Counts, that add over blocks with `sum_overlaps`.
    """
    pred, truth = as_labels(pred, "pred"), as_labels(truth, "truth")
    same_shape(pred, truth, "count_overlaps")
    if ignore is None:
        return OverlapTable(overlap_pairs(pred, truth), sum_pairs([]))
    hidden = _ignore_mask(truth, ignore).reshape(-1)
    pred, truth = pred.reshape(-1), truth.reshape(-1)
    slabs = [slice(at, at + SLAB_VOXELS) for at in range(0, truth.size, SLAB_VOXELS)]
    return sum_overlaps(_count_slab(pred[slab], truth[slab], hidden[slab]) for slab in slabs)


def _count_slab(
    pred: NDArray[np.uint32], truth: NDArray[np.uint32], hidden: NDArray[np.bool_]
) -> OverlapTable:
    return OverlapTable(
        counted=overlap_pairs(pred[~hidden], truth[~hidden]),
        ignored=overlap_pairs(pred[hidden], truth[hidden]),
    )


def sum_overlaps(tables: Iterable[OverlapTable]) -> OverlapTable:
    """Add the tables of blocks that do not overlap.

    Parameters
    ----------
    tables : iterable of OverlapTable
        One per block; labels must mean the same objects in all of them.

    Returns
    -------
    OverlapTable
        The table of the image.
    """
    parts = list(tables)
    return OverlapTable(
        counted=sum_pairs(part.counted for part in parts),
        ignored=sum_pairs(part.ignored for part in parts),
    )


def score_overlaps(
    overlaps: OverlapTable,
    *,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    outlines: OutlineCounts | None = None,
) -> Scores:
    """Score one image from counts alone; for several see `tally_overlaps` and `score_images`.

    Parameters
    ----------
    overlaps : OverlapTable
        Counts of the whole image.
    thresholds : sequence of float
        As for `evaluate`.
    outlines : OutlineCounts, optional
        Outline voxels of the image, for the boundary scores.

    Returns
    -------
    Scores
        The same as `evaluate` gives for the arrays.
    """
    steps = _checked_thresholds(thresholds)
    tally = tally_overlaps(overlaps, thresholds=steps, outlines=outlines or OutlineCounts())
    return score_image(tally, thresholds=steps)


def match_objects(overlaps: OverlapTable, *, iou_threshold: float = 0.5) -> Matches:
    """Match predicted objects to true ones, for the greatest number and then the greatest IoU.

    Parameters
    ----------
    overlaps : OverlapTable
        Counts of a whole image.
    iou_threshold : float
        Least IoU of a match, above 0 and at most 1.

    Returns
    -------
    Matches
        Pairs of labels.
    """
    (threshold,) = _checked_thresholds([iou_threshold])
    graph = graph_of(overlaps)
    edges = matched_edges(graph, iou_threshold=threshold)
    return Matches(
        graph.pred_label[graph.pred[edges]], graph.true_label[graph.true[edges]], graph.iou[edges]
    )


def _checked_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    steps = tuple(float(threshold) for threshold in thresholds)
    if not steps or not all(0 < step <= 1 for step in steps):
        raise ValueError(
            f"thresholds need one or more numbers above 0 and at most 1, got {steps}."
            " IoU is a share: write 0.5 for 50 %."
        )
    return steps


def _images(pred: Any, truth: Any, ignore: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield predicted and true labels and ignore region of each image."""
    if isinstance(pred, (list, tuple)) != isinstance(truth, (list, tuple)):
        raise TypeError(
            "evaluate needs two arrays or two lists of arrays, got"
            f" {type(pred).__name__} and {type(truth).__name__}."
        )
    if not isinstance(truth, (list, tuple)):
        yield pred, truth, ignore
        return
    regions = ignore if isinstance(ignore, (list, tuple)) else [ignore] * len(truth)
    if not len(pred) == len(truth) == len(regions) > 0:
        raise ValueError(
            "evaluate needs as many predictions, truths and ignore regions, and at least one,"
            f" got {len(pred)}, {len(truth)} and {len(regions)}."
        )
    yield from zip(pred, truth, regions, strict=True)


def _ignore_mask(truth: NDArray[np.uint32], ignore: Any) -> NDArray[np.bool_]:
    if isinstance(ignore, (int, np.integer)) and not isinstance(ignore, bool):
        return truth == ignore
    mask = np.asarray(ignore)
    same_shape(mask, truth, "ignore")
    if mask.dtype.kind not in "biu":
        raise TypeError(f"ignore needs an array of bool or integers, got {mask.dtype}.")
    return mask != 0


def _outlines(
    pred: ArrayLike, truth: ArrayLike, *, ignore: Any, tolerance_px: float | None
) -> OutlineCounts:
    if tolerance_px is None:
        return OutlineCounts()
    hidden = None if ignore is None else _ignore_mask(as_labels(truth, "truth"), ignore)
    return count_outlines(pred, truth, tolerance_px=tolerance_px, ignore=hidden)
