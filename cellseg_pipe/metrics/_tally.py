"""Sums over objects, of which scores are ratios; no arrays of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.metrics._assign import heaviest_matching
from cellseg_pipe.metrics._graph import Graph, OverlapTable, graph_of, matched_edges
from cellseg_pipe.metrics.boundaries import OutlineCounts

__all__ = ["JaccardSums", "MatchSums", "Tally", "TrackingSums", "tally_overlaps"]


@dataclass(frozen=True)
class MatchSums:
    """What a one-to-one matching found.

    Parameters
    ----------
    tp, fp, fn : int64 array [...]
        Matched pairs, predicted objects left alone, true objects left alone.
    iou : float64 array [...]
        Sum of IoU over the matched pairs.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    iou: NDArray[np.float64]


@dataclass(frozen=True)
class JaccardSums:
    """Numerators and denominators of the aggregated Jaccard indices, in voxels.

    Parameters
    ----------
    overlap, union : int
        AJI: each true object with its best predicted one.
    plus_overlap, plus_union : int
        AJI+: one to one.
    cellpose_overlap, foreground : int
        Cellpose's form: one to one, over all voxels of any object.
    """

    overlap: int
    union: int
    plus_overlap: int
    plus_union: int
    cellpose_overlap: int
    foreground: int


@dataclass(frozen=True)
class TrackingSums:
    """Sums of the Cell Tracking Challenge's SEG and DET, and counts of splits and merges.

    Parameters
    ----------
    iou, n_true : float, int
        Sum of IoU of the detected true objects, and number of true objects.
    n_cuts, n_missed, n_extra : int
        Operations that turn the predicted objects into the true ones.
    splits, merges : int
        True objects in pieces, predicted objects that hold several true ones.
    """

    iou: float
    n_true: int
    n_cuts: int
    n_missed: int
    n_extra: int
    splits: int
    merges: int


@dataclass(frozen=True)
class Tally:
    """Sums that add over images, and of which scores are ratios.

    Parameters
    ----------
    n_images, n_pred, n_true : int
        Images, and objects that the ignore region does not excuse.
    matches : MatchSums
        Per IoU threshold.
    panoptic : MatchSums
        At IoU > 0.5, where a match is unique.
    jaccard : JaccardSums
        Sums of voxels.
    tracking : TrackingSums
        Sums by majority overlap.
    outlines : OutlineCounts
        Outline voxels; zeros unless asked for.
    """

    n_images: int
    n_pred: int
    n_true: int
    matches: MatchSums
    panoptic: MatchSums
    jaccard: JaccardSums
    tracking: TrackingSums
    outlines: OutlineCounts


def tally_overlaps(
    table: OverlapTable, *, thresholds: Sequence[float], outlines: OutlineCounts
) -> Tally:
    """Sum up one image.

    Parameters
    ----------
    table : OverlapTable
        Counts of the whole image.
    thresholds : sequence of float
        IoU thresholds of AP, F1, precision and recall.
    outlines : OutlineCounts
        Outline voxels of the image.

    Returns
    -------
    Tally
        Sums of the image.
    """
    graph = graph_of(table)
    return Tally(
        n_images=1,
        n_pred=int(np.count_nonzero(~graph.pred_excused)),
        n_true=int(np.count_nonzero(~graph.true_excused)),
        matches=_match_sums(graph, [matched_edges(graph, iou_threshold=t) for t in thresholds]),
        panoptic=_match_sums(graph, [np.flatnonzero(graph.iou > 0.5)]),
        jaccard=_jaccard_sums(graph),
        tracking=_tracking_sums(graph),
        outlines=outlines,
    )


def _match_sums(graph: Graph, matchings: Sequence[NDArray[np.int64]]) -> MatchSums:
    return MatchSums(
        tp=np.array([edges.size for edges in matchings]),
        fp=np.array([_alone(graph.pred_excused, graph.pred[edges]).sum() for edges in matchings]),
        fn=np.array([_alone(graph.true_excused, graph.true[edges]).sum() for edges in matchings]),
        iou=np.array([graph.iou[edges].sum() for edges in matchings]),
    )


def _alone(excused: NDArray[np.bool_], matched: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which objects are in no match and not excused."""
    alone = ~excused
    alone[matched] = False
    return alone


def _jaccard_sums(graph: Graph) -> JaccardSums:
    best = _best_edge_of_each_true(graph)
    pairs = heaviest_matching(graph.pred, graph.true, graph.iou)
    # Cellpose matches for the most pairs of IoU >= 0.5 first, then for IoU over all overlaps.
    most = max(1, min(graph.pred_label.size, graph.true_label.size))
    weight = (graph.iou >= 0.5) + graph.iou / (2 * most)
    cellpose = heaviest_matching(graph.pred, graph.true, weight)
    return JaccardSums(
        overlap=int(graph.overlap[best].sum()),
        union=_aggregated_union(graph, best),
        plus_overlap=int(graph.overlap[pairs].sum()),
        plus_union=_aggregated_union(graph, pairs),
        cellpose_overlap=int(graph.overlap[cellpose].sum()),
        foreground=graph.foreground,
    )


def _best_edge_of_each_true(graph: Graph) -> NDArray[np.int64]:
    """Return for each true object that is met its edge of greatest IoU; of ties the first."""
    order = np.lexsort((-graph.iou, graph.true))
    return order[np.unique(graph.true[order], return_index=True)[1]]


def _aggregated_union(graph: Graph, edges: NDArray[np.int64]) -> int:
    """Return the sum of the unions of these pairs and the areas of all objects in none of them."""
    pred, true = graph.pred[edges], graph.true[edges]
    unions = graph.pred_area[pred] + graph.true_area[true] - graph.overlap[edges]
    extra = graph.pred_area[_alone(graph.pred_excused, pred)]
    missed = graph.true_area[_alone(graph.true_excused, true)]
    return int(unions.sum() + extra.sum() + missed.sum())


def _tracking_sums(graph: Graph) -> TrackingSums:
    """Sum up by majority: a predicted object detects the true ones it covers by more than half."""
    covers = np.flatnonzero(2 * graph.overlap > graph.true_area[graph.true])
    inside = np.flatnonzero(2 * graph.overlap > graph.pred_area[graph.pred])
    detected = np.bincount(graph.pred[covers], minlength=graph.pred_label.size)
    pieces = np.bincount(graph.true[inside], minlength=graph.true_label.size)
    missed = int(_alone(graph.true_excused, graph.true[covers]).sum())
    return TrackingSums(
        iou=float(graph.iou[covers].sum()),
        n_true=int(covers.size) + missed,
        n_cuts=int(np.maximum(detected - 1, 0).sum()),
        n_missed=missed,
        n_extra=int(_alone(graph.pred_excused, graph.pred[covers]).sum()),
        splits=int(np.count_nonzero(pieces > 1)),
        merges=int(np.count_nonzero(detected > 1)),
    )
