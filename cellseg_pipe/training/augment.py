"""Draws training crops: every one a function of the seed, the step and its place in the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg_pipe.training.prepare import Prepared
from cellseg_pipe.training.settings import Augmentation

__all__ = ["Crop", "Sampler", "View", "centre_of", "chances", "turn_of"]


@dataclass(frozen=True)
class Crop:
    """What a network is shown, and the labels it should find.

    Parameters
    ----------
    pixels : float32 array [n_inputs, edge, edge]
        Normalised, with all that was done to them.
    labels : int32 array [edge + 2 margin, edge + 2 margin]
        Objects from 1, -1 for what is ignored, with a margin.
    classes : int16 array [n_objects + 1]
        Class of each object from 1; 0 where it is not known.
    source : str
        Which image it is of.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.int32]
    classes: NDArray[np.int16]
    source: str


class Sampler:
    """Draws crops of a list of images.

    Parameters
    ----------
    images : sequence of Prepared
        What is drawn from: a set as often as the root of its number of objects tells, an image of
        it as often as any other.
    diameter_px : float
        Diameter that cells are brought to.
    augmentation : Augmentation
        What is done.
    seed : int
        Another seed, other crops.
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
        draw: Mapping[str, float] | None = None,
    ) -> None:
        self.images = list(images)
        self.diameter_px = diameter_px
        self.augmentation = augmentation
        self.seed = seed
        self._chances = chances(self.images, draw)
        sizes = [image.diameter_px for image in self.images if math.isfinite(image.diameter_px)]
        # An image without objects is shown at the scale of any other.
        self._usual_px = float(np.median(sizes)) if sizes else diameter_px

    def crop(self, step: int, place: int) -> Crop:
        """Return one crop; the same for the same seed, step and place.

        Parameters
        ----------
        step, place : int
            Which batch, and which of its crops.

        Returns
        -------
        Crop
            The crop.
        """
        rng = np.random.default_rng([self.seed, step, place])
        image = self.images[int(rng.choice(len(self.images), p=self._chances))]
        how = self.augmentation
        if rng.random() < how.p_empty:
            return _empty(rng, len(image.pixels), how)
        view = _viewed(image, self._scale(image, rng), rng, how=how)
        pixels = _regrey(view.pixels(image.pixels), rng, how)
        pixels *= view.inside()  # beyond the image there is nothing, as when segmenting
        return Crop(pixels, view.labels(image.labels), image.classes, image.pair.image)

    def _scale(self, image: Prepared, rng: np.random.Generator) -> float:
        known = image.diameter_px if math.isfinite(image.diameter_px) else self._usual_px
        octaves = self.augmentation.scale_octaves
        return float(self.diameter_px / known * 2 ** rng.uniform(-octaves, octaves))


def chances(
    images: Sequence[Prepared], draw: Mapping[str, float] | None = None
) -> NDArray[np.float64]:
    """Return how often each image is drawn: sets by the root of their number of objects.

    Parameters
    ----------
    images : sequence of Prepared
        All images.
    draw : mapping of str to float, optional
        How many times as often as that a set is drawn.

    Returns
    -------
    float64 array [n]
        Adds up to one.
    """
    names = [image.pair.set for image in images]
    objects: dict[str, int] = {}
    for image in images:
        objects[image.pair.set] = objects.get(image.pair.set, 0) + image.n_objects
    times = dict.fromkeys(names, 1.0) | dict(draw or {})
    weights = np.array([times[n] * math.sqrt(max(objects[n], 1)) / names.count(n) for n in names])
    return weights / weights.sum()


@dataclass(frozen=True)
class View:
    """How a crop lies in its image.

    Parameters
    ----------
    turn : float64 array [2, 2]
        From steps of the crop to those of the image.
    centre : tuple of float
        Where the middle of the crop lies in the image.
    edge_px, margin_px : int
        Of the crop, and how much more than it is read on each side.
    shape : tuple of int
        Of the image.
    """

    turn: NDArray[np.float64]
    centre: tuple[float, float]
    edge_px: int
    margin_px: int
    shape: tuple[int, ...]

    def pixels(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Return the crop of an image [C, y, x], 0 beyond it."""
        return np.stack([self._warped(plane, self.edge_px, order=1) for plane in self._part(array)])

    def labels(self, array: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the crop of labels [y, x] with its margin, 0 beyond the image."""
        (plane,) = self._part(array[None])
        return self._warped(plane, self.edge_px + 2 * self.margin_px, order=0)

    def inside(self) -> NDArray[np.float32]:
        """Return 1 where the crop shows the image."""
        (plane,) = self._part(np.broadcast_to(np.float32(1), (1, *self.shape)))
        return self._warped(plane, self.edge_px, order=0)

    @property
    def box(self) -> tuple[slice, ...]:
        """What part of the image is read."""
        wide = self.edge_px + 2 * self.margin_px
        return _needed(self.turn, self.centre, wide, shape=self.shape)

    def _part(self, array: NDArray[Any]) -> NDArray[Any]:
        part = np.asarray(array[(slice(None), *self.box)])
        return part.astype(np.float32) if part.dtype.kind == "f" else part

    def _warped(self, plane: NDArray[Any], edge: int, *, order: int) -> NDArray[Any]:
        centre = np.array(self.centre) - [part.start for part in self.box]
        offset = centre - self.turn @ np.full(2, (edge - 1) / 2)
        return ndimage.affine_transform(plane, self.turn, offset, (edge, edge), order=order)


def _viewed(image: Prepared, factor: float, rng: np.random.Generator, *, how: Augmentation) -> View:
    """Return a view, turned and mirrored by chance, in which cells are larger by a factor."""
    turn = turn_of(rng, how) / factor
    shape = image.labels.shape
    y, x = (centre_of(n, how.crop_px / factor, rng) for n in shape)
    return View(turn, (y, x), how.crop_px, how.margin_px, shape)


def turn_of(rng: np.random.Generator, how: Augmentation) -> NDArray[np.float64]:
    """Return a rotation, mirrored half the time.

    Parameters
    ----------
    rng : numpy Generator
        Its chances.
    how : Augmentation
        Whether there is any.

    Returns
    -------
    float64 array [2, 2]
        From steps of the crop to those of the image, at the image's scale.
    """
    angle = rng.uniform(0, 2 * math.pi) if how.rotate else 0.0
    c, s = math.cos(angle), math.sin(angle)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    return np.array([[c, -s], [s, c]]) @ np.diag([1.0, mirror])


def centre_of(n: int, edge: float, rng: np.random.Generator) -> float:
    """Return where a crop is centred on an axis: over its border now and then.

    Parameters
    ----------
    n : int
        Size of the image along the axis.
    edge : float
        Of the crop, in px of the image.
    rng : numpy Generator
        Its chances.

    Returns
    -------
    float
        In px of the image.
    """
    spare = max(n - edge, 0.15 * edge)
    return float(n / 2 + rng.uniform(-0.5, 0.5) * (spare + 0.1 * edge))


def _needed(
    turn: NDArray[np.float64], centre: Sequence[float], wide: int, *, shape: Sequence[int]
) -> tuple[slice, ...]:
    """Return what part of an image a crop reads, with a pixel to spare."""
    reach = np.abs(turn).sum(axis=1) * wide / 2 + 2
    box = []
    for c, r, n in zip(centre, reach, shape, strict=True):
        start = min(max(0, math.floor(c - r)), n - 1)
        box.append(slice(start, max(start + 1, min(n, math.ceil(c + r)))))
    return tuple(box)


def _regrey(
    pixels: NDArray[np.float32], rng: np.random.Generator, how: Augmentation
) -> NDArray[np.float32]:
    """Return the crop as another microscope might show it."""
    if len(pixels) > 1 and rng.random() < how.p_drop:
        pixels[1:] = 0
    if rng.random() < how.p_blur:
        sigma = rng.uniform(*how.blur_px)
        pixels = ndimage.gaussian_filter(pixels, (0, sigma, sigma))
    gamma = math.exp(rng.uniform(math.log(how.gamma[0]), math.log(how.gamma[1])))
    pixels = np.sign(pixels) * np.abs(pixels) ** np.float32(gamma)
    used = pixels.any(axis=(1, 2), keepdims=True)
    if rng.random() < how.p_poisson:
        photons = math.exp(rng.uniform(math.log(how.photons[0]), math.log(how.photons[1])))
        pixels = rng.poisson(np.clip(pixels, 0, 4) * photons).astype(np.float32) / photons
    if rng.random() < how.p_noise:
        sigma = rng.uniform(*how.noise)
        pixels = pixels + sigma * rng.standard_normal(pixels.shape, np.float32)
    if rng.random() < how.p_invert:
        pixels = 1 - pixels
    gain, offset = rng.uniform(*how.gain), rng.uniform(*how.offset)
    # An input that is not used is exactly zero when segmenting, too.
    return np.where(used, pixels * gain + offset, 0).astype(np.float32)


def _empty(rng: np.random.Generator, n_inputs: int, how: Augmentation) -> Crop:
    """Return noise, brought to 0 and 1 as an image of nothing would be."""
    edge = how.crop_px
    # As the camera gives it, and enlarged as wherever small cells are tried.
    grain = 2 ** rng.uniform(0, 2.6) if rng.random() < 0.5 else 1.0
    rows, columns = _shown(rng, edge), _shown(rng, edge)
    pixels = np.zeros((n_inputs, edge, edge), np.float32)
    for i in range(n_inputs if rng.random() < 0.5 else 1):
        noise = _enlarged(_grains(rng, math.ceil(edge / grain) + 1), grain, edge)
        if rng.random() < 0.5:
            noise = ndimage.gaussian_filter(noise, rng.uniform(0, 1.5))
        if rng.random() < 0.5:  # uneven light
            slope = ndimage.gaussian_filter(rng.standard_normal((edge, edge), np.float32), 40)
            noise = noise / noise.std() + rng.uniform(0, 2) * slope / max(slope.std(), 1e-6)
        noise = noise[rows, columns]
        low, high = np.percentile(noise, (1, 99))
        pixels[i, rows, columns] = (noise - low) / max(high - low, 1e-6)
    wide = edge + 2 * how.margin_px
    return Crop(pixels, np.zeros((wide, wide), np.int32), np.zeros(1, np.int16), "noise")


def _shown(rng: np.random.Generator, edge: int) -> slice:
    """Return what part of a crop the image covers along an axis: not all of it if it is small.

    What lies beyond changes what a network makes of the rest, be it a strip of a few pixels. One
    that saw only crops full of noise found cells in small images of nothing.
    """
    beyond = round(edge * math.exp(rng.uniform(math.log(0.01), math.log(0.9))))
    if rng.random() < 0.4:
        beyond = 0
    return slice(0, edge - beyond) if rng.random() < 0.7 else slice(beyond, edge)


def _grains(rng: np.random.Generator, edge: int) -> NDArray[np.float32]:
    """Return independent pixels: of a camera's electronics, of photons, or of any value alike."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.standard_normal((edge, edge), np.float32)
    if kind == 1:
        return rng.poisson(math.exp(rng.uniform(0, 5)), (edge, edge)).astype(np.float32)
    return rng.random((edge, edge), np.float32)


def _enlarged(plane: NDArray[np.float32], factor: float, edge: int) -> NDArray[np.float32]:
    """Return the corner of an image, enlarged as the image is when cells are small."""
    return ndimage.affine_transform(
        plane, np.full(2, 1 / factor), output_shape=(edge, edge), order=1
    )
