"""Convolutions joined with what follows them, in one pass over memory where oneDNN allows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

CONV: dict[int, Callable[..., Tensor]] = {2: F.conv2d, 3: F.conv3d}
LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}
OpsName = Literal["plain", "post-ops"]


@dataclass(frozen=True)
class Kernel:
    """Weights of a convolution.

    Parameters
    ----------
    weight : tensor [n_out, n_in / groups, *size]
        Channels last in memory; a size of 3 px sees zeros around the map, of 2 px none.
    bias : tensor [n_out]
        Added to each pixel.
    groups : int
        Equal parts of the channels that do not see each other.
    """

    weight: Tensor
    bias: Tensor
    groups: int = 1

    @property
    def padding_px(self) -> list[int]:
        """Zeros on either side of each axis."""
        return [(size - 1) // 2 for size in self.weight.shape[2:]]


class Ops(Protocol):
    """The three steps; maps are [1, C, *S], and a trailing underscore changes the first one."""

    @staticmethod
    def conv(x: Tensor, kernel: Kernel) -> Tensor:
        """Convolve."""

    @staticmethod
    def conv_relu(x: Tensor, kernel: Kernel, bias: Tensor) -> Tensor:
        """Convolve with another bias, then cut at zero."""

    @staticmethod
    def add_conv_(into: Tensor, x: Tensor, kernel: Kernel) -> Tensor:
        """Add a convolution to a map."""


class PlainOps:
    """The steps in public functions of torch, one pass over memory each."""

    @staticmethod
    def conv(x: Tensor, kernel: Kernel) -> Tensor:
        return convolve(x, kernel, kernel.bias)

    @staticmethod
    def conv_relu(x: Tensor, kernel: Kernel, bias: Tensor) -> Tensor:
        return convolve(x, kernel, bias).relu_()

    @staticmethod
    def add_conv_(into: Tensor, x: Tensor, kernel: Kernel) -> Tensor:
        return into.add_(convolve(x, kernel, kernel.bias))


class PostOps:
    """The steps as oneDNN joins them, through functions that torch keeps for its compiler."""

    @staticmethod
    def conv(x: Tensor, kernel: Kernel) -> Tensor:
        return unary(x, kernel, kernel.bias, then="none")

    @staticmethod
    def conv_relu(x: Tensor, kernel: Kernel, bias: Tensor) -> Tensor:
        return unary(x, kernel, bias, then="relu")

    @staticmethod
    def add_conv_(into: Tensor, x: Tensor, kernel: Kernel) -> Tensor:
        ones = [1] * (x.ndim - 2)
        weight, bias, padding, groups = kernel.weight, kernel.bias, kernel.padding_px, kernel.groups
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            into, x, weight, bias, padding, ones, ones, groups, "add", 1.0, None, [], None
        )


def convolve(x: Tensor, kernel: Kernel, bias: Tensor) -> Tensor:
    """Convolve, if possible by oneDNN.

    The functions of `torch.nn.functional` choose between oneDNN and another library by the number
    of threads and the size of the map, and these differ in the last bits.
    """
    if torch.backends.mkldnn.is_available():
        ones = [1] * (x.ndim - 2)
        return torch.mkldnn_convolution(
            x, kernel.weight, bias, kernel.padding_px, ones, ones, kernel.groups
        )
    return CONV[x.ndim - 2](x, kernel.weight, bias, padding=kernel.padding_px, groups=kernel.groups)


def unary(x: Tensor, kernel: Kernel, bias: Tensor, *, then: str) -> Tensor:
    """Convolve, then apply a function of one number."""
    ones = [1] * (x.ndim - 2)
    return torch.ops.mkldnn._convolution_pointwise(
        x, kernel.weight, bias, kernel.padding_px, ones, ones, kernel.groups, then, [], ""
    )


OPS: dict[OpsName, type[Ops]] = {"plain": PlainOps, "post-ops": PostOps}


@cache
def choose_ops(ndim: int, dtype: torch.dtype) -> OpsName:
    """Return the joined steps if this torch has them on this machine, and they are right."""
    try:
        right = all(map(torch.allclose, probe(PostOps, ndim, dtype), probe(PlainOps, ndim, dtype)))
    except (AttributeError, RuntimeError, TypeError):
        return "plain"
    return "post-ops" if right else "plain"


def probe(ops: type[Ops], ndim: int, dtype: torch.dtype) -> list[Tensor]:
    """Run each step on small whole numbers, whose sums are exact in every format."""
    with torch.inference_mode():
        maps = (torch.arange(16 * 4**ndim) % 5 - 2).reshape(1, 16, *(4,) * ndim)
        x = maps.to(dtype).contiguous(memory_format=LAYOUT[ndim])
        bias = torch.ones(16, dtype=dtype)
        weight = torch.eye(16, dtype=dtype).reshape(16, 16, *(1,) * ndim)
        wide = F.pad(weight, (1, 1) * ndim).contiguous(memory_format=LAYOUT[ndim])
        full = Kernel(wide, bias)
        each = Kernel(torch.full((16, 1, *(1,) * ndim), 2, dtype=dtype), bias, groups=16)
        return [
            ops.conv(x, full),
            ops.conv_relu(x, each, bias),
            ops.add_conv_(x.clone(), x, full),
        ]
