"""What a network should answer for a crop, from its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cellseg_pipe.kernels import flows_from_labels
from cellseg_pipe.training.augment import Crop

__all__ = ["Batch", "batch_of", "targets_of"]


@dataclass(frozen=True)
class Batch:
    """Crops and what the network should answer.

    Parameters
    ----------
    pixels : float32 tensor [B, n_inputs, edge, edge]
        The crops.
    flow : float32 tensor [B, 2, edge, edge]
        Unit vectors to the centres of objects.
    inside : float32 tensor [B, edge, edge]
        1 in objects.
    weight : float32 tensor [B, edge, edge]
        0 where nobody annotated.
    sources : tuple of str
        Which images the crops are of.
    """

    pixels: torch.Tensor
    flow: torch.Tensor
    inside: torch.Tensor
    weight: torch.Tensor
    sources: tuple[str, ...]


def targets_of(
    labels: NDArray[np.int32], margin_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return flow, foreground and weight of a crop.

    Parameters
    ----------
    labels : int32 array [*spatial]
        Objects from 1, -1 for what is ignored, with a margin.
    margin_px : int
        How much of the labels lies beyond the crop, on each side.

    Returns
    -------
    flow : float32 array [ndim, *edge]
        Unit vectors; the flow of an object that the crop cuts is that of what the margin holds.
    inside : float32 array [*edge]
        1 in objects.
    weight : float32 array [*edge]
        0 where nobody annotated.
    """
    inner = tuple(slice(margin_px, n - margin_px) for n in labels.shape)
    flow = flows_from_labels(np.maximum(labels, 0), threads=1)
    seen = labels[inner]
    return (
        np.ascontiguousarray(flow[(slice(None), *inner)]),
        (seen > 0).astype(np.float32),
        (seen >= 0).astype(np.float32),
    )


def batch_of(crops: Sequence[Crop]) -> Batch:
    """Stack crops with their targets.

    Parameters
    ----------
    crops : sequence of Crop
        Of one size.

    Returns
    -------
    Batch
        On the CPU.
    """
    margin = (crops[0].labels.shape[0] - crops[0].pixels.shape[1]) // 2
    flow, inside, weight = zip(*(targets_of(crop.labels, margin) for crop in crops), strict=True)
    return Batch(
        torch.from_numpy(np.stack([crop.pixels for crop in crops])),
        torch.from_numpy(np.stack(flow)),
        torch.from_numpy(np.stack(inside)),
        torch.from_numpy(np.stack(weight)),
        tuple(crop.source for crop in crops),
    )
