"""Several processes that train as one: sums over all of them, and normalisation over their batch.

Each process takes every so many-th crop of a batch. Sums make the gradient that of the whole batch,
so no process differs from another, and there is nothing to wrap the network in.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = [
    "JointNorm",
    "add_gradients",
    "joined",
    "rank",
    "total",
    "wait",
    "with_joint_norms",
    "world",
]


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the processes that torchrun started; alone there is nothing to do.

    Parameters
    ----------
    device : str
        Where this process computes.

    Yields
    ------
    None
        While they are joined.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Wait for all processes."""
    if world() > 1:
        dist.barrier()


def total(value: Tensor) -> Tensor:
    """Return the sum over all processes, without a gradient.

    Parameters
    ----------
    value : tensor
        Of this process.

    Returns
    -------
    tensor
        The same on all of them.
    """
    value = value.detach()
    if world() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def add_gradients(net: nn.Module) -> None:
    """Replace each gradient by its sum over all processes.

    Parameters
    ----------
    net : module
        After the way back.
    """
    if world() == 1:
        return
    learned = [p.grad for p in net.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in learned])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in learned])
    for gradient, part in zip(learned, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(_context: object, value: Tensor) -> Tensor:
        return total(value)

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        return total(gradient)


class JointNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation with the statistics of all processes; torch has it on GPUs only."""

    def _check_input_dim(self, _input: Tensor) -> None:
        """Take any number of axes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over the whole batch."""
        if not self.training:
            return super().forward(input)
        low = input.dtype in (torch.bfloat16, torch.float16)
        x = input.float() if low else input
        axes = [0, *range(2, x.ndim)]
        shape = (1, -1, *(1,) * (x.ndim - 2))
        n = float(total(torch.tensor(x.numel() / x.shape[1], device=x.device)))
        mean = _Sum.apply(x.sum(axes)) / n
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / n
        self._follow(mean.detach(), variance.detach() * (n / max(n - 1, 1)))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)


def with_joint_norms(net: nn.Module) -> None:
    """Let the normalisations of a network see all processes; its parameters stay the same ones.

    Parameters
    ----------
    net : module
        Is changed, if there is more than one process.
    """
    if world() == 1:
        return
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.__class__ = JointNorm  # type: ignore[assignment]
