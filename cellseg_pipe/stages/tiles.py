"""The cells of a unit's tiles under their numbers: read a few tiles at a time, painted, listed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.ledger import LedgerError, Records
from cellseg_pipe.segmentation.cells import Rows, join_rows, to_level_0
from cellseg_pipe.segmentation.seams import (
    Conflicts,
    Part,
    View,
    paint_margin_px,
    paint_seams,
    part_from_bytes,
    refused_from_bytes,
    view_from_bytes,
)
from cellseg_pipe.segmentation.stored import found_from_bytes
from cellseg_pipe.segmentation.tiled import BLOCK_PX, Found, ids_of, paint, spread_px
from cellseg_pipe.stages.tiling import Tiling
from cellseg_pipe.tiles import Grid

__all__ = ["FoundTiles", "SeenTiles", "Tiles", "naming", "painted"]

KEPT = 4  # tiles in memory: neighbouring boxes want the same
NONE = np.zeros(0, np.uint32)
NOTHING = Part(NONE, NONE, NONE.astype(np.uint8), NONE.astype(bool))  # of a tile without cells


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Say in an error where the work was: at which window, tile or box.

    Parameters
    ----------
    what : str
        The place.

    Yields
    ------
    None
        Nothing.
    """
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        raise OSError(error.errno, f"{what}: {said}", error.filename) from error
    except LedgerError as error:
        raise type(error)(f"{what}: {error}") from error
    except (ValueError, MemoryError) as error:
        kind = ValueError if isinstance(error, ValueError) else MemoryError
        raise kind(f"{what}: {error}") from error


class Tiles(Protocol):
    """The cells of a unit's tiles under their numbers."""

    def paint(self, box: Box) -> NDArray[np.uint32]:
        """Paint a box.

        Parameters
        ----------
        box : Box
            On the grid that particles walk on.

        Returns
        -------
        uint32 array [*box]
            Numbers; 0 for background.
        """

    def rows(self, number: int) -> Rows:
        """Return what is known of the cells that a tile stands for.

        Parameters
        ----------
        number : int
            Of the tile.

        Returns
        -------
        Rows
            Each cell of the unit is in those of one tile.
        """

    def on_border(self, number: int) -> NDArray[np.uint32]:
        """Return the cells that touch the border of the image, as far as a tile sees it.

        Parameters
        ----------
        number : int
            Of the tile.

        Returns
        -------
        uint32 array [n]
            Their numbers.
        """


class FoundTiles:
    """Cells whose tiles see all of them.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    masks : Records
        Its tiles.
    first : int64 array [n_blocks]
        Number of the first cell of each block.
    """

    def __init__(self, tiling: Tiling, masks: Records, first: NDArray[np.int64]) -> None:
        self._tiling = tiling
        self._masks = masks
        self._first = first
        self.read = functools.lru_cache(maxsize=KEPT)(self._read)

    def _read(self, number: int) -> tuple[Found, NDArray[np.uint32]]:
        """Return the cells of a tile and their numbers."""
        found = found_from_bytes(self._masks.read(number))
        return found, ids_of(found, self._first, self._tiling.plan)

    def reach(self, box: Box) -> bool:
        """Return whether any cell may have pixels in a box: nothing is read.

        Parameters
        ----------
        box : Box
            On the grid that particles walk on.

        Returns
        -------
        bool
            False where all tiles around it are blank.
        """
        return any(True for _ in self._over(box))

    def owners(self, labels: NDArray[np.uint32]) -> list[int]:
        """Return the tiles that own cells.

        Parameters
        ----------
        labels : uint32 array [n]
            Numbers of the cells.

        Returns
        -------
        list of int
            Ascending.
        """
        plan = self._tiling.plan
        block = np.searchsorted(self._first, labels.astype(np.int64), "right") - 1
        blocks = Grid(plan.walk_shape, BLOCK_PX[plan.mode])
        start = np.stack(np.unravel_index(block, blocks.counts), axis=1) * blocks.pitch
        return np.unique(self._tiling.tiles.cores.owners(start)).tolist()

    def _over(self, box: Box) -> Iterator[int]:
        for number in self._tiling.tiles.cores.over(box.grow(spread_px(self._tiling.plan))):
            if not self._masks.is_blank(number):
                yield number

    def over(self, box: Box) -> Iterator[tuple[Found, NDArray[np.uint32]]]:
        """Yield the tiles whose cells may have pixels in a box.

        Parameters
        ----------
        box : Box
            On the grid that particles walk on.

        Yields
        ------
        found : Found
            The cells of a tile.
        ids : uint32 array [n]
            Their numbers.
        """
        for number in self._over(box):
            yield self.read(number)

    def paint(self, box: Box) -> NDArray[np.uint32]:
        """Paint a box; see `Tiles`."""
        return paint(box, self.over(box))

    def rows(self, number: int) -> Rows:
        """Return what is known of the cells that a tile owns; see `Tiles`."""
        return join_rows([self.read(number)])

    def on_border(self, number: int) -> NDArray[np.uint32]:
        """Return the cells that touch the border; see `Tiles`."""
        found, ids = self.read(number)
        return ids[found.on_border & found.kept]


