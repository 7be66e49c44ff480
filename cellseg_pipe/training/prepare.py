"""Brings pairs to what a network is trained on, once, in files that are mapped into memory."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.nets.restore import GREY_MAX
from cellseg_pipe.preprocess import (
    apply_ranges,
    check_finite,
    check_shares,
    gather_channels,
    input_ranges,
    resolve_channels,
    sample_boxes,
    white_of,
)
from cellseg_pipe.training.labels import (
    Objects,
    Reader,
    class_table,
    labels_reader,
    objects_of,
    refuse_binary,
)
from cellseg_pipe.training.manifest import Pair
from cellseg_pipe.training.settings import Reading
from cellseg_pipe.training.volumes import slices_of

__all__ = ["Collection", "Mapped", "Prepared", "cache_folder", "prepare"]

log = logging.getLogger(__name__)

VERSION = 4  # of what is stored; a higher one is made anew
WHOLE_VOXELS = 1 << 26  # images up to this size are read at once
STRIP_VOXELS = 1 << 24  # larger ones are read in strips of this size
FAULTS = (OSError, TypeError, ValueError, OverflowError)  # what a file may be the cause of


class Mapped:
    """An array in a file, open only while it is read: thousands need no thousands of open files.

    Parameters
    ----------
    path : path
        An NPY file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shape: tuple[int, ...] = self._array().shape

    def _array(self) -> NDArray[Any]:
        return np.load(self._path, mmap_mode="r")

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return self.shape[0]

    def __getitem__(self, part: Any) -> NDArray[Any]:
        """Return a part, which is read where it is used."""
        return self._array()[part]

    def __array__(self, dtype: Any = None, **how: Any) -> NDArray[Any]:
        """Return all of it."""
        return np.array(self._array(), dtype, **how)


@dataclass(frozen=True)
class Prepared:
    """An image as the network will see it before it is scaled, with its labels.

    Parameters
    ----------
    pair : Pair
        Where it comes from.
    pixels : float16 array [n_inputs, y, x]
        Normalised; `Mapped` from a file.
    labels : int32 array [y, x]
        Objects from 1, 0 for background, -1 for what is ignored; mapped from a file.
    classes : int16 array [n_objects + 1]
        Class of each object from 1; 0 where it is not known.
    diameter_px : float
        Median over the objects; nan without any.
    n_objects : int
        How many there are.
    key : str
        Checksum of all that it was made of.
    """

    pair: Pair
    pixels: NDArray[np.float16]
    labels: NDArray[np.int32]
    classes: NDArray[np.int16]
    diameter_px: float
    n_objects: int
    key: str


@dataclass(frozen=True)
class Collection:
    """What pairs gave.

    Parameters
    ----------
    images : tuple of Prepared
        What can be used.
    dropped : tuple of str
        What is left out, and why.
    """

    images: tuple[Prepared, ...]
    dropped: tuple[str, ...]


def prepare(
    pairs: Sequence[Pair], *, cache: Path | str, reading: Reading, classes: Sequence[str] = ()
) -> Collection:
    """Read, check and normalise all pairs, or take them from the cache.

    Parameters
    ----------
    pairs : sequence of Pair
        What is read.
    cache : path
        Folder of what was prepared before; the name of a file is a checksum of its source.
    reading : Reading
        How pairs are read.
    classes : sequence of str
        Names of the classes that objects may have.

    Returns
    -------
    Collection
        A volume gives an image for every few slices along each axis.
    """
    Path(cache).mkdir(parents=True, exist_ok=True)
    found: list[Prepared] = []
    dropped: list[str] = []
    wrong: list[str] = []
    for pair in pairs:
        try:
            parts = _of_pair(pair, Path(cache), reading, classes=classes)
        except FAULTS as error:
            said = str(error)
            wrong.append(said if pair.image in said else f"{pair.image}: {said}")
            continue
        kept = [part for part in parts if part.n_objects >= reading.min_objects]
        if not kept:
            most = max((part.n_objects for part in parts), default=0)
            dropped.append(f"{pair.image}: {most} objects, min_objects is {reading.min_objects}")
        found += kept
    if wrong:
        raise ValueError("\n".join([f"{len(wrong)} of {len(pairs)} pairs cannot be used:", *wrong]))
    for line in dropped:
        log.warning("left out: %s", line)
    return Collection(tuple(found), tuple(dropped))


