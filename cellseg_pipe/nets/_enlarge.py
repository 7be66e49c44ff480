"""A map enlarged twofold and convolved by 3 px, without the enlarged map."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from cellseg_pipe.nets._ops import LAYOUT, Kernel, Ops

Phase = tuple[int, ...]  # per axis, whether a pixel is the first or second copy


class EnlargeConv:
    """Repeats pixels and convolves by 3 px, as a convolution by 2 px for each phase.

    Repeated pixels meet several weights each, which are summed beforehand: 4 products a pixel
    instead of 9 in 2D, 8 instead of 27 in 3D. A transposed convolution does as much in one call,
    but oneDNN orders its sums by the number of threads; that of 2 px with zeros around too, unless
    the zeros are put there first.

    Parameters
    ----------
    weight : tensor [n_out, n_in, *(3,) * ndim]
        Of the convolution.
    ops : type
        The steps to compute with.
    dtype : torch.dtype
        Of maps and weights.
    """

    def __init__(self, weight: Tensor, ops: type[Ops], dtype: torch.dtype) -> None:
        ndim = weight.ndim - 2
        self.ops, self.layout = ops, LAYOUT[ndim]
        self.weights = {
            phase: phase_weight(weight, phase).to(dtype).contiguous(memory_format=self.layout)
            for phase in product((0, 1), repeat=ndim)
        }

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return [1, n_out, *2S] from [1, n_in, *S]."""
        shape = (1, len(bias), *(2 * size_px for size_px in x.shape[2:]))
        y = torch.empty(shape, dtype=x.dtype, memory_format=self.layout)
        sizes_px = x.shape[2:]
        x = F.pad(x, (1, 1) * len(sizes_px)).contiguous(memory_format=self.layout)
        for phase, weight in self.weights.items():
            part = self.ops.conv(x, Kernel(weight, bias))  # [1, n_out, *(S + 1)]
            inner = [slice(p, p + size_px) for p, size_px in zip(phase, sizes_px, strict=True)]
            every_other = [slice(p, None, 2) for p in phase]
            y[:, :, *every_other] = part[:, :, *inner]
        return y


def phase_weight(weight: Tensor, phase: Phase) -> Tensor:
    """Sum the weights that meet one pixel: [n_out, n_in, *(3,) * ndim] to [..., *(2,) * ndim]."""
    for axis, p in enumerate(phase, start=2):
        before, here, after = weight.split(1, axis)
        # The first copy has its twin after it, the second has it before.
        weight = torch.cat((before + here, after) if p else (before, here + after), axis)
    return weight
