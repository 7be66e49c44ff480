"""Tables of one row per cell: columns by name, as CSV or parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.files import binary_whole

__all__ = ["read_table", "write_table"]


def write_table(path: Path | str, columns: dict[str, NDArray[Any]]) -> None:
    """Write a table, whole or not at all.

    Parameters
    ----------
    path : path
        Ends in .csv or .parquet.
    columns : dict of str to array [n]
        All of one length.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ValueError(f"tables are written as .csv or .parquet, got {path.name}.")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path.name} needs columns of one length, got {lengths}.")
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    with binary_whole(path) as file:
        if suffix == ".csv":
            csv.write_csv(table, file)
        else:
            parquet.write_table(table, file, compression="zstd")


def read_table(path: Path | str) -> dict[str, NDArray[Any]]:
    """Read a table.

    Parameters
    ----------
    path : path
        Ends in .csv or .parquet.

    Returns
    -------
    dict of str to array [n]
        Columns in their order. CSV does not tell types: whole numbers are int64.
    """
    from pyarrow import ArrowInvalid, csv, parquet

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ValueError(f"tables are read from .csv or .parquet, got {path.name}.")
    try:
        table = csv.read_csv(path) if suffix == ".csv" else parquet.read_table(path)
    except ArrowInvalid as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} cannot be read as a table: {said}.") from error
    return {
        name: np.asarray(column.to_numpy())
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
