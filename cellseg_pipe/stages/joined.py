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
from cellseg_pipe.stages.tiles import KEPT, FoundTiles
from cellseg_pipe.stages.tiling import Tiling

__all__ = ["JoinedTiles"]


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
        self._read = functools.lru_cache(maxsize=KEPT)(self._joined)

    def _joined(self, number: int) -> tuple[list[Numbered], list[NDArray[np.uint32]]]:
        """Return of each class the cells of a tile, and the numbers that they become."""
        found = [
            (part, standing(ids, n, self._settled))
            for n, (part, ids) in enumerate(tiles.read(number) for tiles in self._classes)
        ]
        return found, joined_ids(found, self._first, self._tiling.plan)

    def paint(self, box: Box) -> NDArray[np.uint32]:
        """Paint a box; see `Tiles`."""
        cores, margin = self._tiling.tiles.cores, spread_px(self._tiling.plan)
        tiles = [self._read(number) for number in cores.over(box.grow(margin))]
        labels, numbers = [], []
        for n in range(len(self._classes)):
            parts = [found[n] for found, _ in tiles]
            labels.append(paint(box, parts))
            old, new = np.concatenate([ids for _, ids in parts]), [ids[n] for _, ids in tiles]
            numbers.append((old, np.concatenate(new)))
        return joined_labels(labels, self._settled, numbers)

    def rows(self, number: int) -> Rows:
        """Return what is known of the cells that a tile owns; see `Tiles`."""
        found, numbers = self._read(number)
        return join_rows([(part, new) for (part, _), new in zip(found, numbers, strict=True)])

    def on_border(self, number: int) -> NDArray[np.uint32]:
        """Return the cells that touch the border; see `Tiles`."""
        found, numbers = self._read(number)
        pairs = zip(found, numbers, strict=True)
        touching = [new[part.on_border & (ids != DROPPED)] for (part, ids), new in pairs]
        return np.sort(np.concatenate(touching))
