"""Reads one image into memory with what its file says of axes, channels and voxel size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._layout import steps_error
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.machine import available_bytes

__all__ = ["Image", "in_memory", "read_image"]


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
        TIFF (plain, ImageJ, OME, whole slides), PNG, JPEG, NPY, or an OME-Zarr image.
    axes : str, optional
        A letter per axis of the file, out of t, c, z, y, x, where it says nothing or is wrong.
    series : int
        Which image of a TIFF that holds several.
    level : int
        Which resolution of an OME-Zarr image or a pyramidal TIFF, 0 for the finest.

    Returns
    -------
    Image
        Channels first.
    """
    return in_memory(open_image(path, axes=axes, series=series, level=level))


def in_memory(opened: OpenImage) -> Image:
    """Read all pixels of an image of one time point that was opened.

    Parameters
    ----------
    opened : OpenImage
        The image.

    Returns
    -------
    Image
        Channels first.
    """
    if opened.n_times > 1:
        raise steps_error(opened.path, opened.file_axes, "t", size=opened.n_times)
    needed, there = math.prod(opened.shape) * opened.voxel_bytes, available_bytes()
    if there is not None and needed > there:
        raise MemoryError(
            f"{opened.path} takes {needed / 1e9:.1f} GB in memory, got {there / 1e9:.1f} GB. Run"
            " the pipeline (cellseg run), which works in tiles."
        )
    return Image(
        pixels=opened.read(Box.of(opened.shape)),
        spatial=opened.spatial,
        channel_names=opened.channel_names,
        spacing_um=opened.spacing_um,
        rgb=opened.rgb,
        path=Path(opened.path),
    )
