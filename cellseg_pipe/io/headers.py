"""What image files say of themselves, kept between starts: pixels are opened when they are read."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._layout import Layout
from cellseg_pipe.io.opening import OpenImage, open_image

__all__ = ["Headers"]

VERSION = 1  # of what is kept: another one is not read
PRIVATE = ("_source", "_layout", "_asked")


class LaterSource:
    """The pixels of a file that is opened when the first of them are asked for.

    Parameters
    ----------
    path : str
        Of the image.
    asked : mapping
        The other arguments of `open_image`.
    shape : tuple of int
        Of the whole array.
    dtype : dtype
        Of its values.
    piece_bytes : int
        Size of the largest piece that is decoded as one.
    """

    def __init__(
        self,
        path: str,
        asked: Mapping[str, Any],
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        piece_bytes: int,
    ) -> None:
        self._path, self._asked = path, dict(asked)
        self.shape, self.dtype, self.piece_bytes = shape, dtype, piece_bytes

    @functools.cached_property
    def _opened(self) -> OpenImage:
        return open_image(self._path, **self._asked)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the values of a box of all axes.

        Parameters
        ----------
        box : Box
            In the file.

        Returns
        -------
        array [*box]
            In memory.
        """
        return self._opened._source.read(box)


class Headers:
    """Images whose files are opened once, as long as they do not change.

    Parameters
    ----------
    file : path, optional
        Where an earlier start has kept what it read.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._known: dict[str, dict[str, Any]] = {}
        self._used: dict[str, dict[str, Any]] = {}
        if file is not None and file.exists():
            kept = json.loads(file.read_text())
            self._known = kept["images"] if kept["version"] == VERSION else {}

    @property
    def text(self) -> str:
        """What is to be kept: all that was asked for."""
        return json.dumps({"version": VERSION, "images": self._used})

    def open(self, path: str, *, axes: str | None = None, series: int = 0) -> OpenImage:
        """Return an image as `open_image` does, without holding its file open or in memory.

        Parameters
        ----------
        path : str
            Of the image.
        axes : str, optional
            A letter per axis of the file.
        series : int
            Which image of a file that holds several.

        Returns
        -------
        OpenImage
            Its file is opened when pixels are read.
        """
        key, state = json.dumps([path, axes, series]), _state(path)
        kept = self._known.get(key)
        if state is None or kept is None or kept["state"] != state:
            image = open_image(path, axes=axes, series=series)
            header = _header(image)
            # Files of several files, and stores, may change without this one.
            if state is None or image.identity.get("bytes") != state[0]:
                return _image(header)
            kept = {"state": state, "header": header}
        self._used[key] = kept
        return _image(kept["header"])


def _state(path: str) -> list[int] | None:
    """Return what tells that a file is as it was; None for a folder or URL."""
    if "://" in path or not os.path.isfile(path):
        return None
    about = os.stat(path)
    return [about.st_size, about.st_mtime_ns]


def _header(image: OpenImage) -> dict[str, Any]:
    fields = (f.name for f in dataclasses.fields(image) if f.name not in PRIVATE)
    public = {name: getattr(image, name) for name in fields} | {"dtype": image.dtype.str}
    return public | {"layout": vars(image._layout), "asked": image._asked}


def _image(header: Mapping[str, Any]) -> OpenImage:
    given = {name: _as_tuple(value) for name, value in header.items()}
    layout = Layout(**{k: _as_tuple(v) for k, v in given.pop("layout").items()})
    asked, dtype = given.pop("asked"), np.dtype(given.pop("dtype"))
    source = LaterSource(
        given["path"], asked, shape=layout.shape, dtype=dtype, piece_bytes=given["piece_bytes"]
    )
    return OpenImage(**given, dtype=dtype, _source=source, _layout=layout, _asked=asked)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
