"""What the metadata of an OME-Zarr image say, of whatever version and however broken; no I/O."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io._raw import MICROMETRES

__all__ = ["Multiscale", "about_of", "entries", "labels_of", "multiscale_of", "record"]

log = logging.getLogger(__name__)


KINDS = {"channel": "c", "time": "t"}
MIXING = ("mapAxis", "mapIndex", "byDimension")  # of version 0.6: the axes change places


@dataclass(frozen=True)
class Multiscale:
    """One image of several resolutions.

    Parameters
    ----------
    version : str
        Of the format, empty where it is not said.
    axes : list
        As they are written; empty where they are not.
    levels : tuple of dict
        The data sets.
    overall : tuple of dict
        Transformations after those of the level.
    """

    version: str
    axes: list[Any]
    levels: tuple[dict[str, Any], ...]
    overall: tuple[dict[str, Any], ...] = field(default=())

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the arrays lie."""
        return tuple(level["path"] for level in self.levels)

    def letters(self, ndim: int) -> str | None:
        """Return a letter per axis, None where the names are not known or not as many."""
        if not self.axes:  # before version 0.3 there was no other order
            return "tczyx"[-ndim:] if 2 <= ndim <= 5 else None
        found = [_letter(axis) for axis in self.axes]
        return "".join(found) if len(found) == ndim and all(found) else None

    def mixes(self, level: int) -> bool:
        """Tell whether the axes of the array are not those that are named."""
        steps = entries(self.levels[level].get("coordinateTransformations"))
        return any(step.get("type") in MIXING for step in _flat(steps))

    def place(self, level: int, ndim: int) -> tuple[dict[str, float], dict[str, float]]:
        """Return size and place of a voxel in µm by axis, as far as they are plain."""
        step, offset = np.ones(ndim), np.zeros(ndim)
        steps = entries(self.levels[level].get("coordinateTransformations"))
        for transform in _flat([*steps, *self.overall]):
            try:
                step, offset = _applied(transform, step, offset)
            except ValueError as error:
                log.warning("the size of a voxel is taken as unknown: %s", error)
                return {}, {}
        sizes: dict[str, float] = {}
        places: dict[str, float] = {}
        for axis, size, start in zip(self.axes, step, offset, strict=False):
            letter = _letter(axis)
            unit = MICROMETRES.get(str(record(axis).get("unit", "")))
            if letter in tuple("zyx") and unit and size > 0 and math.isfinite(size * unit):
                sizes[letter], places[letter] = float(size) * unit, float(start) * unit
        return sizes, places


def record(value: Any) -> dict[str, Any]:
    """Return a value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def entries(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects of a list, none if it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def about_of(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of the standard: under `ome` since version 0.5."""
    return record(attributes["ome"]) if "ome" in attributes else attributes


def multiscale_of(about: dict[str, Any], path: str) -> Multiscale | None:
    """Return the image that the metadata of a group describe.

    Parameters
    ----------
    about : dict
        Metadata of the group.
    path : str
        For messages.

    Returns
    -------
    Multiscale or None
        None where there is none.
    """
    if "multiscales" not in about:
        return None
    scales = about["multiscales"]
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], dict):
        raise ValueError(
            f"{path} needs multiscales as a list of objects, got {_short(scales)}. Export it again."
        )
    if len(scales) > 1:
        log.info("%s describes %d images, the first is read", path, len(scales))
    scale = scales[0]
    levels = scale.get("datasets")
    if not isinstance(levels, list) or not levels:
        raise ValueError(
            f"{path} needs datasets in its multiscales, got {_short(levels)}. Export it again."
        )
    for level in levels:
        if not isinstance(record(level).get("path"), str) or not level["path"].strip("/"):
            raise ValueError(
                f"{path} needs a path in each of its datasets, got {_short(level)}. Export it"
                " again."
            )
    axes, overall = _axes_of(scale)
    version = about.get("version", scale.get("version", ""))
    return Multiscale(version if isinstance(version, str) else "", axes, tuple(levels), overall)


def _axes_of(scale: dict[str, Any]) -> tuple[list[Any], tuple[dict[str, Any], ...]]:
    """Return axes, and what is applied after a level; since 0.6 systems have axes and names."""
    systems = entries(scale.get("coordinateSystems"))
    overall = entries(scale.get("coordinateTransformations"))
    axes = scale.get("axes")
    if systems and not axes:
        first = entries(record(scale["datasets"][0]).get("coordinateTransformations"))
        output = record(first[0]).get("output") if first else None
        name = record(output).get("name") if isinstance(output, dict) else output
        chosen = [system for system in systems if system.get("name") == name] or systems
        axes, overall = chosen[0].get("axes"), []
    # Some programs write their own transformations, from one named system to another, here.
    overall = [step for step in overall if "output" not in step]
    return axes if isinstance(axes, list) else [], tuple(overall)


def _letter(axis: Any) -> str:
    name = axis if isinstance(axis, str) else record(axis).get("name")
    if isinstance(name, str) and name.lower() in tuple("tczyx"):
        return name.lower()
    kind = record(axis).get("type")
    return KINDS.get(kind, "") if isinstance(kind, str) else ""


def _flat(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return transformations in their order, those in a sequence one by one."""
    found = []
    for step in steps:
        inner = entries(step.get("transformations")) if step.get("type") == "sequence" else [step]
        found += inner
    return found


def _applied(
    transform: dict[str, Any], step: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    kind = transform.get("type")
    if kind == "identity":
        return step, offset
    if kind not in ("scale", "translation"):
        raise ValueError(f"a transformation of type {_short(kind)} is not known")
    values = transform.get(kind)
    plain = isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    if not plain or not isinstance(values, list) or len(values) != len(step):
        raise ValueError(f"a {kind} needs {len(step)} numbers, got {_short(values)}")
    try:
        numbers = np.array(values, np.float64)
    except OverflowError as error:
        raise ValueError(f"a {kind} needs numbers, got {_short(values)}") from error
    with np.errstate(all="ignore"):
        if kind == "scale":
            return step * numbers, offset * numbers
        return step, offset + numbers


def labels_of(about: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of channels, if each has one.

    Parameters
    ----------
    about : dict
        Metadata of the group.

    Returns
    -------
    tuple of str
        In their order.
    """
    channels = entries(record(about.get("omero")).get("channels"))
    names = tuple(
        str(name) if isinstance(name := channel.get("label", ""), str | int | float) else ""
        for channel in channels
    )
    return names if all(names) else ()


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
