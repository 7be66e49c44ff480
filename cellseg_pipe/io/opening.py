"""Opens images of any size: what they are is told at once, pixels are read box by box."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._layout import Layout, layout_of, named_axes
from cellseg_pipe.io._raw import Raw, Source
from cellseg_pipe.io.inputs import PICTURES, TIFFS

__all__ = ["OpenImage", "open_image"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenImage:
    """An image whose pixels stay where they are until a box of them is asked for.

    Parameters
    ----------
    path : str
        As it was given.
    spatial : {"yx", "zyx", "tyx"}
        Its spatial axes; with that of time where times are read as planes are.
    shape : tuple of int
        Along them, at the level that was asked for.
    n_channels, n_times : int
        1 where there is no such axis.
    dtype : dtype
        Of the pixels, in the order of bytes of this machine.
    channel_names : tuple of str
        One per channel, or none.
    spacing_um, offset_um : tuple of float or None
        Size of a voxel and place of the first one along the spatial axes, if all are known.
    rgb : bool
        The channels are red, green and blue.
    chunk : tuple of int or None
        Box that is cheap to read; None where one must read all.
    in_place : bool
        Boxes are read at bounded cost; else convert the image first.
    format : str
        For people, as "OME-Zarr 0.4".
    n_levels : int
        Resolutions that the file holds.
    identity : dict
        What tells that the pixels are the same file; JSON.
    piece_bytes : int
        Size of the largest piece that is decoded as one, 0 where values are read singly.
    """

    path: str
    spatial: str
    shape: tuple[int, ...]
    n_channels: int
    n_times: int
    dtype: np.dtype[Any]
    channel_names: tuple[str, ...]
    spacing_um: tuple[float, ...] | None
    offset_um: tuple[float, ...] | None
    rgb: bool
    chunk: tuple[int, ...] | None
    in_place: bool
    format: str
    n_levels: int
    identity: dict[str, Any] = field(hash=False)
    piece_bytes: int = 0
    _source: Source = field(kw_only=True, repr=False, compare=False)
    _layout: Layout = field(kw_only=True, repr=False, compare=False)
    _asked: dict[str, Any] = field(kw_only=True, repr=False, compare=False)

    def as_series(self) -> OpenImage:
        """Return the same planes with their times as the first axis, as if it were one of space."""
        if self.n_times == 1 or self.spatial != "yx":
            return self
        layout = replace(self._layout, spatial="tyx")
        return replace(
            self,
            spatial="tyx",
            shape=(self.n_times, *self.shape),
            n_times=1,
            chunk=None if self.chunk is None else (1, *self.chunk),
            _layout=layout,
        )

    @property
    def voxel_bytes(self) -> int:
        """Size of a voxel with all its channels."""
        return self.n_channels * self.dtype.itemsize

    @property
    def file_axes(self) -> str:
        """A letter per axis of the file."""
        return self._layout.named

    def read(self, box: Box, *, t: int = 0) -> NDArray[Any]:
        """Return all channels of a box; from any thread.

        Parameters
        ----------
        box : Box
            Inside the image.
        t : int
            Which time.

        Returns
        -------
        array [c, *box]
            In C order, in memory of its own.
        """
        if box.ndim != len(self.shape) or box.clip(Box.of(self.shape)) != box:
            raise ValueError(
                f"{self.path} has shape {self.shape} along {self.spatial}, asked for the box"
                f" {box.start} to {box.stop}. Clip it to the image first."
            )
        if not 0 <= t < self.n_times:
            raise ValueError(f"{self.path} has times 0 to {self.n_times - 1}, asked for {t}.")
        if box.size == 0:
            return np.empty((self.n_channels, *box.shape), self.dtype)
        pixels = self._source.read(self._layout.box(box, t))
        return np.ascontiguousarray(self._layout.arranged(pixels))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process opens it again."""
        series = self.spatial == "tyx"
        return functools.partial(_again, self.path, frames=series, **self._asked), ()


