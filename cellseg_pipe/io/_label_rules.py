"""The rules of OME-Zarr 0.4 and 0.5 for what is said of labels; no I/O."""

from __future__ import annotations

from typing import Any

from cellseg_pipe.io._findings import Report
from cellseg_pipe.io._metadata import entries, record

__all__ = ["label_rules"]


def label_rules(report: Report, label: Any, version: str) -> str | None:
    """Check what is said of a label image and return the path to its source, if it names one.

    Parameters
    ----------
    report : Report
        Takes what is found.
    label : object
        What stands under `image-label`.
    version : str
        Of the format.

    Returns
    -------
    str or None
        Relative to the label image.
    """
    if not isinstance(label, dict):
        report.warning("image-label", f"an object is expected, got {label!r:.40}", "Add it.")
        return None
    if version == "0.4" and label.get("version") != version:
        report.warning(
            "image-label.version", f"{version!r} is expected, got {label.get('version')!r}", "Set."
        )
    for key in ("colors", "properties"):
        if key in label:
            _value_rules(report, f"image-label.{key}", label[key])
    for entry in entries(label.get("colors")):
        rgba = entry.get("rgba", [0, 0, 0, 0])
        fits = isinstance(rgba, list) and len(rgba) == 4
        if not fits or not all(type(v) is int and 0 <= v <= 255 for v in rgba):
            report.error("image-label.colors", f"rgba of 0 to 255, got {rgba!r:.40}", "Mend it.")
            break
    source = record(label.get("source")).get("image")
    if source is None or isinstance(source, str):
        return source
    report.error("image-label.source", f"a path is expected, got {source!r:.40}", "Mend it.")
    return None


def _value_rules(report: Report, place: str, listed: Any) -> None:
    values = [entry.get("label-value") for entry in entries(listed)]
    plain = [value for value in values if type(value) is int]
    if not isinstance(listed, list) or len(plain) < len(listed):
        report.error(place, "each needs a whole label-value", "Add it.")
    elif len(set(plain)) < len(plain):
        report.error(place, "a label-value occurs twice", "Keep one of each.")
