"""Scores from sums: pooled, averaged over images, with bootstrap intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.metrics._scores import Scores
from cellseg_pipe.metrics._tally import MatchSums, Tally, TrackingSums
from cellseg_pipe.metrics.boundaries import OutlineCounts

__all__ = ["score_image", "score_images"]

# An array per score: axis 0 is that of images or samples, axis 1 that of thresholds, if any.
Values = dict[str, Any]
PERCENTILES = (2.5, 97.5)
# Weights of the acyclic oriented graph measure for detection (Matula et al. 2015): to cut one
# predicted object in two, to add a missed one, to delete an extra one.
COST_CUT, COST_MISSED, COST_EXTRA = 5, 10, 1


def score_image(tally: Tally, *, thresholds: Sequence[float]) -> Scores:
    """Turn the sums of one image into scores.

    Parameters
    ----------
    tally : Tally
        Sums of the image.
    thresholds : sequence of float
        IoU thresholds the tally was made with.

    Returns
    -------
    Scores
        Without intervals: the objects of one image are neighbours, and resampling them as if
        they were independent would promise more than one image can tell.
    """
    return _pack(_ratios(_stack([tally])), thresholds)


def score_images(
    tallies: Sequence[Tally], *, thresholds: Sequence[float], n_resamples: int = 1000
) -> Scores:
    """Turn the sums of images into scores.

    Parameters
    ----------
    tallies : sequence of Tally
        One per image.
    thresholds : sequence of float
        IoU thresholds the tallies were made with.
    n_resamples : int
        Bootstrap samples of images; the seed is fixed: the same images give the same intervals.

    Returns
    -------
    Scores
        Pooled scores, with those per image, their mean and the intervals of both.
    """
    n_images = len(tallies)
    sums = _stack(tallies)
    each = _ratios(sums)
    once = np.ones((1, n_images), np.int64)
    pooled, mean = _ratios(_weighted_sums(once, sums)), _weighted_means(once, each)
    scores = dataclasses.replace(
        _pack(pooled, thresholds),
        images=tuple(_pack(each, thresholds, row=row) for row in range(n_images)),
        mean=_pack(mean, thresholds),
    )
    if n_images < 2:
        return scores
    chances = np.full(n_images, 1 / n_images)
    draws = np.random.default_rng(0).multinomial(n_images, chances, size=n_resamples)
    low, high = _interval(_ratios(_weighted_sums(draws, sums)), thresholds)
    mean_low, mean_high = _interval(_weighted_means(draws, each), thresholds)
    averaged = dataclasses.replace(_pack(mean, thresholds), low=mean_low, high=mean_high)
    return dataclasses.replace(scores, mean=averaged, low=low, high=high)


def _map_sums(function: Callable[..., Any], *sums: Any) -> Any:
    """Apply a function to every number or array of nested sums of one form."""
    first = sums[0]
    if not dataclasses.is_dataclass(first):
        return function(*sums)
    names = [f.name for f in dataclasses.fields(first)]
    parts = {n: _map_sums(function, *(getattr(part, n) for part in sums)) for n in names}
    return dataclasses.replace(first, **parts)  # type: ignore[type-var]


def _stack(tallies: Sequence[Tally]) -> Tally:
    """Return sums with a leading axis of images."""
    return _map_sums(lambda *parts: np.stack(parts), *tallies)


def _weighted_sums(weights: NDArray[np.int64], sums: Tally) -> Tally:
    """Return sums with a leading axis of samples, each of so many copies of every image."""
    return _map_sums(lambda part: np.tensordot(weights, part, 1), sums)


def _weighted_means(weights: NDArray[np.int64], values: Values) -> Values:
    """Return means over the images of each sample, without those that are nan."""

    def mean(value: NDArray[Any]) -> NDArray[Any]:
        known = ~np.isnan(value)
        total = np.tensordot(weights, np.where(known, value, 0.0), 1)
        return _ratio(total, np.tensordot(weights, known.astype(np.int64), 1))

    return {name: mean(value) for name, value in values.items()}


def _interval(values: Values, thresholds: Sequence[float]) -> tuple[Scores, Scores]:
    """Return the ends of the 95 % interval over the samples in which a value is known."""

    def ends(value: NDArray[Any]) -> NDArray[Any]:
        known = ~np.isnan(value).all(axis=0)
        quantiles = np.nanpercentile(np.where(known, value, 0.0), PERCENTILES, axis=0)
        return np.where(known, quantiles, np.nan)

    both = {name: ends(value) for name, value in values.items()}
    return _pack(both, thresholds, row=0), _pack(both, thresholds, row=1)


def _pack(values: Values, thresholds: Sequence[float], *, row: int = 0) -> Scores:
    """Return one row of the values as Scores."""
    numbers: dict[str, Any] = {name: value[row].tolist() for name, value in values.items()}
    by_threshold = {
        name: dict(zip(thresholds, number, strict=True))
        for name, number in numbers.items()
        if isinstance(number, list)
    }
    return Scores(**(numbers | by_threshold))


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """Divide, with nan where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)


