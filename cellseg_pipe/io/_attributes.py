"""Reads and changes the attributes of local zarr groups as plain JSON; the rest stays as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cellseg_pipe.io.files import written_whole

__all__ = [
    "MARKER",
    "attributes_of",
    "described",
    "level_paths",
    "load",
    "marker_of",
    "metadata_files",
    "ngff_version",
    "save",
    "set_attribute",
    "to_disk",
]

MARKER = "cellseg_pipe"
NEW_FILE = "zarr.json"
OLD_FILES = (".zgroup", ".zarray", ".zattrs")


def attributes_of(node: Path) -> dict[str, Any]:
    """Return the attributes of a group or array, empty where it has none."""
    if (node / NEW_FILE).is_file():
        attributes: dict[str, Any] = load(node / NEW_FILE).get("attributes") or {}
        return attributes
    return load(node / ".zattrs") if (node / ".zattrs").is_file() else {}


def described(node: Path) -> dict[str, Any]:
    """Return the OME-Zarr metadata of a group, wherever its version keeps them."""
    attributes = attributes_of(node)
    about: dict[str, Any] = attributes.get("ome", attributes)
    return about


def ngff_version(node: Path) -> str | None:
    """Return the OME-Zarr version that an image or label image states, None where it is none."""
    about = described(node)
    scales = about.get("multiscales") or []
    if not scales:
        return None
    return str(about.get("version") or scales[0].get("version") or "unknown")


def level_paths(node: Path) -> list[str]:
    """Return where the arrays of an image or label image lie, finest first; none where it is none.

    A label image in an image needs as many as the image.
    """
    scales = described(node).get("multiscales") or [{}]
    return [str(dataset["path"]) for dataset in scales[0].get("datasets", [])]


def marker_of(node: Path) -> dict[str, Any] | None:
    """Return what `cellseg_pipe` noted in a store that it made, None in one of others."""
    marker = attributes_of(node).get(MARKER) if node.is_dir() else None
    return marker if isinstance(marker, dict) else None


def metadata_files(node: Path) -> list[Path]:
    """Return the files of metadata that lie in the folder of a group or array."""
    return [file for name in (NEW_FILE, *OLD_FILES) if (file := node / name).is_file()]


def set_attribute(group: Path, path: tuple[str, ...], value: object) -> None:
    """Set one attribute of a group and keep all others; the file changes at one instant."""
    new = (group / NEW_FILE).is_file()
    file = group / (NEW_FILE if new else ".zattrs")
    whole = load(file) if file.is_file() else {}
    inner = whole.setdefault("attributes", {}) if new else whole
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    save(file, whole)


def load(file: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} cannot be read as JSON: {error}. Copy it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} needs to hold a JSON object, got {type(content).__name__}.")
    return content


def save(file: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    with written_whole(file) as text:
        json.dump(content, text, indent=2)
    to_disk(file.parent)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