def cache_folder() -> Path:
    """Return where prepared images are kept unless a folder is named."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cellseg_pipe" / "training"


def _of_pair(
    pair: Pair, cache: Path, reading: Reading, *, classes: Sequence[str]
) -> list[Prepared]:
    """Return the images of one pair from the cache, made first if need be."""
    key = _key(pair, reading, classes)
    facts_file = cache / f"{key}.json"
    if not facts_file.exists():
        facts = list(_made(pair, cache / key, reading, classes=classes))
        with binary_whole(facts_file) as file:  # last: what it tells of is complete
            file.write(json.dumps(facts).encode())
    mapped: Any = Mapped  # all that is done with an array here
    return [
        Prepared(
            pair,
            mapped(cache / f"{key}.{n}.pixels.npy"),
            mapped(cache / f"{key}.{n}.labels.npy"),
            np.array(fact["classes"], np.int16),
            math.nan if fact["diameter_px"] is None else float(fact["diameter_px"]),
            len(fact["classes"]) - 1,
            key,
        )
        for n, fact in enumerate(json.loads(facts_file.read_text()))
    ]


def _key(pair: Pair, reading: Reading, classes: Sequence[str]) -> str:
    """Return a checksum of all that the result depends on."""
    how = [VERSION, pair.channels, pair.spacing_um, reading.n_inputs, reading.percentiles]
    how += [reading.ignore_label, list(classes)]
    digest = hashlib.sha256(json.dumps(how).encode())
    for name in filter(None, (pair.image, pair.labels, pair.classes)):
        root = Path(name)
        if not root.exists():
            raise FileNotFoundError(f"{root} does not exist. Check the folders of the data.")
        inside = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
        for part in inside:
            with open(part, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:20]


def _made(
    pair: Pair, name: Path, reading: Reading, *, classes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Write the images of one pair; yield what is known of each."""
    image = open_image(pair.image)
    if image.n_times > 1:
        raise ValueError(f"{pair.image} needs one time point, got {image.n_times}. Split it first.")
    strips = list(_strips(image.shape))
    read = labels_reader(Path(pair.labels), image.shape, pair.image)
    objects = objects_of(read, strips, ignore_label=reading.ignore_label)
    table = np.zeros(objects.ids.size + 1, np.int16)
    if classes and pair.classes:
        table = class_table(Path(pair.classes), objects, classes, labels=read, boxes=strips)
    whole = f"{name}.0" if len(image.shape) == 2 else f"{name}.volume"
    pixels = _written(f"{whole}.pixels.npy", _normalised(image, pair, reading), strips)
    labels = _written(f"{whole}.labels.npy", _numbered(read, objects), strips)
    refuse_binary(labels, objects, pair.labels)
    if labels.ndim == 2:
        yield _fact(table, objects.diameter_px(2))
        return
    spacing_um = _spacing(pair, image)
    ratio = spacing_um[0] / spacing_um[-1]
    diameter = objects.diameter_px(3) * ratio ** (1 / 3)
    for n, part in enumerate(slices_of(pixels, labels, ratio=ratio, diameter_px=diameter)):
        for array, what in ((part.pixels, "pixels"), (part.labels, "labels")):
            with binary_whole(f"{name}.{n}.{what}.npy") as file:
                np.save(file, array)
        yield _fact(np.concatenate([table[:1], table[part.kept]]), diameter)
    for what in ("pixels", "labels"):
        os.unlink(f"{whole}.{what}.npy")


def _fact(table: NDArray[np.int16], diameter_px: float) -> dict[str, Any]:
    known = diameter_px if math.isfinite(diameter_px) else None
    return {"classes": table.tolist(), "diameter_px": known}


def _strips(shape: tuple[int, ...]) -> Iterator[Box]:
    """Yield boxes that cover an image, over all of it but the first axis."""
    rows = max(1, STRIP_VOXELS // math.prod(shape[1:]))
    rest = tuple(shape[1:])
    for start in range(0, shape[0], rows):
        stop = min(start + rows, shape[0])
        yield Box((start, *(0,) * len(rest)), (stop, *rest))


def _written(path: str, read: Reader, strips: Sequence[Box]) -> NDArray[Any]:
    """Write an array strip by strip, whole or not at all; return it mapped."""
    with binary_whole(path) as file:
        first = read(strips[0])
        spatial = strips[-1].stop
        shape = (*first.shape[: first.ndim - len(spatial)], *spatial)
        array: Any = np.lib.format.open_memmap(file.name, "w+", first.dtype, shape)
        for box in strips:
            array[(..., *box.slices)] = first if box is strips[0] else read(box)
        array.flush()
    return np.load(path, mmap_mode="r")


def _normalised(image: OpenImage, pair: Pair, reading: Reading) -> Reader:
    """Return what gives the network's inputs, by the code that segmenting uses."""
    chosen = [part.strip() for part in pair.channels.split(",")] if pair.channels else None
    picks = resolve_channels(
        chosen,
        names=image.channel_names,
        n_channels=image.n_channels,
        n_inputs=reading.n_inputs,
        rgb=image.rgb,
    )
    source: Reader = image.read
    if math.prod(image.shape) <= WHOLE_VOXELS:
        pixels = image.read(Box.of(image.shape))

        def source(box: Box) -> NDArray[Any]:
            return pixels[(slice(None), *box.slices)]

    white = white_of(image.dtype)
    boxes = sample_boxes(image.shape)
    if any(pick.kind == "stain" for pick in picks):
        check_shares(source(boxes[len(boxes) // 2]), white=white)
    samples = [gather_channels(source(box), picks, white=white) for box in boxes]
    ranges = input_ranges(samples, picks, percentiles=reading.percentiles)

    def read(box: Box) -> NDArray[Any]:
        inputs = gather_channels(source(box), picks, white=white)
        check_finite(inputs, origin=box.start)
        grey = apply_ranges(inputs, ranges, invert=False)
        return np.clip(grey, -GREY_MAX, GREY_MAX, out=grey).astype(np.float16)

    return read


def _numbered(read: Reader, objects: Objects) -> Reader:
    return lambda box: objects.numbered(read(box))


def _spacing(pair: Pair, image: OpenImage) -> tuple[float, ...]:
    if pair.spacing_um:
        return tuple(float(part) for part in pair.spacing_um.split("/"))
    if image.spacing_um is None:
        raise ValueError(
            f"{pair.image} is a volume and needs the size of its voxels: the file does not say it."
            " Give spacing_um, as in 2/0.5/0.5."
        )
    return image.spacing_um
