"""How well a network in training segments the images it is tuned on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg_pipe.metrics import evaluate
from cellseg_pipe.nets.checkpoint import Model, ModelInfo
from cellseg_pipe.nets.cpnet import CPnet
from cellseg_pipe.nets.engine import Engine
from cellseg_pipe.segmentation import segment
from cellseg_pipe.training.prepare import Prepared

__all__ = ["Score", "evaluate_on", "means_by_set"]


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
    """

    image: str
    set: str
    ap50: float
    ap75: float
    n_true: int
    n_found: int


def evaluate_on(
    net: CPnet, info: ModelInfo, images: Sequence[Prepared], *, device: str = "cpu"
) -> list[Score]:
    """Segment images at their own diameter and compare.

    Parameters
    ----------
    net : CPnet
        In evaluation mode.
    info : ModelInfo
        Its diameter.
    images : sequence of Prepared
        With objects; those without have no diameter, and take the network's.
    device : str
        Where it runs.

    Returns
    -------
    list of Score
        In order.
    """
    engine = Engine(Model(info, net, "", Path("training")), device=device, precision="fp32")
    scores = []
    for image in images:
        known = math.isfinite(image.diameter_px)
        found = segment(
            np.asarray(image.pixels, np.float32),
            model=engine,
            axes="cyx",
            channels=list(range(len(image.pixels))),
            normalise="off",
            diameter_px=image.diameter_px if known else info.diameter_px,
        )
        truth = np.maximum(image.labels, 0).astype(np.uint32)
        result = evaluate(found.labels, truth, ignore=np.asarray(image.labels) < 0)
        scores.append(
            Score(
                image.pair.image,
                image.pair.set,
                float(result.ap[0.5]),
                float(result.ap[0.75]),
                image.n_objects,
                int(found.labels.max(initial=0)),
            )
        )
    return scores


def means_by_set(scores: Sequence[Score]) -> dict[str, tuple[float, float]]:
    """Return the mean of images at both thresholds, per set.

    Parameters
    ----------
    scores : sequence of Score
        Of single images.

    Returns
    -------
    dict of str to tuple of float
        AP at .5 and .75; images without cells count 1 if none were found.
    """
    sets = sorted({score.set for score in scores})
    return {
        name: (
            float(np.nanmean([s.ap50 for s in scores if s.set == name])),
            float(np.nanmean([s.ap75 for s in scores if s.set == name])),
        )
        for name in sets
    }
