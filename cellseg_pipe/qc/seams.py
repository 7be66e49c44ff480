"""Whether cells at seams are as elsewhere: counts near seams against lines without, with intervals.

Labels of any program can be scored: all that is needed is where its tiles met.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import boxes_and_areas, diameter_px
from cellseg_pipe.qc._counting import COUNTS, SeamCounts, count_lines, margin_px
from cellseg_pipe.qc._lines import Lines, Seams, lines_of, seam_positions
from cellseg_pipe.tiles import Grid

__all__ = ["SeamFigure", "SeamScore", "Seams", "score_counts", "seam_score"]

BLOCK_PX = {2: (1024, 1024), 3: (64, 256, 256)}
SAMPLES = 16  # blocks that the diameter of a typical cell is measured in
SURE = 3.48  # standard deviations to both sides: 99.95 %
UNSURE = 5e-4
LEAST_LINES, LEAST_CELLS = 6, 30  # for the spread of rates
# Shares of what touches a line: name, what is counted, of how many, in words.
# Cells that are cut, or too near, mostly come in twos: half of them are independent.
SHARES = (
    ("cut", "cut", "touching", "end flat on the seam, as if cut"),
    ("slivers", "slivers", "touching", "are slivers that begin or end at the seam"),
    ("fused", "fused", "touching", "are as large as two cells"),
    ("close", "close", "touching", "have a neighbour across the seam that is too near"),
    ("gaps", "gaps", "places", "are gaps where a cell has room"),
    ("repeats", "repeated", "rated", "of the strips beside seams are there twice"),
)
IN_TWOS = ("cut", "close")
# Rates per length of a line, compared with those elsewhere.
RATES = (
    ("density", "near", "cells near a seam"),
    ("middles", "middles", "cells whose middle lies on a seam"),
    ("starts", "starts", "cells that begin at a seam"),
    ("stops", "stops", "cells that end at a seam"),
    ("cover", "covered", "area of cells beside seams"),
)


@dataclass(frozen=True)
class SeamFigure:
    """One comparison of seams with other lines of the same image.

    Parameters
    ----------
    name : str
        What is compared.
    seams, elsewhere : float
        The share or rate there.
    excess : float
        Difference of shares; of rates their ratio less 1.
    low, high : float
        Ends of its 99.95 % interval; nan where there is too little to say.
    text : str
        In words.
    """

    name: str
    seams: float
    elsewhere: float
    excess: float
    low: float
    high: float
    text: str

    @property
    def score(self) -> float:
        """How far the interval stays from no difference; 0 where it holds it."""
        return max(self.low, -self.high, 0.0) if math.isfinite(self.low) else 0.0


@dataclass(frozen=True)
class SeamScore:
    """How much cells at seams differ from those elsewhere.

    Parameters
    ----------
    figures : tuple of SeamFigure
        cut, slivers, fused, close, gaps, repeats, density, middles, starts, stops, cover.
    n_cells : int
        Cells that touch a seam; one at a crossing counts for both.
    typical_px : float
        Diameter of a typical cell.
    """

    figures: tuple[SeamFigure, ...]
    n_cells: int
    typical_px: float

    @property
    def score(self) -> float:
        """The worst of all figures; 0 where seams are as other lines."""
        return max((figure.score for figure in self.figures), default=0.0)

    @property
    def verdict(self) -> str:
        """What it means."""
        if not self.n_cells:
            return "no cells touch a seam"
        bad = sorted((f for f in self.figures if f.score), key=lambda f: -f.score)
        return "; ".join(figure.text for figure in bad) or "cells at seams are as elsewhere"


def seam_score(
    labels: Any, seams: Seams, *, overlap_px: int = 0, diameter_px: float | None = None
) -> SeamScore:
    """Compare the cells at seams with those elsewhere in the same image.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels, 0 for background: an array, or anything that has a shape and gives arrays for
        slices, as zarr arrays do. It is read block by block.
    seams : int, or sequence of int, or of sequences of int
        Edge of the tiles that were joined; or one per axis, 0 for an axis that was not cut; or the
        positions of the seams along each axis. A seam p lies between the voxels p - 1 and p.
    overlap_px : int
        What a tile saw beyond its seams: programs that let tiles overlap leave traces there, too.
    diameter_px : float, optional
        Of a typical cell; by default the median of some blocks.

    Returns
    -------
    SeamScore
        0 where seams cannot be told from other lines.
    """
    shape = tuple(int(n) for n in labels.shape)
    if len(shape) not in BLOCK_PX:
        raise ValueError(f"seam_score needs labels of 2 or 3 axes, got shape {shape}.")
    positions = tuple(
        tuple(sorted({q for p in known for q in (p - overlap_px, p, p + overlap_px) if 0 < q < n}))
        for n, known in zip(shape, seam_positions(shape, seams), strict=True)
    )
    if not any(positions):
        raise ValueError(
            f"seam_score needs seams inside the labels of shape {shape}, got {seams}. Name the"
            " edge of the tiles that were joined."
        )
    typical = typical_px(labels) if diameter_px is None else float(diameter_px)
    if not math.isfinite(typical):
        return score_counts([], typical_px=typical)
    lines = lines_of(shape, positions, clear_px=typical)
    grid = Grid(shape, BLOCK_PX[len(shape)])
    return score_counts(list(_counted(labels, grid, lines, typical=typical)), typical_px=typical)


def _counted(
    labels: Any, grid: Grid, lines: Sequence[Lines], *, typical: float
) -> Iterator[SeamCounts]:
    for number in range(len(grid)):
        core = grid.box(number)
        window = core.grow(margin_px(typical)).clip(Box.of(grid.shape))
        if _crossed(core, lines):
            part = np.asarray(labels[window.slices])
            yield count_lines(part, window=window, core=core, lines=lines, typical_px=typical)


def _crossed(core: Box, lines: Sequence[Lines]) -> bool:
    return any(
        known.within(max(a, 1), b).position.size
        for known, a, b in zip(lines, core.start, core.stop, strict=True)
    )


def typical_px(labels: Any) -> float:
    """Return the median diameter of the cells in some blocks that are spread over an image.

    Parameters
    ----------
    labels : integer array [*spatial]
        Labels.

    Returns
    -------
    float
        In px; nan without cells.
    """
    shape = tuple(int(n) for n in labels.shape)
    grid = Grid(shape, BLOCK_PX[len(shape)])
    numbers = sorted({k * len(grid) // SAMPLES for k in range(SAMPLES)})
    areas = []
    for box in (grid.box(number) for number in numbers):
        found = boxes_and_areas(np.asarray(labels[box.slices]))
        # Those that the block cuts are not seen whole, unless the image ends there too.
        cut = (found.start == 0) & (np.array(box.start) > 0)
        cut |= (found.stop == box.shape) & (np.array(box.stop) < shape)
        areas.append(found.area[~cut.any(axis=1)])
    sizes = np.concatenate(areas)
    return float(np.median(diameter_px(sizes, len(shape)))) if len(sizes) else math.nan


def score_counts(parts: Sequence[SeamCounts], *, typical_px: float) -> SeamScore:
    """Compare seams with other lines.

    Parameters
    ----------
    parts : sequence of SeamCounts
        Of all blocks.
    typical_px : float
        Diameter of a typical cell.

    Returns
    -------
    SeamScore
        The comparison.
    """
    counts = SeamCounts.add(parts)
    seam, other = (dict(zip(COUNTS, part, strict=True)) for part in (counts.seam, counts.other))
    figures = [
        _share(
            name,
            (seam[what].sum(), seam[of].sum()),
            (other[what].sum(), other[of].sum()),
            alike=_alike(other[what], other[of], other["line"]),
            text=text,
        )
        for name, what, of, text in SHARES
    ]
    figures += [_rate(name, what, seam=seam, other=other, text=text) for name, what, text in RATES]
    return SeamScore(tuple(figures), int(seam["touching"].sum()), typical_px)


def _alike(count: NDArray[np.int64], of: NDArray[np.int64], lines: NDArray[np.int64]) -> float:
    """Return how many of those on a line stand for one: 1 where lines differ by chance alone.

    Cells of one part of an image are alike, so a line through large cells has many of them.
    """
    n, found = _sums(of, lines), _sums(count, lines)
    share = float(found.sum()) / max(float(n.sum()), 1.0)
    n, found = n[n > 0], found[n > 0]
    if len(n) < LEAST_LINES or not 0 < share < 1:
        return 1.0
    chance = n * share * (1 - share)
    return max(1.0, float(((found - n * share) ** 2 / chance).sum() / (len(n) - 1)))


def _share(
    name: str, seam: tuple[Any, Any], other: tuple[Any, Any], *, alike: float, text: str
) -> SeamFigure:
    """Return the difference of two shares with Newcombe's interval, which zeros do not narrow."""
    if not seam[1] or not other[1]:
        return SeamFigure(name, math.nan, math.nan, 0.0, math.nan, math.nan, text)
    together = max(2.0 if name in IN_TWOS else 1.0, alike)
    seam, other = ((count / together, of / together) for count, of in (seam, other))
    (a, a_low, a_high), (b, b_low, b_high) = _wilson(*seam), _wilson(*other)
    excess = a - b
    low = excess - math.hypot(a - a_low, b_high - b)
    high = excess + math.hypot(a_high - a, b - b_low)
    subject = {"repeats": "", "gaps": "of the places at seams "}.get(name, "of the cells at seams ")
    said = f"{100 * a:.1f} % {subject}{text} (elsewhere {100 * b:.1f} %)"
    # Fewer faults than elsewhere are none.
    return SeamFigure(name, a, b, excess, low, max(high, 0.0), said)


