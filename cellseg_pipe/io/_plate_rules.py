"""The rules of OME-Zarr 0.4 and 0.5 for plates and wells; no I/O."""

from __future__ import annotations

from typing import Any

from cellseg_pipe.io._findings import Report
from cellseg_pipe.io._metadata import entries

__all__ = ["plate_rules", "well_rules"]


def plate_rules(report: Report, plate: dict[str, Any]) -> list[str]:
    """Check a plate and return the paths of its wells.

    Parameters
    ----------
    report : Report
        Takes what is found.
    plate : dict
        What stands under `plate`.

    Returns
    -------
    list of str
        ROW/COLUMN each.
    """
    for kind in ("rows", "columns"):
        names = [entry.get("name") for entry in entries(plate.get(kind))]
        if not names or not all(isinstance(n, str) and n.isalnum() for n in names):
            report.error(f"plate.{kind}", f"names are expected, got {names!r:.60}", "Mend them.")
        elif len(set(names)) < len(names):
            report.error(f"plate.{kind}", f"each once is expected, got {names!r:.60}", "Drop one.")
    wells = entries(plate.get("wells"))
    if not wells:
        report.error("plate.wells", "one or more are expected", "List them.")
    named = [
        _well_path(report, f"plate.wells[{i}]", plate=plate, well=well)
        for i, well in enumerate(wells)
    ]
    return [path for path in named if path]


def _well_path(report: Report, place: str, *, plate: dict[str, Any], well: dict[str, Any]) -> str:
    path = well.get("path")
    if not isinstance(path, str) or path.count("/") != 1:
        report.error(f"{place}.path", f"ROW/COLUMN is expected, got {path!r:.40}", "Mend it.")
        return ""
    indices: tuple[Any, ...] = (well.get("rowIndex"), well.get("columnIndex"))
    if not all(type(i) is int and i >= 0 for i in indices):
        report.error(place, f"rowIndex and columnIndex are expected, got {indices}", "Add them.")
        return path
    parts = [entries(plate.get(kind)) for kind in ("rows", "columns")]
    meant = "/".join(
        str(part[i].get("name")) if i < len(part) else "?"
        for part, i in zip(parts, indices, strict=True)
    )
    if path != meant:
        report.error(place, f"the path of its indices is {meant}, got {path}", "Mend it.")
    return path


def well_rules(report: Report, well: dict[str, Any]) -> list[str]:
    """Check a well and return the paths of its fields.

    Parameters
    ----------
    report : Report
        Takes what is found.
    well : dict
        What stands under `well`.

    Returns
    -------
    list of str
        Of one image each.
    """
    paths = [image.get("path") for image in entries(well.get("images"))]
    plain = [path for path in paths if isinstance(path, str) and path]
    if not paths or len(plain) < len(paths):
        report.error(
            "well.images", f"paths of one or more are expected, got {paths!r:.60}", "List them."
        )
    return plain
