"""Outlines as well-known binary: polygons with holes, and multipolygons. Bytes only, no files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import Borders

__all__ = ["Outlines", "outlines_of", "sort_outlines"]

POLYGON, MULTIPOLYGON = 3, 6
HEAD = struct.Struct("<BII")  # little-endian, kind, number of parts
COUNT = struct.Struct("<I")


@dataclass(frozen=True)
class Outlines:
    """The shape of each object in each plane.

    Parameters
    ----------
    label : uint32 array [n]
        Of the object.
    plane : int64 array [n]
        Along z; 0 in an image of one plane.
    size : int64 array [n]
        Bytes of each shape.
    data : uint8 array [sum of sizes]
        The shapes after each other.
    """

    label: NDArray[np.uint32]
    plane: NDArray[np.int64]
    size: NDArray[np.int64]
    data: NDArray[np.uint8]

    def take(self, wanted: NDArray[np.bool_]) -> Outlines:
        """Return some of the shapes.

        Parameters
        ----------
        wanted : bool array [n]
            Which ones.

        Returns
        -------
        Outlines
            In the same order.
        """
        data = self.data[np.repeat(wanted, self.size)]
        return Outlines(self.label[wanted], self.plane[wanted], self.size[wanted], data)


def outlines_of(borders: Borders, *, origin: tuple[int, int], plane: int = 0) -> Outlines:
    """Return the shape of each object of a plane.

    Parameters
    ----------
    borders : Borders
        Of all objects.
    origin : tuple of int
        What is added to their y and x.
    plane : int
        Which plane it is.

    Returns
    -------
    Outlines
        Ascending by label: a polygon, or a multipolygon of several pieces; coordinates x, y.
    """
    vertex = (borders.vertex + np.asarray(origin))[:, ::-1].astype("<f8")
    label, first = np.unique(borders.label, return_index=True)
    last = np.append(first, len(borders.label))[1:]
    shapes = []
    for begin, end in zip(first.tolist(), last.tolist(), strict=True):
        starts = [k for k in range(begin, end) if k == begin or _new_piece(borders, k)]
        stops = [*starts[1:], end]
        pieces = [
            _polygon(borders, vertex, first=k, last=n) for k, n in zip(starts, stops, strict=True)
        ]
        several = HEAD.pack(1, MULTIPOLYGON, len(pieces)) if len(pieces) > 1 else b""
        shapes.append(several + b"".join(pieces))
    size = np.array([len(shape) for shape in shapes], np.int64)
    planes = np.full(len(label), plane, np.int64)
    return Outlines(label, planes, size, np.frombuffer(b"".join(shapes), np.uint8))


def sort_outlines(parts: Sequence[Outlines]) -> Outlines:
    """Return outlines in the order of their labels.

    Parameters
    ----------
    parts : sequence of Outlines
        One or more.

    Returns
    -------
    Outlines
        Ascending by label, then plane.
    """
    label, plane, size, data = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("label", "plane", "size", "data")
    )
    order, end = np.lexsort((plane, label)), np.cumsum(size)
    shapes = [data[end[k] - size[k] : end[k]] for k in order]
    none = np.zeros(0, np.uint8)
    return Outlines(label[order], plane[order], size[order], np.concatenate([none, *shapes]))


def _new_piece(borders: Borders, k: int) -> bool:
    return bool(borders.piece[k] != borders.piece[k - 1])


def _polygon(borders: Borders, vertex: NDArray[np.float64], *, first: int, last: int) -> bytes:
    """Return a piece: its outer border, then its holes, each closed."""
    parts = [HEAD.pack(1, POLYGON, last - first)]
    for k in range(first, last):
        ring = vertex[borders.offset[k] : borders.offset[k + 1]]
        parts += [COUNT.pack(len(ring) + 1), ring.tobytes(), ring[:1].tobytes()]
    return b"".join(parts)