def _wilson(count: Any, of: Any) -> tuple[float, float, float]:
    n, share, z = float(of), float(count) / float(of), SURE
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return share, max(middle - half, 0.0), min(middle + half, 1.0)


def _rate(
    name: str, what: str, *, seam: dict[str, Any], other: dict[str, Any], text: str
) -> SeamFigure:
    """Return the ratio of two rates less 1; how much lines without a seam differ is its spread.

    Whole lines are compared, as cells in rows make all of a line rich or poor.
    """
    a, b = (_sums(part["crossed"], part["line"]) for part in (seam, other))
    count_a, count_b = (_sums(part[what], part["line"]) for part in (seam, other))
    if seam["touching"].sum() < LEAST_CELLS or len(b) < LEAST_LINES or not count_b.sum():
        return SeamFigure(name, math.nan, math.nan, 0.0, math.nan, math.nan, text)
    here, there = (float(n.sum() / of.sum()) for n, of in ((count_a, a), (count_b, b)))
    per_voxel = float((((count_b - there * b) ** 2) / b).sum() / (len(b) - 1))
    error = math.sqrt(per_voxel * (1 / float(a.sum()) + 1 / float(b.sum()))) / there
    from scipy.stats import t as student  # here: most jobs do without

    half = float(student.isf(UNSURE / 2, len(b) - 1)) * error
    excess = here / there - 1
    more = "more" if excess > 0 else "less"
    said = f"{text}: {abs(100 * excess):.1f} % {more} than elsewhere"
    return SeamFigure(name, here, there, excess, excess - half, excess + half, said)


def _sums(values: NDArray[np.int64], lines: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum over each line."""
    _, place = np.unique(lines, return_inverse=True)
    return np.bincount(place, values).astype(np.float64)
