"""How far a network's answer is from what it should be."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from cellseg_pipe.training.targets import Batch

__all__ = ["Loss", "flow_loss"]

FLOW_SCALE = 5.0  # networks answer with five times the flow


@dataclass(frozen=True)
class Loss:
    """A loss and its parts.

    Parameters
    ----------
    total, flow, inside : tensor []
        What is made small; half the squared error of five times the flow; cross-entropy of the
        logit.
    """

    total: Tensor
    flow: Tensor
    inside: Tensor


def flow_loss(answer: Tensor, batch: Batch) -> Loss:
    """Compare an answer with the flow and the foreground, in float32.

    Parameters
    ----------
    answer : tensor [B, ndim + 1, *edge]
        Five times the flow, and a logit.
    batch : Batch
        On the same device.

    Returns
    -------
    Loss
        Means over all pixels that somebody annotated.
    """
    ndim = batch.flow.shape[1]
    answer = answer.float()
    weight = batch.weight / batch.weight.sum().clamp(min=1.0)
    error = (answer[:, :ndim] - FLOW_SCALE * batch.flow).square().mean(dim=1)
    flow = 0.5 * (error * weight).sum()
    inside = functional.binary_cross_entropy_with_logits(
        answer[:, ndim], batch.inside, reduction="none"
    )
    inside = (inside * weight).sum()
    return Loss(flow + inside, flow.detach(), inside.detach())
