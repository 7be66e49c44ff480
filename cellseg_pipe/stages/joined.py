"""The cells of several classes of diameters as those of one unit, read a few tiles at a time."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.segmentation.cells import Rows, join_rows
from cellseg_pipe.segmentation.joining import (
    Numbered,
    Settled,
    joined_ids,
    joined_labels,
    standing,
)
from cellseg_pipe.segmentation.tiled import DROPPED, paint, spread_px
from cellseg_pipe.stages.tiles import FoundTiles
from cellseg_pipe.stages.tiling import Tiling

__all__ = ["JoinedTiles"]

NUMBERED = 64  # tiles whose numbers are kept: all around a box of a volume, and then some

Renumbered = tuple[NDArray[np.uint32], NDArray[np.uint32]]


class JoinedTiles:
    """Cells of several classes; see `Tiles`.

    Parameters
    ----------
    tiling : Tiling
        Of the unit, whose cores are those of all classes.
    classes : sequence of FoundTiles
        The cells of each class under the numbers that they have in it.
    settled : Settled
        Which of them go.
    first : int64 array [n_blocks]
        Number of the first cell of each block, of all classes.
    """

    def __init__(
        self,
        tiling: Tiling,
        classes: Sequence[FoundTiles],
        *,
        settled: Settled,
        first: NDArray[np.int64],
    ) -> None:
        self._tiling = tiling
        self._classes = classes
        self._settled = settled
        self._first = first
        self._renumbered = functools.lru_cache(maxsize=NUMBERED)(self._with_numbers)

    def _standing(self, number: int, n: int) -> Numbered:
        """Return the cells of a tile that stand, of one class, under their numbers in it."""
        found, ids = self._classes[n].read(number)
        return found, standing(ids, n, self._settled)

    def _with_numbers(self, number: int) -> list[Renumbered]:
        """Return of each class the numbers of a tile's cells, and those that they become."""
        parts = [self._standing(number, n) for n in range(len(self._classes))]
        joined = joined_ids(parts, self._first, self._tiling.plan)
        return [(ids, new) for (_, ids), new in zip(parts, joined, strict=True)]

    def paint(self, box: Box) -> NDArray[np.uint32]:
        """Paint a box; see `Tiles`. One tile of one class is held at a time, and what is kept."""
        cores, margin = self._tiling.tiles.cores, spread_px(self._tiling.plan)
        around = list(cores.over(box.grow(margin)))
        labels, numbers = [], []
        for n in range(len(self._classes)):
            labels.append(paint(box, (self._standing(number, n) for number in around)))
            old, new = zip(*(self._renumbered(number)[n] for number in around), strict=True)
            numbers.append((np.concatenate(old), np.concatenate(new)))
        return joined_labels(labels, self._settled, numbers)

    def rows(self, number: int) -> Rows:
        """Return what is known of the cells that a tile owns; see `Tiles`."""
        numbers = self._renumbered(number)
        return join_rows(
            [(of.read(number)[0], new) for of, (_, new) in zip(self._classes, numbers, strict=True)]
        )

    def on_border(self, number: int) -> NDArray[np.uint32]:
        """Return the cells that touch the border; see `Tiles`."""
        pairs = zip(self._classes, self._renumbered(number), strict=True)
        touching = [
            new[of.read(number)[0].on_border & (ids != DROPPED)] for of, (ids, new) in pairs
        ]
        return np.sort(np.concatenate(touching))
