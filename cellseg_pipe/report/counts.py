"""What the table of cells says, counted while some rows at a time are read: bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CellCounts", "Distribution", "count_cells", "distributions", "mean_by_image"]

FINE = 8192  # bins that values are counted in first
SHOWN = 56  # bins of a chart
TAILS = (0.001, 0.999)  # what lies beyond is not drawn
ROWS = 1 << 17  # at once


@dataclass(frozen=True)
class Distribution:
    """How the values of a column are spread.

    Parameters
    ----------
    name : str
        Of the column.
    n : int
        Values that are known.
    counts : int64 array [n]
        In each bin; the outermost hold what lies beyond.
    edges : float64 array [n + 1]
        Of the bins.
    median : float
        To a bin of 8,192.
    """

    name: str
    n: int
    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    median: float


def _batches(table: Path, columns: Sequence[str]) -> Iterator[Any]:
    from pyarrow import dataset

    found = dataset.dataset(table, format="parquet")
    yield from found.to_batches(
        columns=list(columns), batch_size=ROWS, batch_readahead=2, fragment_readahead=1
    )


def _values(batch: Any, name: str) -> NDArray[np.float64]:
    values = np.asarray(batch[name].to_numpy(zero_copy_only=False), np.float64)
    return values[np.isfinite(values)]


def distributions(table: Path, names: Sequence[str]) -> list[Distribution]:
    """Count the values of columns, in two passes.

    Parameters
    ----------
    table : path
        File or folder of parquet.
    names : sequence of str
        Columns of numbers.

    Returns
    -------
    list of Distribution
        Of those that hold a value.
    """
    low, high = dict.fromkeys(names, math.inf), dict.fromkeys(names, -math.inf)
    for batch in _batches(table, names):
        for name in names:
            if (values := _values(batch, name)).size:
                low[name] = min(low[name], float(values.min()))
                high[name] = max(high[name], float(values.max()))
    known = [name for name in names if low[name] <= high[name]]
    fine = {name: np.zeros(FINE, np.int64) for name in known}
    for batch in _batches(table, known) if known else ():
        for name in known:
            span = high[name] - low[name] or 1.0
            place = (_values(batch, name) - low[name]) * ((FINE - 1) / span)
            fine[name] += np.bincount(place.astype(np.int64), minlength=FINE)
    return [_spread(name, fine[name], low[name], high=high[name]) for name in known]


def _spread(name: str, fine: NDArray[np.int64], low: float, *, high: float) -> Distribution:
    """Return fewer bins, without the far tails."""
    step = (high - low or 1.0) / (FINE - 1)
    total = np.cumsum(fine)
    n = int(total[-1])
    first, last = (int(np.searchsorted(total, share * n)) for share in TAILS)
    width = max(1, math.ceil((last - first + 1) / SHOWN))
    first = min(first, max(0, FINE - width * SHOWN))
    n_bins = max(1, math.ceil((last - first + 1) / width))
    place = np.clip((np.arange(FINE) - first) // width, 0, n_bins - 1)
    counts = np.bincount(place, weights=fine, minlength=n_bins).astype(np.int64)
    edges = np.asarray(low + (first + width * np.arange(n_bins + 1)) * step, np.float64)
    median = low + int(np.searchsorted(total, n / 2)) * step
    return Distribution(name, n, counts, edges, median)


@dataclass(frozen=True)
class CellCounts:
    """Where the cells lie.

    Parameters
    ----------
    pitch_px : int
        Edge of a field of the plane.
    n_cells, confidence : array [y, x]
        Cells of each field, and the sum of their confidences; over all planes.
    by_plane, confidence_by_plane : array [z]
        The same of each plane of a volume, or of each time.
    """

    pitch_px: int
    n_cells: NDArray[np.int64]
    confidence: NDArray[np.float64]
    by_plane: NDArray[np.int64]
    confidence_by_plane: NDArray[np.float64]

    @property
    def mean_confidence(self) -> NDArray[np.float64]:
        """Of each field; nan where there are no cells."""
        some = np.maximum(self.n_cells, 1)
        return np.where(self.n_cells > 0, self.confidence / some, np.nan)


def count_cells(table: Path, *, axes: str, shape: Sequence[int], pitch_px: int) -> CellCounts:
    """Count cells by the field of the plane, and by the plane, in which their middle lies.

    Parameters
    ----------
    table : path
        File or folder of parquet.
    axes : str
        A letter per axis of the image.
    shape : sequence of int
        Its voxels.
    pitch_px : int
        Edge of a field.

    Returns
    -------
    CellCounts
        Of all cells.
    """
    fields = tuple(math.ceil(n / pitch_px) for n in shape[-2:])
    n_planes = shape[0] if len(shape) > 2 else 1
    first = ([] if len(axes) < 3 else ["t"]) if axes[0] == "t" else [f"{axes[0]}_px"]
    names = [*(first if len(shape) > 2 else []), "y_px", "x_px", "confidence"]
    size = fields[0] * fields[1]
    counts, sure = np.zeros(size, np.int64), np.zeros(size)
    planes, sure_planes = np.zeros(n_planes, np.int64), np.zeros(n_planes)
    for batch in _batches(table, names):
        place = [np.asarray(batch[name].to_numpy(zero_copy_only=False)) for name in names]
        value = np.nan_to_num(place.pop())
        at = [np.floor(p + 0.5).astype(np.int64) for p in place]
        yx = [np.clip(a // pitch_px, 0, n - 1) for a, n in zip(at[-2:], fields, strict=True)]
        field = yx[0] * fields[1] + yx[1]
        counts += np.bincount(field, minlength=size)
        sure += np.bincount(field, weights=value, minlength=size)
        if len(at) > 2:
            plane = np.clip(at[0], 0, n_planes - 1)
            planes += np.bincount(plane, minlength=n_planes)
            sure_planes += np.bincount(plane, weights=value, minlength=n_planes)
    return CellCounts(pitch_px, counts.reshape(fields), sure.reshape(fields), planes, sure_planes)


def mean_by_image(table: Path, columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return means of columns for each image of a run.

    Parameters
    ----------
    table : path
        Of the cells of all units.
    columns : sequence of str
        Of numbers.

    Returns
    -------
    dict of str to dict of str to float
        By the column `image` (and `target`, as IMAGE-TARGET), then by column.
    """
    from pyarrow import dataset

    there = dataset.dataset(table, format="parquet").schema.names
    keys = [name for name in ("image", "target") if name in there]
    known = [name for name in columns if name in there]
    sums: dict[str, list[float]] = {}
    for batch in _batches(table, [*keys, *known]):
        import pyarrow as pa

        asked = [(name, how) for name in known for how in ("sum", "count")]
        found = pa.Table.from_batches([batch]).group_by(keys).aggregate(asked).to_pylist()
        for row in found:
            own = sums.setdefault("-".join(row[k] for k in keys), [0.0] * (2 * len(known)))
            for i, (name, how) in enumerate(asked):
                own[i] += row[f"{name}_{how}"] or 0.0
    return {
        image: {n: own[2 * i] / own[2 * i + 1] for i, n in enumerate(known) if own[2 * i + 1]}
        for image, own in sums.items()
    }