class SeenTiles:
    """Cells that are joined from what several tiles see of them.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    masks : Records
        Its tiles.
    numbered : Records
        What the cells of each tile are called, and last what could not be settled.
    """

    def __init__(self, tiling: Tiling, masks: Records, numbered: Records) -> None:
        self._tiling = tiling
        self._masks = masks
        self._numbered = numbered
        self.read = functools.lru_cache(maxsize=KEPT)(self._read)

    def _read(self, number: int) -> tuple[View, Part]:
        """Return what a tile sees, and what that is called."""
        view = view_from_bytes(self._masks.read(number), self._tiling.tiles.tile(number))
        return view, self.part(number)

    def part(self, number: int) -> Part:
        """Return what the cells of a tile are called.

        Parameters
        ----------
        number : int
            Of the tile.

        Returns
        -------
        Part
            Rows by label.
        """
        if self._numbered.is_blank(number):
            return NOTHING
        return part_from_bytes(self._numbered.read(number))

    def refused(self) -> tuple[Conflicts, int]:
        """Return the links that were refused, and how many cells others left too little of."""
        return refused_from_bytes(self._numbered.read(len(self._tiling.tiles)))

    def _over(self, box: Box) -> Iterator[tuple[View, Part]]:
        tiles = self._tiling.tiles
        for number in tiles.cores.over(box.grow(tiles.halo)):
            if not self._masks.is_blank(number):
                yield self.read(number)

    def paint(self, box: Box) -> NDArray[np.uint32]:
        """Paint a box; see `Tiles`."""
        plan = self._tiling.plan
        wide = box.grow(paint_margin_px(plan)).clip(Box.of(plan.walk_shape))
        return paint_seams(box, self._over(wide), plan=plan)

    def rows(self, number: int) -> Rows:
        """Return what is known of the cells that a tile stands for; see `Tiles`."""
        view, part = self.read(number)
        rows = np.flatnonzero(part.owner & (part.id > 0))
        rows = rows[np.argsort(part.id[rows])]
        return Rows(
            part.id[rows],
            view.area[rows],
            view.flow_error[rows],
            view.logit[rows],
            view.class_logit[rows],
            view.spread[rows],
            view.seen_again[rows],
            view.nodes.peak[rows],
        )

    def on_border(self, number: int) -> NDArray[np.uint32]:
        """Return the cells that touch the border; see `Tiles`."""
        view, part = self.read(number)
        return part.id[view.nodes.on_border & (part.id > 0)]


def painted(
    tiling: Tiling, tiles: Tiles, box: Box, *, chain: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """Paint a box of level 0.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    tiles : Tiles
        Its cells.
    box : Box
        On level 0.
    chain : uint32 array [n]
        In mode planes, the number of each cell's chain; else empty.

    Returns
    -------
    uint32 array [*box]
        Labels.
    """
    if not tiling.plan.chained:
        return _part(tiling, tiles, box)
    labels = np.empty(box.shape, np.uint32)
    numbers = np.concatenate([np.zeros(1, np.uint32), chain])
    for z in range(box.start[0], box.stop[0]):  # on a finer grid a plane is large enough
        plane = Box((z, *box.start[1:]), (z + 1, *box.stop[1:]))
        labels[z - box.start[0]] = numbers[_part(tiling, tiles, plane)[0]]
    return labels


def _part(tiling: Tiling, tiles: Tiles, box: Box) -> NDArray[np.uint32]:
    plan = tiling.plan
    walked = box if plan.walks_level_0 else plan.scale.back_box(box, plan.shape)
    return to_level_0(tiles.paint(walked), plan, box=box, start=walked.start)
