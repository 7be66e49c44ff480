"""Draws how a training run went: losses, rate and scores over steps, as a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.training.evaluate import Score, means_by_set

__all__ = ["draw_curves", "read_log", "read_scores"]

LOSSES = ("loss", "flow", "inside", "classes", "perceptual", "reconstruction", "statistics")


def read_log(path: Path | str) -> list[dict[str, float]]:
    """Read the log of a run.

    Parameters
    ----------
    path : path
        CSV of reports; it may be missing.

    Returns
    -------
    list of dict
        One per report.
    """
    return [{key: float(text) for key, text in row.items()} for row in _rows(path)]


def read_scores(path: Path | str) -> dict[int, list[Score]]:
    """Read the evaluations of a run.

    Parameters
    ----------
    path : path
        CSV of scores; it may be missing.

    Returns
    -------
    dict of int to list of Score
        By step.
    """
    found: dict[int, list[Score]] = {}
    for row in _rows(path):
        score = Score(
            row["image"],
            row["set"],
            float(row["ap50"]),
            float(row["ap75"]),
            int(row["n_true"]),
            int(row["n_found"]),
            float(row.get("right_class") or "nan"),
            float(row.get("psnr_db") or "nan"),
        )
        found.setdefault(int(row["step"]), []).append(score)
    return found


def _rows(path: Path | str) -> list[dict[str, str]]:
    if not Path(path).exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_curves(
    path: Path | str,
    *,
    log: Sequence[Mapping[str, float]],
    scores: Mapping[int, Sequence[Score]],
) -> None:
    """Draw losses and scores over steps.

    Parameters
    ----------
    path : path
        PNG; an old one is replaced.
    log : sequence of mapping
        Reports.
    scores : mapping of int to sequence of Score
        Evaluations by step.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, found = figure.subplots(2, 1, sharex=True)
    steps = [row["step"] for row in log]
    for name in LOSSES:
        values = [row.get(name, 0.0) for row in log]
        if any(values):
            losses.plot(steps, values, label=name)
    losses.set_ylabel("loss")
    for name in sorted({score.set for part in scores.values() for score in part}):
        means = {step: means_by_set(part).get(name) for step, part in sorted(scores.items())}
        known = {step: mean for step, mean in means.items() if mean is not None}
        (line,) = found.plot(list(known), [m.ap50[0] for m in known.values()], label=f"{name} AP.5")
        found.plot(
            list(known), [m.ap75[0] for m in known.values()], "--", color=line.get_color(),
            label=f"{name} AP.75",
        )  # fmt: skip
    found.set(xlabel="step", ylabel="average precision", ylim=(0, 1))
    for axes in (losses, found):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    with binary_whole(path) as file:
        figure.savefig(file, format="png", dpi=110)
