"""Checks one image or label image of a store: its metadata, and its arrays against them."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from cellseg_pipe.io._findings import KNOWN, Report
from cellseg_pipe.io._image_rules import axes_rules, level_rules, omero_rules
from cellseg_pipe.io._label_rules import label_rules
from cellseg_pipe.io._metadata import about_of, entries, record
from cellseg_pipe.io._nodes import Node, attributes_at, read_node
from cellseg_pipe.io._raw import said
from cellseg_pipe.io._stores import Store
from cellseg_pipe.io._zarr_pixels import ZarrSource, open_pixels

__all__ = ["Visit", "check_image", "check_labels"]

COPY = "Write or copy it again."


@dataclass(frozen=True)
class Visit:
    """A group that is checked.

    Parameters
    ----------
    store : Store
        That holds it.
    key : str
        Of the group; empty for the root.
    node : Node
        What it says.
    report : Report
        Takes what is found.
    version : str
        Whose rules count.
    """

    store: Store
    key: str
    node: Node
    report: Report
    version: str

    @property
    def about(self) -> dict[str, Any]:
        """Its metadata."""
        return about_of(self.node.attributes)

    def below(self, path: str) -> str:
        """Return the key of what lies in it."""
        return f"{self.key}/{path}" if self.key else path


@dataclass(frozen=True)
class _Level:
    path: str
    metadata: dict[str, Any]
    source: ZarrSource


def check_image(visit: Visit) -> list[str]:
    """Check an image or a label image and return the groups that belong to it.

    Parameters
    ----------
    visit : Visit
        Of its group.

    Returns
    -------
    list of str
        The group of its labels, if there is one.
    """
    report, scales = visit.report, visit.about["multiscales"]
    if not isinstance(scales, list) or not scales or len(entries(scales)) != len(scales):
        report.error("multiscales", f"objects are expected, got {scales!r:.60}", COPY)
        return []
    names = axes_rules(report, scales[0].get("axes"))
    _scale_rules(report, scales[0], len(names))
    levels = _levels(visit, scales[0])
    for level in levels:
        _array_rules(visit, level, names)
    _pyramid_rules(report, levels)
    sizes = dict(zip(names, levels[0].source.shape, strict=False)) if levels else {}
    omero_rules(report, visit.about, sizes.get("c"))
    if "image-label" in visit.about or "labels" in visit.key.split("/")[-2:-1]:
        _check_label_image(visit, levels)
        return []
    return ["labels"] if _is_there(visit.store, visit.below("labels")) else []


def _is_there(store: Store, key: str) -> bool:
    try:
        return read_node(store, key) is not None
    except ValueError:
        return True  # and broken, which is told when it is looked into


def _scale_rules(report: Report, scale: dict[str, Any], n_axes: int) -> None:
    if "coordinateTransformations" in scale:
        steps = scale["coordinateTransformations"]
        level_rules(report, "multiscales[0]", steps, n_axes=n_axes)
    found = []
    for number, dataset in enumerate(entries(scale.get("datasets"))):
        steps = dataset.get("coordinateTransformations")
        found.append(level_rules(report, f"datasets[{number}]", steps, n_axes=n_axes))
    whole = [step for step in found if step]
    for fine, coarse in zip(whole, whole[1:], strict=False):
        if any(a > b for a, b in zip(fine, coarse, strict=True)):
            report.error("datasets", "the finest level is expected first", "Order them by scale.")
            return


def _levels(visit: Visit, scale: dict[str, Any]) -> list[_Level]:
    """Return the levels whose arrays are there."""
    datasets = scale.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        visit.report.error("datasets", f"one or more are expected, got {datasets!r:.40}", COPY)
        return []
    found = []
    for number, dataset in enumerate(map(record, datasets)):
        path = dataset.get("path")
        if not isinstance(path, str) or not path:
            what = f"a path is expected, got {path!r:.40}"
            visit.report.error(f"datasets[{number}].path", what, COPY)
        elif level := _opened(visit, path):
            found.append(level)
    return found


def _opened(visit: Visit, path: str) -> _Level | None:
    key = visit.below(path)
    try:
        node = read_node(visit.store, key)
        if node is not None and node.kind == "array":
            return _Level(path, node.metadata, open_pixels(visit.store, key, node.metadata))
    except ValueError as error:
        visit.report.error(path, said(error), COPY)
        return None
    visit.report.error(path, "an array is named here, and there is none", COPY)
    return None


def _array_rules(visit: Visit, level: _Level, names: list[str]) -> None:
    report, metadata, shape = visit.report, level.metadata, level.source.shape
    if names and len(shape) != len(names):
        what = f"{len(names)} axes are expected, got shape {shape}"
        report.error(level.path, what, "Mend the axes.")
    if metadata.get("zarr_format") != KNOWN[visit.version]:
        report.error(level.path, f"an array of Zarr {KNOWN[visit.version]} is expected", COPY)
    elif visit.version == "0.5":
        told = metadata.get("dimension_names")
        if names and told != names:
            what = f"the names of the axes {names} are expected, got {told!r:.60}"
            mend = "Write them into zarr.json of the array."
            report.error(f"{level.path} dimension_names", what, mend)
    elif (told := metadata.get("dimension_separator", ".")) != "/":
        what = f"'/' is expected, got {told!r:.20}"
        mend = "Write the chunks into folders; some readers know no other."
        report.warning(f"{level.path} dimension_separator", what, mend)


def _pyramid_rules(report: Report, levels: list[_Level]) -> None:
    for fine, coarse in zip(levels, levels[1:], strict=False):
        left, right = fine.source, coarse.source
        if left.dtype != right.dtype:
            what = f"the type of the level above is expected, {left.dtype}, got {right.dtype}"
            report.warning(coarse.path, what, "Write all levels in one type.")
        if any(n < m for n, m in zip(left.shape, right.shape, strict=False)):
            what = f"a level within {left.shape} is expected, got {right.shape}"
            report.error(coarse.path, what, "Order the data sets from the finest to the coarsest.")


def _check_label_image(visit: Visit, levels: list[_Level]) -> None:
    report = visit.report
    for level in levels:
        if level.source.dtype.kind not in "iu":
            report.error(level.path, f"whole numbers are expected, got {level.source.dtype}", COPY)
    source = label_rules(report, visit.about.get("image-label"), visit.version)
    target = posixpath.normpath(posixpath.join(visit.key or ".", source or "."))
    if source is None or target.startswith("..") or posixpath.isabs(target):
        return  # outside what was named
    image = about_of(attributes_at(visit.store, "" if target == "." else target))
    scales = entries(image.get("multiscales"))
    if not scales:
        report.error("image-label.source", f"an image is expected at {source}", "Mend the path.")
    elif len(entries(scales[0].get("datasets"))) != len(levels):
        report.warning("datasets", "as many levels as the image has are expected", "Write them.")


def check_labels(visit: Visit) -> list[str]:
    """Check the list of label images and return their names.

    Parameters
    ----------
    visit : Visit
        Of the group `labels`.

    Returns
    -------
    list of str
        Those that are listed.
    """
    names = visit.about["labels"]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        visit.report.error("labels", f"a list of names is expected, got {names!r:.60}", "Mend it.")
        return []
    for name in visit.store.children(visit.key):
        inner = about_of(attributes_at(visit.store, visit.below(name)))
        if name not in names and "multiscales" in inner:
            visit.report.warning("labels", f"{name} is there, and is not listed", "Add its name.")
    return names
