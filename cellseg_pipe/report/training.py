"""The page of a training run: curves, scores by set, pictures, the model card."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from cellseg_pipe import __version__
from cellseg_pipe.report.charts import Figure, lines
from cellseg_pipe.report.html import Section, data_uri, escape, page, short, table
from cellseg_pipe.training.curves import LOSSES, read_log, read_scores
from cellseg_pipe.training.evaluate import Score, means_by_set

__all__ = ["is_training", "training_page"]

PICTURES = 24  # at most


def is_training(folder: Path) -> bool:
    """Return whether a folder is one of `cellseg train`.

    Parameters
    ----------
    folder : path
        Any folder.

    Returns
    -------
    bool
        Whether there is the log of a training run, and no summary of another.
    """
    return (folder / "log.csv").exists() and not (folder / "summary.json").exists()


def training_page(folder: Path) -> tuple[str, list[Figure]]:
    """Return the page of a training run.

    Parameters
    ----------
    folder : path
        Of the run, finished or not.

    Returns
    -------
    str
        HTML.
    list of Figure
        All charts.
    """
    log, scores = read_log(folder / "log.csv"), read_scores(folder / "evaluation.csv")
    figures = [*_loss_figures(log), *_score_figures(scores)]
    body = f'<div class="grid wide">{"".join(figure.html for figure in figures)}</div>'
    sections = [Section("Curves", "Curves", body)] if figures else []
    best = max(scores, key=lambda step: _overall(scores[step])) if scores else 0
    if scores:
        note = f"Images to tune on, after {best:,} steps, the best of {len(scores)} looks."
        sections.append(Section("Scores", "Scores by set", _by_set(scores[best]), note))
    for file in sorted(folder.glob("test_*_diameter.csv")):
        rows = [score for part in _tested(file) for score in part]
        seen = file.stem.split("_")[1]
        note = f"Images that training never saw, {seen} diameter."
        sections.append(Section("Test", "Test images", _by_set(rows), note))
    sections += _pictures(folder / "pictures")
    cards = sorted(folder.glob("*.md"))
    if cards:
        text = escape(cards[0].read_text("utf-8"))
        sections.append(Section("Card", "Model card", f"<pre>{text}</pre>"))
    name = folder.resolve().name
    head = (
        f'<p class="kicker">Training report · {escape(name)}</p>'
        f"<h1>{escape(_headline(log, scores, best))}</h1>"
    )
    foot = f"Written by cellseg_pipe {escape(__version__)}. This page needs no network."
    return page(name, head, sections, foot=foot), figures


def _tested(file: Path) -> list[list[Score]]:
    """Return scores of a file that has no steps."""
    import csv

    with open(file, newline="", encoding="utf-8") as lines_:
        rows = list(csv.DictReader(lines_))
    scores = [
        Score(r["image"], r["set"], float(r["ap50"]), float(r["ap75"]), int(r["n_true"]),
              int(r["n_found"]), float(r.get("right_class") or "nan"))
        for r in rows
    ]  # fmt: skip
    return [scores]


def _overall(scores: list[Score]) -> float:
    values = [v for s in scores for v in (s.ap50, s.ap75) if math.isfinite(v)]
    return float(np.mean(values)) if values else -1.0


def _headline(log: list[dict[str, float]], scores: dict[int, list[Score]], best: int) -> str:
    steps = int(log[-1]["step"]) if log else 0
    if not scores:
        return f"{steps:,} steps of training"
    found = [s.ap50 for s in scores[best] if math.isfinite(s.ap50)]
    mean = float(np.mean(found)) if found else math.nan
    return f"Average precision {short(mean)} after {best:,} of {steps:,} steps"


def _loss_figures(log: list[dict[str, float]]) -> list[Figure]:
    if len(log) < 2:
        return []
    steps = [row["step"] for row in log]
    figures = []
    for name in LOSSES:
        values = [row.get(name, math.nan) for row in log]
        if any(v for v in values if math.isfinite(v)):
            data = {"step": np.array(steps), name: np.array(values)}
            svg = lines(steps, {name: values}, unit="steps")
            title = "Loss" if name == "loss" else f"Loss, {name}"
            figures.append(Figure(f"loss-{name}", title, svg, data))
    return figures


def _score_figures(scores: dict[int, list[Score]]) -> list[Figure]:
    figures = []
    steps = sorted(scores)
    for name in sorted({s.set for part in scores.values() for s in part}):
        means = [means_by_set(scores[step]).get(name) for step in steps]
        series = {
            "AP at .5": [math.nan if m is None else m.ap50[0] for m in means],
            "AP at .75": [math.nan if m is None else m.ap75[0] for m in means],
        }
        data = {"step": np.array(steps)} | {k: np.array(v) for k, v in series.items()}
        plain = re.sub(r"\W+", "-", name)
        svg = lines([float(s) for s in steps], series, unit="steps")
        figures.append(Figure(f"score-{plain}", f"Set {name}", svg, data))
    return figures


def _by_set(scores: list[Score]) -> str:
    rows = []
    for name in sorted({s.set for s in scores}):
        own = [s for s in scores if s.set == name]
        known = [s for s in own if math.isfinite(s.ap50)]
        ap50, ap75 = (
            float(np.mean([getattr(s, key) for s in known])) if known else math.nan
            for key in ("ap50", "ap75")
        )
        n_true, n_found = (sum(getattr(s, key) for s in own) for key in ("n_true", "n_found"))
        rows.append((name, len(own), n_true, n_found, ap50, ap75))
    head = ("Set", "Images", "True cells", "Found", "AP at .5", "AP at .75")
    return table(head, rows, kind="sortable")


def _pictures(folder: Path) -> list[Section]:
    files = sorted(folder.glob("*.png"))[:PICTURES] if folder.is_dir() else []
    if not files:
        return []
    cards = "".join(
        f'<figure><img class="plain" alt="{escape(file.stem)}"'
        f' src="{data_uri(file.read_bytes(), "image/png")}">'
        f"<figcaption><b>{escape(file.stem.replace('_', ' '))}</b></figcaption></figure>"
        for file in files
    )
    note = "Left the truth, right what was found."
    body = f'<div class="grid wide regions">{cards}</div>'
    return [Section("Pictures", "Best and worst images", body, note)]
