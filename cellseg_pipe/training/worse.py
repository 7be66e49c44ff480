"""Draws crops that were made worse, with what they should become: a function of seed and place.

The target is the clean image in the grey scale of the noisy one, by the one affine map that
normalises the noisy image. So a restored image means what its image meant: its grey values are
those of the same light.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from cellseg_pipe.training.augment import Crop, Sampler, View, centre_of, turn_of
from cellseg_pipe.training.degrade import LAWS, degraded
from cellseg_pipe.training.prepare import Prepared
from cellseg_pipe.training.settings import Augmentation
from cellseg_pipe.training.targets import Batch, batch_of

__all__ = ["WorseBatch", "WorseCrop", "WorseSampler", "worse_batch_of"]

SEEN_OCTAVES = 1.0  # cells are imaged up to this much larger or smaller than the network sees them
CONTEXT = 1.5  # percentiles are of so much more than the crop, as they are of a whole image
PERCENTILES = (1.0, 99.0)
GROUND = (0.0, 0.2)  # light beside the cells, where a normalised image has none
P_ALONE = 0.5  # how often the segmenter sees the restored channel by itself


@dataclass(frozen=True)
class WorseCrop(Crop):
    """A crop that was made worse; its `pixels` are [1, edge, edge], normalised.

    Parameters
    ----------
    clean : float32 array [n_inputs, edge, edge]
        What the segmenter would see of the clean image.
    shown : float32 array [edge, edge]
        1 where the crop shows the image.
    channel : int
        Which of the inputs was made worse.
    low, high : float
        What became 0 and 1 in `pixels`, in the grey scale of `clean`.
    """

    clean: NDArray[np.float32]
    shown: NDArray[np.float32]
    channel: int
    low: float
    high: float


@dataclass(frozen=True)
class WorseBatch(Batch):
    """Crops that were made worse; `pixels` are [B, 1, edge, edge].

    Parameters
    ----------
    clean : float32 tensor [B, n_inputs, edge, edge]
        The clean image.
    shown : float32 tensor [B, 1, edge, edge]
        1 where a crop shows its image.
    place : float32 tensor [B, n_inputs, 1, 1]
        1 for the channel that was made worse.
    low, high : float32 tensor [B, 1, 1, 1]
        What became 0 and 1 in `pixels`, in the grey scale of `clean`.
    """

    clean: torch.Tensor
    shown: torch.Tensor
    place: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


class WorseSampler(Sampler):
    """Draws crops that were made worse.

    Parameters
    ----------
    images : sequence of Prepared
        What is drawn from, as by `Sampler`.
    diameter_px : float
        Diameter that cells are brought to.
    augmentation : Augmentation
        Size, scale, rotation, gamma, gain and offset of crops; their noise is that of the kind.
    seed : int
        Another seed, other crops.
    kind : str
        What is to be restored, a name in `LAWS`.
    draw : mapping of str to float, optional
        How many times as often as else a set is drawn.
    """

    def __init__(
        self,
        images: Sequence[Prepared],
        *,
        diameter_px: float,
        augmentation: Augmentation,
        seed: int,
        kind: str,
        draw: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(
            images, diameter_px=diameter_px, augmentation=augmentation, seed=seed, draw=draw
        )
        self.laws = LAWS[kind]

    def crop(self, step: int, place: int) -> WorseCrop:
        """Return one crop; the same for the same seed, step and place.

        Parameters
        ----------
        step, place : int
            Which batch, and which of its crops.

        Returns
        -------
        WorseCrop
            The crop.
        """
        rng = np.random.default_rng([self.seed, step, place])
        image = self.images[int(rng.choice(len(self.images), p=self._chances))]
        how, factor = self.augmentation, self._scale(image, rng)
        turn, shape = turn_of(rng, how), image.labels.shape
        y, x = (centre_of(n, how.crop_px / factor, rng) for n in shape)
        view = View(turn / factor, (y, x), how.crop_px, how.margin_px, shape)
        channel = _channel(image, rng)
        zoom = 2 ** rng.uniform(-SEEN_OCTAVES, SEEN_OCTAVES)
        edge = math.ceil(CONTEXT * how.crop_px * zoom)
        wide = View(turn / (factor * zoom), (y, x), edge, 0, shape)
        gamma = math.exp(rng.uniform(math.log(how.gamma[0]), math.log(how.gamma[1])))
        light = _light(wide.pixels(image.pixels[channel : channel + 1])[0], gamma)
        law = self.laws[int(rng.integers(len(self.laws)))]
        ground = np.float32(rng.uniform(*GROUND))
        noisy = degraded(light + ground, law, rng, diameter_px=self.diameter_px * zoom) - ground
        low, high = _range(noisy[wide.inside() > 0], rng, how)
        shown = view.inside()
        clean = _clean(view, image, channel, rng=rng, gamma=gamma)
        pixels = (_zoomed(noisy, zoom, how.crop_px) - low) / (high - low) * shown
        return WorseCrop(
            pixels=pixels[None].astype(np.float32),
            labels=view.labels(image.labels),
            classes=image.classes,
            source=image.pair.image,
            clean=clean * shown,
            shown=shown,
            channel=channel,
            low=low,
            high=high,
        )


def worse_batch_of(crops: Sequence[WorseCrop]) -> WorseBatch:
    """Stack crops with what they should become.

    Parameters
    ----------
    crops : sequence of WorseCrop
        Of one size.

    Returns
    -------
    WorseBatch
        On the CPU.
    """
    n_inputs = len(crops[0].clean)
    place = torch.zeros(len(crops), n_inputs, 1, 1)
    place[torch.arange(len(crops)), [crop.channel for crop in crops]] = 1
    return WorseBatch(
        **vars(batch_of(crops)),
        clean=torch.from_numpy(np.stack([crop.clean for crop in crops])),
        shown=torch.from_numpy(np.stack([crop.shown for crop in crops])[:, None]),
        place=place,
        low=torch.tensor([crop.low for crop in crops]).reshape(-1, 1, 1, 1),
        high=torch.tensor([crop.high for crop in crops]).reshape(-1, 1, 1, 1),
    )


def _channel(image: Prepared, rng: np.random.Generator) -> int:
    """Return one of the inputs that the image has."""
    used = [n for n, plane in enumerate(image.pixels) if plane[::8, ::8].any()] or [0]
    return int(rng.choice(used))


def _light(pixels: NDArray[np.float32], gamma: float) -> NDArray[np.float32]:
    return np.maximum(pixels, 0) ** np.float32(gamma)


def _clean(
    view: View, image: Prepared, channel: int, *, rng: np.random.Generator, gamma: float
) -> NDArray[np.float32]:
    """Return what the segmenter would see of the clean image; at times the channel alone."""
    clean = view.pixels(image.pixels)
    clean[channel] = _light(clean[channel], gamma)
    if channel == 0 and rng.random() < P_ALONE:
        clean[1:] = 0
    return clean


def _range(
    noisy: NDArray[np.float32], rng: np.random.Generator, how: Augmentation
) -> tuple[float, float]:
    """Return what becomes 0 and 1, a little off the percentiles as those of other images are."""
    low, high = np.percentile(noisy, PERCENTILES) if noisy.size else (0.0, 1.0)
    extent = max(float(high - low), 1e-3)
    gain, offset = rng.uniform(*how.gain), rng.uniform(*how.offset)
    low = float(low) - offset * extent
    return low, low + extent / gain


def _zoomed(noisy: NDArray[np.float32], zoom: float, edge: int) -> NDArray[np.float32]:
    """Bring an image to the network's grid, by the interpolation of inference."""
    offset = (np.array(noisy.shape) - 1) / 2 - zoom * (edge - 1) / 2
    return np.asarray(
        ndimage.affine_transform(noisy, [zoom, zoom], offset, (edge, edge), order=1, mode="nearest")
    )
