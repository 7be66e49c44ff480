"""What is learned: from crops to a batch, and from an answer to a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from cellseg_pipe.training.losses import Loss, loss_of
from cellseg_pipe.training.restoring import Judge, Weights, restoring_loss
from cellseg_pipe.training.targets import Batch, Target, batch_of
from cellseg_pipe.training.worse import worse_batch_of

__all__ = ["Restoring", "Segmenting", "Task"]


class Task(Protocol):
    """What the loop learns."""

    def batch(self, crops: Sequence[Any]) -> Batch:
        """Stack crops with what the network should answer.

        Parameters
        ----------
        crops : sequence of Crop
            Of one size.
        """

    def loss(self, answer: Tensor, batch: Any) -> Loss:
        """Compare an answer with what it should be.

        Parameters
        ----------
        answer : tensor [B, n_outputs, *edge]
            Of the network.
        batch : Batch
            On the same device.
        """


@dataclass(frozen=True)
class Segmenting:
    """To find cells.

    Parameters
    ----------
    target : Target
        What the outputs mean.
    """

    target: Target = field(default_factory=Target)

    def batch(self, crops: Sequence[Any]) -> Batch:
        """Return crops with flow and foreground, or classes."""
        return batch_of(crops, self.target)

    def loss(self, answer: Tensor, batch: Batch) -> Loss:
        """Return the loss of flow and foreground, or classes."""
        return loss_of(answer, batch, self.target)


@dataclass(frozen=True)
class Restoring:
    """To restore images.

    Parameters
    ----------
    judge : Judge
        The segmenter that restored images are for.
    weights : Weights
        Of the parts of the loss.
    """

    judge: Judge
    weights: Weights = field(default_factory=Weights)

    def batch(self, crops: Sequence[Any]) -> Batch:
        """Return crops with the clean ones."""
        return worse_batch_of(crops)

    def loss(self, answer: Tensor, batch: Any) -> Loss:
        """Return how far restored crops are from the clean ones."""
        judge = self.judge.to(answer.device)
        return restoring_loss(answer, batch, judge=judge, weights=self.weights)