def open_image(
    path: Path | str, *, axes: str | None = None, series: int = 0, level: int = 0
) -> OpenImage:
    """Open an image without reading its pixels.

    Parameters
    ----------
    path : path
        OME-Zarr image or label image (a folder, a place in a zip file, an http(s):// or s3:// URL),
        TIFF (plain, ImageJ, OME, whole slides), PNG, JPEG, NPY.
    axes : str, optional
        A letter per axis of the file, out of t, c, z, y, x, where it says nothing or is wrong.
    series : int
        Which image of a TIFF that holds several.
    level : int
        Which resolution, 0 for the finest.

    Returns
    -------
    OpenImage
        What it is, and a way to read boxes of it.
    """
    path = str(path)
    raw = _raw(path, axes=axes, series=series, level=level)
    dtype, shape = raw.source.dtype, raw.source.shape
    if dtype.kind not in "biuf" or 0 in shape:
        raise ValueError(
            f"{path} needs pixels, and real numbers as such, got {dtype} of shape {shape}."
        )
    named = named_axes(shape, path, file_axes=raw.axes, given=axes)
    layout = layout_of(named, shape, path)
    names, n_channels = raw.channel_names, layout.n_channels
    return OpenImage(
        path=path,
        spatial=layout.spatial,
        shape=layout.of_space(shape),
        n_channels=n_channels,
        n_times=layout.n_times,
        dtype=dtype,
        channel_names=names if len(names) == n_channels else (),
        spacing_um=_along(raw.spacing_um, raw, layout),
        offset_um=_along(raw.offset_um, raw, layout),
        rgb=n_channels == 3 and (raw.rgb or layout.channel == "s"),
        chunk=None if raw.chunk is None else layout.of_space(raw.chunk),
        in_place=raw.in_place,
        format=raw.format,
        n_levels=raw.n_levels,
        identity={"path": _whole(path), "series": series, "level": level, **raw.identity},
        piece_bytes=raw.source.piece_bytes,
        _source=raw.source,
        _layout=layout,
        _asked={"axes": axes, "series": series, "level": level},
    )


def _again(path: str, *, frames: bool, **asked: Any) -> OpenImage:
    image = open_image(path, **asked)
    return image.as_series() if frames else image


def _raw(path: str, *, axes: str | None, series: int, level: int) -> Raw:
    """Choose the reader of a kind of file."""
    from cellseg_pipe.io import _open_plain
    from cellseg_pipe.io._open_tiff import open_tiff
    from cellseg_pipe.io._open_zarr import open_zarr

    file, suffix = Path(path), Path(path).suffix.lower()
    if "://" in path or not file.is_file() or suffix == ".zip":
        if "://" in path and suffix in (*TIFFS, *PICTURES, ".zip"):
            raise ValueError(f"{path}: only OME-Zarr is read from servers. Download it first.")
        return open_zarr(path, level=level, axes=axes)
    if suffix not in (*TIFFS, *PICTURES):
        raise ValueError(
            f"{path} needs to be one of {', '.join((*TIFFS, *PICTURES))} or an OME-Zarr folder, got"
            f" {suffix or 'no ending'}. Convert it to OME-TIFF first."
        )
    if file.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes). Copy it again.")
    if suffix in TIFFS:
        return open_tiff(file, series=series, level=level, axes=axes)
    if level:
        raise ValueError(
            f"{path}: only OME-Zarr images are read at level {level}, and TIFF that hold it."
            " Leave it at 0."
        )
    readers = {".png": _open_plain.open_png, ".npy": _open_plain.open_npy}
    return readers.get(suffix, _open_plain.open_jpeg)(file)


def _along(values: dict[str, float], raw: Raw, layout: Layout) -> tuple[float, ...] | None:
    """Return a value per spatial axis; where the user renames axes, values stay at their axis."""
    if raw.axes is not None and raw.axes.lower() != layout.named:
        renamed = dict(zip(raw.axes.lower(), layout.named, strict=False))
        values = {renamed[axis]: value for axis, value in values.items() if axis in renamed}
    if not all(axis in values for axis in layout.spatial):
        return None
    return tuple(values[axis] for axis in layout.spatial)


def _whole(path: str) -> str:
    return path if "://" in path else os.path.realpath(path)
