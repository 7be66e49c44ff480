"""Reads a TIFF into memory, with what it says of axes, channels and voxel size."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cellseg_pipe.io._raw import MICROMETRES, Raw

__all__ = ["read_tiff"]

log = logging.getLogger(__name__)

# Of a pixel, where no program of microscopy says the unit. 1,200 dots per inch are 21 µm: coarser
# ones are those of printers and screens.
PLAUSIBLE_UM = (0.01, 20.0)
OPACITY = {1, 2}  # kinds of extra samples
COLOURED = {2, 3, 5, 6, 8}  # photometric: RGB, palette, CMYK, YCbCr, Lab


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
                pixels, said = _without_alpha(chosen, _axes_said(file, chosen), path)
                names, spacing = _tiff_facts(file, chosen, series=series, path=path)
    except (tifffile.TiffFileError, OSError, RuntimeError, LookupError, ValueError) as error:
        faults.append(str(error))
    if faults:
        raise ValueError(
            f"{path} cannot be read as TIFF: {'; '.join(faults)}. Copy or export it again."
        )
    if not 0 <= series < known:
        raise ValueError(f"{path} has series 0 to {known - 1}, asked for {series}.")
    if known > 1:
        log.info(
            "%s holds %d images, number %d is read; series= says otherwise",
            path.name,
            known,
            series,
        )
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


def _axes_said(file: Any, chosen: Any) -> str | None:
    """Return the axes if the file says them, None if they are guessed from its shape."""
    axes, page = str(chosen.axes), chosen.keyframe
    channels = (file.imagej_metadata or {}).get("channels", 1) if file.is_imagej else 1
    # Samples without colours are channels, and ImageJ takes 48-bit colours for three of them.
    if page.photometric not in COLOURED or (channels == 3 and page.dtype != "uint8"):
        if "C" not in axes and len(page.extrasamples) != 1:
            axes = axes.replace("S", "C")
    unknown = set(axes) & set("QI")
    if len(unknown) == 1 and set("YXS") < set(axes):  # pages of colours
        axes = axes.replace(unknown.pop(), "Z")
        log.info("the pages are taken as planes (%s); axes= says otherwise", axes.lower())
        return axes
    return axes if file.is_ome or file.is_imagej or not unknown else None


def _without_alpha(chosen: Any, axes: str | None, path: Path) -> tuple[NDArray[Any], str | None]:
    """Return pixels and axes without the opacity that follows a grey value."""
    pixels, page = chosen.asarray(), chosen.keyframe
    grey = page.samplesperpixel == 2 and {*page.extrasamples} <= OPACITY
    if axes is None or "S" not in axes or page.photometric in COLOURED or not grey:
        return pixels, axes
    log.info("%s: the alpha channel is left out", path.name)
    return pixels.take(0, axes.index("S")), axes.replace("S", "")


def _tiff_facts(
    file: Any, chosen: Any, *, series: int, path: Path
) -> tuple[tuple[str, ...], dict[str, float]]:
    """Return names of channels, and the size of voxels."""
    if file.is_ome:
        return _ome_facts(file.ome_metadata, series)
    names: Sequence[str] = ()
    about = file.imagej_metadata or {} if file.is_imagej else {}
    unit = MICROMETRES.get(str(about.get("unit", "")).strip())
    spacing = _resolution(chosen.keyframe.tags, unit)
    if spacing and not file.is_imagej:
        log.info("%s: pixels of %g µm, by its resolution in dots", path.name, spacing["x"])
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
        said = unit_um is not None and unit_um not in units.values()
        if size > 0 and (said or PLAUSIBLE_UM[0] <= size <= PLAUSIBLE_UM[1]):
            found[axis] = size
    return found if len(found) == 2 else {}


def _ome_facts(xml: str, series: int) -> tuple[tuple[str, ...], dict[str, float]]:
    """Return names of channels, and the size of voxels, of one image from OME-XML."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        log.warning("the OME metadata cannot be read and are left out: %s", error)
        return (), {}
    images = root.findall("{*}Image/{*}Pixels")
    if series >= len(images):
        return (), {}
    pixels = images[series]
    found = {}
    for axis in "zyx":
        size = pixels.get(f"PhysicalSize{axis.upper()}")
        unit = MICROMETRES.get(pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm"))
        if size is not None and unit is not None and float(size) > 0:
            found[axis] = float(size) * unit
    names = [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    return tuple(name for name in names if name) if all(names) else (), found
