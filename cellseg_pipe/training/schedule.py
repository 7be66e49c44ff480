"""The learning rate of each step, and what is summed up between two reports."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from cellseg_pipe.training.losses import Loss
from cellseg_pipe.training.settings import Recipe

__all__ = ["Report", "Tally", "rate_at"]


@dataclass(frozen=True)
class Report:
    """What is logged of a step.

    Parameters
    ----------
    step : int
        Steps that are done.
    loss, flow, inside : float
        Means since the last report.
    rate : float
        Learning rate.
    grad_norm : float
        Mean length of the gradient.
    crops_per_s : float
        Since the last report.
    classes : float
        As the losses.
    images : int
        Distinct images that were seen since the run began or went on.
    perceptual, reconstruction, statistics : float
        As the losses, of networks that restore.
    """

    step: int
    loss: float
    flow: float
    inside: float
    rate: float
    grad_norm: float
    crops_per_s: float
    classes: float = 0.0
    images: int = 0
    perceptual: float = 0.0
    reconstruction: float = 0.0
    statistics: float = 0.0


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: a rise, a level, a fall.

    Parameters
    ----------
    step : int
        From 0.
    recipe : Recipe
        Its rates.

    Returns
    -------
    float
        The rate.
    """
    rising = min(1.0, (step + 1) / max(recipe.warmup_steps, 1))
    falling = recipe.steps - recipe.warmup_steps
    if recipe.decay_steps is not None:
        falling = recipe.decay_steps
    left = min(1.0, (recipe.steps - step) / max(falling, 1))
    return recipe.highest_rate * rising * (1 - math.cos(math.pi * left)) / 2


class Tally:
    """Sums since the last report.

    Parameters
    ----------
    seen : set of str, optional
        Images that were seen before.
    """

    def __init__(self, seen: set[str] | None = None) -> None:
        self.sums, self.n, self.since = np.zeros(len(fields(Loss)) + 1), 0, time.monotonic()
        self.seen = set() if seen is None else seen

    def add(self, loss: Loss, norm: float, sources: Iterable[str]) -> None:
        """Add a step.

        Parameters
        ----------
        loss : Loss
            Of all processes.
        norm : float
            Length of the gradient.
        sources : iterable of str
            What its crops are of.
        """
        self.sums += [*loss.parts.tolist(), norm]
        self.seen.update(sources)
        self.n += 1

    def report(self, step: int, recipe: Recipe) -> Report:
        """Return what is logged.

        Parameters
        ----------
        step : int
            Steps that are done.
        recipe : Recipe
            How it is trained.

        Returns
        -------
        Report
            Means.
        """
        *losses, norm = (float(value) for value in self.sums / self.n)
        total, flow, inside, classes, *more = losses
        speed = self.n * recipe.batch / max(time.monotonic() - self.since, 1e-9)
        rate = rate_at(step - 1, recipe)
        return Report(step, total, flow, inside, rate, norm, speed, classes, len(self.seen), *more)
