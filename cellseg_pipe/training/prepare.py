"""Brings pairs to what a network is trained on, once, in files that are mapped into memory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.io.images import read_array
from cellseg_pipe.io.reading import Image, read_image
from cellseg_pipe.kernels import boxes_and_areas, diameter_px
from cellseg_pipe.preprocess import (
    apply_ranges,
    gather_channels,
    input_ranges,
    resolve_channels,
    sample_boxes,
)
from cellseg_pipe.training.manifest import Pair

__all__ = ["Prepared", "Reading", "prepare"]

log = logging.getLogger(__name__)

VERSION = 3  # of what is stored; a higher one is made anew
SLICES_PX = 4  # every so many slices of a volume are kept along each axis: neighbours are alike
SLIVER = 0.25  # objects of a slice below this share of the volume's median diameter are left out


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How pairs are read.

    Parameters
    ----------
    n_inputs : int
        Of the network.
    percentiles : tuple of float
        Of the grey values, those that become 0 and 1.
    min_objects : int
        Images with fewer are left out, and that is said; 0 keeps those without any.
    ignore_label : int, optional
        Label of what nobody annotated.
    """

    n_inputs: int = 2
    percentiles: tuple[float, float] = (1.0, 99.0)
    min_objects: int = 0
    ignore_label: int | None = None


@dataclass(frozen=True)
class Prepared:
    """An image as the network will see it before it is scaled, with its labels.

    Parameters
    ----------
    pair : Pair
        Where it comes from.
    pixels : float16 array [n_inputs, y, x]
        Normalised.
    labels : int32 array [y, x]
        Objects from 1, 0 for background, -1 for what is ignored.
    diameter_px : float
        Median over the objects; nan without any.
    n_objects : int
        How many there are.
    """

    pair: Pair
    pixels: NDArray[np.float16]
    labels: NDArray[np.int32]
    diameter_px: float
    n_objects: int


def prepare(
    pairs: Sequence[Pair], *, root: Path | str, cache: Path | str, reading: Reading
) -> list[Prepared]:
    """Read, check and normalise all pairs, or take them from the cache.

    Parameters
    ----------
    pairs : sequence of Pair
        What is read.
    root : path
        Folder that the files of the pairs are in.
    cache : path
        Folder of what was prepared before; the name of a file is a checksum of its source.
    reading : Reading
        How pairs are read.

    Returns
    -------
    list of Prepared
        A volume gives one for every few slices along each axis.
    """
    Path(cache).mkdir(parents=True, exist_ok=True)
    found: list[Prepared] = []
    dropped: list[str] = []
    for pair in pairs:
        parts = _of_pair(pair, Path(root), Path(cache), reading)
        kept = [part for part in parts if part.n_objects >= reading.min_objects]
        if not kept:
            dropped.append(f"{pair.image} ({max(p.n_objects for p in parts)} objects)")
        found += kept
    for line in dropped:
        log.warning("left out: %s, fewer than min_objects=%d", line, reading.min_objects)
    if not found:
        raise ValueError(
            f"training needs images with {reading.min_objects} objects or more, and none of"
            f" {len(pairs)} has them. Check the labels, or lower min_objects."
        )
    return found


def _of_pair(pair: Pair, root: Path, cache: Path, reading: Reading) -> list[Prepared]:
    """Return the images of one pair from the cache, made first if need be."""
    name = cache / _key(pair, root, reading)
    facts_file = name.with_suffix(".json")
    if not facts_file.exists():
        _store(name, _read(pair, root, reading))
    facts = json.loads(facts_file.read_text())
    return [
        Prepared(
            pair,
            np.load(f"{name}.{n}.pixels.npy", mmap_mode="r"),
            np.load(f"{name}.{n}.labels.npy", mmap_mode="r"),
            float(fact["diameter_px"]),
            int(fact["n_objects"]),
        )
        for n, fact in enumerate(facts)
    ]


def _store(name: Path, parts: list[tuple[NDArray[Any], NDArray[Any], dict[str, Any]]]) -> None:
    for n, (pixels, labels, _) in enumerate(parts):
        for array, what in ((pixels, "pixels"), (labels, "labels")):
            with binary_whole(f"{name}.{n}.{what}.npy") as file:
                np.save(file, array)
    with binary_whole(name.with_suffix(".json")) as file:
        file.write(json.dumps([fact for _, _, fact in parts]).encode())


def _key(pair: Pair, root: Path, reading: Reading) -> str:
    """Return a checksum of all that the result depends on."""
    digest = hashlib.sha256(json.dumps([VERSION, asdict(pair), asdict(reading)]).encode())
    for file in (root / pair.image, root / pair.labels):
        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist. Is {root} the folder of the data?")
        for part in sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]:
            digest.update(part.read_bytes())
    return digest.hexdigest()[:20]


def _read(
    pair: Pair, root: Path, reading: Reading
) -> list[tuple[NDArray[Any], NDArray[Any], dict[str, Any]]]:
    image = read_image(root / pair.image)
    labels = np.squeeze(read_array(root / pair.labels))
    spatial = image.pixels.shape[1:]
    if labels.shape != spatial:
        raise ValueError(
            f"{pair.labels} needs the shape of {pair.image}, {spatial}, got {labels.shape}."
        )
    pixels = normalised(image, pair, reading)
    labels = checked_labels(labels, pair, reading)
    if len(spatial) == 2:
        return [(pixels, labels, _facts(labels))]
    return list(_slices(pixels, labels, _spacing(pair, image)))


