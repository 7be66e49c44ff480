"""Reads boxes of a TIFF by decoding the tiles or strips that they meet; no file is kept open."""

from __future__ import annotations

import itertools
import math
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io._pages import Form, Page
from cellseg_pipe.io._raw import said

__all__ = ["FAULTS", "PagesSource"]

CACHE_BYTES = 64 << 20  # decoded pieces of one image; one is kept however large
MANY = 16  # pieces from which on they are decoded side by side
WORKERS = 4
# What codecs and tifffile raise where bytes are not as they should be.
FAULTS = (
    ValueError, RuntimeError, TypeError, LookupError, ArithmeticError, OSError, AttributeError,
    AssertionError, MemoryError, struct.error,
)  # fmt: skip

Piece = tuple[int, tuple[int, ...]]  # number of the page, place in its grid


@dataclass
class _Cache:
    """The pieces that were decoded last."""

    limit_bytes: int
    held: OrderedDict[Hashable, NDArray[Any]] = field(default_factory=OrderedDict)
    held_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable) -> NDArray[Any] | None:
        with self.lock:
            if key in self.held:
                self.held.move_to_end(key)
            return self.held.get(key)

    def put(self, key: Hashable, pixels: NDArray[Any]) -> None:
        with self.lock:
            if key in self.held:
                return
            self.held[key] = pixels
            self.held_bytes += pixels.nbytes
            while self.held_bytes > self.limit_bytes and len(self.held) > 1:
                self.held_bytes -= self.held.popitem(last=False)[1].nbytes


@dataclass(frozen=True)
class PagesSource:
    """An image whose pages follow each other along its first axes.

    Parameters
    ----------
    path : str
        For messages.
    shape : tuple of int
        Of the image; the last `n_inner` axes are those of a page that are longer than one.
    n_outer : int
        How many axes count pages.
    form : Form
        Of all pages.
    pages : tuple of Page
        In C order of the first axes.
    """

    path: str
    shape: tuple[int, ...]
    n_outer: int
    form: Form
    pages: tuple[Page, ...]
    cache: _Cache = field(default_factory=lambda: _Cache(CACHE_BYTES), repr=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is decoded."""
        return self.form.dtype

    @property
    def piece_bytes(self) -> int:
        """Size of a decoded tile or strip."""
        return 0 if self.form.mapped else math.prod(self.form.piece) * self.dtype.itemsize

    def read(self, box: Box) -> NDArray[Any]:
        """Return a box, decoding what it meets."""
        outer = Box(box.start[: self.n_outer], box.stop[: self.n_outer])
        numbers = [self._number(point) for point in outer.points()]
        inner = self._in_page(Box(box.start[self.n_outer :], box.stop[self.n_outer :]))
        pixels = np.empty((len(numbers), *inner.shape), self.dtype)
        if self.form.mapped:
            for target, number in zip(pixels, numbers, strict=True):
                target[...] = self._mapped(number)[inner.slices]
        else:
            self._decode(pixels, numbers, inner)
        return pixels.reshape(box.shape)

    def _number(self, point: tuple[int, ...]) -> int:
        number = 0
        for position, count in zip(point, self.shape, strict=False):
            number = number * count + position
        return number

    def _in_page(self, box: Box) -> Box:
        """Return a box of the last axes as one of the five axes of a page."""
        ends = zip(self.shape[self.n_outer :], box.start, box.stop, strict=True)
        long = iter([(start, stop) for size, start, stop in ends if size > 1])
        found = [next(long) if size > 1 else (0, 1) for size in self.form.shape]
        return Box(tuple(start for start, _ in found), tuple(stop for _, stop in found))

    def _mapped(self, number: int) -> NDArray[Any]:
        page = self.pages[number]
        try:
            return np.memmap(
                page.path, self.form.stored, "r", offset=page.offsets[0], shape=self.form.shape
            )
        except FAULTS as error:
            raise self._fault(page, number, error) from error

    def _decode(self, pixels: NDArray[Any], numbers: list[int], inner: Box) -> None:
        """Paste the pieces that meet the box into `pixels`, each to its own place."""
        cells = list(inner.cells(self.form.edges).points())
        places = {number: place for place, number in enumerate(numbers)}

        def paste(piece: Piece) -> None:
            number, index = piece
            origin = tuple(i * e for i, e in zip(index, self.form.edges, strict=True))
            values = self._piece(piece)
            whole = Box.of(values.shape).shift(origin)
            part = whole.clip(inner)
            target = pixels[places[number]][part.relative_to(inner.start).slices]
            target[...] = values[part.relative_to(origin).slices]

        pieces = list(itertools.product(numbers, cells))
        if len(pieces) < MANY:
            for piece in pieces:
                paste(piece)
            return
        with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
            for _ in pool.map(paste, pieces):
                pass

    def _piece(self, piece: Piece) -> NDArray[Any]:
        """Return a decoded piece [1, depth, length, width, samples]."""
        found = self.cache.get(piece)
        if found is not None:
            return found
        number, index = piece
        page = self.pages[number]
        segment = int(np.ravel_multi_index(index, self.form.counts))
        try:
            values = self._decoded(page, segment)
        except FAULTS as error:
            raise self._fault(page, number, error) from error
        self.cache.put(piece, values)
        return values

    def _decoded(self, page: Page, segment: int) -> NDArray[Any]:
        size = page.sizes[segment]
        if size == 0:  # as programs write where all is background
            return np.full(self.form.edges, self.form.empty, self.dtype)
        with open(page.path, "rb") as file:
            data = os.pread(file.fileno(), size, page.offsets[segment])
        if len(data) < size:
            raise ValueError(f"piece {segment} is cut short: {len(data)} of {size} bytes")
        return page.decode(data, segment)[None]

    def _fault(self, page: Page, number: int, error: Exception) -> ValueError:
        where = f"page {number}" if page.path == self.path else f"page {number} in {page.path}"
        return ValueError(
            f"{self.path} cannot be read as TIFF: {where}: {said(error)}. Copy or export it again."
        )

    def cut_short(self) -> Iterator[str]:
        """Yield what is missing: pieces of pages, and the ends of files."""
        n_pieces = math.prod(self.form.counts)
        whole_bytes = math.prod(self.form.shape) * self.dtype.itemsize
        needed: dict[str, int] = {}
        for number, page in enumerate(self.pages):
            ends = [a + n for a, n in zip(page.offsets, page.sizes, strict=False)]
            if self.form.mapped:
                ends = [page.offsets[0] + whole_bytes]
            elif min(len(page.offsets), len(page.sizes)) < n_pieces:
                yield f"page {number} lists {len(page.offsets)} of its {n_pieces} tiles or strips"
            needed[page.path] = max(needed.get(page.path, 0), *ends, 0)
        for path, end in needed.items():
            if os.path.getsize(path) < end:
                yield f"{path} ends after {os.path.getsize(path)} of {end} bytes or more"
