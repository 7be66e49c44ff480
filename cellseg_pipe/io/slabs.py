"""Reads thin boxes that follow each other out of thicker ones, so that chunks are decoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box

__all__ = ["SLAB_BYTES", "Slabs"]

SLAB_BYTES = 64 << 20


class Slabs:
    """Keeps what lies behind the last box that was read, as far as it comes out of the same chunks.

    A window that looks at a volume from its side is one voxel thick and meets a chunk of every
    plane. Many stores have chunks of whole planes: for each window all of them would be decoded.

    Parameters
    ----------
    read : callable
        Gives all the channels [C, *box] of a box.
    shape : sequence of int
        Of the image.
    chunk : sequence of int
        What is decoded as one.
    voxel_bytes : int
        Of all channels.
    """

    _box: Box
    _pixels: NDArray[Any]

    def __init__(
        self,
        read: Callable[[Box], NDArray[Any]],
        shape: Sequence[int],
        chunk: Sequence[int],
        *,
        voxel_bytes: int,
    ) -> None:
        self._read, self._shape = read, tuple(shape)
        self._chunk, self._voxel_bytes = chunk, voxel_bytes
        self._let_go()

    def read(self, box: Box) -> NDArray[Any]:
        """Return all the channels of a box; not to be written to.

        Parameters
        ----------
        box : Box
            Of level 0.

        Returns
        -------
        array [C, *box]
            Its pixels.
        """
        if not (box.size and self._box.contains(box)):
            self._let_go()  # before the next one is read
            slab = self._slab(box)
            if slab == box:
                return self._read(box)
            self._box, self._pixels = slab, self._read(slab)
            self._pixels.flags.writeable = False
        return self._pixels[(slice(None), *box.relative_to(self._box.start).slices)]

    def _let_go(self) -> None:
        self._box, self._pixels = Box.of((0,) * len(self._shape)), np.empty(0)

    def _slab(self, box: Box) -> Box:
        """Return a box with what lies behind it along its thinnest axis."""
        axis = int(np.argmin(box.shape))
        thick, chunk = box.shape[axis], self._chunk[axis]
        if thick >= chunk or not box.size:
            return box
        layers = SLAB_BYTES * thick // (box.size * self._voxel_bytes)
        stop = box.start[axis] + max(thick, layers)
        if stop // chunk * chunk >= box.stop[axis]:
            stop = stop // chunk * chunk  # no chunk is begun that the next slab would end
        stop = min(stop, self._shape[axis])
        return Box(box.start, (*box.stop[:axis], stop, *box.stop[axis + 1 :]))
