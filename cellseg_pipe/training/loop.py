"""The loop: steps that depend on the seed and their number alone, so that a stop loses nothing."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from cellseg_pipe.training.augment import Sampler
from cellseg_pipe.training.losses import Loss, flow_loss
from cellseg_pipe.training.state import State
from cellseg_pipe.training.targets import Batch, batch_of

__all__ = ["Diverged", "Recipe", "Report", "rate_at", "train"]

log = logging.getLogger(__name__)


class Diverged(ArithmeticError):
    """The loss is no number any more."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    steps : int
        How many.
    batch : int
        Crops in each.
    learning_rate : float
        Highest rate.
    warmup_steps : int
        Steps in which it rises from 0.
    decay_steps : int, optional
        Steps at the end in which it falls to 0 as a cosine; all after the rise by default.
    weight_decay : float
        Of AdamW.
    clip_norm : float
        Longest gradient.
    ema : float
        How much of the mean of weights is kept at each step.
    precision : {"fp32", "bf16"}
        Of the maps; losses and weights are float32.
    seed : int
        Another seed, other crops and other first weights.
    checkpoint_every, evaluate_every : int
        Steps between them.
    workers : int
        Threads that draw crops ahead.
    """

    steps: int
    batch: int = 8
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    decay_steps: int | None = None
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.998
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    checkpoint_every: int = 250
    evaluate_every: int = 1000
    workers: int = 1


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
    """

    step: int
    loss: float
    flow: float
    inside: float
    rate: float
    grad_norm: float
    crops_per_s: float


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
    return recipe.learning_rate * rising * (1 - math.cos(math.pi * left)) / 2


def train(
    state: State,
    sampler: Sampler,
    recipe: Recipe,
    *,
    on_report: Callable[[Report], None] | None = None,
    on_checkpoint: Callable[[State], None] | None = None,
    on_evaluate: Callable[[State], None] | None = None,
) -> State:
    """Train until the recipe's number of steps is done.

    Parameters
    ----------
    state : State
        Where to begin; it is changed.
    sampler : Sampler
        Draws the crops.
    recipe : Recipe
        How.
    on_report, on_checkpoint, on_evaluate : callable, optional
        Are called every so many steps.

    Returns
    -------
    State
        The same, trained.
    """
    device = next(state.net.parameters()).device
    state.net.train()
    sums, since = np.zeros(4), time.monotonic()
    for batch in ahead(sampler, recipe, first=state.step):
        loss, norm = step_of(state, batch, recipe, device=device)
        sums += [loss.total.item(), loss.flow.item(), loss.inside.item(), norm]
        state.step += 1
        if state.step % recipe.checkpoint_every == 0 or state.step == recipe.steps:
            n = (state.step - 1) % recipe.checkpoint_every + 1
            speed = n * recipe.batch / (time.monotonic() - since)
            rate = rate_at(state.step - 1, recipe)
            if on_report:
                means = [float(value) for value in sums / n]
                on_report(Report(state.step, *means[:3], rate, means[3], speed))
            if on_checkpoint:
                on_checkpoint(state)
            if on_evaluate and (
                state.step % recipe.evaluate_every == 0 or state.step == recipe.steps
            ):
                on_evaluate(state)
                state.net.train()
            sums, since = np.zeros(4), time.monotonic()
    return state


def step_of(
    state: State, batch: Batch, recipe: Recipe, *, device: torch.device
) -> tuple[Loss, float]:
    """Take one step.

    Parameters
    ----------
    state : State
        Is changed, but for its number of steps.
    batch : Batch
        What is learned.
    recipe : Recipe
        How.
    device : torch.device
        Where.

    Returns
    -------
    loss : Loss
        Before the step.
    norm : float
        Length of the gradient, before it was cut.
    """
    for group in state.optimiser.param_groups:
        group["lr"] = rate_at(state.step, recipe)
    batch = moved(batch, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        answer, _ = state.net(batch.pixels)
    loss = flow_loss(answer, batch)
    state.optimiser.zero_grad(set_to_none=True)
    loss.total.backward()
    norm = float(nn.utils.clip_grad_norm_(state.net.parameters(), recipe.clip_norm))
    if not (math.isfinite(norm) and math.isfinite(loss.total.item())):
        raise Diverged(
            f"the loss of step {state.step} is {loss.total.item()} (gradient {norm}); its crops are"
            f" of {', '.join(dict.fromkeys(batch.sources))}. Look at these images, or lower the"
            " learning rate."
        )
    state.optimiser.step()
    state.average(recipe.ema)
    return loss, norm


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device, pixels with channels last, which convolutions like.

    Parameters
    ----------
    batch : Batch
        On the CPU.
    device : torch.device
        Where it goes.

    Returns
    -------
    Batch
        There.
    """

    def to(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    pixels = to(batch.pixels).contiguous(memory_format=torch.channels_last)
    return Batch(pixels, to(batch.flow), to(batch.inside), to(batch.weight), batch.sources)


def ahead(sampler: Sampler, recipe: Recipe, *, first: int):
    """Yield the batches of all steps from the first on, drawn while others are learned.

    Parameters
    ----------
    sampler : Sampler
        Draws crops.
    recipe : Recipe
        How many.
    first : int
        The step to begin with.

    Yields
    ------
    Batch
        In order.
    """

    def draw(step: int) -> Batch:
        return batch_of([sampler.crop(step, place) for place in range(recipe.batch)])

    with ThreadPoolExecutor(recipe.workers) as pool:
        waiting: list[Future[Batch]] = []
        for step in range(first, recipe.steps):
            while len(waiting) <= recipe.workers and step + len(waiting) < recipe.steps:
                waiting.append(pool.submit(draw, step + len(waiting)))
            yield waiting.pop(0).result()
