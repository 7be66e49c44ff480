"""Checks OME-Zarr stores against the standard: images, labels, plates, and all that is in them."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

from cellseg_pipe.io._findings import KNOWN, Finding, Report
from cellseg_pipe.io._image_check import Visit, check_image, check_labels
from cellseg_pipe.io._metadata import about_of, entries, record
from cellseg_pipe.io._nodes import Node, read_node, series_of
from cellseg_pipe.io._plate_rules import plate_rules, well_rules
from cellseg_pipe.io._raw import said
from cellseg_pipe.io._stores import Store, store_of
from cellseg_pipe.io._zarr_pixels import FAULTS

__all__ = ["Finding", "validate"]

COPY = "Write or copy it again."
MODELS = {
    "plate": "hcs.HCS",
    "well": "well.Well",
    "image-label": "image_label.ImageLabel",
    "multiscales": "image.Image",
    "labels": "labels.Labels",
}


def validate(path: Path | str) -> list[Finding]:
    """Check a store, and every image and label image in it.

    Parameters
    ----------
    path : path
        An OME-Zarr image, label image, plate, well, or folder of bioformats2raw; local or a URL.

    Returns
    -------
    list of Finding
        Empty where all is well. With `ome-zarr-models` installed, its verdict is among them.
    """
    store = store_of(str(path))
    node = read_node(store)
    if node is None or node.kind != "group":
        raise ValueError(
            f"{path} needs to be an OME-Zarr group, got {'an array' if node else 'none'}."
        )
    about = about_of(node.attributes)
    if not set(about) & {*MODELS, "bioformats2raw.layout"}:
        raise ValueError(
            f"{path} needs to be an OME-Zarr image, label image, plate or well, and has metadata of"
            " none. Name a group that has."
        )
    return [*_group(store, "", node), *_verdict(store, node)]


def _group(store: Store, key: str, node: Node) -> Iterator[Finding]:
    """Yield what is found in a group and in those that it names."""
    about = about_of(node.attributes)
    report = Report(_where(store, key))
    visit = Visit(store, key, node, report, _version(report, node))
    if "plate" in about:
        inner = plate_rules(report, record(about["plate"]))
    elif "well" in about:
        inner = well_rules(report, record(about["well"]))
    elif "multiscales" in about:
        inner = check_image(visit)
    elif "labels" in about:
        inner = check_labels(visit)
    else:
        inner = series_of(store, about)
        if not inner:
            report.error("", "one image or more is expected, got none", COPY)
    yield from report.findings
    for name in inner:
        yield from _named(store, f"{key}/{name}" if key else name)


def _named(store: Store, key: str) -> Iterator[Finding]:
    """Yield what is found in a group that another one names."""
    try:
        node = read_node(store, key)
    except ValueError as error:
        yield Finding("error", _where(store, key), said(error), COPY)
        return
    if node is None or node.kind != "group":
        yield Finding("error", _where(store, key), "a group is named here, and there is none", COPY)
        return
    yield from _group(store, key, node)


def _where(store: Store, key: str) -> str:
    return f"{store.name}/{key}" if key else store.name


def _version(report: Report, node: Node) -> str:
    """Check the version and how it goes with that of Zarr; return the one whose rules count."""
    about = about_of(node.attributes)
    zarr_format = node.metadata.get("zarr_format")
    usual = "0.5" if zarr_format == 3 else "0.4"
    if zarr_format == 3 and "ome" not in node.attributes:
        report.error("", "the metadata are expected under 'ome' in Zarr 3", "Move them there.")
    inner = [*entries(about.get("multiscales")), record(about.get("plate"))]
    inner.append(record(about.get("well")))
    told = about.get("version") or next((e["version"] for e in inner if "version" in e), None)
    if told is None:
        if usual == "0.5":
            report.error("version", "'0.5' is expected, got none", "Write it under 'ome'.")
        elif not {"labels", "bioformats2raw.layout"} & set(about):
            report.warning("version", "'0.4' is expected, got none", "Write it.")
        return usual
    if not isinstance(told, str) or told not in KNOWN:
        what = f"0.4 or 0.5 is expected, got {told!r:.40}"
        report.warning("version", what, f"It is checked by the rules of {usual}.")
        return usual
    if KNOWN[told] != zarr_format:
        what = f"Zarr {KNOWN[told]} is expected for {told}, got Zarr {zarr_format!r:.9}"
        report.error("version", what, "Write the store again.")
    return told


def _verdict(store: Store, node: Node) -> Iterator[Finding]:
    """Yield what ome-zarr-models says of the root, where it is installed."""
    about = about_of(node.attributes)
    kind = next((name for name in MODELS if name in about), None)
    if importlib.util.find_spec("ome_zarr_models") is None or kind is None:
        return
    import zarr

    version = "v05" if node.metadata.get("zarr_format") == 3 else "v04"
    module, name = MODELS[kind].split(".")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = getattr(importlib.import_module(f"ome_zarr_models.{version}.{module}"), name)
            model.from_zarr(zarr.open_group(store.opened(), mode="r"))
    except (*FAULTS, zarr.errors.BaseZarrError) as error:
        what = f"ome-zarr-models refuses it: {said(error)[:300]}"
        yield Finding("error", store.name, what, "See what else is found.")
