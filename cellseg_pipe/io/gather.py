"""Puts many tables into one, a folder of parts, with columns that say where a row comes from."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellseg_pipe.io._moving import replace
from cellseg_pipe.io.files import binary_whole, sync_folder

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PART_ROWS", "gather_tables"]

PART_ROWS = 1 << 20


def gather_tables(folder: Path, tables: Mapping[Path, Mapping[str, str]]) -> int:
    """Write the rows of several tables one after the other.

    Parameters
    ----------
    folder : path
        Of the parts, `part-00000.parquet` and so on: pandas, pyarrow, polars and dask read it as
        one table. It appears when it is whole; one that is there is replaced.
    tables : mapping of path to mapping
        A parquet file or folder of parts, and values of columns that are put before its own.
        Columns that a table lacks are null.

    Returns
    -------
    int
        Rows.
    """
    making = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    making.mkdir(parents=True)
    try:
        n_rows = _write_parts(making, _all_rows(tables))
        sync_folder(making)
        replace(making, folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return n_rows


def _write_parts(folder: Path, rows: Iterator[pa.Table]) -> int:
    """Write parts of equal numbers of rows, the last one aside; one at least."""
    import pyarrow as pa
    from pyarrow import parquet

    total = number = 0
    held = next(rows)

    def write(part: Any) -> None:
        nonlocal number
        with binary_whole(folder / f"part-{number:05d}.parquet") as file:
            parquet.write_table(part.combine_chunks(), file, compression="zstd")
        number += 1

    for more in rows:
        total += more.num_rows
        held = pa.concat_tables([held, more])
        while held.num_rows > PART_ROWS:
            write(held.slice(0, PART_ROWS))
            held = held.slice(PART_ROWS)
    write(held)
    return total


def _all_rows(tables: Mapping[Path, Mapping[str, str]]) -> Iterator[pa.Table]:
    """Yield an empty table with all columns, then all rows, some at a time."""
    import pyarrow as pa
    from pyarrow import dataset

    given = list(dict.fromkeys(name for values in tables.values() for name in values))
    schemas: dict[str, pa.Schema] = {}  # of thousands of tables a few differ
    for path in tables:
        schema = dataset.dataset(path).schema.remove_metadata()
        schemas.setdefault(schema.to_string(), schema)
    first = pa.schema([(name, pa.string()) for name in given])
    whole = pa.unify_schemas([first, *schemas.values()], promote_options="permissive")
    yield whole.empty_table()
    for path, values in tables.items():
        for batch in dataset.dataset(path).to_batches():
            n = batch.num_rows
            columns = {name: pa.repeat(value, n) for name, value in values.items()}
            columns |= dict(zip(batch.schema.names, batch.columns, strict=True))
            yield pa.table(
                [
                    columns[field.name].cast(field.type)
                    if field.name in columns
                    else pa.nulls(n, field.type)
                    for field in whole
                ],
                schema=whole,
            )
