"""Opens the images of an experiment, one or all; one that is bad stops none."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from pathlib import Path

from cellseg_pipe.config import Experiment, Unit, load_experiment, units, units_of
from cellseg_pipe.io.embed import check_takes_labels
from cellseg_pipe.io.headers import Headers
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.qc.rules import check_limits, limits_of
from cellseg_pipe.segmentation.fields import check_mode
from cellseg_pipe.stages._blocks import cores_said
from cellseg_pipe.stages.region import check_region
from cellseg_pipe.stages.restored import check_restoring
from cellseg_pipe.stages.unit import UnitRun, unit_of_image

__all__ = [
    "FAILURES",
    "NotThisMachine",
    "check_one_time",
    "is_of_image",
    "open_unit",
    "open_units",
    "unit_runs",
]

log = logging.getLogger(__name__)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# What a file may be the cause of: others are segmented all the same.
FAILURES = (OSError, TypeError, ValueError, MemoryError, OverflowError)


class NotThisMachine(ValueError):
    """What was planned cannot be computed here; no image is to blame."""


def is_of_image(error: Exception) -> bool:
    """Return whether other images may be segmented though this one cannot.

    Parameters
    ----------
    error : Exception
        One of `FAILURES`.

    Returns
    -------
    bool
        False for a disk that is full, and what else `explained` gives advice on.
    """
    written = isinstance(error, OSError) and (
        isinstance(error.__cause__, OSError) or error.errno in NO_ROOM
    )
    return not (written or isinstance(error, NotThisMachine))


def open_units(
    experiment: Experiment, headers: Headers
) -> tuple[list[UnitRun], dict[str, Exception]]:
    """Open the images of all units, as far as that can be done.

    Parameters
    ----------
    experiment : Experiment
        Its images are found already.
    headers : Headers
        What is known of the images.

    Returns
    -------
    list of UnitRun
        In the order of the file.
    dict of str to Exception
        What is wrong with the others, by name.
    """
    found: list[UnitRun] = []
    failed: dict[str, Exception] = {}
    for unit in units_of(experiment):
        try:
            opened = open_unit(experiment, unit, headers=headers)
            # Asking for the mode refuses an image that the network cannot see.
            log.debug("%s: %s, mode %s", unit.name, opened.image.shape, opened.mode)
            check_region(opened)
            found.append(opened)
        except FAILURES as error:
            failed[unit.name] = error
    return found, failed


def unit_runs(experiment: Experiment) -> Iterator[UnitRun]:
    """Yield all units of an experiment, each opened when it is asked for: a picture is in memory.

    Parameters
    ----------
    experiment : Experiment
        What is meant.

    Yields
    ------
    UnitRun
        In the order of the file.
    """
    for unit in units(experiment):
        yield open_unit(experiment, unit)


def open_unit(
    experiment: Experiment | Path | str, unit: Unit | str, *, headers: Headers | None = None
) -> UnitRun:
    """Open the image of one unit.

    Parameters
    ----------
    experiment : Experiment or path
        What it is of.
    unit : Unit or str
        Which one.
    headers : Headers, optional
        What is known of the images; by default the file itself is opened.

    Returns
    -------
    UnitRun
        The unit.
    """
    if not isinstance(experiment, Experiment):
        experiment = load_experiment(experiment)
    if isinstance(unit, str):
        known = {each.name: each for each in units(experiment)}
        if unit not in known:
            raise ValueError(f"there is no unit {unit!r}: the experiment has {', '.join(known)}.")
        unit = known[unit]
    entry = unit.image
    opened = open_image if headers is None else headers.open
    image = opened(entry.path, axes=entry.axes, series=entry.series).as_series()
    check_one_time(image)
    found = unit_of_image(experiment, unit, image)
    _check_series(found)
    _check_classes(found)
    _check_export(found)
    if experiment.output.into_image:
        check_takes_labels(
            entry.path, found.unit.target, version=found.version, n_levels=found.n_levels
        )
    _check_cores(found)
    check_restoring(found)
    for rules in (experiment.qc.flag, experiment.qc.drop):
        check_limits(limits_of(rules), spacing_um=found.spacing_um)
    return found


def _check_cores(unit: UnitRun) -> None:
    said, seams = unit.experiment.tiles.core_px, unit.experiment.stitch.seams
    if said != "auto":
        try:
            cores_said(said, unit.mode, seams=seams)
        except ValueError as error:
            raise ValueError(f"{unit.name}: {error}") from error


def _check_export(unit: UnitRun) -> None:
    if "geojson" in unit.experiment.output.export and unit.mode != "2d":
        raise ValueError(
            f"{unit.name}: output.export of geojson needs an image y, x, got axes"
            f" {unit.image.spatial}. Leave it out; measure.outlines writes outlines plane by plane."
        )


def _check_series(unit: UnitRun) -> None:
    """Refuse what a series in time cannot have."""
    said, image = unit.experiment, unit.image
    if not unit.is_series:
        return
    refused = {
        "several targets": len(said.targets) > 1,
        "a region": unit.region_said is not None,
        "stitch.seams: iou": said.stitch.seams == "iou",
        "output.into_image": said.output.into_image,
        "output.export of geojson": "geojson" in said.output.export,
    }
    if wrong := [name for name, is_set in refused.items() if is_set]:
        raise ValueError(
            f"{image.path} is a series of {image.shape[0]} times, which cannot have"
            f" {' and '.join(wrong)}. Leave it out."
        )
    if unit.needs_copy:
        raise ValueError(
            f"{image.path} is a series of {image.shape[0]} times that can only be read as a whole."
            " Save it as OME-Zarr, or as a TIFF without compression or in tiles."
        )


def _check_classes(unit: UnitRun) -> None:
    """Refuse several diameters of a series, or where mode auto sees planes."""
    if not unit.parts:
        return
    try:
        check_mode(unit.mode, series=unit.is_series)
    except ValueError as error:
        raise ValueError(f"{unit.name}: {error}") from error


def check_one_time(image: OpenImage) -> None:
    """Refuse volumes of several times.

    Parameters
    ----------
    image : OpenImage
        The image.
    """
    if image.n_times > 1:
        raise ValueError(
            f"{image.path} has {image.n_times} times of volumes, and one is needed. Save each as an"
            " image."
        )
