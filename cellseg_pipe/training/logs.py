"""The tables of a run: rows are appended, and cut back when it goes on from an earlier step."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cellseg_pipe.io.files import written_whole

__all__ = ["append_rows", "cut_rows"]


def append_rows(path: Path | str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a CSV, which is begun if there is none.

    Parameters
    ----------
    path : path
        The file; one of an earlier version keeps its columns.
    rows : sequence of mapping
        With one value per column.
    """
    if not rows:
        return
    path = Path(path)
    names = list(rows[0])
    fresh = not path.exists() or not path.stat().st_size
    if not fresh:
        with open(path, newline="", encoding="utf-8") as file:
            names = next(csv.reader(file))
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def cut_rows(path: Path | str, *, step: int) -> None:
    """Drop what was logged after the step that a run goes on from.

    Parameters
    ----------
    path : path
        The file; it may be missing.
    step : int
        The last one that counts. A line that was torn goes too.
    """
    path = Path(path)
    if not path.exists():
        return
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines:
        return
    names, rows = lines[0], lines[1:]
    at = names.index("step")
    kept = [row for row in rows if len(row) == len(names) and int(row[at]) <= step]
    if len(kept) < len(rows):
        with written_whole(path) as file:
            csv.writer(file, lineterminator="\n").writerows([names, *kept])