def normalised(image: Image, pair: Pair, reading: Reading) -> NDArray[np.float16]:
    """Return the network's inputs, by the code that segmenting uses.

    Parameters
    ----------
    image : Image
        As it was read.
    pair : Pair
        Says which channels are meant.
    reading : Reading
        Inputs and percentiles.

    Returns
    -------
    float16 array [n_inputs, *spatial]
        0 and 1 at the percentiles.
    """
    chosen = [part.strip() for part in pair.channels.split(",")] if pair.channels else None
    picks = resolve_channels(
        chosen,
        names=image.channel_names,
        n_channels=len(image.pixels),
        n_inputs=reading.n_inputs,
        rgb=image.rgb,
    )
    inputs = gather_channels(image.pixels, picks)
    boxes: list[Box] = sample_boxes(inputs.shape[1:])
    samples = [inputs[(slice(None), *box.slices)] for box in boxes]
    ranges = input_ranges(samples, picks, percentiles=reading.percentiles)
    return apply_ranges(inputs, ranges, invert=False).astype(np.float16)


def checked_labels(labels: NDArray[Any], pair: Pair, reading: Reading) -> NDArray[np.int32]:
    """Return labels without gaps, what is ignored as -1; refuse a mask of one value.

    Parameters
    ----------
    labels : array [*spatial]
        As they were read.
    pair : Pair
        Where they come from.
    reading : Reading
        Which label is ignored.

    Returns
    -------
    int32 array [*spatial]
        Objects from 1.
    """
    if labels.dtype.kind not in "biu":
        raise ValueError(f"{pair.labels} needs whole numbers as labels, got {labels.dtype}.")
    ignored = labels == reading.ignore_label if reading.ignore_label is not None else None
    objects = labels if ignored is None else np.where(ignored, 0, labels)
    ids, inverse = np.unique(objects, return_inverse=True)
    places = np.cumsum(ids != 0).astype(np.int32) * (ids != 0)
    found = places[inverse].reshape(labels.shape).astype(np.int32)
    _refuse_binary(found, int(ids.max(initial=0)), pair)
    if ignored is not None:
        found[ignored] = -1
    return found


def _refuse_binary(labels: NDArray[np.int32], highest: int, pair: Pair) -> None:
    """Refuse one label that lies in many pieces: a mask of foreground, not of objects."""
    if labels.max(initial=0) != 1:
        return
    pieces = ndimage.label(labels)[1]
    if pieces > 1:
        raise ValueError(
            f"{pair.labels} needs a number for each object, got the one value {highest} in {pieces}"
            " pieces: a mask of foreground. Label its connected parts first, as with"
            " scipy.ndimage.label, and look at cells that touch."
        )


def _facts(labels: NDArray[np.int32]) -> dict[str, Any]:
    objects = boxes_and_areas(np.maximum(labels, 0).astype(np.uint32))
    median = float(np.median(diameter_px(objects.area, labels.ndim))) if objects.label.size else -1
    return {
        "n_objects": int(objects.label.size),
        "diameter_px": median if median > 0 else float("nan"),
    }


def _spacing(pair: Pair, image: Image) -> tuple[float, ...]:
    if pair.spacing_um:
        return tuple(float(part) for part in pair.spacing_um.split("/"))
    if image.spacing_um is None:
        raise ValueError(
            f"{pair.image} is a volume and needs the size of its voxels: the file does not say it."
            " Give spacing_um, as in 2/0.5/0.5."
        )
    return image.spacing_um


def _slices(
    pixels: NDArray[np.float16], labels: NDArray[np.int32], spacing_um: tuple[float, ...]
) -> list[tuple[NDArray[Any], NDArray[Any], dict[str, Any]]]:
    """Return slices along each axis with square pixels; sizes are those of the objects in 3D."""
    ratio = spacing_um[0] / spacing_um[-1]
    facts = _facts(labels)
    volume = facts["diameter_px"] * ratio ** (1 / 3)
    found = []
    for axis in range(3):
        for at in range(SLICES_PX // 2, labels.shape[axis], SLICES_PX):
            plane, truth = pixels.take(at, axis + 1), labels.take(at, axis)
            if axis:
                plane, truth = _stretched(plane, truth, ratio)
            truth = _without_slivers(truth, SLIVER * volume)
            n_objects = int(np.count_nonzero(np.unique(truth) > 0))
            if n_objects:
                found.append((plane, truth, {"n_objects": n_objects, "diameter_px": volume}))
    return found


def _stretched(
    plane: NDArray[np.float16], truth: NDArray[np.int32], ratio: float
) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
    zoom = (ratio, 1.0)
    return (
        np.stack(
            [ndimage.zoom(channel.astype(np.float32), zoom, order=1) for channel in plane]
        ).astype(np.float16),
        ndimage.zoom(truth, zoom, order=0),
    )


def _without_slivers(truth: NDArray[np.int32], least_px: float) -> NDArray[np.int32]:
    """Return labels of which the smallest, cut near their poles, are ignored."""
    ids, inverse, counts = np.unique(truth, return_inverse=True, return_counts=True)
    small = (ids > 0) & (2 * np.sqrt(counts / np.pi) < least_px)
    kept = np.where(small, -1, np.cumsum((ids > 0) & ~small) * ((ids > 0) & ~small))
    kept = np.where(ids == -1, -1, kept)
    return kept[inverse].reshape(truth.shape).astype(np.int32)


def cache_folder() -> Path:
    """Return where prepared images are kept unless a folder is named."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cellseg_pipe" / "training"
