"""The table of cells: a row for each, columns by name with their unit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.kernels import crofton, diameter_px
from cellseg_pipe.qc.confidence import confidence
from cellseg_pipe.regions import border_distance_px
from cellseg_pipe.segmentation.cells import Cells, Rows, frame_rows, with_time
from cellseg_pipe.segmentation.form import (
    axis_lengths,
    covariances,
    distance_to_border,
    eccentricity,
    orientation,
    spreads,
)
from cellseg_pipe.segmentation.measured import Measured
from cellseg_pipe.segmentation.measuring import Measurer
from cellseg_pipe.segmentation.places import pixels_of

__all__ = ["in_um", "table_of", "table_of_image"]

Columns = dict[str, NDArray[Any]]
AXES = {2: ("major", "minor"), 3: ("major", "middle", "minor")}
FAR_PX = 256  # from the border of a region: what is farther is not searched
LENGTHS = (
    "axis_major", "axis_middle", "axis_minor", "perimeter", "distance_to_border",
    "distance_to_region",
)  # fmt: skip


def table_of(
    measured: Measured, rows: Rows, measurer: Measurer, *, names: tuple[str, ...]
) -> Columns:
    """Describe each cell.

    Parameters
    ----------
    measured : Measured
        Of the cells.
    rows : Rows
        What the network said of the same cells.
    measurer : Measurer
        What measured them.
    names : tuple of str
        Names of the channels; where two are equal, their numbers tell them apart.

    Returns
    -------
    dict of str to array [n]
        Columns, one row per cell, ascending by label; positions in px of level 0.
    """
    sums, plan = measured.sums, measurer.plan
    ndim = len(plan.shape)
    axes = "zyx"[-ndim:]
    centre = sums.reference + sums.first / sums.area[:, None]
    columns: Columns = {"label": sums.label}
    columns |= {f"{axis}_px": centre[:, i] for i, axis in enumerate(axes)}
    for i, axis in enumerate(axes):
        columns[f"{axis}_start_px"], columns[f"{axis}_stop_px"] = sums.start[:, i], sums.stop[:, i]
    columns["area_px" if ndim == 2 else "volume_px"] = sums.area
    columns["diameter_px"] = diameter_px(sums.area, ndim)
    if measurer.measuring.shape:
        columns |= _form(measured, measurer)
    columns |= _said(rows)
    columns["confidence"] = confidence(
        sums.area,
        covariances(sums, measurer.proportions),
        logit=rows.logit,
        flow_error=rows.flow_error,
        typical_px=plan.typical_px(rows.peak),
        step_px=measurer.proportions,
    )
    on_border = ((sums.start <= 0) | (sums.stop >= plan.shape)).any(axis=1)
    columns["on_border"] = np.asarray(on_border)
    columns["distance_to_border_px"] = distance_to_border(sums, plan.shape, measurer.proportions)
    told_apart = [f"{n}_{k}" if names.count(n) > 1 else n for k, n in enumerate(names)]
    for channel, name in enumerate(told_apart):
        columns |= _intensity(measured, channel, name, measurer=measurer)
    if measurer.measuring.ring_px:
        columns["ring_area_px"] = measured.ring.of(sums.label)[:, 0].astype(np.int64)
    if plan.region is not None:
        place = pixels_of(rows.peak, plan)
        columns["region"] = plan.region.names_at(place)
        columns["distance_to_region_px"] = border_distance_px(
            plan.region, place, most_px=FAR_PX, row_px=measurer.proportions[-2]
        )
    return columns


def table_of_image(
    cells: Cells, pixels: NDArray[Any], measurer: Measurer, *, names: tuple[str, ...]
) -> Columns:
    """Measure and describe the cells of an image, or of all times of a series.

    Parameters
    ----------
    cells : Cells
        Of the image.
    pixels : array [C, *spatial]
        The channels that are measured.
    measurer : Measurer
        From `measurer_for`.
    names : tuple of str
        Names of these channels.

    Returns
    -------
    dict of str to array [n]
        One row per cell; of a series per time and cell.
    """
    labels, rows = cells.labels, cells.rows
    if labels.ndim == len(measurer.plan.shape):
        measured = measurer.image(labels, pixels, ids=rows.id, peaks=rows.peak)
        return table_of(measured, rows, measurer, names=names)
    parts = []
    for time, frame in enumerate(labels):
        here = frame_rows(rows, time)
        measured = measurer.image(frame, pixels[:, time], ids=here.id, peaks=here.peak)
        parts.append(with_time(table_of(measured, here, measurer, names=names), time))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _form(measured: Measured, measurer: Measurer) -> Columns:
    """Return columns of form; lengths are in edges of a voxel along x."""
    sums, edges = measured.sums, measurer.proportions
    ndim = len(edges)
    covariance = covariances(sums, edges)
    lengths = axis_lengths(covariance)
    columns = {f"axis_{name}_px": lengths[:, i] for i, name in enumerate(AXES[ndim])}
    if ndim == 2:
        columns["orientation_rad"] = orientation(covariance)
        columns["eccentricity"] = eccentricity(lengths)
    columns["extent"] = sums.area / (sums.stop - sums.start).prod(axis=1)
    counts = measured.contours.of(sums.label)
    border = crofton(counts[:, :-1], edges)
    columns["perimeter_px" if ndim == 2 else "surface_px"] = border
    if measured.convex.shape[1]:
        columns["solidity"] = sums.area / measured.convex[:, 0]
        if ndim == 2:
            columns["convexity"] = crofton(measured.convex[:, 1:], edges) / border
    columns["euler"] = counts[:, -1]
    return columns


def _said(rows: Rows) -> Columns:
    """Return columns of what the network said."""
    columns: Columns = {"probability": rows.probability, "flow_error": rows.flow_error}
    columns["agreement"] = rows.agreement
    if rows.class_logit.shape[1]:
        from scipy.special import softmax  # here: most jobs do without

        chances = softmax(rows.class_logit, axis=1)
        columns["class"] = np.argmax(rows.class_logit, axis=1)
        columns |= {f"class_{k}_probability": chance for k, chance in enumerate(chances.T)}
    return columns


def _intensity(measured: Measured, channel: int, name: str, *, measurer: Measurer) -> Columns:
    """Return the columns of one channel."""
    sums, wanted = measured.sums, measurer.measuring
    columns: Columns = {}
    if wanted.intensity:
        columns[f"mean_{name}"] = sums.total[:, channel] / sums.area
        columns[f"std_{name}"] = spreads(sums)[:, channel]
        columns[f"min_{name}"] = sums.low[:, channel]
        columns[f"max_{name}"] = sums.high[:, channel]
    for i in range(measured.quantiles.shape[2]):
        columns[f"p{100 * wanted.quantiles[i]:g}_{name}"] = measured.quantiles[:, channel, i]
    if wanted.texture:
        columns[f"texture_{name}"] = np.sqrt(_mean(measured.texture.of(sums.label), channel, 0.0))
    if wanted.ring_px:
        columns[f"ring_mean_{name}"] = _mean(measured.ring.of(sums.label), channel, np.nan)
    return columns


def _mean(counted: NDArray[Any], channel: int, of_none: float) -> NDArray[np.float64]:
    """Return sums of a channel over their number, which is in column 0."""
    number = counted[:, 0]
    found = np.full(len(counted), of_none)
    return np.divide(counted[:, 1 + channel], number, out=found, where=number > 0)


def in_um(columns: Columns, spacing_um: tuple[float, ...] | None) -> Columns:
    """Return places and sizes in µm, where the size of a voxel is known.

    Parameters
    ----------
    columns : dict of str to array
        In px.
    spacing_um : tuple of float or None
        Size of a voxel.

    Returns
    -------
    dict of str to array
        Further columns.
    """
    if spacing_um is None:
        return {}
    ndim, voxel = len(spacing_um), float(np.prod(spacing_um))
    found = {
        f"{axis}_um": columns[f"{axis}_px"] * step
        for axis, step in zip("zyx"[-ndim:], spacing_um, strict=True)
    }
    size, unit = ("area_px", "area_um2") if ndim == 2 else ("volume_px", "volume_um3")
    found[unit] = columns[size] * voxel
    found["diameter_um"] = columns["diameter_px"] * voxel ** (1 / ndim)
    for name in LENGTHS:
        if f"{name}_px" in columns:
            found[f"{name}_um"] = columns[f"{name}_px"] * spacing_um[-1]
    if "surface_px" in columns:
        found["surface_um2"] = columns["surface_px"] * spacing_um[-1] ** 2
    return found
