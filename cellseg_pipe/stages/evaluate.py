"""Scores label files against truth files: reads one pair at a time, writes JSON and CSV."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellseg_pipe.io.files import written_whole
from cellseg_pipe.io.images import list_images, pair_files, read_array
from cellseg_pipe.metrics import IOU_THRESHOLDS, Scores, score_images, tally_image

log = logging.getLogger(__name__)

__all__ = ["Evaluation", "EvaluationSettings", "Pair", "is_store", "run", "run_pairs"]

Pair = tuple[str, Path, Path]  # name, prediction, truth


@dataclass(frozen=True)
class EvaluationSettings:
    """How predictions are found and scored.

    Parameters
    ----------
    thresholds : sequence of float
        Least IoU of a match.
    ignore_label : int, optional
        Label in the truth of voxels that nobody annotated.
    boundary_px : float, optional
        Greatest distance of outlines that agree; no boundary scores without it.
    pred_pattern, truth_pattern : str
        Shell patterns that the names of files in folders must match.
    """

    thresholds: Sequence[float] = field(default=IOU_THRESHOLDS)
    ignore_label: int | None = None
    boundary_px: float | None = None
    pred_pattern: str = "*"
    truth_pattern: str = "*"


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of files.

    Parameters
    ----------
    names : tuple of str
        Name of each image, in the order of `scores.images`.
    scores : Scores
        Over all images, with one entry per image.
    """

    names: tuple[str, ...]
    scores: Scores


def run(
    pred: Path,
    truth: Path,
    *,
    settings: EvaluationSettings,
    json_path: Path | None = None,
    csv_path: Path | None = None,
) -> Evaluation:
    """Score a file against a file, or a folder against a folder.

    Parameters
    ----------
    pred, truth : path
        Two label files, or two folders of them with names that pair up.
    settings : EvaluationSettings
        How files are found and scored.
    json_path, csv_path : path, optional
        Where all scores are written, and one row per image.

    Returns
    -------
    Evaluation
        Names and scores.
    """
    return _scored(_pairs(pred, truth, settings), settings, json_path=json_path, csv_path=csv_path)


def run_pairs(pairs: Sequence[Pair], folder: Path, *, settings: EvaluationSettings) -> Evaluation:
    """Score pairs of files as one set.

    Parameters
    ----------
    pairs : sequence of (str, path, path)
        Name, prediction, truth.
    folder : path
        Where evaluation.json and evaluation.csv are written.
    settings : EvaluationSettings
        How they are scored.

    Returns
    -------
    Evaluation
        Names and scores.
    """
    files = {"json_path": folder / "evaluation.json", "csv_path": folder / "evaluation.csv"}
    return _scored(pairs, settings, **files)


def _scored(
    pairs: Sequence[Pair],
    settings: EvaluationSettings,
    *,
    json_path: Path | None,
    csv_path: Path | None,
) -> Evaluation:
    tallies = []
    for name, pred_path, truth_path in pairs:
        try:
            tally = tally_image(
                read_array(pred_path),
                read_array(truth_path),
                ignore=settings.ignore_label,
                thresholds=settings.thresholds,
                boundary_tolerance_px=settings.boundary_px,
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{pred_path} against {truth_path}: {error}") from error
        tallies.append(tally)
        log.info("%s: scored (%d of %d)", name, len(tallies), len(pairs))
    names = tuple(name for name, _, _ in pairs)
    result = Evaluation(names, score_images(tallies, thresholds=settings.thresholds))
    if json_path:
        _write_json(json_path, result)
    if csv_path:
        _write_csv(csv_path, result)
    return result


def _pairs(pred: Path, truth: Path, settings: EvaluationSettings) -> list[Pair]:
    """Return what belongs together; a store counts as a file."""
    for path in (pred, truth):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist.")
    folders = [path.is_dir() and not is_store(path) for path in (pred, truth)]
    if all(folders):
        return pair_files(
            list_images(pred, settings.pred_pattern), list_images(truth, settings.truth_pattern)
        )
    if any(folders):
        raise ValueError(
            f"evaluate needs two files or two folders, got {pred} and {truth}. Name the same kind."
        )
    return [(pred.name, pred, truth)]


def is_store(path: Path) -> bool:
    """Return whether a folder is a Zarr store.

    Parameters
    ----------
    path : path
        A folder, or a file.

    Returns
    -------
    bool
        Then it counts as a file.
    """
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))


def _write_json(path: Path, result: Evaluation) -> None:
    about = result.scores.as_dict()
    for name, image in zip(result.names, about.get("images") or (), strict=True):
        image["name"] = name
    with written_whole(path) as file:
        json.dump(about, file, indent=1)


def _write_csv(path: Path, result: Evaluation) -> None:
    """Write one row per image; a score by threshold becomes a column each."""
    rows = [
        {"name": name, **_flat(image)}
        for name, image in zip(result.names, result.scores.images, strict=True)
    ]
    with written_whole(path) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _flat(scores: Scores) -> dict[str, object]:
    columns: dict[str, object] = {}
    for name, value in scores.as_dict().items():
        if isinstance(value, dict):
            columns.update({f"{name}_{key}": item for key, item in value.items()})
        else:
            columns[name] = value
    return columns
