"""Reads the cells of tiles with their numbers, a few at a time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.ledger import LedgerError, Records
from cellseg_pipe.segmentation.cells import to_level_0
from cellseg_pipe.segmentation.stored import found_from_bytes
from cellseg_pipe.segmentation.tiled import Found, ids_of, paint, spread_px
from cellseg_pipe.stages.plan import Tiling

__all__ = ["FoundTiles", "naming", "painted"]

KEPT = 4  # tiles in memory: neighbouring boxes want the same


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


class FoundTiles:
    """The cells of a unit's tiles.

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
        for number in self._tiling.tiles.cores.over(box.grow(spread_px(self._tiling.plan))):
            if not self._masks.is_blank(number):
                yield self.read(number)


def painted(
    tiling: Tiling, tiles: FoundTiles, box: Box, *, chain: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """Paint a box of level 0.

    Parameters
    ----------
    tiling : Tiling
        Of the unit.
    tiles : FoundTiles
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
    if tiling.plan.mode != "planes":
        return _part(tiling, tiles, box)
    labels = np.empty(box.shape, np.uint32)
    numbers = np.concatenate([np.zeros(1, np.uint32), chain])
    for z in range(box.start[0], box.stop[0]):  # on a finer grid a plane is large enough
        plane = Box((z, *box.start[1:]), (z + 1, *box.stop[1:]))
        labels[z - box.start[0]] = numbers[_part(tiling, tiles, plane)[0]]
    return labels


def _part(tiling: Tiling, tiles: FoundTiles, box: Box) -> NDArray[np.uint32]:
    plan = tiling.plan
    walked = box if plan.walks_level_0 else plan.scale.back_box(box, plan.shape)
    labels = paint(walked, tiles.over(walked))
    return to_level_0(labels, plan, box=box, start=walked.start)
