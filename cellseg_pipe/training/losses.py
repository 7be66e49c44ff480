"""How far a network's answer is from what it should be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cellseg_pipe.training.joint import total
from cellseg_pipe.training.targets import Batch, Target

__all__ = ["Loss", "class_loss", "flow_loss", "loss_of"]

FLOW_SCALE = 5.0  # networks answer with five times the flow


@dataclass(frozen=True)
class Loss:
    """A loss and its parts; those of the crops of this process, to be added to those of others.

    Parameters
    ----------
    total, flow, inside, classes : tensor []
        What is made small; half the squared error of five times the flow; cross-entropy of the
        logit; that of the classes.
    perceptual, reconstruction, statistics : tensor [], optional
        Of networks that restore: see `restoring`.
    """

    total: Tensor
    flow: Tensor
    inside: Tensor
    classes: Tensor
    perceptual: Tensor | None = None
    reconstruction: Tensor | None = None
    statistics: Tensor | None = None

    @property
    def parts(self) -> Tensor:
        """All of them without their gradients, 0 for those that do not apply."""
        zero = torch.zeros_like(self.flow)
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return torch.stack([zero if value is None else value.detach() for value in values])


def loss_of(answer: Tensor, batch: Batch, target: Target) -> Loss:
    """Compare an answer with what it should be, in float32.

    Parameters
    ----------
    answer : tensor [B, n_outputs, *edge]
        Of the network.
    batch : Batch
        On the same device.
    target : Target
        What the outputs mean.

    Returns
    -------
    Loss
        Means over all pixels that somebody annotated.
    """
    if target.kind == "three-classes":
        classes = class_loss(answer[:, :3], batch.classes, weights=target.class_weights)
        zero = torch.zeros_like(classes)
        return Loss(classes, zero, zero, classes.detach())
    loss = flow_loss(answer, batch)
    if not target.n_classes:
        return loss
    ndim = batch.flow.shape[1]
    classes = class_loss(answer[:, ndim + 1 :], batch.classes, weights=target.class_weights)
    return Loss(loss.total + classes, loss.flow, loss.inside, classes.detach())


def flow_loss(answer: Tensor, batch: Batch) -> Loss:
    """Compare an answer with the flow and the foreground, in float32.

    Parameters
    ----------
    answer : tensor [B, ndim + 1, *edge]
        Five times the flow, and a logit; further outputs are not looked at.
    batch : Batch
        On the same device.

    Returns
    -------
    Loss
        Means over all pixels that somebody annotated.
    """
    ndim = batch.flow.shape[1]
    answer = answer.float()
    weight = batch.weight / total(batch.weight.sum()).clamp(min=1.0)
    error = (answer[:, :ndim] - FLOW_SCALE * batch.flow).square().mean(dim=1)
    flow = 0.5 * (error * weight).sum()
    inside = functional.binary_cross_entropy_with_logits(
        answer[:, ndim], batch.inside, reduction="none"
    )
    inside = (inside * weight).sum()
    return Loss(flow + inside, flow.detach(), inside.detach(), torch.zeros_like(flow.detach()))


def class_loss(answer: Tensor, classes: Tensor, *, weights: tuple[float, ...] | None) -> Tensor:
    """Return the cross-entropy of classes, in float32.

    Parameters
    ----------
    answer : tensor [B, n_classes, *edge]
        Logits.
    classes : int64 tensor [B, *edge]
        From 0; -1 where the class is not known.
    weights : tuple of float or None
        How much each class counts; all alike.

    Returns
    -------
    tensor []
        Weighted mean over the pixels whose class is known; 0 without any.
    """
    given = answer.new_tensor(weights or (1.0,) * answer.shape[1], dtype=torch.float32)
    known = classes >= 0
    share = given[classes.clamp(min=0)] * known
    entropy = functional.cross_entropy(answer.float(), classes, reduction="none", ignore_index=-1)
    return (entropy * share).sum() / total(share.sum()).clamp(min=1e-6)
