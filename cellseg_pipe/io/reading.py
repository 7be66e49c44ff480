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


def read_image(
    path: Path | str, *, axes: str | None = None, series: int = 0, level: int = 0
) -> Image:
    """Read an image of one time point.

    Parameters
    ----------
    path : path
        TIFF (plain, ImageJ, OME), PNG, JPEG, NPY, or an OME-Zarr image.
    axes : str, optional
        A letter per axis of the file, out of t, c, z, y, x, where it says nothing or is wrong.
    series : int
        Which image of a TIFF that holds several.
    level : int
        Which resolution of an OME-Zarr image, 0 for the finest.

    Returns
    -------
    Image
        Channels first.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    if level and not path.is_dir():
        raise ValueError(f"{path}: only OME-Zarr images are read at level {level}. Leave it at 0.")
    raw = _read_zarr(path, level) if path.is_dir() else _reader(path)(path, series)
    if raw.pixels.dtype.kind not in "biuf" or raw.pixels.size == 0:
        raise ValueError(
            f"{path} needs pixels, and real numbers as such, got {raw.pixels.dtype} of shape"
            f" {raw.pixels.shape}."
        )
    named = _named(raw, axes, path)
    return _arranged(raw, named, path)


def _reader(path: Path) -> Callable[[Path, int], Raw]:
    known: dict[str, Callable[[Path, int], Raw]] = {
        ".tif": read_tiff,
        ".tiff": read_tiff,
        ".png": _read_png,
        ".jpg": _read_jpeg,
        ".jpeg": _read_jpeg,
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


def _read_png(path: Path, series: int) -> Raw:
    """Read by imagecodecs: Pillow cuts 16-bit colours to 8 bits, and refuses large pictures."""
    import imagecodecs

    try:
        return _picture(imagecodecs.png_decode(path.read_bytes()), path)
    except (RuntimeError, ValueError) as error:
        raise _unreadable(path, "a picture", error) from error


def _read_jpeg(path: Path, series: int) -> Raw:
    from PIL import Image as Pictures

    try:
        with Pictures.open(path) as picture:
            coloured = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
            return _picture(np.asarray(coloured), path)
    except (OSError, SyntaxError, Pictures.DecompressionBombError) as error:
        raise _unreadable(path, "a picture", error) from error


def _picture(pixels: NDArray[Any], path: Path) -> Raw:
    if pixels.ndim == 3 and pixels.shape[-1] == 2:  # grey with alpha
        log.info("%s: the alpha channel is left out", path.name)
        pixels = pixels[..., 0]
    return Raw(pixels, "yx" if pixels.ndim == 2 else "yxs")


def _read_npy(path: Path, series: int) -> Raw:
    try:
        return Raw(np.load(path, allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable(path, "one plain array", error) from error


def _unreadable(path: Path, what: str, error: Exception) -> ValueError:
    said = " ".join(str(error).split()).rstrip(".")
    return ValueError(f"{path} cannot be read as {what}: {said}. Copy or export it again.")


def _read_zarr(path: Path, level: int) -> Raw:
    import zarr

    try:
        group = zarr.open_group(str(path), mode="r")
        about: dict[str, Any] = dict(group.attrs)
    except (OSError, KeyError, ValueError, zarr.errors.BaseZarrError) as error:
        raise ValueError(
            f"{path} needs to be a file or an OME-Zarr image, and is a folder without one."
        ) from error
    about = about.get("ome", about)
    try:
        scales = about["multiscales"][0]
        levels = scales["datasets"]
        if not 0 <= level < len(levels):
            raise ValueError(f"{path} has levels 0 to {len(levels) - 1}, asked for {level}.")
        array = group[levels[level]["path"]]
    except (KeyError, IndexError, TypeError):
        inner = ", ".join(sorted(group.group_keys())[:5]) or "none"
        raise ValueError(
            f"{path} needs to be an OME-Zarr image, and has no multiscales. Name a group in it that"
            f" has them, as PATH/0 or PATH/labels/NAME; groups here: {inner}."
        ) from None
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{path} names {levels[level]['path']!r} as its pixels: no array.")
    axes, spacing = _zarr_axes(scales, levels[level], array.ndim)
    if axes is None:
        raise ValueError(f"{path} needs a name for each of its {array.ndim} axes. Export it again.")
    channels = (about.get("omero") or {}).get("channels") or []
    names = tuple(str(channel.get("label", "")) for channel in channels)
    try:
        pixels = np.asarray(array[...])
    except (RuntimeError, OSError, ValueError, TypeError) as error:  # what codecs raise
        raise _unreadable(path, "OME-Zarr", error) from error
    return Raw(pixels, axes, names if all(names) else (), spacing)


def _zarr_axes(
    scales: dict[str, Any], level: dict[str, Any], ndim: int
) -> tuple[str | None, dict[str, float]]:
    """Return the letters of the axes, None where they do not fit, and the size of voxels."""
    systems = scales.get("coordinateSystems") or [{}]  # version 0.6
    said = scales.get("axes") or systems[0].get("axes") or list("tczyx")[-ndim:]
    axes = [axis if isinstance(axis, str) else str(axis.get("name", "?")) for axis in said]
    steps = np.ones(ndim)
    todo = [*level.get("coordinateTransformations", [])]
    todo += scales.get("coordinateTransformations", [])
    plain = len(axes) == ndim
    while todo and plain:
        transform = todo.pop()
        kind, scale = transform.get("type"), transform.get("scale", [1.0] * ndim)
        todo += transform.get("transformations", []) if kind == "sequence" else []
        plain = kind in ("scale", "translation", "identity", "sequence") and len(scale) == ndim
        steps = steps * np.asarray(scale, float) if plain else steps
    found = {}
    for axis, step in zip(said, steps, strict=False) if plain else ():
        unit = MICROMETRES.get(str(axis.get("unit", ""))) if isinstance(axis, dict) else None
        if unit and step > 0:
            found[str(axis["name"])] = float(step) * unit
    return "".join(axes) if len(axes) == ndim else None, found


def _named(raw: Raw, axes: str | None, path: Path) -> str:
    """Return a letter per axis: what the user says, else the file, else its shape."""
    shape = raw.pixels.shape
    if axes is not None:
        named = axes.lower()
    elif raw.axes is not None:
        named = raw.axes.lower()
    else:
        named = _guessed(shape, path)
    fits = len(named) == len(shape) == len(set(named)) and set("yx") <= set(named)
    if not fits or (axes is not None and not set(named) <= set("tczyxs")):
        raise ValueError(
            f"{path} has shape {shape} and needs a letter for each axis, with y and x, got"
            f" {named!r} (of tczyxs). Give axes=, as in zcyx."
        )
    return named


def _guessed(shape: tuple[int, ...], path: Path) -> str:
    if len(shape) == 3 and shape[-1] in COLOURS and shape[0] > CHANNELS_MAX:
        guess = "yxs"
    elif len(shape) == 3:
        guess = "cyx" if shape[0] <= CHANNELS_MAX else "zyx"
    else:
        guess = {2: "yx", 4: _guessed_4(shape)}.get(len(shape), "")
    if not guess:
        raise ValueError(f"{path} has shape {shape}: give axes=, a letter for each axis.")
    if len(shape) > 2:
        log.info("%s: shape %s is taken as %s; axes= says otherwise", path.name, shape, guess)
    return guess


def _guessed_4(shape: tuple[int, ...]) -> str:
    if shape[-1] in COLOURS and shape[1:2] > (CHANNELS_MAX,):
        return "zyxs"
    return "zcyx" if shape[1:2] <= (CHANNELS_MAX,) else "czyx"


def _arranged(raw: Raw, named: str, path: Path) -> Image:
    """Return the image with channels first, other axes of length one dropped."""
    pixels, colours = raw.pixels, "s" in named
    if (
        colours and "c" in named and pixels.shape[named.index("c")] > 1
    ):  # colours of several channels: a file of nobody
        raise ValueError(f"{path} has both channels and colours ({named}). Split it first.")
    kept = ""
    for axis in named:
        position = len(kept)
        alone = pixels.shape[position] == 1 and (axis == "z" or (axis == "c" and colours))
        if axis in "cszyx" and not alone:
            kept += axis
        elif pixels.shape[position] == 1:
            pixels = pixels.take(0, position)
        else:
            raise ValueError(
                f"{path} has {pixels.shape[position]} steps along axis {axis!r} of {named}, and one"
                " image is needed. Save each as a file of its own, or give axes= if they are"
                " planes or channels."
            )
    order = [kept.index(axis) for axis in "cszyx" if axis in kept]
    pixels = pixels.transpose(order)
    pixels = pixels if {"c", "s"} & set(kept) else pixels[None]
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)  # compiled loops need it
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
