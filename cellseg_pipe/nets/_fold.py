"""Normalisation folded into the convolution before or after it: arithmetic on weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cellseg_pipe.nets._ops import LAYOUT, Kernel


@dataclass(frozen=True)
class Affine:
    """A normalisation in evaluation mode: `scale * x + shift` for each channel, in float64."""

    scale: Tensor
    shift: Tensor

    @staticmethod
    def of(norm: Any) -> Affine:
        """Return what a normalisation does with its running statistics."""
        parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        weight, bias, mean, var = (part.detach().double() for part in parts)
        scale = weight / torch.sqrt(var + norm.eps)
        return Affine(scale, bias - mean * scale)

    def part(self, start: int, stop: int | None) -> Affine:
        """Return that of some of the channels."""
        return Affine(self.scale[start:stop], self.shift[start:stop])

    def kernel(self, ndim: int, dtype: torch.dtype) -> Kernel:
        """Return it as a convolution of 1 px in which each channel sees itself."""
        weight = beside(self.scale, ndim + 2)
        return pack(weight, self.shift, dtype, groups=len(self.scale))


@dataclass(frozen=True)
class StyleShift:
    """What the style adds to each channel, normalisation included.

    Parameters
    ----------
    weight : float32 tensor [C, n_style]
        Of the linear layer, scaled.
    bias : float32 tensor [C]
        What is added whatever the style.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, style: Tensor) -> Tensor:
        """Return the shift [C] for one style [1, n_style].

        A product and a sum along rows: libraries of linear algebra choose the order of the sum by
        the size of the batch and the number of threads.
        """
        return (self.weight * style).sum(1) + self.bias


def style_shift(step: Any, conv_bias: Tensor | float = 0.0) -> StyleShift:
    """Return what the style, and the bias of a convolution before it, add after normalisation."""
    norm = Affine.of(step.conv[0])
    weight, bias = parameters(step.full)
    total = norm.scale * (bias + conv_bias) + norm.shift
    return StyleShift((beside(norm.scale, 2) * weight).float(), total.float().detach())


def conv_kernel(conv: Any, dtype: torch.dtype) -> Kernel:
    """Return a convolution as it is."""
    return pack(*parameters(conv), dtype)


def conv_then_norm(conv: Any, norm: Affine, dtype: torch.dtype) -> Kernel:
    """Return a convolution that includes the normalisation after it."""
    weight, bias = parameters(conv)
    scaled = weight * beside(norm.scale, weight.ndim)
    return pack(scaled, norm.scale * bias + norm.shift, dtype)


def norm_then_conv(norm: Affine, conv: Any, dtype: torch.dtype) -> Kernel:
    """Return a convolution of 1 px that includes the normalisation before it."""
    weight, bias = parameters(conv)
    scaled = weight * beside(norm.scale, weight.ndim).transpose(0, 1)
    return pack(scaled, bias + weight.flatten(1) @ norm.shift, dtype)


def parameters(layer: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias in float64."""
    return layer.weight.detach().double(), layer.bias.detach().double()


def pack(weight: Tensor, bias: Tensor, dtype: torch.dtype, *, groups: int = 1) -> Kernel:
    """Round weights to their type, channels last in memory."""
    layout = LAYOUT[weight.ndim - 2]
    return Kernel(weight.to(dtype).contiguous(memory_format=layout), bias.to(dtype), groups)


def beside(x: Tensor, ndim: int) -> Tensor:
    """Append axes of length one: [C] to [C, 1, ...]."""
    return x.reshape(-1, *(1,) * (ndim - 1))
