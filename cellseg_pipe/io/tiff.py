"""What a TIFF says of axes, channels and voxel size; no pixels."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellseg_pipe.io._raw import MICROMETRES

__all__ = ["axes_said", "is_grey_with_alpha", "tiff_facts"]

log = logging.getLogger(__name__)

# Of a pixel, where no program of microscopy says the unit. 1,200 dots per inch are 21 µm: coarser
# ones are those of printers and screens.
PLAUSIBLE_UM = (0.01, 20.0)
OPACITY = {1, 2}  # kinds of extra samples
COLOURED = {2, 3, 5, 6, 8}  # photometric: RGB, palette, CMYK, YCbCr, Lab


def axes_said(file: Any, chosen: Any) -> str | None:
    """Return the axes if the file says them, None if they are guessed from its shape.

    Parameters
    ----------
    file : tifffile.TiffFile
        The file.
    chosen : tifffile.TiffPageSeries
        One of its images.

    Returns
    -------
    str or None
        Upper case; S are colours.
    """
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


def is_grey_with_alpha(chosen: Any, axes: str | None) -> bool:
    """Tell whether the samples are a grey value and its opacity.

    Parameters
    ----------
    chosen : tifffile.TiffPageSeries
        An image.
    axes : str or None
        Its axes.

    Returns
    -------
    bool
        If so, the first sample is the image.
    """
    page = chosen.keyframe
    grey = page.samplesperpixel == 2 and {*page.extrasamples} <= OPACITY
    return bool(axes and "S" in axes and page.photometric not in COLOURED and grey)


def tiff_facts(
    file: Any, chosen: Any, *, series: int, path: Path
) -> tuple[tuple[str, ...], dict[str, float]]:
    """Return names of channels, and the size of voxels.

    Parameters
    ----------
    file : tifffile.TiffFile
        The file.
    chosen : tifffile.TiffPageSeries
        One of its images.
    series : int
        Its number.
    path : path
        For messages.

    Returns
    -------
    names : tuple of str
        One per channel, or none.
    spacing_um : dict of str to float
        By axis.
    """
    if file.is_ome:
        return _ome_facts(file.ome_metadata, series)
    if file.is_svs:
        return (), _svs_spacing(chosen.keyframe.description)
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


def _svs_spacing(description: str) -> dict[str, float]:
    """Return the size of a pixel that a scanner of Aperio writes (microns per pixel)."""
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", description)
    size = float(found[1]) if found else 0.0
    return {"y": size, "x": size} if size > 0 else {}


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
