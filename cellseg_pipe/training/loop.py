"""The loop: steps that depend on the seed and their number alone, so that a stop loses nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cellseg_pipe.training import joint
from cellseg_pipe.training.augment import Sampler
from cellseg_pipe.training.losses import Loss
from cellseg_pipe.training.schedule import Report, Tally, rate_at
from cellseg_pipe.training.settings import Recipe
from cellseg_pipe.training.state import State
from cellseg_pipe.training.targets import Batch
from cellseg_pipe.training.tasks import Segmenting, Task

__all__ = ["Calls", "Diverged", "train"]


class Diverged(ArithmeticError):
    """The loss is no number any more."""


@dataclass(frozen=True)
class Calls:
    """What is called during training, on the first of several processes.

    Parameters
    ----------
    report, checkpoint, evaluate : callable, optional
        Every so many steps.
    """

    report: Callable[[Report], None] | None = None
    checkpoint: Callable[[State], None] | None = None
    evaluate: Callable[[State], None] | None = None


def train(
    state: State,
    sampler: Sampler,
    recipe: Recipe,
    *,
    task: Task | None = None,
    calls: Calls | None = None,
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
    task : Task, optional
        What is learned; flow and foreground.
    calls : Calls, optional
        What is told of it.

    Returns
    -------
    State
        The same, trained.
    """
    task, calls = task or Segmenting(), calls or Calls()
    if recipe.batch < joint.world():
        raise ValueError(
            f"{joint.world()} processes need a batch of as many crops or more, got {recipe.batch}."
        )
    state.net.train()
    joint.with_joint_norms(state.net)
    tally = Tally()
    for batch in ahead(sampler, recipe, first=state.step, task=task):
        tally.add(*step_of(state, batch, recipe, task=task), batch.sources)
        state.step += 1
        dues = recipe.checkpoint_every, recipe.evaluate_every, recipe.steps
        if any(state.step % every == 0 for every in dues):
            _tell(calls, tally.report(state.step, recipe), state, recipe=recipe)
            state.net.train()
            tally = Tally(tally.seen)
    return state


def _tell(calls: Calls, report: Report, state: State, *, recipe: Recipe) -> None:
    """Call what is to be called after a step, on the first process; the others wait."""
    if joint.rank() == 0:
        if calls.report:
            calls.report(report)
        last = state.step == recipe.steps
        if calls.evaluate and (last or state.step % recipe.evaluate_every == 0):
            calls.evaluate(state)
        if calls.checkpoint:  # last: a stop before it repeats all of the above
            calls.checkpoint(state)
    joint.wait()


def step_of(state: State, batch: Batch, recipe: Recipe, *, task: Task) -> tuple[Loss, float]:
    """Take one step.

    Parameters
    ----------
    state : State
        Is changed, but for its number of steps.
    batch : Batch
        What is learned: the part of this process.
    recipe : Recipe
        How.
    task : Task
        What is learned.

    Returns
    -------
    loss : Loss
        Before the step, of all processes.
    norm : float
        Length of the gradient, before it was cut.
    """
    for group in state.optimiser.param_groups:
        group["lr"] = rate_at(state.step, recipe)
    device = next(state.net.parameters()).device
    batch = moved(batch, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        answer, _ = state.net(batch.pixels)
    loss = task.loss(answer, batch)
    state.optimiser.zero_grad(set_to_none=True)
    loss.total.backward()
    joint.add_gradients(state.net)
    norm = float(nn.utils.clip_grad_norm_(state.net.parameters(), recipe.clip_norm))
    loss = Loss(*joint.total(loss.parts).unbind())
    if not (math.isfinite(norm) and math.isfinite(float(loss.total))):
        raise Diverged(
            f"the loss of step {state.step} is {float(loss.total)} (gradient {norm}); its crops are"
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
    there: dict[str, Any] = {
        name: value.to(device, non_blocking=True)
        for name, value in vars(batch).items()
        if isinstance(value, Tensor)
    }
    there["pixels"] = there["pixels"].contiguous(memory_format=torch.channels_last)
    return dataclasses.replace(batch, **there)


def ahead(sampler: Sampler, recipe: Recipe, *, first: int, task: Task) -> Iterator[Batch]:
    """Yield the batches of all steps from the first on, drawn while others are learned.

    Parameters
    ----------
    sampler : Sampler
        Draws crops.
    recipe : Recipe
        How many.
    first : int
        The step to begin with.
    task : Task
        What is learned.

    Yields
    ------
    Batch
        In order; of several processes, each takes every so many-th crop.
    """
    places = range(joint.rank(), recipe.batch, joint.world())

    def draw(step: int) -> Batch:
        return task.batch([sampler.crop(step, place) for place in places])

    with ThreadPoolExecutor(recipe.workers) as pool:
        waiting: list[Future[Batch]] = []
        for step in range(first, recipe.steps):
            while len(waiting) <= recipe.workers and step + len(waiting) < recipe.steps:
                waiting.append(pool.submit(draw, step + len(waiting)))
            yield waiting.pop(0).result()
