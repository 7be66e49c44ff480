"""What the table of cells says of the parts of an image, read some rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.qc import DiameterMap
from cellseg_pipe.tiles import Grid

__all__ = ["DOUBTFUL", "CellSums", "cell_sums"]

DOUBTFUL = 0.5  # confidence below which a cell is more likely wrong than right


@dataclass(frozen=True)
class CellSums:
    """What the table of cells says of each block, and of all cells.

    Parameters
    ----------
    n_cells, n_border : int64 array [n]
        Cells whose centre lies in each block, and those of them that touch the image's border.
    confidence : float64 array [n]
        Sum over these cells.
    n_doubtful : int
        Cells of low confidence in the image.
    diameters : DiameterMap
        Of the cells that no border of the image cuts.
    """

    n_cells: NDArray[np.int64]
    n_border: NDArray[np.int64]
    confidence: NDArray[np.float64]
    n_doubtful: int
    diameters: DiameterMap


def cell_sums(table: Path, blocks: Grid, *, axes: str, fields: Grid) -> CellSums:
    """Sum up the table of cells by the block that holds each cell's centre.

    Parameters
    ----------
    table : path
        A file or folder of parquet.
    blocks : Grid
        The blocks.
    axes : str
        A letter per axis of the image.
    fields : Grid
        Parts of the image whose typical diameters are told.

    Returns
    -------
    CellSums
        Some rows are read at a time.
    """
    from pyarrow import dataset

    places = ["t" if axis == "t" else f"{axis}_px" for axis in axes]
    n_cells, n_border = (np.zeros(len(blocks), np.int64) for _ in range(2))
    confidence, n_doubtful = np.zeros(len(blocks)), 0
    diameters = DiameterMap(fields)
    columns = [*places, "confidence", "on_border", "diameter_px"]
    for rows in dataset.dataset(table, format="parquet").to_batches(columns=columns):
        place = np.stack([rows[name].to_numpy() for name in places], axis=1)
        centre = np.floor(place + 0.5).astype(np.int64)
        where = blocks.owners(centre)
        sure = rows["confidence"].to_numpy()
        n_cells += np.bincount(where, minlength=len(blocks))
        border = rows["on_border"].to_numpy(zero_copy_only=False)
        n_border += np.bincount(where[border], minlength=len(blocks))
        np.add.at(confidence, where, sure)
        diameters.add(centre[~border], rows["diameter_px"].to_numpy()[~border])
        n_doubtful += int(np.count_nonzero(sure < DOUBTFUL))
    return CellSums(n_cells, n_border, confidence, n_doubtful, diameters)
