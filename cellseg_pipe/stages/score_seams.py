"""Scores the seams of label images that lie in files, of this program or another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cellseg_pipe.io._attributes import level_paths
from cellseg_pipe.io.images import read_array
from cellseg_pipe.qc import Seams, SeamScore, seam_score

__all__ = ["run", "text_of"]


def run(
    path: Path | str, seams: Seams, *, overlap_px: int = 0, diameter_px: float | None = None
) -> SeamScore:
    """Score the seams of a label image.

    Parameters
    ----------
    path : path
        An OME-Zarr label image or a zarr array, which are read block by block; else a TIFF, PNG or
        NPY, which is read whole.
    seams : int, or sequence of int, or of sequences of int
        As `seam_score` takes them.
    overlap_px : int
        What a tile saw beyond its seams.
    diameter_px : float, optional
        Of a typical cell.

    Returns
    -------
    SeamScore
        How cells at seams differ from those elsewhere.
    """
    labels = _labels(Path(path))
    return seam_score(labels, seams, overlap_px=overlap_px, diameter_px=diameter_px)


def _labels(path: Path) -> Any:
    if not path.is_dir():
        return read_array(path)
    import zarr

    levels = level_paths(path)
    try:
        return zarr.open_array(str(path / levels[0] if levels else path), mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"{path} needs to be a label image of OME-Zarr or a zarr array: {error}. Name the"
            " label image itself, as STORE/labels/cells."
        ) from error


def text_of(score: SeamScore) -> str:
    """Return a line per figure, and the verdict.

    Parameters
    ----------
    score : SeamScore
        The score.

    Returns
    -------
    str
        For a terminal.
    """
    lines = [f"{'figure':10} {'seams':>9} {'elsewhere':>9} {'excess':>9}   99.95 % interval"]
    for figure in score.figures:
        interval = "too little to say"
        if math.isfinite(figure.low):
            interval = f"{figure.low:+.4f} to {figure.high:+.4f}"
        numbers = f"{figure.seams:9.4f} {figure.elsewhere:9.4f} {figure.excess:+9.4f}"
        lines.append(f"{figure.name:10} {numbers}   {interval}")
    lines.append(f"{score.n_cells} cells touch a seam; score {score.score:.4f}: {score.verdict}")
    return "\n".join(lines)
