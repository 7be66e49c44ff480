"""Groups and arrays of a Zarr hierarchy, and the images among them; metadata only."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cellseg_pipe.io._metadata import about_of, entries, record
from cellseg_pipe.io._raw import said
from cellseg_pipe.io._stores import Store

__all__ = ["Node", "attributes_at", "no_image", "read_node", "series_of"]

LISTED = 12  # images that a message names
SERIES_MAX = 100_000  # that are counted where nothing lists them
DEPTH = 4  # of groups in groups that are searched for them: row, well, field, labels
LOOKED = 5000  # places that are searched: what was named may be a folder of anything


@dataclass(frozen=True)
class Node:
    """A group or an array.

    Parameters
    ----------
    kind : {"group", "array"}
        Which of them.
    metadata : dict
        Its `.zarray`, `.zgroup` or `zarr.json`.
    attributes : dict
        What its makers say of it.
    """

    kind: str
    metadata: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def digest(self) -> str:
        """Hash of all that is said."""
        text = json.dumps([self.metadata, self.attributes], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_node(store: Store, key: str = "") -> Node | None:
    """Return what lies under a key of a store, of Zarr 3 or 2.

    Parameters
    ----------
    store : Store
        That was opened.
    key : str
        Empty for the root.

    Returns
    -------
    Node or None
        None where there is nothing.
    """
    base = f"{key.strip('/')}/" if key.strip("/") else ""
    new = _json(store, f"{base}zarr.json")
    if new is not None:
        attributes = record(new.get("attributes"))
        # What is consolidated is told by the nodes below: labels among them change no image.
        apart = ("attributes", "consolidated_metadata")
        new = {name: value for name, value in new.items() if name not in apart}
        new.setdefault("zarr_format", 3)
        return Node("array" if new.get("node_type") == "array" else "group", new, attributes)
    array = _json(store, f"{base}.zarray")
    told = _json(store, f"{base}.zattrs")
    if array is not None:
        array.setdefault("zarr_format", 2)
        return Node("array", array, told or {})
    group = _json(store, f"{base}.zgroup")
    if group is None and told is None:
        return None
    return Node("group", group or {"zarr_format": 2}, told or {})


def _json(store: Store, key: str) -> dict[str, Any] | None:
    content = store.get(key)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{store.name} cannot be read as OME-Zarr: {key} is no JSON: {said(error)}. Copy it"
            " again."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{store.name} cannot be read as OME-Zarr: {key} needs to hold an object, got"
            f" {found!r:.60}. Copy it again."
        )
    return found


def series_of(store: Store, about: dict[str, Any]) -> list[str]:
    """Return the images of a folder of bioformats2raw: listed, else counted from 0.

    Parameters
    ----------
    store : Store
        Whose root it is.
    about : dict
        Metadata of the root.

    Returns
    -------
    list of str
        Their keys; none where it is another kind of group.
    """
    if "bioformats2raw.layout" not in about:
        return []
    listed = record(about_of(record(attributes_at(store, "OME")))).get("series")
    if isinstance(listed, list) and listed and all(isinstance(name, str) for name in listed):
        return [name for name in listed if _is_image(store, name)]
    found: list[str] = []
    while len(found) < SERIES_MAX and _is_image(store, str(len(found))):
        found.append(str(len(found)))
    return found


def attributes_at(store: Store, key: str) -> dict[str, Any]:
    """Return what a group says, nothing where it cannot be read: it is not what was asked for.

    Parameters
    ----------
    store : Store
        That holds it.
    key : str
        Of the group.

    Returns
    -------
    dict
        Its attributes.
    """
    try:
        node = read_node(store, key)
    except (ValueError, OSError):
        return {}
    return node.attributes if node is not None else {}


def _is_image(store: Store, key: str) -> bool:
    return "multiscales" in about_of(attributes_at(store, key))


def no_image(store: Store, about: dict[str, Any], *, found: str | None = None) -> ValueError:
    """Return the error that names the images in a place that is none.

    Parameters
    ----------
    store : Store
        Whose root it is.
    about : dict
        Metadata of the root.
    found : str, optional
        What it is instead; by default as its metadata say.

    Returns
    -------
    ValueError
        To be raised.
    """
    start = f"{store.name} needs to be an OME-Zarr image, and"
    images = [*_of_plate(store, about)] or series_of(store, about)
    if not images:
        images = list(itertools.islice(_below(store), LISTED + 1))
    if images:
        shown = ", ".join(images[:LISTED]) + (", ..." if len(images) > LISTED else "")
        what = found or ("is a plate" if "plate" in about else "has no multiscales")
        return ValueError(
            f"{start} {what}. Name one of the images in it, as {store.name}/{images[0]}; here:"
            f" {shown}."
        )
    groups = [name for name in store.children("") if _is_group(store, name)][:5]
    return ValueError(
        f"{start} {found or 'has no multiscales'}. Name a group that has them, as PATH/0 or"
        f" PATH/labels/NAME; groups here: {', '.join(groups) or 'none'}."
    )


def _is_group(store: Store, key: str) -> bool:
    return _kind(store, key) == "group"


def _kind(store: Store, key: str) -> str | None:
    """Return what lies under a key, None for neither group nor array."""
    try:
        node = read_node(store, key)
    except (ValueError, OSError):
        return None
    return None if node is None else node.kind


def _of_plate(store: Store, about: dict[str, Any]) -> Iterator[str]:
    """Yield the fields of a plate, or of a well."""
    wells = [well.get("path") for well in entries(record(about.get("plate")).get("wells"))]
    parts = [("", about)]
    if wells:
        named = [well for well in wells if isinstance(well, str)][: LISTED + 1]
        parts = [(f"{well}/", about_of(attributes_at(store, well))) for well in named]
    for prefix, well_about in parts:
        for field in entries(record(well_about.get("well")).get("images")):
            if isinstance(field.get("path"), str):
                yield f"{prefix}{field['path']}"


def _below(store: Store) -> Iterator[str]:
    """Yield the images in groups and folders, as far as the store lists them."""
    waiting, looked = deque([("", 0)]), 0
    while waiting:
        key, depth = waiting.popleft()
        for name in store.children(key):
            looked += 1
            if looked > LOOKED:
                return
            inner = f"{key}/{name}" if key else name
            if _kind(store, inner) == "array":
                continue
            if _is_image(store, inner):
                yield inner
            if depth + 1 < DEPTH:
                waiting.append((inner, depth + 1))