def _ratios(sums: Tally) -> Values:
    """Return every score of sums with one leading axis."""
    outline = sums.outlines
    return {
        "n_images": sums.n_images,
        "n_pred": sums.n_pred,
        "n_true": sums.n_true,
        "count_error": _ratio(sums.n_pred - sums.n_true, sums.n_true),
        **_match_ratios(sums.matches),
        **_panoptic_ratios(sums.panoptic),
        "aji": _ratio(sums.jaccard.overlap, sums.jaccard.union),
        "aji_plus": _ratio(sums.jaccard.plus_overlap, sums.jaccard.plus_union),
        "aji_cellpose": _ratio(sums.jaccard.cellpose_overlap, sums.jaccard.foreground),
        "seg": _ratio(sums.tracking.iou, sums.tracking.n_true),
        "det": _detection(sums.tracking),
        "splits": sums.tracking.splits,
        "merges": sums.tracking.merges,
        "boundary_precision": _ratio(outline.pred_near, outline.pred),
        "boundary_recall": _ratio(outline.true_near, outline.true),
        "boundary_f1": _boundary_f1(outline),
    }


def _match_ratios(sums: MatchSums) -> Values:
    any_object = sums.tp + sums.fp + sums.fn > 0
    ap = _ratio(sums.tp, sums.tp + sums.fp + sums.fn)
    return {
        "tp": sums.tp,
        "fp": sums.fp,
        "fn": sums.fn,
        "ap": ap,
        "mean_ap": ap.mean(axis=-1),
        "f1": _ratio(2 * sums.tp, 2 * sums.tp + sums.fp + sums.fn),
        "precision": np.where(any_object, sums.tp / np.maximum(sums.tp + sums.fp, 1), np.nan),
        "recall": np.where(any_object, sums.tp / np.maximum(sums.tp + sums.fn, 1), np.nan),
    }


def _panoptic_ratios(sums: MatchSums) -> Values:
    tp, fp, fn, iou = (part[:, 0] for part in (sums.tp, sums.fp, sums.fn, sums.iou))
    return {
        "pq": _ratio(2 * iou, 2 * tp + fp + fn),
        "sq": np.where(tp + fp + fn > 0, iou / np.maximum(tp, 1), np.nan),
        "rq": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def _detection(sums: TrackingSums) -> NDArray[np.float64]:
    """Return 1 - cost of mending the prediction / cost of making all objects from nothing."""
    mending = COST_CUT * sums.n_cuts + COST_MISSED * sums.n_missed + COST_EXTRA * sums.n_extra
    making = COST_MISSED * sums.n_true
    return 1 - _ratio(np.minimum(mending, making), making)


def _boundary_f1(sums: OutlineCounts) -> NDArray[np.float64]:
    precision, recall = _ratio(sums.pred_near, sums.pred), _ratio(sums.true_near, sums.true)
    # Written so that no outline on one side gives 0 and none on either side nan.
    either = np.where(sums.pred + sums.true > 0, 0.0, np.nan)
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=either, where=total > 0)
