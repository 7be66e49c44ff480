"""Reads a TIFF into memory, with what it says of axes, channels and voxel size."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cellseg_pipe.io._raw import MICROMETRES, Raw

__all__ = ["read_tiff"]

log = logging.getLogger(__name__)

PLAUSIBLE_UM = (0.005, 100.0)  # of a pixel; other resolutions are those of printers and screens


def read_tiff(path: Path, series: int) -> Raw:
    """Read one series of a TIFF; a damaged file is refused, not read as far as it goes.

    Parameters
    ----------
    path : path
        Plain, ImageJ or OME.
    series : int
        Which of the images that it holds.

    Returns
    -------
    Raw
        Pixels, axes, names, sizes.
    """
    import tifffile

    faults: list[str] = []
    try:
        with _heard(faults), tifffile.TiffFile(path) as file:
            known = len(file.series)
            if 0 <= series < known:
                chosen = file.series[series]
                said = chosen.axes if _tells_axes(file, chosen.axes) else None
                pixels = chosen.asarray()
                names, spacing = _tiff_facts(file)
    except (tifffile.TiffFileError, OSError, RuntimeError, LookupError, ValueError) as error:
        faults.append(str(error))
    if faults:
        raise ValueError(
            f"{path} cannot be read as TIFF: {'; '.join(faults)}. Copy or export it again."
        )
    if not 0 <= series < known:
        raise ValueError(f"{path} has series 0 to {known - 1}, asked for {series}.")
    return Raw(pixels, said, names, spacing)


@contextlib.contextmanager
def _heard(faults: list[str]) -> Iterator[None]:
    """Collect the errors that tifffile logs: it reads what is left of a damaged file."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            faults.append(record.getMessage())

    collector, speaker = Collector(logging.ERROR), logging.getLogger("tifffile")
    speaker.addHandler(collector)
    try:
        yield
    finally:
        speaker.removeHandler(collector)


def _tells_axes(file: Any, axes: str) -> bool:
    """Tell whether axes are said by the file, not guessed from its shape."""
    return bool(file.is_ome or file.is_imagej or not set(axes) & set("QI"))


def _tiff_facts(file: Any) -> tuple[tuple[str, ...], dict[str, float]]:
    """Return names of channels, and the size of voxels."""
    if file.is_ome:
        return _ome_facts(file.ome_metadata)
    names: Sequence[str] = ()
    about = file.imagej_metadata or {} if file.is_imagej else {}
    unit = MICROMETRES.get(str(about.get("unit", "")).strip())
    spacing = _resolution(file.pages[0].tags, unit)
    if unit and "spacing" in about:
        spacing["z"] = abs(float(about["spacing"])) * unit
    n_channels = int(about.get("channels", 1))
    labels = about.get("Labels") or []  # a single one comes as a string
    if not isinstance(labels, str) and 1 < n_channels == len(labels):
        names = [str(label) for label in labels]
    return tuple(names), spacing


def _resolution(tags: Any, unit_um: float | None) -> dict[str, float]:
    """Return the size of a pixel that the tags tell, where it is one of a microscope."""
    units = {2: MICROMETRES["inch"], 3: MICROMETRES["cm"]}
    code = int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 1
    factor = unit_um or units.get(code)
    found = {}
    for axis, name in (("y", "YResolution"), ("x", "XResolution")):
        if factor is None or name not in tags:
            continue
        top, bottom = tags[name].value
        size = factor * bottom / top if top else 0.0
        if PLAUSIBLE_UM[0] <= size <= PLAUSIBLE_UM[1]:
            found[axis] = size
    return found


def _ome_facts(xml: str) -> tuple[tuple[str, ...], dict[str, float]]:
    """Return names of channels, and the size of voxels, from the first image's OME-XML."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        log.warning("the OME metadata cannot be read and are left out: %s", error)
        return (), {}
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return (), {}
    found = {}
    for axis in "zyx":
        size = pixels.get(f"PhysicalSize{axis.upper()}")
        unit = MICROMETRES.get(pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm"))
        if size is not None and unit is not None and float(size) > 0:
            found[axis] = float(size) * unit
    names = [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    return tuple(name for name in names if name) if all(names) else (), found
