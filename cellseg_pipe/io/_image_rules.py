"""The rules of OME-Zarr 0.4 and 0.5 for axes, levels and channels of an image; no I/O."""

from __future__ import annotations

import math
import re
from typing import Any

from cellseg_pipe.io._findings import Report
from cellseg_pipe.io._metadata import entries, record
from cellseg_pipe.io._raw import METRES

__all__ = ["axes_rules", "level_rules", "omero_rules"]

KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
ORDER = ("time", "channel", "space")
LENGTHS = {f"{prefix}meter" for prefix in METRES} | {
    "angstrom", "foot", "inch", "mile", "parsec", "yard",
}  # fmt: skip
TIMES = {f"{prefix}second" for prefix in METRES} | {"day", "hour", "minute"}
UNITS = {"space": LENGTHS, "time": TIMES}
REORDER = "Write the arrays anew with their axes in that order."


def axes_rules(report: Report, axes: Any) -> list[str]:
    """Check the axes and return their names.

    Parameters
    ----------
    report : Report
        Takes what is found.
    axes : object
        As it stands in the metadata.

    Returns
    -------
    list of str
        As far as they are names; empty where there are none.
    """
    if not isinstance(axes, list) or not 2 <= len(axes) <= 5 or len(entries(axes)) != len(axes):
        report.error(
            "axes", f"2 to 5 objects are expected, got {axes!r:.80}", "Write a name and type each."
        )
        return []
    names = [str(axis["name"]) for axis in axes if isinstance(axis.get("name"), str)]
    if not all(names) or len(set(names)) < len(axes):
        report.error("axes", f"names that differ are expected, got {names}", "Name each axis once.")
        return []
    _kind_rules(report, [axis.get("type") for axis in axes])
    for name, axis in zip(names, axes, strict=True):
        _axis_rules(report, name, axis)
    space = [name for name in names if name in tuple("zyx")]
    if space != sorted(space, reverse=True):
        report.warning("axes", f"space is expected as z, y, x, got {space}", REORDER)
    return names


def _kind_rules(report: Report, kinds: list[Any]) -> None:
    if kinds.count("space") not in (2, 3):
        report.error("axes", f"2 or 3 of type space are expected, got {kinds}", "Set the types.")
    for kind in ("time", "channel"):
        if kinds.count(kind) > 1:
            report.error("axes", f"one axis of type {kind} is expected, got {kinds}", "Drop one.")
    places = [ORDER.index(kind) if kind in ORDER else 1 for kind in kinds]
    if places != sorted(places):
        report.error("axes", f"the order time, channel, space is expected, got {kinds}", REORDER)


def _axis_rules(report: Report, name: str, axis: dict[str, Any]) -> None:
    kind, unit = axis.get("type"), axis.get("unit")
    if name in KINDS and kind != KINDS[name]:
        report.warning(
            f"axes {name}", f"the type {KINDS[name]} is expected, got {kind!r}", "Set the type."
        )
    if not isinstance(kind, str) or kind not in UNITS:
        return
    if unit is None:
        report.warning(f"axes {name}", "a unit is expected", "Add it, as micrometer or second.")
    elif not isinstance(unit, str) or unit not in UNITS[kind]:
        report.warning(
            f"axes {name}",
            f"a unit of {kind} by its UDUNITS-2 name is expected, got {unit!r:.40}",
            "Write micrometer, not µm.",
        )


def level_rules(report: Report, place: str, steps: Any, *, n_axes: int) -> list[float]:
    """Check the transformations of a level, or of all of them, and return the scale.

    Parameters
    ----------
    report : Report
        Takes what is found.
    place : str
        Of them in the metadata.
    steps : object
        As it stands there.
    n_axes : int
        Of the image.

    Returns
    -------
    list of float
        Empty where there is none.
    """
    kinds = [step.get("type") for step in entries(steps)]
    if kinds not in (["scale"], ["scale", "translation"]):
        report.error(
            f"{place}.coordinateTransformations",
            f"one scale, then at most one translation, is expected, got {_kinds(steps)}",
            "Write the size of a voxel along each axis.",
        )
        return []
    scale: list[float] = []
    for step in entries(steps):
        kind = step["type"]
        values = step.get(kind)
        numbers = values if isinstance(values, list) and all(map(_is_number, values)) else []
        if len(numbers) != n_axes or (kind == "scale" and not all(n > 0 for n in numbers)):
            report.error(
                f"{place}.coordinateTransformations",
                f"a {kind} of {n_axes} {'positive ' * (kind == 'scale')}numbers is expected, got"
                f" {values!r:.80}",
                "Write one number for each axis.",
            )
        elif kind == "scale":
            scale = numbers
    return scale


def _kinds(steps: Any) -> str:
    if not isinstance(steps, list):
        return f"{steps!r:.40}"
    return str([record(step).get("type") for step in steps])[:80]


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and (isinstance(value, int) or math.isfinite(value))


def omero_rules(report: Report, about: dict[str, Any], n_channels: int | None) -> None:
    """Check what is said for viewers.

    Parameters
    ----------
    report : Report
        Takes what is found.
    about : dict
        Metadata of the image.
    n_channels : int or None
        Length of its channel axis, if it has one.
    """
    if "omero" not in about:
        return
    channels = record(about["omero"]).get("channels")
    if not isinstance(channels, list) or len(entries(channels)) != len(channels):
        report.error("omero.channels", f"a list is expected, got {channels!r:.60}", "Mend or drop.")
        return
    if len(channels) != (n_channels or 1):
        report.warning(
            "omero.channels",
            f"{n_channels or 1} are expected, one per channel, got {len(channels)}",
            "Describe each channel.",
        )
    for number, channel in enumerate(channels):
        color, window = channel.get("color"), channel.get("window")
        place = f"omero.channels[{number}]"
        if not isinstance(color, str) or not re.fullmatch("[0-9A-Fa-f]{6}", color):
            report.error(
                f"{place}.color", f"six hex digits are expected, got {color!r:.40}", "Set."
            )
        missing = {"min", "max", "start", "end"} - set(record(window))
        if missing:
            report.error(
                f"{place}.window", f"{', '.join(sorted(missing))} are missing", "Add numbers."
            )
