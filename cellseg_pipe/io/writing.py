"""Writes an image that is in memory, with what is known of its axes, channels and voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io._attributes import MARKER, level_paths, set_attribute
from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.io.levels import choose_version, level_factors
from cellseg_pipe.io.ngff import ImageMeta, create_image, show_values
from cellseg_pipe.io.pyramid import downsample
from cellseg_pipe.io.reading import Image
from cellseg_pipe.io.results import folder_whole, write_tiff

__all__ = ["WRITTEN_SUFFIXES", "check_written", "write_image"]

WRITTEN_SUFFIXES = (".tif", ".tiff", ".png", ".npy", ".ome.zarr", ".zarr")
PNG_TYPES = ("uint8", "uint16")


def check_written(
    path: Path | str, *, spatial: str, n_channels: int, dtype: np.dtype, rgb: bool
) -> None:
    """Refuse what a kind of file cannot hold, before there are pixels.

    Parameters
    ----------
    path : path
        Its ending decides.
    spatial : {"yx", "zyx"}
        Axes in space.
    n_channels : int
        Channels.
    dtype : dtype
        Of the pixels.
    rgb : bool
        Whether the channels are red, green and blue.
    """
    path = Path(path)
    if not path.name.lower().endswith(WRITTEN_SUFFIXES):
        raise ValueError(
            f"images are written as {', '.join(WRITTEN_SUFFIXES)}, got {path.name}. Name one of"
            " these."
        )
    if path.suffix.lower() != ".png":
        return
    grey = n_channels == 1 and dtype.name in PNG_TYPES
    if spatial != "yx" or not (grey or (rgb and n_channels == 3 and dtype.name == "uint8")):
        raise ValueError(
            f"{path.name}: a PNG holds one channel of 8 or 16 bits, or colours of 8 bits, in two"
            f" axes; got {n_channels} of {dtype.name} along {spatial}. Write .tif instead."
        )


def write_image(
    image: Image, path: Path | str, *, offset_um: tuple[float, ...] | None = None
) -> None:
    """Write an image; whole or not at all.

    Parameters
    ----------
    image : Image
        Its pixels, and what is known of them.
    path : path
        The ending decides: .tif (OME-TIFF), .png, .npy, or .zarr for an OME-Zarr with all its
        levels.
    offset_um : tuple of float, optional
        Place of the first voxel, which only OME-Zarr tells.
    """
    path = Path(path)
    pixels, rgb = image.pixels, image.rgb
    check_written(path, spatial=image.spatial, n_channels=len(pixels), dtype=pixels.dtype, rgb=rgb)
    suffix = path.suffix.lower()
    if suffix == ".zarr":
        _write_store(image, path, offset_um)
        return
    flat = np.moveaxis(pixels, 0, -1) if rgb else pixels[0] if len(pixels) == 1 else pixels
    if suffix in (".tif", ".tiff"):
        axes = image.spatial.upper()
        axes = f"{axes}S" if rgb else axes if flat.ndim == len(axes) else f"C{axes}"
        names = list(image.channel_names) if axes.startswith("C") else None
        values = flat.astype(np.uint8) if flat.dtype == bool else flat
        write_tiff(
            path, np.ascontiguousarray(values), axes, spacing_um=image.spacing_um, names=names
        )
    elif suffix == ".npy":
        with binary_whole(path) as file:
            np.save(file, np.ascontiguousarray(flat))
    else:
        from PIL import Image as Picture

        with binary_whole(path) as file:
            Picture.fromarray(np.ascontiguousarray(flat)).save(file, format="PNG")


def _write_store(image: Image, path: Path, offset_um: tuple[float, ...] | None) -> None:
    """Write an OME-Zarr with all its levels under another name, then rename it."""
    import zarr

    pixels, known = image.pixels, image.spacing_um is not None
    ndim = len(image.spatial)
    meta = ImageMeta(
        "c" + image.spatial,
        image.spacing_um or (1.0,) * ndim,
        _names(image),
        translation_um=(offset_um or ()) if known else (),
        unit="micrometer" if known else None,
    )
    version = choose_version(pixels.shape[1:], ndim, len(pixels))
    values = pixels.view(np.uint8) if pixels.dtype == bool else pixels
    shown = [(channel.min().item(), channel.max().item()) for channel in values]
    with folder_whole(path) as folder:
        create_image(
            folder,
            meta,
            array={"shape": pixels.shape, "dtype": pixels.dtype},
            value_range=(0, 1),
            version=version,
            n_levels=None,
        )
        group = zarr.open_group(str(folder), mode="r+")
        factors = level_factors(pixels.shape[1:], meta.spacing_um)
        above = factors[0]
        for name, factor in zip(level_paths(folder), factors, strict=True):
            step = (1, *(f // a for f, a in zip(factor, above, strict=True)))
            pixels, above = _smaller(pixels, step), factor
            group[name][...] = pixels  # type: ignore[index]
        show_values(folder, shown)
        if image.rgb:
            set_attribute(folder, (MARKER, "rgb"), value=True)


def _smaller(pixels: NDArray, step: tuple[int, ...]) -> NDArray:
    if pixels.dtype == bool:
        return downsample(pixels.astype(np.uint8), step, kind="image").astype(bool)
    return downsample(pixels, step, kind="image")


def _names(image: Image) -> tuple[str, ...]:
    if image.channel_names:
        return image.channel_names
    if image.rgb:
        return ("red", "green", "blue")
    return tuple(f"channel {n}" for n in range(len(image.pixels)))
