"""The blocks of the network with normalisation and style folded into their convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cellseg_pipe.nets._enlarge import EnlargeConv
from cellseg_pipe.nets._fold import (
    Affine,
    conv_kernel,
    conv_then_norm,
    norm_then_conv,
    style_shift,
)
from cellseg_pipe.nets._ops import Ops
from cellseg_pipe.nets.cpnet import CPnet

DownStep = Callable[[Tensor], Tensor]
UpStep = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Target:
    """What all blocks of one network share.

    Parameters
    ----------
    ops : type
        The steps to compute with.
    dtype : torch.dtype
        Of maps and weights.
    """

    ops: type[Ops]
    dtype: torch.dtype


def fold_blocks(net: CPnet, target: Target) -> tuple[list[DownStep], list[UpStep]]:
    """Return the blocks of the way down and of the way up, full resolution first."""
    down_kind, up_kind = (
        (FoldedResidualDown, FoldedResidualUp)
        if net.architecture.residual
        else (FoldedPlainDown, FoldedPlainUp)
    )
    merge_kind = Concatenate if net.architecture.concatenate else Add
    down: list[DownStep] = [down_kind(block, target) for block in net.downsample.down.values()]
    up: list[UpStep] = [
        up_kind(block, merge_kind(block, target), target) for block in net.upsample.up.values()
    ]
    return down, up


class Pair:
    """Two convolutions with normalisation and ReLU before each; the second may add to a map."""

    def __init__(self, first: Any, second: Any, target: Target) -> None:
        ndim, dtype = first[2].weight.ndim - 2, target.dtype
        self.ops = target.ops
        self.norm = Affine.of(first[0]).kernel(ndim, dtype)
        self.first = conv_then_norm(first[2], Affine.of(second[0]), dtype)
        self.second = conv_kernel(second[2], dtype)

    def hidden(self, x: Tensor) -> Tensor:
        """Return what the second convolution sees."""
        x = self.ops.conv_relu(x, self.norm, self.norm.bias)
        return self.ops.conv_relu(x, self.first, self.first.bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.conv(self.hidden(x), self.second)

    def add_(self, into: Tensor, x: Tensor) -> Tensor:
        """Add the result to a map."""
        return self.ops.add_conv_(into, self.hidden(x), self.second)


class FoldedPlainDown:
    """`PlainDown`: a pair."""

    def __init__(self, block: Any, target: Target) -> None:
        first, second = block.conv.values()
        self.pair = Pair(first, second, target)

    def __call__(self, x: Tensor) -> Tensor:
        return self.pair(x)


class FoldedResidualDown:
    """`ResidualDown`: two pairs with shortcuts."""

    def __init__(self, block: Any, target: Target) -> None:
        first, second, third, fourth = block.conv.values()
        self.ops = target.ops
        self.proj = norm_then_conv(Affine.of(block.proj[0]), block.proj[1], target.dtype)
        self.pairs = Pair(first, second, target), Pair(third, fourth, target)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.pairs[0].add_(self.ops.conv(x, self.proj), x)
        return self.pairs[1].add_(x, x)


class Merge:
    """From the maps below and beside to what the second convolution on the way up sees."""

    def __init__(self, block: Any, target: Target) -> None:
        norm, _, conv = block.conv["conv_0"]
        self.ops, self.dtype = target.ops, target.dtype
        ndim, width = conv.weight.ndim - 2, len(conv.bias)
        self.enter = Affine.of(norm).kernel(ndim, target.dtype)
        after = Affine.of(block.conv["conv_1"].conv[0])
        # Both maps have channels of their own if concatenated, else the same ones.
        self.beside = after.part(0, width).kernel(ndim, target.dtype)
        self.scale = self.beside.weight.transpose(0, 1)  # [1, C, 1, ...]
        self.below = conv_then_norm(conv, after.part(-width, None), target.dtype)
        exact = conv_then_norm(conv, after.part(-width, None), torch.float64)
        self.enlarge_conv = EnlargeConv(exact.weight, target.ops, target.dtype)

    def from_below(self, x: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
        """Convolve and normalise the map from below, enlarged to the size of the one beside."""
        hidden = self.ops.conv_relu(x, self.enter, self.enter.bias)
        if x.shape == skip.shape:  # the deepest map, beside itself
            return self.ops.conv(hidden, replace(self.below, bias=bias))
        return self.enlarge_conv(hidden, bias)


class Add(Merge):
    """The sum of the two maps, normalised; the style shifts it."""

    def __init__(self, block: Any, target: Target) -> None:
        super().__init__(block, target)
        self.shift = style_shift(block.conv["conv_1"], block.conv["conv_0"][2].bias)

    def __call__(self, x: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        x = self.from_below(x, skip, self.shift(style).to(self.dtype))
        # No post-op here: torch refuses sum and ReLU after grouped convolutions of some sizes.
        return x.addcmul_(skip, self.scale).relu_()


class Concatenate(Merge):
    """The two maps one after the other, normalised; the style shifts them."""

    def __init__(self, block: Any, target: Target) -> None:
        super().__init__(block, target)
        bias = block.conv["conv_0"][2].bias
        self.shift = style_shift(block.conv["conv_1"], torch.cat((torch.zeros_like(bias), bias)))

    def __call__(self, x: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        beside, below = self.shift(style).to(self.dtype).chunk(2)
        x = self.from_below(x, skip, below).relu_()
        return torch.cat((self.ops.conv_relu(skip, self.beside, beside), x), dim=1)


class FoldedPlainUp:
    """`PlainUp`."""

    def __init__(self, block: Any, merge: Add | Concatenate, target: Target) -> None:
        self.ops, self.merge = target.ops, merge
        self.conv = conv_kernel(block.conv["conv_1"].conv[2], target.dtype)

    def __call__(self, x: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        return self.ops.conv(self.merge(x, skip, style), self.conv)


class FoldedResidualUp:
    """`ResidualUp`."""

    def __init__(self, block: Any, merge: Add | Concatenate, target: Target) -> None:
        second, third, fourth = (block.conv[f"conv_{t}"] for t in (1, 2, 3))
        ndim, dtype = second.conv[2].weight.ndim - 2, target.dtype
        self.ops, self.dtype, self.merge = target.ops, dtype, merge
        self.proj = norm_then_conv(Affine.of(block.proj[0]), block.proj[1], dtype)
        self.second = conv_kernel(second.conv[2], dtype)
        self.norm = Affine.of(third.conv[0]).kernel(ndim, dtype)
        self.norm_shift = style_shift(third)
        self.third = conv_then_norm(third.conv[2], Affine.of(fourth.conv[0]), dtype)
        self.third_shift = style_shift(fourth, third.conv[2].bias)
        self.fourth = conv_kernel(fourth.conv[2], dtype)

    def __call__(self, x: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        shortcut = self.ops.conv(x, self.proj)  # before it is enlarged: a quarter of the pixels
        shortcut = F.interpolate(shortcut, size=skip.shape[2:], mode="nearest")
        x = self.ops.add_conv_(shortcut, self.merge(x, skip, style), self.second)
        hidden = self.ops.conv_relu(x, self.norm, self.norm_shift(style).to(self.dtype))
        hidden = self.ops.conv_relu(hidden, self.third, self.third_shift(style).to(self.dtype))
        return self.ops.add_conv_(x, hidden, self.fourth)
