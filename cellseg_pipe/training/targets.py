"""What a network should answer for a crop, from its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from cellseg_pipe.kernels import flows_from_labels
from cellseg_pipe.training.augment import Crop

__all__ = ["Batch", "Target", "batch_of", "classes_of", "targets_of", "three_classes"]

INTERIOR, BOUNDARY, BACKGROUND = 0, 1, 2  # as in kernels.masks_from_classes
UNKNOWN = -1


@dataclass(frozen=True)
class Target:
    """What a network learns.

    Parameters
    ----------
    kind : {"flow", "three-classes"}
        Flow and foreground, with classes of cells beside them; or interior, boundary, background.
    n_classes : int
        Classes of cells.
    class_weights : tuple of float, optional
        How much each class counts.
    boundary_px : int
        How deep the boundary of a cell is, with three classes.
    """

    kind: Literal["flow", "three-classes"] = "flow"
    n_classes: int = 0
    class_weights: tuple[float, ...] | None = None
    boundary_px: int = 2

    @property
    def n_outputs(self) -> int:
        """Channels of a network of two axes that answers this."""
        return 3 + self.n_classes


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
    classes : int64 tensor [B, edge, edge]
        From 0, of cells or the three; -1 where it is not known.
    sources : tuple of str
        Which images the crops are of.
    """

    pixels: torch.Tensor
    flow: torch.Tensor
    inside: torch.Tensor
    weight: torch.Tensor
    classes: torch.Tensor
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
    flow = flows_from_labels(np.maximum(labels, 0), threads=1)
    seen = labels[_inner(labels.shape, margin_px)]
    return (
        np.ascontiguousarray(flow[(slice(None), *_inner(labels.shape, margin_px))]),
        (seen > 0).astype(np.float32),
        (seen >= 0).astype(np.float32),
    )


def classes_of(labels: NDArray[np.int32], of_object: NDArray[np.int16]) -> NDArray[np.int64]:
    """Return the class of each pixel.

    Parameters
    ----------
    labels : int32 array [*spatial]
        Objects from 1.
    of_object : int16 array [n_objects + 1]
        Class of each object from 1, 0 where it is not known; the first entry is not looked at.

    Returns
    -------
    int64 array [*spatial]
        From 0; -1 beside cells, and where the class is not known.
    """
    known = np.where(labels > 0, of_object[np.maximum(labels, 0)], 0)
    return known.astype(np.int64) + UNKNOWN


def three_classes(labels: NDArray[np.int32], *, boundary_px: int) -> NDArray[np.int64]:
    """Return interior, boundary and background.

    Parameters
    ----------
    labels : int32 array [*spatial]
        Objects from 1, -1 for what is ignored.
    boundary_px : int
        Pixels of a cell at most this many steps from what is not the cell are its boundary.

    Returns
    -------
    int64 array [*spatial]
        0, 1 and 2; -1 for what is ignored.
    """
    # Steps along axes, as cells grow over their boundary when they are found again.
    reach = ndimage.generate_binary_structure(labels.ndim, 1)
    reach = ndimage.iterate_structure(reach, boundary_px)
    most = ndimage.maximum_filter(labels, footprint=reach, mode="nearest")
    least = ndimage.minimum_filter(labels, footprint=reach, mode="nearest")
    found = np.where(most == least, INTERIOR, BOUNDARY)
    found = np.where(labels > 0, found, BACKGROUND)
    return np.where(labels < 0, UNKNOWN, found).astype(np.int64)


def batch_of(crops: Sequence[Crop], target: Target | None = None) -> Batch:
    """Stack crops with their targets.

    Parameters
    ----------
    crops : sequence of Crop
        Of one size.
    target : Target, optional
        What is learned; flow and foreground.

    Returns
    -------
    Batch
        On the CPU.
    """
    target = target or Target()
    margin = (crops[0].labels.shape[0] - crops[0].pixels.shape[1]) // 2
    flow, inside, weight = zip(*(targets_of(crop.labels, margin) for crop in crops), strict=True)
    return Batch(
        torch.from_numpy(np.stack([crop.pixels for crop in crops])),
        torch.from_numpy(np.stack(flow)),
        torch.from_numpy(np.stack(inside)),
        torch.from_numpy(np.stack(weight)),
        torch.from_numpy(np.stack([_classes(crop, target, margin) for crop in crops])),
        tuple(crop.source for crop in crops),
    )


def _classes(crop: Crop, target: Target, margin_px: int) -> NDArray[np.int64]:
    inner = _inner(crop.labels.shape, margin_px)
    if target.kind == "three-classes":
        return three_classes(crop.labels, boundary_px=target.boundary_px)[inner]
    return classes_of(crop.labels[inner], crop.classes)


def _inner(shape: Sequence[int], margin_px: int) -> tuple[slice, ...]:
    return tuple(slice(margin_px, n - margin_px) for n in shape)
