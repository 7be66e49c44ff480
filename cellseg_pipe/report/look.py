"""What the page shows of one image at full resolution: regions, seams, conflicts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.tables import read_table
from cellseg_pipe.report.cells import depth
from cellseg_pipe.report.charts import Figure, intervals
from cellseg_pipe.report.counts import CellCounts
from cellseg_pipe.report.html import Section, data_uri, escape, short, table
from cellseg_pipe.report.maps import overview
from cellseg_pipe.report.restored import restored_image
from cellseg_pipe.report.samples import Region, Shown, choose_regions, shown, thumbnail
from cellseg_pipe.report.source import UnitSource

__all__ = ["pictures", "places", "regions", "seams", "volume"]

VIEWS = ("image", "restored", "outlines", "fill", "flows", "probability")
SEAM_WORDS = {
    "cut": "cut cells",
    "slivers": "slivers",
    "fused": "fused cells",
    "close": "halves",
    "repeats": "repeats",
    "middles": "cells on it",
    "starts": "begin there",
    "stops": "end there",
}
CONFLICTS = 6  # of which thumbnails are shown
THUMB_PX = 128


def pictures(unit: UnitSource, counts: CellCounts, *, most: int | None = None) -> list[Shown]:
    """Draw the regions of a unit.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    counts : CellCounts
        Where its cells lie.
    most : int, optional
        How many.

    Returns
    -------
    list of Shown
        Their pictures.
    """
    restored = restored_image(unit)
    chosen = choose_regions(unit, counts)[:most]
    return [shown(unit, region, restored=restored) for region in chosen]


def regions(several: list[tuple[UnitSource, list[Shown]]], *, key: str) -> Section:
    """Return pictures at full resolution, with a switch.

    Parameters
    ----------
    several : list of (UnitSource, list of Shown)
        The units and their pictures.
    key : str
        Unlike that of other such sections of the page.

    Returns
    -------
    Section
        Of the page.
    """
    there = {name for _, many in several for one in many for name in one.layers}
    missing = sorted({one.missing for _, many in several for one in many if one.missing})
    named = len(several) > 1
    cards = [
        _card(one, unit.name if named else f"{i}", unit)
        for unit, many in several
        for i, one in enumerate(many, 1)
    ]
    note = "Open a picture to see it larger. Arrow keys move the switch."
    if "restored" in there:
        note += " Restored is the image as the network saw it, each picture in its own contrast."
    if missing:
        note += f" Flows and probability are left out where {'; '.join(missing)}."
    if any(unit.image is None for unit, _ in several):
        note += " Images that cannot be read any more are grey."
    body = (
        f'<div data-view="outlines">{_switch(key, there)}'
        f'<div class="grid wide regions">{"".join(cards)}</div></div>'
    )
    return Section("Look", "At full resolution", body, note)


def _switch(key: str, there: set[str]) -> str:
    inputs = "".join(
        f'<label><input type="radio" name="view-{key}" value="{name}"'
        f"{' checked' if name == 'outlines' else ''}{'' if name in there else ' disabled'}>"
        f"<span>{name.capitalize()}</span></label>"
        for name in VIEWS
        if name in there or name != "restored"
    )
    return f'<fieldset class="views"><legend>What is shown</legend>{inputs}</fieldset>'


def _card(one: Shown, name: str, unit: UnitSource) -> str:
    box = one.region.box
    height, width = box.shape[-2:]
    where = _where(box, unit.axes)
    alt = f"{one.region.why}, {where}"
    layers = "".join(
        f'<img class="{layer}" width="{width}" height="{height}" alt="{escape(alt)}"'
        f' src="{data_uri(content, "image/webp")}">'
        for layer, content in one.layers.items()
    )
    why = one.region.why
    title = f"{name}: {why}" if name and not name.isdigit() else why[:1].upper() + why[1:]
    mark = f'<span class="place">{name}</span>' if name.isdigit() else ""
    sides = "".join(
        f'<img class="plain" alt="Slice along {along}, {escape(alt)}"'
        f' src="{data_uri(content, "image/webp")}">'
        for along, content in zip("yx", one.sides, strict=False)
    )
    return (
        f'<figure><button type="button" class="stack" aria-label="Larger: {escape(alt)}">{layers}'
        f"</button>{sides}<figcaption><b>{mark}{escape(title)}</b>{one.n_cells} cells"
        f" <span aria-hidden='true'>·</span> {escape(where)}</figcaption></figure>"
    )


def _where(box: Box, axes: str) -> str:
    """Return a place as viewers take it."""
    parts = []
    for axis, start, stop in zip(axes, box.start, box.stop, strict=True):
        parts.append(f"{axis} {start:,}" if stop == start + 1 else f"{axis} {start:,}–{stop:,}")
    return ", ".join(parts)


def places(unit: UnitSource, many: list[Shown]) -> Figure:
    """Return where the regions of a unit lie.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    many : list of Shown
        Its regions.

    Returns
    -------
    Figure
        A small picture with their numbers.
    """
    first = many[0].region.box.start[0] if many and len(unit.shape) == 3 else 0
    high, wide = unit.shape[-2:]
    boxes = [
        (b.start[-2] / high, b.start[-1] / wide, b.stop[-2] / high, b.stop[-1] / wide)
        for b in (one.region.box for one in many)
    ]
    svg = overview(thumbnail(unit, first), boxes, aspect=unit.aspect)
    return Figure(f"{unit.name}-overview", "Overview", svg, note="Numbers are the places below.")


def volume(unit: UnitSource, counts: CellCounts) -> tuple[Section, list[Figure]] | None:
    """Return what the planes of a volume, or the times of a series, have.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    counts : CellCounts
        Where its cells lie.

    Returns
    -------
    Section
        Of the page.
    list of Figure
        Its charts. None of planes.
    """
    figures = depth(unit, counts)
    if not figures:
        return None
    body = f'<div class="grid wide">{"".join(figure.html for figure in figures)}</div>'
    name = "Time" if unit.axes[0] == "t" else "Depth"
    return Section(name, f"Over {name.lower()}", body), figures


def seams(unit: UnitSource) -> tuple[Section, list[Figure]] | None:
    """Return how cells at seams differ from others, and what could not be settled.

    Parameters
    ----------
    unit : UnitSource
        The unit.

    Returns
    -------
    Section
        Of the page.
    list of Figure
        Its charts. None where an image has no seams.
    """
    found: dict[str, Any] = unit.qc.get("seams") or {}
    conflicts = unit.run.paths.unit(unit.name).conflicts
    refused = read_table(conflicts) if conflicts.exists() else {"iou": np.zeros(0)}
    tiles = (unit.facts.get("tiles") or {}).get("n", 1)
    if tiles < 2 and not len(refused["iou"]):
        return None
    body, figures = _checked(unit), []
    if any(row["low"] is not None for row in found.values()):
        figures = [_seam_figure(unit, found)]
        body += f'<div class="pair">{figures[0].html}{_seam_table(found)}</div>'
    if len(refused["iou"]):
        body += _conflicts(unit, refused)
    note = "Lines where tiles met are compared with lines of the same image where none did."
    return Section("Seams", "Seams", body, note), figures


def _checked(unit: UnitSource) -> str:
    checked, score = unit.facts.get("seams") or {}, unit.qc.get("seam_score")
    parts = []
    if score is not None:
        parts.append(
            f"The seam score is {short(score)}: so far is the surest difference from none."
            if score
            else "No difference was found (seam score 0)."
        )
    if checked.get("checked"):
        parts.append(
            f"{checked['cells']} cells at {checked['checked']} seams were found once more in"
            " windows across them, and were the same."
        )
    return f"<p>{' '.join(parts)}</p>" if parts else ""


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _seam_figure(unit: UnitSource, found: dict[str, Any]) -> Figure:
    shares = ("cut", "slivers", "fused", "close", "repeats")
    rows = {
        SEAM_WORDS[name]: (_number(row["low"]), _number(row["excess"]), _number(row["high"]))
        for name, row in found.items()
        if name in shares
    }
    data: dict[str, Any] = {"figure": np.array(list(found), object)}
    for key in ("seams", "elsewhere", "excess", "low", "high"):
        data[key] = np.array([_number(row[key]) for row in found.values()])
    note = "Share at seams less share elsewhere, with 99.95 % intervals: zero should lie inside."
    return Figure(f"{unit.name}-seams", "Difference at seams", intervals(rows), data, note)


def _seam_table(found: dict[str, Any]) -> str:
    head = ("Figure", "At seams", "Elsewhere", "Difference")
    rows = [
        (SEAM_WORDS.get(name, name), row["seams"], row["elsewhere"], row["excess"])
        for name, row in found.items()
    ]
    return table(head, rows)


def _conflicts(unit: UnitSource, refused: dict[str, Any]) -> str:
    """Return the links that were refused: the best ones with a picture."""
    n = len(refused["iou"])
    cards = "".join(_card(one, "", unit) for one in _thumbs(unit, refused))
    return (
        f"<h3>Conflicts</h3><p>{n:,} links between tiles were refused: they would have made two"
        " cells of one tile one. All are in <code>conflicts.parquet</code>.</p>"
        f'<div class="grid regions" data-view="outlines">{cards}</div>'
    )


def _thumbs(unit: UnitSource, refused: dict[str, Any]) -> Iterator[Shown]:
    for row in range(min(CONFLICTS, len(refused["iou"]))):
        start, stop = [], []
        for axis, n in zip(unit.axes, unit.shape, strict=True):
            sides = [float(refused[f"{axis}_{side}_px"][row]) for side in "ab"]
            middle = int(np.nan_to_num(sum(sides) / 2))
            edge = min(THUMB_PX, n) if axis in "yx" else 1
            low = min(max(0, middle - edge // 2), n - edge)
            start.append(low)
            stop.append(low + edge)
        why = f"refused link, IoU {short(float(refused['iou'][row]))}"
        one = shown(unit, Region(why, Box(tuple(start), tuple(stop))))
        few = {name: one.layers[name] for name in ("image", "outlines")}
        yield Shown(one.region, few, one.n_cells)
