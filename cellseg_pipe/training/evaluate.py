"""How well a network segments the images it is tuned or tested on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cellseg_pipe.kernels import masks_from_classes
from cellseg_pipe.metrics import evaluate
from cellseg_pipe.nets.engine import Engine
from cellseg_pipe.segmentation import segment
from cellseg_pipe.training.prepare import Prepared
from cellseg_pipe.training.targets import Target

__all__ = ["Judged", "Mean", "Score", "evaluate_on", "mean_of_sets", "means_by_set", "score_of"]

DRAWS = 2000
TAILS = (2.5, 97.5)  # percentiles that end an interval


@dataclass(frozen=True)
class Score:
    """How well one image was segmented.

    Parameters
    ----------
    image, set : str
        Which one, and what it belongs to.
    ap50, ap75 : float
        Average precision at IoU .5 and .75.
    n_true, n_found : int
        Cells.
    right_class : float
        Share of cells of known class that were found and given it; nan without classes.
    psnr_db : float
        Of a restored image: peak, that is the range of the clean one, over noise; else nan.
    """

    image: str
    set: str
    ap50: float
    ap75: float
    n_true: int
    n_found: int
    right_class: float = math.nan
    psnr_db: float = math.nan


@dataclass(frozen=True)
class Judged:
    """A score with what was found.

    Parameters
    ----------
    score : Score
        How well.
    labels : uint32 array [y, x]
        The cells.
    image : Prepared
        Of which image.
    """

    score: Score
    labels: NDArray[np.uint32]
    image: Prepared


@dataclass(frozen=True)
class Mean:
    """Mean over the images of a set, with its 95 % interval.

    Parameters
    ----------
    n_images : int
        How many.
    ap50, ap75 : tuple of float
        Mean, low and high end.
    """

    n_images: int
    ap50: tuple[float, float, float]
    ap75: tuple[float, float, float]


def evaluate_on(
    engine: Engine,
    images: Sequence[Prepared],
    *,
    target: Target | None = None,
    diameter: Literal["true", "measured"] = "true",
) -> list[Judged]:
    """Segment images and compare.

    Parameters
    ----------
    engine : Engine
        The network.
    images : sequence of Prepared
        Those without objects have no diameter, and take the network's.
    target : Target, optional
        What the network was trained to answer.
    diameter : {"true", "measured"}
        Whether images are seen at the diameter of their labels, or at what is measured in them.

    Returns
    -------
    list of Judged
        In order.
    """
    target = target or Target()
    judged = []
    for image in images:
        known = image.diameter_px if math.isfinite(image.diameter_px) else engine.diameter_px
        classes = np.zeros(1, np.int64)
        if target.kind == "three-classes":
            labels = three_class_cells(engine, image, diameter_px=known)
        else:
            labels, classes = _cells(engine, image, known if diameter == "true" else None)
        judged.append(Judged(score_of(image, labels, classes, target=target), labels, image))
    return judged


def _cells(
    engine: Engine, image: Prepared, diameter_px: float | None
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return cells, and the class of each, counted from 1, after an entry for the background."""
    found = segment(
        np.asarray(image.pixels, np.float32),
        model=engine,
        axes="cyx",
        channels=list(range(len(image.pixels))),
        normalise="off",
        diameter_px=diameter_px,
    )
    numbers = np.asarray(found.table.get("class", np.zeros(found.n_cells)), np.int64) + 1
    return found.labels, np.concatenate([np.zeros(1, np.int64), numbers])


def three_class_cells(engine: Engine, image: Prepared, *, diameter_px: float) -> NDArray[np.uint32]:
    """Return the cells that a network of interior, boundary and background describes.

    Parameters
    ----------
    engine : Engine
        The network.
    image : Prepared
        Seen as a whole.
    diameter_px : float
        Of its cells.

    Returns
    -------
    uint32 array [y, x]
        On the grid of the image.
    """
    factor = engine.diameter_px / diameter_px
    shape = image.labels.shape
    small = [max(1, round(n * factor)) for n in shape]
    pixels = torch.from_numpy(np.asarray(image.pixels, np.float32))[None]
    pixels = functional.interpolate(pixels, small, mode="bilinear", align_corners=False)
    divisor = engine.architecture.divisor
    more = [-n % divisor for n in small]
    pixels = functional.pad(pixels, (0, more[1], 0, more[0]))
    with torch.inference_mode():
        scores = engine(pixels)[0][0].float().cpu().numpy()[:, : small[0], : small[1]]
    cells = masks_from_classes(np.ascontiguousarray(scores))
    places = [np.minimum((np.arange(n) + 0.5) * m // n, m - 1).astype(int)
              for n, m in zip(shape, small, strict=True)]  # fmt: skip
    return np.ascontiguousarray(cells[np.ix_(*places)])


def score_of(
    image: Prepared, labels: NDArray[np.uint32], classes: NDArray[np.int64], *, target: Target
) -> Score:
    """Compare cells with those of the truth.

    Parameters
    ----------
    image : Prepared
        With the truth.
    labels : uint32 array [y, x]
        What was found.
    classes : int64 array [n_cells + 1]
        Class of each, from 1; nothing where there are none.
    target : Target
        What the network was trained to answer.

    Returns
    -------
    Score
        How well.
    """
    truth = np.maximum(image.labels, 0).astype(np.uint32)
    result = evaluate(labels, truth, ignore=np.asarray(image.labels) < 0)
    right = math.nan
    if target.n_classes and image.classes.any():
        right = _right_classes(labels, classes, truth, known=image.classes)
    ap50, ap75 = float(result.ap[0.5]), float(result.ap[0.75])
    n_found = int(labels.max(initial=0))
    return Score(image.pair.image, image.pair.set, ap50, ap75, image.n_objects, n_found, right)


def _right_classes(
    labels: NDArray[np.uint32],
    classes: NDArray[np.int64],
    truth: NDArray[np.uint32],
    *,
    known: NDArray[np.int16],
) -> float:
    from cellseg_pipe.metrics import count_overlaps, match_objects

    matches = match_objects(count_overlaps(labels, truth))
    of_true = known[matches.true]
    right = (classes[matches.pred] == of_true) & (of_true > 0)
    return float(np.count_nonzero(right) / np.count_nonzero(known))


def means_by_set(scores: Sequence[Score]) -> dict[str, Mean]:
    """Return the mean over images, per set, with intervals over bootstrap samples of images.

    Parameters
    ----------
    scores : sequence of Score
        Of single images.

    Returns
    -------
    dict of str to Mean
        Sets by name.
    """
    found = {}
    for name in sorted({score.set for score in scores}):
        own = [score for score in scores if score.set == name]
        found[name] = Mean(
            len(own), _interval([s.ap50 for s in own]), _interval([s.ap75 for s in own])
        )
    return found


def mean_of_sets(means: dict[str, Mean]) -> float:
    """Return the one number by which evaluations are compared.

    Parameters
    ----------
    means : dict of str to Mean
        Per set.

    Returns
    -------
    float
        Mean over sets of the mean of both thresholds; nan where no set has a score.
    """
    values = [value for mean in means.values() for value in (mean.ap50[0], mean.ap75[0])]
    return _mean(np.array(values))


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and ends of the interval; nan is no value."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not known.size:
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(0)  # the same scores have the same interval
    means = known[rng.integers(0, known.size, (DRAWS, known.size))].mean(axis=1)
    low, high = np.percentile(means, TAILS)
    return float(known.mean()), float(low), float(high)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan
