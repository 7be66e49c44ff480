"""Reads one image into memory with what its file says of axes, channels and voxel size."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io._raw import MICROMETRES, Raw
from cellseg_pipe.io.tiff import read_tiff

__all__ = ["Image", "read_image"]

log = logging.getLogger(__name__)

COLOURS = (3, 4)
CHANNELS_MAX = 4  # a leading axis as short as this is taken for channels where nothing is said


@dataclass(frozen=True)
class Image:
    """One image in memory.

    Parameters
    ----------
    pixels : array [c, *spatial]
        In the file's own type.
    spatial : {"yx", "zyx"}
        Its spatial axes.
    channel_names : tuple of str
        One per channel, or none.
    spacing_um : tuple of float or None
        Size of a voxel along the spatial axes, if all are known.
    rgb : bool
        The channels are red, green and blue.
    path : path
        Where it was read.
    """

    pixels: NDArray[Any]
    spatial: str
    channel_names: tuple[str, ...]
    spacing_um: tuple[float, ...] | None
    rgb: bool
    path: Path


def read_image(path: Path | str, *, axes: str | None = None, series: int = 0) -> Image:
    """Read an image of one time point.

    Parameters
    ----------
    path : path
        TIFF (plain, ImageJ, OME), PNG, JPEG, NPY, or an OME-Zarr image, of which level 0 is read.
    axes : str, optional
        A letter per axis of the file, out of t, c, z, y, x, where it says nothing or is wrong.
    series : int
        Which image of a TIFF that holds several.

    Returns
    -------
    Image
        Channels first.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    raw = _reader(path)(path, series)
    if raw.pixels.dtype.kind not in "biuf" or raw.pixels.size == 0:
        raise ValueError(
            f"{path} needs pixels that are real numbers, got {raw.pixels.dtype} of shape"
            f" {raw.pixels.shape}."
        )
    named = _named(raw, axes, path)
    return _arranged(raw, named, path)


def _reader(path: Path) -> Callable[[Path, int], Raw]:
    if path.is_dir():
        return _read_zarr
    known: dict[str, Callable[[Path, int], Raw]] = {
        ".tif": read_tiff,
        ".tiff": read_tiff,
        ".png": _read_picture,
        ".jpg": _read_picture,
        ".jpeg": _read_picture,
        ".npy": _read_npy,
    }
    if path.suffix.lower() not in known:
        raise ValueError(
            f"{path} needs to be one of {', '.join(known)} or an OME-Zarr folder, got"
            f" {path.suffix or 'no ending'}. Convert it to OME-TIFF first."
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes). Copy it again.")
    return known[path.suffix.lower()]


def _read_picture(path: Path, series: int) -> Raw:
    from PIL import Image as Pictures
    from PIL import UnidentifiedImageError

    try:
        with Pictures.open(path) as picture:
            coloured = "RGBA" if "transparency" in picture.info else "RGB"
            pixels = np.asarray(picture.convert(coloured) if picture.mode == "P" else picture)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}. Copy it again.") from error
    if pixels.ndim == 3 and pixels.shape[-1] == 2:  # grey with alpha
        log.info("%s: the alpha channel is left out", path.name)
        pixels = pixels[..., 0]
    return Raw(pixels, "yx" if pixels.ndim == 2 else "yxs")


def _read_npy(path: Path, series: int) -> Raw:
    try:
        return Raw(np.load(path, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as one plain array: {error}") from error


def _read_zarr(path: Path, series: int) -> Raw:
    import zarr

    try:
        group = zarr.open_group(str(path), mode="r")
    except (FileNotFoundError, KeyError, ValueError, zarr.errors.BaseZarrError) as error:
        raise ValueError(
            f"{path} needs to be a file or an OME-Zarr image, and is a folder without one."
        ) from error
    attributes: dict[str, Any] = dict(group.attrs)
    about = attributes.get("ome", attributes)
    try:
        scales = about["multiscales"][0]
        level = scales["datasets"][0]
        array = group[level["path"]]
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"{path} needs to be an OME-Zarr image, and has no multiscales. Name the group"
            " that has them: an image of a plate, or labels/NAME."
        ) from None
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{path} names {level['path']!r} as its pixels, and that is no array.")
    axes, spacing = _zarr_axes(scales, level, array.ndim)
    channels = about.get("omero", {}).get("channels", [])
    names = tuple(str(channel.get("label", "")) for channel in channels)
    n = array.shape[axes.index("c")] if "c" in axes else 1
    return Raw(
        np.asarray(array[...]), axes, names if len(names) == n and all(names) else (), spacing
    )


def _zarr_axes(
    scales: dict[str, Any], level: dict[str, Any], ndim: int
) -> tuple[str, dict[str, float]]:
    """Return the letters of the axes, and the size of voxels."""
    said = scales.get("axes") or list("tczyx")[-ndim:]
    axes = [axis if isinstance(axis, str) else str(axis.get("name", "?")) for axis in said]
    steps = [1.0] * ndim
    for transform in level.get("coordinateTransformations", []):
        if transform.get("type") == "scale":
            steps = [float(step) for step in transform["scale"]]
    found = {}
    for axis, step in zip(said, steps, strict=True):
        if isinstance(axis, dict) and (unit := MICROMETRES.get(str(axis.get("unit", "")))):
            found[str(axis["name"])] = step * unit
    return "".join(axes), found


def _named(raw: Raw, axes: str | None, path: Path) -> str:
    """Return a letter per axis: what the user says, else the file, else its shape."""
    shape = raw.pixels.shape
    if axes is not None:
        named = axes.lower()
    elif raw.axes is not None:
        named = raw.axes.lower()
    else:
        named = _guessed(shape, path)
    if len(named) != len(shape) or len(set(named)) < len(named) or not set("yx") <= set(named):
        raise ValueError(
            f"{path} has shape {shape} and needs a letter for each axis, with y and x, got"
            f" {named!r}. Give axes=, as in zcyx."
        )
    return named


def _guessed(shape: tuple[int, ...], path: Path) -> str:
    if len(shape) == 3 and shape[-1] in COLOURS and shape[0] > CHANNELS_MAX:
        guess = "yxs"
    elif len(shape) == 3:
        guess = "cyx" if shape[0] <= CHANNELS_MAX else "zyx"
    else:
        guess = {2: "yx", 4: "zcyx" if shape[1:2] <= (CHANNELS_MAX,) else "czyx"}.get(
            len(shape), ""
        )
    if not guess:
        raise ValueError(f"{path} has shape {shape}: give axes=, a letter for each axis.")
    if len(shape) > 2:
        log.info("%s: shape %s is taken as %s; axes= says otherwise", path.name, shape, guess)
    return guess


def _arranged(raw: Raw, named: str, path: Path) -> Image:
    """Return the image with channels first, other axes of length one dropped."""
    pixels, colours = raw.pixels, "s" in named
    if colours and "c" in named:  # colours of several channels: a file of nobody
        raise ValueError(f"{path} has both channels and colours ({named}). Split it first.")
    kept = ""
    for axis in named:
        position = len(kept)
        if axis in "cszyx" and not (axis == "z" and pixels.shape[position] == 1):
            kept += axis
        elif pixels.shape[position] == 1:
            pixels = pixels.take(0, position)
        else:
            raise ValueError(
                f"{path} has {pixels.shape[position]} steps along axis {axis!r} of {named}, and one"
                " image is needed. Save each as a file of its own."
            )
    order = [kept.index(axis) for axis in "cszyx" if axis in kept]
    pixels = pixels.transpose(order)
    pixels = pixels if {"c", "s"} & set(kept) else pixels[None]
    if colours and len(pixels) == COLOURS[1]:
        log.info("%s: the alpha channel is left out", path.name)
        pixels = pixels[:3]
    spatial = "zyx" if "z" in kept else "yx"
    sizes = raw.spacing_um or {}
    known = all(axis in sizes for axis in spatial)
    return Image(
        pixels=pixels,
        spatial=spatial,
        channel_names=raw.channel_names if len(raw.channel_names) == len(pixels) else (),
        spacing_um=tuple(sizes[axis] for axis in spatial) if known else None,
        rgb=colours and len(pixels) == 3,
        path=path,
    )
