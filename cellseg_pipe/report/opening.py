"""The top of the page: verdicts in plain words, what was run, scores against a truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from cellseg_pipe.report.charts import Figure, lines
from cellseg_pipe.report.html import Section, escape, facts, short, table
from cellseg_pipe.report.restored import restored_words
from cellseg_pipe.report.source import Run, UnitSource

__all__ = ["head", "scored", "what_was_run"]

ABOUT = {
    "cells": "Cells",
    "diameter": "Diameter",
    "focus": "Focus",
    "brightness": "Brightness",
    "saturated": "Saturation",
    "blank": "Blank parts",
    "illumination": "Illumination",
    "seams": "Seams",
}
WORDS = {"ok": "Fine", "warn": "Look", "bad": "Failed"}
UNBROKEN = "\N{NO-BREAK SPACE}%"
MOST_VERDICTS = 12  # on top of the page


def head(run: Run) -> str:
    """Return what the page says first.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    str
        HTML.
    """
    n, n_cells = len(run.units), run.summary["n_cells"]
    images = "1 image" if n == 1 else f"{n:,} images"
    title = f"{n_cells:,} cell{'s' * (n_cells != 1)} in {images}"
    rows = _verdicts(run)
    warned = sum(level != "ok" for level, *_ in rows)
    said = (
        "Nothing was found that asks for a look."
        if not warned
        else f"{warned} of {len(rows)} checks ask for a look."
    )
    items = "".join(
        f'<li class="{level}"><span class="tag {level}">{WORDS[level]}</span>'
        f"<div><b>{escape(about)}</b> {escape(text.replace(' %', UNBROKEN))}</div></li>"
        for level, about, text in rows
    )
    items = f'<ul class="verdicts">{items}</ul>'
    name = run.folder.resolve().name
    return (
        f'<p class="kicker">Segmentation report · {escape(name)}</p>'
        f'<h1>{escape(title)}</h1><p class="lead">{said}</p>{items}'
    )


def _verdicts(run: Run) -> list[tuple[str, str, str]]:
    """Return level, subject and sentence; what asks for a look first."""
    rows = [_complete(run), _exact(run)]
    if len(run.units) == 1:
        rows += [_row(verdict) for verdict in run.units[0].qc.get("verdicts", ())]
    else:
        rows += list(_together(run))
    rows += [("warn", f"{unit.name}:", text) for unit in run.units[:MOST_VERDICTS]
             for text in unit.facts.get("warnings", ())]  # fmt: skip
    order = {"bad": 0, "warn": 1, "ok": 2}
    return sorted(rows, key=lambda row: order[row[0]])


def _row(verdict: dict[str, str]) -> tuple[str, str, str]:
    text = verdict["text"]
    about = ABOUT.get(verdict["about"], verdict["about"].capitalize())
    return verdict["level"], f"{about}:", text[:1] + text[1:]


def _complete(run: Run) -> tuple[str, str, str]:
    if not run.failed:
        return "ok", "Complete:", "every image was segmented and nothing is missing"
    n = len(run.failed)
    return "bad", "Not complete:", (
        f"{n} of {n + len(run.units)} images could not be segmented; they are listed below"
    )  # fmt: skip


def _exact(run: Run) -> tuple[str, str, str]:
    if run.summary["exact"]:
        return "ok", "Tiles:", "the labels are those that each image has as a whole"
    return "warn", "Tiles:", (
        "the labels depend on how images were cut into tiles: seams were joined by overlap, the"
        " halo is small, or machines computed differently"
    )  # fmt: skip


def _together(run: Run) -> list[tuple[str, str, str]]:
    """Return a line per subject, with how many images it concerns."""
    found: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    for unit in run.units:
        for verdict in unit.qc.get("verdicts", ()):
            seen[verdict["about"]] = seen.get(verdict["about"], 0) + 1
            if verdict["level"] != "ok":
                found.setdefault(verdict["about"], []).append(unit.name)
    rows = []
    for about, n in seen.items():
        names = found.get(about, [])
        few = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        text = f"{len(names)} of {n} images: {few}" if names else f"fine in all {n} images"
        rows.append(("warn" if names else "ok", f"{ABOUT.get(about, about.capitalize())}:", text))
    return rows


def what_was_run(run: Run) -> Section:
    """Return which program, model and settings made the result.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    Section
        Of the page.
    """
    units = run.units
    first = units[0].facts if units else {}
    models = {m["sha256"]: m["name"] for unit in units for m in unit.facts.get("models", ()) if m}
    numerics = sorted({n for unit in units for n in unit.facts.get("numerics", ())})
    rows = {
        "Program": f"cellseg_pipe {escape(run.summary['version'])}",
        "Model": "<br>".join(
            f"{escape(name)} <code>{escape(sha[:16])}</code>" for sha, name in models.items()
        ),
        "Restored by": restored_words(units),
        "Computed as": "<br>".join(escape(n) for n in numerics),
        "Folder": f"<code>{escape(run.folder.resolve())}</code>",
    }
    if len(units) == 1:
        rows |= about_image(units[0])
    elif units:
        modes = sorted({unit.facts["mode"] for unit in units})
        rows |= {"Images": f"{len(units):,}", "Mode": escape(", ".join(modes))}
    rows["Tiles"] = _tiles(first) if len(units) == 1 else ""
    config = run.paths.config
    text = config.read_text("utf-8") if config.exists() else ""
    shown = text if len(text) < 20_000 else text[:20_000] + "\n# shortened; see config.yaml"
    more = (
        f"<details><summary>The experiment as it ran</summary><pre>{escape(shown)}</pre></details>"
    )
    return Section("Run", "What was run", facts(rows) + (more if text else ""))


def about_image(unit: UnitSource) -> dict[str, str]:
    """Return what is to be known of one image.

    Parameters
    ----------
    unit : UnitSource
        The unit.

    Returns
    -------
    dict of str to str
        HTML by name.
    """
    facts_ = unit.facts
    spacing = unit.spacing_um
    size = " × ".join(f"{n:,}" for n in unit.shape) + " px"
    if spacing is not None:
        size += f", {' × '.join(short(s) for s in spacing)} µm each"
    diameter = facts_.get("diameter_px")
    told = "" if diameter is None else f"{short(diameter)} px"
    if diameter is not None:
        told += ", measured" if facts_.get("diameter") else ", as given"
    if len(classes := facts_.get("diameter_classes", ())) > 1:
        parts = (f"{short(c['diameter_px'])} px in {c['share']:.0%}" for c in classes)
        told += f"; parts of the image at their own: {', '.join(parts)}"
    return {
        "Image": f"<code>{escape(Path(facts_['image']).name)}</code>",
        "Size": escape(size),
        "Mode": escape(facts_["mode"]),
        "Diameter": told,
        "Made from": escape(", ".join(facts_.get("made_from", ()))),
    }


def _tiles(found: dict[str, Any]) -> str:
    tiles = found.get("tiles")
    if not tiles:
        return ""
    edges = " × ".join(map(str, tiles["core"]))
    return f"{tiles['n']:,} of {edges} px with a halo of {' × '.join(map(str, tiles['halo']))} px"


def scored(run: Run) -> tuple[Section, list[Figure]] | None:
    """Return the scores, where the experiment named a truth.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    Section
        Of the page.
    list of Figure
        Its charts. None where there are no scores of these results.
    """
    scores = run.scores
    if not scores:
        return None
    ap = {float(k): math.nan if v is None else float(v) for k, v in scores["ap"].items()}
    figure = Figure(
        "average-precision",
        "Average precision",
        lines(list(ap), {"AP": list(ap.values())}, unit="IoU of a match"),
        {"iou": np.array(list(ap)), "ap": np.array(list(ap.values()))},
        "Higher is better; 1 is perfect.",
    )
    plain = {name: value for name, value in scores.items() if isinstance(value, int | float)}
    rows = [(name.replace("_", " "), value) for name, value in plain.items()]
    body = f'<div class="grid wide">{figure.html}<div>{table(("Score", "Value"), rows)}</div></div>'
    return Section("Scores", "Scores against the truth", body), [figure]
