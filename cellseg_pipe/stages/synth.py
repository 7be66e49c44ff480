"""Writes synthetic images with their truth, block by block, as OME-Zarr or TIFF."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.ngff import ImageMeta, Version, create_image, create_labels
from cellseg_pipe.synth import PRESETS, Spec, render
from cellseg_pipe.tiles import Grid

log = logging.getLogger(__name__)

__all__ = ["Output", "run", "spec_of"]

CHANNELS = {"nuclei": ("nuclei",), "cells": ("nuclei", "cytoplasm")}
CHUNK = {2: (512, 512), 3: (64, 64, 64)}
BLOCK = {2: (2048, 2048), 3: (128, 256, 256)}  # what one step renders; a shard in OME-Zarr 0.5
TIFF_LIMIT_VOXELS = 1 << 30  # a TIFF is rendered in memory


@dataclass(frozen=True)
class Output:
    """Where and how a synthetic image is written.

    Parameters
    ----------
    path : path
        New `NAME.zarr` folder, or `NAME.tif` with `NAME_masks.tif` beside it.
    pixel_um : float
        Size of a pixel in the plane; a step in z is this times the anisotropy.
    version : {"0.4", "0.5"}
        Of the OME-Zarr format.
    truth : bool
        Whether an OME-Zarr gets its truth as label images.
    """

    path: Path
    pixel_um: float = 0.5
    version: Version = "0.4"
    truth: bool = True

    @property
    def form(self) -> Literal["zarr", "tiff"]:
        """Which kind of file the name asks for."""
        if self.path.suffix == ".zarr":
            return "zarr"
        if self.path.suffix.lower() in (".tif", ".tiff"):
            return "tiff"
        raise ValueError(f"synth needs a path that ends in .zarr or .tif, got {self.path}.")


def spec_of(preset: str, changes: Mapping[str, Any]) -> Spec:
    """Return a preset with some of its fields changed.

    Parameters
    ----------
    preset : str
        Name of a preset.
    changes : mapping
        Fields of `Spec` and their new values.

    Returns
    -------
    Spec
        The image, checked.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset needs to be one of {', '.join(PRESETS)}, got {preset!r}.")
    fields = [field.name for field in dataclasses.fields(Spec)]
    if unknown := [name for name in changes if name not in fields]:
        nearest = difflib.get_close_matches(unknown[0], fields, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else f" Known: {', '.join(fields)}."
        raise ValueError(f"a synthetic image has no setting {unknown[0]!r}.{hint}")
    return dataclasses.replace(PRESETS[preset], **changes)


def run(spec: Spec, output: Output) -> list[Path]:
    """Write an image and its truth; nothing is left behind if it cannot be finished.

    Parameters
    ----------
    spec : Spec
        The image.
    output : Output
        Where it goes.

    Returns
    -------
    list of path
        What was written.
    """
    targets = _targets(spec, output)
    for path in targets:
        if path.exists():
            raise FileExistsError(f"{path} exists. Name another one, or remove it first.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"the folder {path.parent} does not exist. Make it first.")
    write = _write_zarr if output.form == "zarr" else _write_tiff
    with _scratch(output.path.parent) as scratch:
        for made, target in zip(write(spec, output, scratch), targets, strict=True):
            os.rename(made, target)
    return targets


def _targets(spec: Spec, output: Output) -> list[Path]:
    path = output.path
    if output.form == "zarr":
        return [path]
    names = ["", "_masks"] + (["_nuclei_masks"] if spec.n_channels == 2 else [])
    return [path.with_name(path.stem + name + path.suffix) for name in names]


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Make a folder on the same file system that vanishes with whatever is still in it."""
    path = Path(tempfile.mkdtemp(prefix=".synth-", dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _write_tiff(spec: Spec, output: Output, scratch: Path) -> list[Path]:
    import tifffile

    if math.prod(spec.shape) > TIFF_LIMIT_VOXELS:
        raise ValueError(
            f"a TIFF is rendered in memory and needs at most {TIFF_LIMIT_VOXELS} voxels, got"
            f" {spec.shape}. Write a .zarr, which is rendered block by block."
        )
    rendered = render(spec, Box.of(spec.shape))
    planes = [rendered.image if spec.n_channels == 2 else rendered.image[0], rendered.labels]
    if rendered.nuclei is not None:
        planes.append(rendered.nuclei)
    made = []
    for index, plane in enumerate(planes):
        made.append(scratch / f"{index}.tif")
        tifffile.imwrite(made[-1], plane, compression="zlib")
    return made


def _write_zarr(spec: Spec, output: Output, scratch: Path) -> list[Path]:
    store = scratch / output.path.name
    axes = "zyx"[-spec.ndim :]
    spacing = tuple(step * output.pixel_um for step in spec.step_px)
    image = create_image(
        store,
        ImageMeta("c" + axes, spacing, CHANNELS[spec.kind]),
        array=_array(spec, output, channels=(spec.n_channels,)) | {"dtype": "uint16"},
        value_range=(100.0, float(100 + 1.5 * spec.level)),
        version=output.version,
    )
    names = ("truth", "truth_nuclei")[: spec.n_channels] if output.truth else ()
    meta = ImageMeta(axes, spacing)
    truths = [
        create_labels(store, name, meta, array=_array(spec, output), version=output.version)
        for name in names
    ]
    stored = image.shards or image.chunks
    linked = spec.period_px is not None and _divides(stored[1:], spec.period_px)
    for box in _blocks(spec, whole=bool(truths) or not linked):
        rendered = render(spec, box)
        part = box.clip(_first_copy(spec)) if linked else box
        if part.size:
            inside = part.relative_to(box.start).slices
            image[(slice(None), *part.slices)] = rendered.image[(slice(None), *inside)]
        for truth, labels in zip(truths, (rendered.labels, rendered.nuclei), strict=False):
            truth[box.slices] = labels  # type: ignore[assignment]
    if linked:
        _link_copies(store / "0", stored, image=spec)
    return [store]


def _divides(part: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return all(w % p == 0 for p, w in zip(part, whole, strict=True))


def _first_copy(spec: Spec) -> Box:
    return Box.of(spec.period_px or spec.shape).clip(Box.of(spec.shape))


def _link_copies(level: Path, stored: tuple[int, ...], *, image: Spec) -> None:
    """Give each file of a further period the content of the first, as a second name of it.

    So a store of any size takes the disk of one period. What a file holds beyond the image's
    border is never read.
    """
    period = tuple(w // s for w, s in zip(image.period_px or image.shape, stored[1:], strict=True))
    files = Grid(image.shape, stored[1:])
    prefix = "c/" if (level / "c").is_dir() else ""
    for channel in range(image.n_channels):
        for index in Box.of(files.counts).points():
            home = tuple(i % p for i, p in zip(index, period, strict=True))
            if home != index:
                source, target = (
                    level / (prefix + "/".join(map(str, (channel, *where))))
                    for where in (home, index)
                )
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, target)


def _array(spec: Spec, output: Output, *, channels: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return shape, chunks and shards; a chunk never exceeds a small image."""
    ones = (1,) * len(channels)
    chunk = CHUNK[spec.ndim]
    if output.version == "0.4":
        chunk = tuple(min(c, n) for c, n in zip(chunk, spec.shape, strict=True))
    about: dict[str, Any] = {"shape": (*channels, *spec.shape), "chunks": (*ones, *chunk)}
    if output.version == "0.5":
        about["shards"] = (*ones, *BLOCK[spec.ndim])
    return about


def _blocks(spec: Spec, *, whole: bool) -> Iterator[Box]:
    """Yield the boxes to render: all, or those of the first period."""
    region = Box.of(spec.shape) if whole else _first_copy(spec)
    grid = Grid(region.shape, BLOCK[spec.ndim])
    for number in range(len(grid)):
        log.info("block %d of %d", number + 1, len(grid))
        yield grid.box(number)
