"""Scores of one or more images as a value, with its layout as JSON and text."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

__all__ = ["VALUES", "Scores", "table"]

# Text shows these thresholds; all are in the values.
SHOWN_THRESHOLDS = (0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Scores:
    """How well predicted objects agree with true ones.

    A list of images is scored as one large image: its objects count alike (`pooled`). The mean
    over images, where images count alike, is in `mean`; 95 % intervals are in `low` and `high`.
    What has nothing to judge is nan: every score of an image with no object on either side,
    and what is a share of the true objects (`seg`, `det`, `count_error`) where there are none.
    Means leave nan out, so blank images neither raise nor lower them. With objects on one side
    only, the other scores are 0.

    Parameters
    ----------
    n_images, n_pred, n_true : int
        Images, predicted and true objects.
    count_error : float
        (n_pred - n_true) / n_true; below 0 if objects are missing.
    ap : dict of float to float
        TP / (TP + FP + FN) by least IoU of a match, "AP" in this field.
    mean_ap : float
        Mean of `ap` over its thresholds.
    f1, precision, recall : dict of float to float
        The same by F1 = 2 TP / (2 TP + FP + FN), TP / (TP + FP) and TP / (TP + FN).
    tp, fp, fn : dict of float to int
        Matched pairs, predicted and true objects without a partner.
    pq, sq, rq : float
        Panoptic, segmentation and recognition quality at IoU > 0.5; pq = sq * rq.
    aji, aji_plus : float
        Aggregated Jaccard index, of each true object with its best predicted one (Kumar et al.
        2017), and one to one for the greatest sum of IoU (Graham et al. 2019).
    aji_cellpose : float
        What Cellpose calls AJI: overlaps matched one to one over the union of all foreground.
    seg, det : float
        Measures of the Cell Tracking Challenge, by majority overlap.
    splits, merges : int
        True objects that hold most of 2 or more predicted ones; predicted objects that hold
        most of 2 or more true ones.
    boundary_precision, boundary_recall, boundary_f1 : float
        Shares of outline voxels within tolerance of the other outline; nan if not asked for.
    images : tuple of Scores
        One per image, for a list of images.
    mean : Scores, optional
        Mean over images of every number, for a list of images.
    low, high : Scores, optional
        2.5 and 97.5 % of every number over resampled images, for 2 or more images.
    """

    n_images: int | float
    n_pred: int | float
    n_true: int | float
    count_error: float
    ap: dict[float, float]
    mean_ap: float
    f1: dict[float, float]
    precision: dict[float, float]
    recall: dict[float, float]
    tp: dict[float, int | float]
    fp: dict[float, int | float]
    fn: dict[float, int | float]
    pq: float
    sq: float
    rq: float
    aji: float
    aji_plus: float
    aji_cellpose: float
    seg: float
    det: float
    splits: int | float
    merges: int | float
    boundary_precision: float
    boundary_recall: float
    boundary_f1: float
    images: tuple[Scores, ...] = ()
    mean: Scores | None = None
    low: Scores | None = None
    high: Scores | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON: nan and infinity become None, keys text."""
        plain = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {name: value for name, value in plain.items() if value is not None or name in VALUES}


VALUES = tuple(
    f.name for f in dataclasses.fields(Scores) if f.name not in ("images", "mean", "low", "high")
)


def _plain(value: Any) -> Any:
    if isinstance(value, Scores):
        return value.as_dict()
    if isinstance(value, dict):
        return {f"{key:g}": _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value] or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(scores: Scores) -> str:
    """Lay out scores as text, one line a score.

    Parameters
    ----------
    scores : Scores
        What `evaluate` returned.

    Returns
    -------
    str
        Value, 95 % interval and mean over images, the latter two where known; of the
        thresholds 0.5, 0.75 and 0.9.
    """
    lines = [f"{'':<20} {'value':>9}  {'95 % interval':>19}  {'image mean':>10}"]
    for name in VALUES:
        value = getattr(scores, name)
        for key in _shown(value) if isinstance(value, dict) else [None]:
            columns = [_number(part, name, key) for part in (scores, scores.low, scores.high)]
            mean = _number(scores.mean, name, key)
            label = name if key is None else f"{name} {key:g}"
            lines.append(f"{label:<20} {columns[0]}  {columns[1]} {columns[2]}  {mean:>10}")
    return "\n".join(line.rstrip() for line in lines)


def _shown(value: dict[float, float]) -> list[float]:
    return [key for key in value if key in SHOWN_THRESHOLDS] or list(value)


def _number(scores: Scores | None, name: str, key: float | None) -> str:
    if scores is None:
        return " " * 9
    value = getattr(scores, name)
    value = value if key is None else value[key]
    return f"{value:9d}" if isinstance(value, int) else f"{value:9.4f}"
