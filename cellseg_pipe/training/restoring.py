"""How far a restored image is from what it should be, through the eyes of a frozen segmenter.

A restored image comes in the grey scale of the noisy one. Before anything is compared it is brought
to that of the clean image, by the affine map that the crop was normalised with, so that the
segmenter sees grey values as it has learned them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cellseg_pipe.nets.cpnet import CPnet
from cellseg_pipe.training.joint import total
from cellseg_pipe.training.losses import Loss, flow_loss
from cellseg_pipe.training.worse import WorseBatch

__all__ = [
    "Judge",
    "Weights",
    "correlations",
    "in_clean_greys",
    "perceptual_loss",
    "restoring_loss",
    "statistics_loss",
]

TINY = 1e-6
RECONSTRUCTION = 80.0  # brings squared errors of grey values to the size of the other parts
SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)  # of the pixels that are darker
LEAST_SPAN = 0.25  # of a crop's grey values, of which errors of its statistics are shares


@dataclass(frozen=True)
class Weights:
    """How much each part of the loss counts.

    Parameters
    ----------
    perceptual, segmentation, reconstruction, statistics : float
        Likeness of the segmenter's maps; its answer; squared error of grey values, and of their
        mean and percentiles.
    """

    perceptual: float = 1.0
    segmentation: float = 1.5
    reconstruction: float = 1.0
    statistics: float = 1.0


class Judge:
    """A segmenter that is frozen: its maps on the way down, and its answer.

    Parameters
    ----------
    net : CPnet
        Is put into evaluation mode, and learns nothing.
    """

    def __init__(self, net: CPnet) -> None:
        self.net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for parameter in net.parameters():
            parameter.requires_grad = False

    def to(self, device: torch.device) -> Judge:
        """Bring it to a device.

        Parameters
        ----------
        device : torch.device
            Where.

        Returns
        -------
        Judge
            Itself.
        """
        self.net.to(device)
        return self

    def look(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return maps and answer.

        Parameters
        ----------
        x : float32 tensor [B, n_inputs, *S]
            Normalised images.

        Returns
        -------
        maps : list of tensor
            Of each level on the way down.
        answer : tensor [B, n_outputs, *S]
            Five times the flow, the logit.
        """
        found: list[list[Tensor]] = []
        hook = self.net.downsample.register_forward_hook(lambda _net, _x, maps: found.append(maps))
        try:
            answer, _ = self.net(x)
        finally:
            hook.remove()
        return found[0], answer


def correlations(x: Tensor) -> Tensor:
    """Return how alike the channels of a map are, in float32.

    Parameters
    ----------
    x : tensor [B, C, *S]
        A map.

    Returns
    -------
    float32 tensor [B, C, C]
        Products of the channels, each standardised over space, averaged over it.
    """
    flat = x.float().flatten(2)
    flat = flat - flat.mean(2, keepdim=True)
    flat = flat / (flat.std(2, keepdim=True) + TINY)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def perceptual_loss(maps: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Compare the maps of a restored image with those of the clean one.

    Parameters
    ----------
    maps, wanted : sequence of tensor [B, C, *S]
        Of each level.

    Returns
    -------
    float32 tensor [B]
        Squared differences of correlations over their variance in the clean image, summed over
        levels.
    """
    loss = torch.zeros(len(maps[0]), device=maps[0].device)
    for ours, theirs in zip(maps, wanted, strict=True):
        clean = correlations(theirs).detach()
        spread = clean.std((1, 2)) + TINY
        loss = loss + (correlations(ours) - clean).square().mean((1, 2)) / spread.square()
    return loss


def statistics_loss(grey: Tensor, clean: Tensor) -> Tensor:
    """Compare how bright a restored image is, wherever that is.

    The likeliest value of each pixel of a noisy image makes an image whose bright cells are too
    dark: what is unsure lies near the mean. Measured on the image the light is then wrong.

    Parameters
    ----------
    grey, clean : float32 tensor [B, 1, *edge]
        Grey values.

    Returns
    -------
    float32 tensor [B]
        Squared differences of mean and percentiles, in shares of the range from the 1st to the
        99th percentile of the clean image; the mean of all.
    """
    shares = torch.tensor(SHARES, device=grey.device)

    def said(x: Tensor) -> Tensor:
        flat = x.float().flatten(1)
        return torch.cat((flat.mean(1)[None], torch.quantile(flat, shares, dim=1)))

    ours, wanted = said(grey), said(clean)
    span = (wanted[-1] - wanted[1]).clamp(min=LEAST_SPAN)
    return ((ours - wanted) / span).square().mean(0)


def in_clean_greys(answer: Tensor, batch: WorseBatch) -> Tensor:
    """Bring a restored crop to the grey scale of the clean one.

    Parameters
    ----------
    answer : tensor [B, 1, *edge]
        Of the network.
    batch : WorseBatch
        What it was shown.

    Returns
    -------
    float32 tensor [B, 1, *edge]
        Zero beyond the image.
    """
    return (answer.float() * (batch.high - batch.low) + batch.low) * batch.shown


def restoring_loss(answer: Tensor, batch: WorseBatch, *, judge: Judge, weights: Weights) -> Loss:
    """Compare a restored crop with the clean one.

    Parameters
    ----------
    answer : tensor [B, 1, *edge]
        Of the network.
    batch : WorseBatch
        On the same device.
    judge : Judge
        The segmenter, there too.
    weights : Weights
        Of the parts.

    Returns
    -------
    Loss
        With `flow` and `inside` of the segmenter's answer for the restored crop.
    """
    grey = in_clean_greys(answer, batch)  # [B, 1, *edge]
    seen = batch.clean * (1 - batch.place) + grey * batch.place  # [B, n_inputs, *edge]
    clean_seen = batch.clean.contiguous(memory_format=torch.channels_last)
    seen = seen.contiguous(memory_format=torch.channels_last)
    half = torch.autocast(answer.device.type, torch.bfloat16, answer.dtype == torch.bfloat16)
    with half:  # as the network itself runs
        maps, said = judge.look(seen)
        with torch.no_grad():
            wanted, _ = judge.look(clean_seen)
    n_crops = total(grey.new_tensor(float(len(grey))))
    perceptual = perceptual_loss(maps, wanted).sum() / n_crops
    segmented = flow_loss(said, batch)
    clean = (batch.clean * batch.place).sum(1, keepdim=True)
    n_px = total(batch.shown.sum()).clamp(min=1.0)
    reconstruction = RECONSTRUCTION * ((grey - clean) * batch.shown).square().sum() / n_px
    statistics = RECONSTRUCTION * statistics_loss(grey, clean * batch.shown).sum() / n_crops
    return Loss(
        weights.perceptual * perceptual
        + weights.segmentation * segmented.total
        + weights.reconstruction * reconstruction
        + weights.statistics * statistics,
        segmented.flow,
        segmented.inside,
        segmented.classes,
        perceptual.detach(),
        reconstruction.detach(),
        statistics.detach(),
    )
