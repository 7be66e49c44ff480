"""Measures how large the cells of an image are, by segmenting samples of it at several scales."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box

__all__ = [
    "Diameter",
    "Sample",
    "measure_diameter",
    "measure_near",
    "nothing_found",
    "refined",
    "region_edge",
    "sample_regions",
    "sorted_into_classes",
]

log = logging.getLogger(__name__)

STEP = 2.0  # between trial diameters: networks see scales of 0.75 to 1.25, and a bit beyond
TRIALS = range(-2, 4)  # powers of it, about the network's own diameter
REGION_DIAMETERS = 10.0  # edge of a region, in cells
REGION_PX = 64  # smallest edge
MIN_CELLS = 3  # fewer say nothing of a scale
# Of a part of an image: trials about the diameter of the whole, and the cells that tell its own.
TRIALS_NEAR = range(-2, 3)
LEAST_CELLS = 6
CLASS_RATIO = 1.4  # diameters closer than this need no second scale: a network knows both


@dataclass(frozen=True)
class Sample:
    """The cells found in the sampled regions at one trial diameter.

    Parameters
    ----------
    diameter_px : float64 array [n]
        Of each cell that no border of a region cuts, on level 0.
    quality : float64 array [n]
        From 0 to 1: how sure the network is of the cell, and how well its flow fits it.
    area_px : int
        Of all regions, which are larger at larger trial diameters.
    """

    diameter_px: NDArray[np.float64]
    quality: NDArray[np.float64]
    area_px: int


@dataclass(frozen=True)
class Diameter:
    """A measured diameter.

    Parameters
    ----------
    px : float
        Median over the cells of the samples, on level 0.
    low_px, high_px : float
        Quartiles: cells that differ more than the network allows ask for a value by hand.
    n_cells : int
        Cells it was measured on; 0 where none were found and `px` is only the network's own.
    """

    px: float
    low_px: float
    high_px: float
    n_cells: int


def region_edge(trial_px: float) -> int:
    """Return the edge of the regions for a trial diameter: about as many cells at each.

    Parameters
    ----------
    trial_px : float
        The diameter.

    Returns
    -------
    int
        In px of level 0.
    """
    return max(REGION_PX, math.ceil(REGION_DIAMETERS * trial_px))


def sample_regions(shape: Sequence[int], edge_px: int) -> list[Box]:
    """Return regions of the last two axes that stand for an image, from its shape alone.

    Parameters
    ----------
    shape : sequence of int
        Spatial shape of the image; of a volume the middle plane and those at its quarters.
    edge_px : int
        Edge of a region.

    Returns
    -------
    list of Box
        Regions that do not overlap; all of a small image.
    """
    *depth, height, width = shape
    places = [_spread(n, edge_px) for n in (height, width)]
    planes = sorted({depth[0] // 4, depth[0] // 2, 3 * depth[0] // 4}) if depth else []
    corners = list(itertools.product(*places))
    boxes: list[Box] = []
    # Another plane for each region, and no plane is left out: cells lie where they lie.
    for i in range(max(len(corners), len(planes))):
        y, x = corners[i % len(corners)]
        z = (planes[i % len(planes)],) if planes else ()
        stop = (min(y + edge_px, height), min(x + edge_px, width))
        boxes.append(Box((*z, y, x), (*(k + 1 for k in z), *stop)))
    return boxes


def _spread(length: int, edge: int) -> list[int]:
    """Return where regions start along an axis: one in the middle of a short one, else two."""
    if length < 3 * edge:
        return [max(0, (length - edge) // 2)]
    return [length // 4 - edge // 2, 3 * length // 4 - edge // 2]


def measure_diameter(
    sample_at: Callable[[float, int], Sample], network_diameter_px: float
) -> Diameter:
    """Measure the diameter of an image's cells.

    A network finds cells best at the scale it was trained at. Each trial diameter is judged by the
    share of its regions that cells cover, weighted by how good they are and by whether they are as
    large as the trial says; the median diameter of the best one is tried again, twice.

    Parameters
    ----------
    sample_at : callable
        Segments regions of this edge as if cells had this diameter.
    network_diameter_px : float
        Of the cells that the network knows.

    Returns
    -------
    Diameter
        With its spread.
    """
    trials = [network_diameter_px * STEP**k for k in TRIALS]
    best = _best(sample_at, trials)
    if best is None:
        return nothing_found(network_diameter_px)
    trial, sample = best
    return refined(sample_at, sample, rounds=2, edge_px=region_edge(trial))


def nothing_found(network_diameter_px: float) -> Diameter:
    """Return the network's own diameter, and say that none could be measured.

    Parameters
    ----------
    network_diameter_px : float
        Of the cells that the network knows.

    Returns
    -------
    Diameter
        On 0 cells.
    """
    log.warning("no cells in the sampled regions: the network's own diameter is taken")
    return Diameter(network_diameter_px, network_diameter_px, network_diameter_px, 0)


def measure_near(sample_at: Callable[[float, int], Sample], near_px: float) -> Diameter | None:
    """Measure the diameter of the cells of a part of an image, as `measure_diameter`.

    Parameters
    ----------
    sample_at : callable
        Segments regions of this edge as if cells had this diameter.
    near_px : float
        Diameter of the cells of the whole: trials are a quarter to four times of it.

    Returns
    -------
    Diameter or None
        None where cells are too few to tell.
    """
    best = _best(sample_at, [near_px * STEP**k for k in TRIALS_NEAR])
    if best is None:
        return None
    trial, sample = best
    found = refined(sample_at, sample, rounds=1, edge_px=region_edge(trial))
    return found if found.n_cells >= LEAST_CELLS else None


def _best(
    sample_at: Callable[[float, int], Sample], trials: Sequence[float]
) -> tuple[float, Sample] | None:
    """Return the trial diameter that explains best what it finds; None if none finds cells."""
    samples = [sample_at(trial, region_edge(trial)) for trial in trials]
    scores = [score(sample, trial) for sample, trial in zip(samples, trials, strict=True)]
    best = int(np.argmax(scores))
    return (trials[best], samples[best]) if scores[best] > 0 else None


def sorted_into_classes(diameter_px: NDArray[np.float64], *, most: int) -> NDArray[np.int64]:
    """Sort diameters into classes: the closest are united until few are left, far apart.

    Parameters
    ----------
    diameter_px : float64 array [n]
        One or more.
    most : int
        Classes, at most. What is closer than a factor of 1.4 is one class.

    Returns
    -------
    int64 array [n]
        Class of each, from 0 for the smallest; in any order of the diameters the same.
    """
    octaves, where = np.unique(np.log2(diameter_px), return_inverse=True)
    total, count = octaves.copy(), np.bincount(where).astype(np.float64)
    total *= count
    first = np.arange(len(octaves))  # of each class, which is a run of ascending diameters
    while len(first) > 1:
        gap = np.diff(total / count)
        # As long as there are too many, what moves the fewest diameters least: one that stands
        # alone, and may be wrong, is no class of its own.
        cost = gap * gap / (1 / count[1:] + 1 / count[:-1]) if len(first) > most else gap
        nearest = int(np.argmin(cost))
        if len(first) <= most and gap[nearest] >= math.log2(CLASS_RATIO):
            break
        total[nearest] += total[nearest + 1]
        count[nearest] += count[nearest + 1]
        rest = np.delete(np.arange(len(first)), nearest + 1)
        total, count, first = total[rest], count[rest], first[rest]
    return np.searchsorted(first, where.ravel(), "right") - 1


def refined(
    sample_at: Callable[[float, int], Sample], sample: Sample, *, rounds: int, edge_px: int = 0
) -> Diameter:
    """Segment again at the median diameter of what was found.

    Parameters
    ----------
    sample_at : callable
        Segments regions of this edge as if cells had this diameter.
    sample : Sample
        Cells to begin with, one or more.
    rounds : int
        How often.
    edge_px : int
        Of the regions that these cells are from. They do not become smaller: each round would
        measure fewer cells than the one before.

    Returns
    -------
    Diameter
        Of the last cells found.
    """
    for _ in range(rounds):
        trial = rounded(np.median(sample.diameter_px))
        again = sample_at(trial, max(edge_px, region_edge(trial)))
        if again.diameter_px.size < MIN_CELLS:
            break
        sample = again
    low, middle, high = np.percentile(sample.diameter_px, (25, 50, 75))
    return Diameter(rounded(middle), float(low), float(high), sample.diameter_px.size)


def rounded(diameter: float) -> float:
    """Return three digits of a diameter: no cell is known better, and scales stay simple.

    Parameters
    ----------
    diameter : float
        In any unit.

    Returns
    -------
    float
        Rounded.
    """
    return float(f"{diameter:.3g}")


def score(sample: Sample, trial_px: float) -> float:
    """Return how well a trial diameter explains what it finds; 0 for too few cells.

    Parameters
    ----------
    sample : Sample
        What it finds.
    trial_px : float
        The diameter.

    Returns
    -------
    float
        Share of the regions that cells cover, weighted.
    """
    if sample.diameter_px.size < MIN_CELLS:
        return 0.0
    octaves = np.log2(sample.diameter_px / trial_px)
    agreement = np.exp(-0.5 * (octaves / 0.5) ** 2)
    area = np.pi / 4 * sample.diameter_px**2
    return float(np.sum(area * sample.quality * agreement)) / sample.area_px
