"""Lists where tiles that were joined by IoU did not agree, so that people can look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.stages.chain import read_chain
from cellseg_pipe.stages.number import numbered_tiles
from cellseg_pipe.stages.tiles import SeenTiles
from cellseg_pipe.stages.tiling import Tiling
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["conflicts_of", "no_conflicts"]

NAMES = ("tile", "label")


def conflicts_of(
    unit: UnitRun, tiling: Tiling
) -> tuple[dict[str, NDArray[Any]], dict[str, int] | None]:
    """Return links that were refused, and how many cells of tiles were.

    Parameters
    ----------
    unit : UnitRun
        The unit; its cells have numbers.
    tiling : Tiling
        Its tiles.

    Returns
    -------
    table : dict of str to array [n]
        One row per link that would have made two cells of one tile one: of both sides tile, label
        (0 if it is not painted) and place in px of level 0, and their IoU; the best first. Without
        rows where seams are exact.
    counts : dict of str to int, or None
        `conflicts`, and `hidden` cells that others left too little of; None where seams are exact.
    """
    axes = unit.image.spatial
    if tiling.seams == "exact":
        return no_conflicts(axes), None
    tiles = numbered_tiles(unit, tiling)
    assert isinstance(tiles, SeenTiles)
    found, n_hidden = tiles.refused()
    chain = np.concatenate([np.zeros(1, np.uint32), read_chain(unit)])
    table: dict[str, NDArray[Any]] = {}
    for side, tile, label, peak in (
        ("a", found.left_tile, found.left_label, found.left_peak),
        ("b", found.right_tile, found.right_label, found.right_peak),
    ):
        number = np.zeros(len(label), np.uint32)
        for one in np.unique(tile).tolist():
            number[tile == one] = tiles.part(one).id[label[tile == one].astype(np.int64) - 1]
        table[f"tile_{side}"] = tile
        table[f"label_{side}"] = (chain[number] if unit.is_chained else number).astype(np.int64)
        places = on_level_0(peak, tiling)
        table |= {f"{axis}_{side}_px": places[:, i] for i, axis in enumerate(axes)}
    table["iou"] = found.iou
    return table, {"conflicts": len(found.iou), "hidden": n_hidden}


def no_conflicts(axes: str) -> dict[str, NDArray[Any]]:
    """Return the table where nothing had to be joined.

    Parameters
    ----------
    axes : str
        A letter per axis of the image.

    Returns
    -------
    dict of str to array [0]
        The columns of `conflicts_of`.
    """
    sides = {f"{name}_{side}": np.zeros(0, np.int64) for side in "ab" for name in NAMES}
    places = {f"{axis}_{side}_px": np.zeros(0) for side in "ab" for axis in axes}
    return sides | places | {"iou": np.zeros(0)}


def on_level_0(peak: NDArray[np.int64], tiling: Tiling) -> NDArray[np.float64]:
    """Return places on level 0.

    Parameters
    ----------
    peak : int64 array [n, ndim]
        On the grid that particles walk on.
    tiling : Tiling
        Of the unit.

    Returns
    -------
    float64 array [n, ndim]
        In px.
    """
    if tiling.plan.walks_level_0:
        return peak.astype(np.float64)
    return np.asarray((peak + 0.5) / np.asarray(tiling.plan.scale.factors) - 0.5)
