"""What the page says of a run of many images: a table to sort and filter, and those that failed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cellseg_pipe.report.charts import Figure, histogram
from cellseg_pipe.report.counts import mean_by_image
from cellseg_pipe.report.html import Section, table
from cellseg_pipe.report.source import Run, UnitSource

__all__ = ["extremes", "failed_images", "image_table"]

MEANS = ("confidence", "diameter_px", "area_px", "volume_px")
SEVERAL = 3  # of the best and of the worst


def _means(run: Run) -> dict[str, dict[str, float]]:
    return mean_by_image(run.paths.cells, MEANS) if run.paths.cells.exists() else {}


def image_table(run: Run) -> tuple[Section, list[Figure], dict[str, dict[str, float]]]:
    """Return a row per image, with charts over all of them.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    Section
        Of the page.
    list of Figure
        Its charts.
    dict of str to dict of str to float
        Means of each unit.
    """
    means = _means(run)
    head = (
        "Image",
        "Cells",
        "Mean confidence",
        "Mean diameter, px",
        "Flagged",
        "Checks",
        "To look at",
    )
    rows, levels = [], []
    for unit in run.units:
        own, level = means.get(unit.name, {}), unit.qc.get("level", "ok")
        warned = [v["about"] for v in unit.qc.get("verdicts", ()) if v["level"] != "ok"]
        levels.append(level)
        rows.append(
            (unit.name, unit.facts["n_cells"], own.get("confidence", math.nan),
             own.get("diameter_px", math.nan), unit.facts.get("n_flagged", 0),
             "look" if level != "ok" else "fine", ", ".join(warned))
        )  # fmt: skip
    figures = _charts(run, means)
    body = (
        f'<div class="grid">{"".join(f.html for f in figures)}</div><br>'
        f"<div data-filtered>{_filter()}{table(head, rows, kind='sortable', levels=levels)}</div>"
    )
    note = "A click on the head of a column sorts."
    return Section("Images", "All images", body, note), figures, means


def _filter() -> str:
    return (
        '<div class="filter"><label>Find <input type="search" placeholder="part of a name">'
        '</label><label>Checks <select><option value="">all</option><option value="warn">look'
        '</option><option value="ok">fine</option></select></label><output class="note"></output>'
        "</div>"
    )


def _charts(run: Run, means: dict[str, dict[str, float]]) -> list[Figure]:
    """Return how images differ."""
    values: dict[str, Any] = {
        "Cells of an image": [float(unit.facts["n_cells"]) for unit in run.units],
        "Mean confidence of an image": [
            m["confidence"] for m in means.values() if "confidence" in m
        ],
    }
    figures = []
    for title, found in values.items():
        if len(found) > 1:
            counts, edges = np.histogram(found, bins=min(40, max(5, len(found) // 4)))
            data = {"from": edges[:-1], "to": edges[1:], "images": counts}
            svg = histogram(counts, edges, unit="images", median=float(np.median(found)))
            figures.append(Figure(title.lower().replace(" ", "-"), title, svg, data))
    return figures


def failed_images(run: Run) -> Section:
    """Return the images that could not be segmented, and why.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    Section
        Of the page.
    """
    body = table(("Image", "Why"), run.failed.items())
    note = "The others are finished. Mend the files and start the run again: only these are redone."
    return Section("Failed", "Images that failed", body, note)


def extremes(run: Run, means: dict[str, dict[str, float]]) -> list[tuple[str, UnitSource]]:
    """Return the images whose cells are least and most sure.

    Parameters
    ----------
    run : Run
        The run.
    means : dict
        From `image_table`.

    Returns
    -------
    list of (str, UnitSource)
        Worst or best, and the unit; none twice.
    """
    known = {name: own["confidence"] for name, own in means.items() if "confidence" in own}
    order = sorted((u for u in run.units if u.name in known), key=lambda u: (known[u.name], u.name))
    worst, best = order[:SEVERAL], order[SEVERAL:][::-1][:SEVERAL]
    return [("worst", unit) for unit in worst] + [("best", unit) for unit in best]
