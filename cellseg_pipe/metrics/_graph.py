"""Objects of an image with an edge for each overlap, from counts of voxels alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import Pairs
from cellseg_pipe.metrics._assign import heaviest_matching

__all__ = ["Graph", "OverlapTable", "graph_of", "matched_edges"]


Objects = tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class OverlapTable:
    """Voxels of one image per pair of predicted and true label; adds over blocks.

    Parameters
    ----------
    counted : Pairs
        Voxels that count; left is predicted, right is true.
    ignored : Pairs
        Voxels inside the ignore region.
    """

    counted: Pairs
    ignored: Pairs


@dataclass(frozen=True)
class Graph:
    """The objects of one image, with an edge for each overlapping predicted and true object.

    Parameters
    ----------
    pred_label, true_label : uint32 array [n_pred], [n_true]
        Labels, ascending.
    pred_area, true_area : int64 array [n_pred], [n_true]
        Voxels outside the ignore region.
    pred_excused, true_excused : bool array [n_pred], [n_true]
        More than half of the object is ignored: left alone, it is no error.
    pred, true : int64 array [n_edges]
        Positions of an edge's two objects in the arrays above.
    overlap : int64 array [n_edges]
        Voxels the two share.
    iou : float64 array [n_edges]
        Intersection over union.
    foreground : int
        Voxels of any object, predicted or true.
    """

    pred_label: NDArray[np.uint32]
    true_label: NDArray[np.uint32]
    pred_area: NDArray[np.int64]
    true_area: NDArray[np.int64]
    pred_excused: NDArray[np.bool_]
    true_excused: NDArray[np.bool_]
    pred: NDArray[np.int64]
    true: NDArray[np.int64]
    overlap: NDArray[np.int64]
    iou: NDArray[np.float64]
    foreground: int


def graph_of(table: OverlapTable) -> Graph:
    """Return the objects and edges of a table.

    Parameters
    ----------
    table : OverlapTable
        Counts of the whole image.

    Returns
    -------
    Graph
        Objects with at least one voxel outside the ignore region.
    """
    pairs = table.counted
    pred_label, pred_area, pred_at = _objects(pairs.left, pairs.count)
    true_label, true_area, true_at = _objects(pairs.right, pairs.count)
    edge = (pairs.left > 0) & (pairs.right > 0)
    pred, true, overlap = pred_at[edge], true_at[edge], pairs.count[edge]
    return Graph(
        pred_label=pred_label,
        true_label=true_label,
        pred_area=pred_area,
        true_area=true_area,
        pred_excused=_excused(
            pred_label, pred_area, _objects(table.ignored.left, table.ignored.count)
        ),
        true_excused=_excused(
            true_label, true_area, _objects(table.ignored.right, table.ignored.count)
        ),
        pred=pred,
        true=true,
        overlap=overlap,
        iou=overlap / (pred_area[pred] + true_area[true] - overlap),
        foreground=int(pairs.count[(pairs.left > 0) | (pairs.right > 0)].sum()),
    )


def _objects(label: NDArray[np.uint32], count: NDArray[np.int64]) -> Objects:
    """Return labels above 0, their areas, and each row's position among them (-1: background)."""
    labels, position = np.unique(label, return_inverse=True)
    area = np.zeros(labels.size, np.int64)
    np.add.at(area, position, count)
    background = int(labels.size > 0 and labels[0] == 0)
    return labels[background:], area[background:], position.astype(np.int64) - background


def _excused(
    label: NDArray[np.uint32], area: NDArray[np.int64], hidden: Objects
) -> NDArray[np.bool_]:
    """Tell which objects have more voxels in the ignore region than outside it."""
    hidden_label, hidden_area, _ = hidden
    _, here, there = np.intersect1d(label, hidden_label, assume_unique=True, return_indices=True)
    excused = np.zeros(label.size, bool)
    excused[here] = hidden_area[there] > area[here]
    return excused


def matched_edges(graph: Graph, *, iou_threshold: float) -> NDArray[np.int64]:
    """Match objects one to one, as many as the threshold allows, then for the greatest sum of IoU.

    Parameters
    ----------
    graph : Graph
        Objects and overlaps.
    iou_threshold : float
        Least IoU of a match, above 0.

    Returns
    -------
    int64 array [n_matches]
        Edges of the graph, ascending.
    """
    edges = np.flatnonzero(graph.iou >= iou_threshold)
    if iou_threshold > 0.5:  # two objects that share a third cannot both reach this
        return edges
    # One more match must outweigh any gain in IoU, which is below the number of matches.
    most = max(1, min(graph.pred_label.size, graph.true_label.size))
    weight = 1.0 + graph.iou[edges] / (2 * most)
    return edges[heaviest_matching(graph.pred[edges], graph.true[edges], weight)]
