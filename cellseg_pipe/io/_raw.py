"""What every reader of one kind of file gives: a source of boxes, and what the file says of it."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box

__all__ = ["MICROMETRES", "ArraySource", "FirstSource", "Raw", "Source", "said"]

# Powers of ten of a metre by the names that OME-Zarr takes from UDUNITS-2.
METRES = {
    "yotta": 24, "zetta": 21, "exa": 18, "peta": 15, "tera": 12, "giga": 9, "mega": 6, "kilo": 3,
    "hecto": 2, "": 0, "deci": -1, "centi": -2, "milli": -3, "micro": -6, "nano": -9, "pico": -12,
    "femto": -15, "atto": -18, "zepto": -21, "yocto": -24,
}  # fmt: skip

MICROMETRES = {
    **{f"{prefix}meter": float(f"1e{power + 6}") for prefix, power in METRES.items()},
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "\\u00B5m": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometre": 1.0,
    "Å": 1e-4,
    "angstrom": 1e-4,
    "pm": 1e-6,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "inch": 25400.0,
    "foot": 304_800.0,
    "yard": 914_400.0,
    "mile": 1_609_344_000.0,
    "parsec": 3.0856775814913673e22,
}


# Of a mapped file stays mapped at most about this: what is mapped counts as memory of a job.
MAPPED_BYTES = 1 << 25


class Source(Protocol):
    """Pixels that are read box by box, in the file's own order of axes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is read, in the order of bytes of this machine."""

    @property
    def piece_bytes(self) -> int:
        """Size of the largest piece that is decoded as one, 0 where single values are read."""

    def read(self, box: Box) -> NDArray[Any]:
        """Return the values of a box of all axes, by themselves in memory; from any thread."""


@dataclass(frozen=True)
class Raw:
    """Pixels as they are stored, with what the file says of them.

    Parameters
    ----------
    source : Source
        Gives the pixels.
    axes : str or None
        A letter per axis out of t, c, z, y, x, s (colours); None where the file does not say.
    channel_names : tuple of str
        One per channel, or none.
    spacing_um : dict of str to float
        Size of a voxel along z, y, x, as far as it is known.
    offset_um : dict of str to float
        Place of the first voxel along z, y, x, as far as it is known.
    chunk : tuple of int or None
        Box that is cheap to read, per axis of the file.
    in_place : bool
        Boxes are read at bounded cost.
    format : str
        Its name, for people.
    n_levels : int
        How many resolutions the file holds.
    rgb : bool
        A channel axis of three holds red, green and blue.
    identity : dict
        What tells that the pixels are the same file.
    """

    source: Source
    axes: str | None = None
    channel_names: tuple[str, ...] = ()
    spacing_um: dict[str, float] = field(default_factory=dict)
    offset_um: dict[str, float] = field(default_factory=dict)
    chunk: tuple[int, ...] | None = None
    in_place: bool = False
    format: str = ""
    n_levels: int = 1
    rgb: bool = False
    identity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArraySource:
    """An array in memory, or one that is mapped from a file.

    Parameters
    ----------
    pixels : array
        In any order of bytes.
    """

    pixels: NDArray[Any]
    piece_bytes: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """In the order of bytes of this machine."""
        return self.pixels.dtype.newbyteorder("=")

    def read(self, box: Box) -> NDArray[Any]:
        """Return a copy of a box."""
        part = self.pixels[box.slices]
        if (mapping := _mapping_of(self.pixels)) is None:
            return np.array(part, self.dtype, order="C", subok=False)
        found = np.empty(part.shape, self.dtype)
        outer = int(np.argmax(part.strides))
        step = max(1, MAPPED_BYTES // max(1, part.strides[outer]))
        for first in range(0, part.shape[outer], step):
            some = (slice(None),) * outer + (slice(first, first + step),)
            found[some] = part[some]
            mapping.madvise(mmap.MADV_DONTNEED)
        return found


def _mapping_of(array: Any) -> Any:
    """Return the mapping of a file whose values an array shows, where it can be let go."""
    while array is not None and not hasattr(array, "madvise"):
        array = getattr(array, "base", None)
    return array


@dataclass(frozen=True)
class FirstSource:
    """The first index of one axis of another source.

    Parameters
    ----------
    source : Source
        With that axis.
    axis : int
        Which is left out.
    """

    source: Source
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the other axes."""
        return _without(self.source.shape, self.axis)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the source."""
        return self.source.dtype

    @property
    def piece_bytes(self) -> int:
        """That of the source."""
        return self.source.piece_bytes

    def read(self, box: Box) -> NDArray[Any]:
        """Return a box of the other axes."""
        start, stop = list(box.start), list(box.stop)
        start.insert(self.axis, 0)
        stop.insert(self.axis, 1)
        return self.source.read(Box(tuple(start), tuple(stop))).take(0, self.axis)


def _without(values: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return values[:axis] + values[axis + 1 :]


def said(error: BaseException) -> str:
    """Return what an error says, in one line without its full stop.

    Parameters
    ----------
    error : exception
        Of any library.

    Returns
    -------
    str
        Its name where it says nothing.
    """
    text = str(error).split(" [source locations=")[0].split(" [tensorstore_spec=")[0]
    return " ".join(text.split()).rstrip(".") or type(error).__name__
