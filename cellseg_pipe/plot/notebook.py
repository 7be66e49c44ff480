"""A figure of a segmentation for notebooks; matplotlib is loaded when one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.plot.colors import flow_colors, to_rgb8
from cellseg_pipe.plot.pictures import fill, fitted, overlay, probability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_of"]

INCHES = 4.0  # of a panel


def figure_of(image: NDArray[np.generic], result: Any, *, plane: int | None = None) -> Figure:
    """Show a result of `cs.segment`: image, outlines, cells, and what the network said.

    Parameters
    ----------
    image : real array [y, x], [c, y, x], [z, y, x] or [c, z, y, x]
        What was segmented.
    result : Segmentation
        With `labels`, `flow` and `logit`.
    plane : int, optional
        Which plane of a volume; by default the middle one.

    Returns
    -------
    matplotlib.figure.Figure
        A notebook shows it; `figure.savefig(PATH)` writes it.
    """
    from matplotlib.figure import Figure

    labels, flow, logit = result.labels, result.flow, result.logit
    if labels.ndim == 3:
        at = labels.shape[0] // 2 if plane is None else plane
        walked = at * logit.shape[0] // labels.shape[0]
        image, labels = image[..., at, :, :], labels[at]
        flow, logit = flow[:, walked], logit[walked]
    panels = {
        "image": to_rgb8(image),
        "outlines": overlay(image, labels),
        "cells": fill(image, labels),
        "flow": fitted(flow_colors(flow)[..., :3], labels.shape),
        "probability": fitted(to_rgb8(probability(logit)), labels.shape),
    }
    figure = Figure(figsize=(INCHES * len(panels), INCHES), layout="constrained")
    for axes, (name, picture) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(name)
        axes.set_axis_off()
    return figure
