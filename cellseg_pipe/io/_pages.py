"""What tifffile knows of a page that is needed to decode its tiles and strips without it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import ceil_div

__all__ = ["Form", "Page", "form_of", "page_of"]

JPEG = {6, 7, 34892, 33007}


@dataclass(frozen=True)
class Form:
    """What the pages of one image have in common.

    Parameters
    ----------
    shape : tuple of int
        Separate samples, depth, length, width, contiguous samples.
    piece : tuple of int
        Shape of a tile or strip, without the separate samples.
    stored, dtype : dtype
        In the order of bytes of the file, and of what is decoded.
    empty : int or float
        Value of pieces that are left out.
    mapped : bool
        The values lie in the file as they are.
    """

    shape: tuple[int, ...]
    piece: tuple[int, ...]
    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    empty: int | float
    mapped: bool

    @property
    def edges(self) -> tuple[int, ...]:
        """Extent of a piece along the axes of a page."""
        return (1, *self.piece)

    @property
    def counts(self) -> tuple[int, ...]:
        """Pieces along the axes of a page."""
        return tuple(ceil_div(n, e) for n, e in zip(self.shape, self.edges, strict=True))


@dataclass(frozen=True)
class Page:
    """Where the pieces of one page lie.

    Parameters
    ----------
    path : str
        Of its file.
    offsets, sizes : sequence of int
        Of each piece, in bytes; 0 where it is left out.
    decode : callable
        From bytes and the number of the piece to an array.
    """

    path: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    decode: Callable[[bytes, int], NDArray[Any]]


def form_of(page: Any) -> Form:
    """Return the form of the pages like one of tifffile.

    Parameters
    ----------
    page : tifffile.TiffPage
        A key frame.

    Returns
    -------
    Form
        By itself.
    """
    shape = tuple(int(n) for n in page.shaped)
    if page._dtype is None:
        raise ValueError(f"values of {page.bitspersample} bits of this kind are not known")
    if page.is_tiled:
        piece = (page.tiledepth, page.tilelength, page.tilewidth, shape[-1])
    else:
        piece = (1, min(page.rowsperstrip, shape[2]), shape[3], shape[-1])
    stored = np.dtype(page.parent.byteorder + page._dtype.char)
    return Form(
        shape=shape,
        piece=tuple(int(n) for n in piece),
        stored=stored,
        dtype=stored.newbyteorder("="),
        empty=page.nodata,
        mapped=bool(page.is_final),
    )


def page_of(page: Any) -> Page:
    """Return where the pieces of a page of tifffile lie.

    Parameters
    ----------
    page : tifffile.TiffPage or TiffFrame
        A page.

    Returns
    -------
    Page
        That needs no open file.
    """
    frame, handle = page.keyframe, page.parent.filehandle
    tables = {}
    if frame.compression in JPEG:
        tables = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
    decode = frame.decode

    def decoded(data: bytes, number: int) -> NDArray[Any]:
        return np.asarray(decode(data, number, **tables)[0])

    path = os.path.join(handle.dirname, handle.name)
    return Page(path, tuple(page.dataoffsets), tuple(page.databytecounts), decoded)
