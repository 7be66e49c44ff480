"""Opens what a finished run has made; nothing is read until it is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellseg_pipe.io._attributes import level_paths

if TYPE_CHECKING:
    import pyarrow as pa
    import zarr

__all__ = ["RunResult", "open_result"]

SUMMARY = "summary.json"
LABELS = "labels.ome.zarr"
TABLE = "cells.parquet"
TRACES = ("plan.json", "config.yaml", "runs")  # of a run, finished or not


@dataclass(frozen=True)
class RunResult:
    """What a run has made: labels and a table for each unit (an image and a target).

    Parameters
    ----------
    folder : path
        Of the run.
    summary : dict
        Content of `summary.json`.
    """

    folder: Path
    summary: dict[str, Any] = field(repr=False)

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units, in the order of the experiment."""
        return tuple(self.summary["units"])

    @property
    def is_complete(self) -> bool:
        """Whether the run calls itself complete, and labels and table of each unit are there."""
        said = bool(self.summary.get("complete", True))
        return said and all(
            self._path(unit, "labels", LABELS).is_dir()
            and self._path(unit, "table", TABLE).exists()
            for unit in self.units
        )

    def labels(self, name: str | None = None, level: int = 0) -> zarr.Array:
        """Return the labels of a unit, of which only what is indexed is read.

        Parameters
        ----------
        name : str, optional
            Of the unit; may be left out where there is one.
        level : int
            Of the pyramid, 0 for the finest.

        Returns
        -------
        zarr.Array
            uint32 [*spatial], read-only; `labels[10:20, 5:9]` is an array in memory.
        """
        import zarr

        store = self._path(self._unit(name), "labels", LABELS)
        paths = level_paths(store)
        if not paths:
            raise FileNotFoundError(
                f"{store} needs to be the labels of a finished run, and has none. Run it again."
            )
        if not 0 <= level < len(paths):
            raise ValueError(f"{store} has levels 0 to {len(paths) - 1}, asked for {level}.")
        return zarr.open_array(str(store / paths[level]), mode="r")

    def table(self, name: str | None = None, *, columns: list[str] | None = None) -> pa.Table:
        """Return the table of a unit, or of all: a row per cell.

        Parameters
        ----------
        name : str, optional
            Of the unit. Without a name, that of the only one; of several, one table with a column
            `image`, and with several targets `target`.
        columns : list of str, optional
            To be read; all by default.

        Returns
        -------
        pyarrow.Table
            In memory. `label` is the value of the cell's voxels.
        """
        from pyarrow import parquet

        path = self.folder / TABLE
        if name is not None or len(self.units) == 1 or not path.exists():
            path = self._path(self._unit(name), "table", TABLE)
        if not path.exists():
            raise FileNotFoundError(
                f"{path} needs to be the table of a finished run, and does not exist. Run it again."
            )
        return parquet.read_table(path, columns=columns)

    def _unit(self, name: str | None) -> str:
        known = ", ".join(self.units) or "none"
        if name is None:
            if len(self.units) != 1:
                raise ValueError(f"{self.folder} has several units: {known}. Name one of them.")
            return self.units[0]
        if name not in self.units:
            raise KeyError(f"{self.folder} has the units {known}, asked for {name!r}.")
        return name

    def _path(self, unit: str, what: str, usual: str) -> Path:
        """Return where a part of a unit lies: in its folder, if the summary does not say."""
        units = self.summary["units"]
        said = units[unit].get(what) if isinstance(units, dict) else None
        return self.folder / said if isinstance(said, str) else self.folder / unit / usual


def open_result(folder: Path | str) -> RunResult:
    """Open the folder of a finished run.

    Parameters
    ----------
    folder : path
        The `output.dir` of the experiment.

    Returns
    -------
    RunResult
        Its labels and tables, which are read when they are asked for.
    """
    folder = Path(folder)
    file = folder / SUMMARY
    if not file.is_file():
        if any((folder / trace).exists() for trace in TRACES):
            raise FileNotFoundError(
                f"{folder} holds a run that is not finished: it has no {SUMMARY}. Start it again,"
                " and it goes on where it stopped."
            )
        raise FileNotFoundError(
            f"{folder} needs to be the folder of a run, and has no {SUMMARY}. Name the output.dir"
            " of the experiment."
        )
    try:
        summary = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as JSON: {error}. Run the audit again.") from error
    units = summary.get("units") if isinstance(summary, dict) else None
    if not isinstance(units, dict | list):
        raise ValueError(f"{file} needs units, a name for each, and has none. Run the audit again.")
    return RunResult(folder, summary)
