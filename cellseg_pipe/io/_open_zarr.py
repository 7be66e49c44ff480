"""Opens an image of a Zarr hierarchy, or tells which images are in what was named."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from cellseg_pipe.io._attributes import MARKER
from cellseg_pipe.io._metadata import Multiscale, about_of, labels_of, multiscale_of, record
from cellseg_pipe.io._nodes import Node, no_image, read_node, series_of
from cellseg_pipe.io._raw import Raw
from cellseg_pipe.io._stores import Store, store_of
from cellseg_pipe.io._zarr_pixels import open_pixels

__all__ = ["open_zarr"]


def open_zarr(path: str, *, level: int, axes: str | None) -> Raw:
    """Open an OME-Zarr image, a label image, or a plain array of which the axes are given.

    Parameters
    ----------
    path : str
        A folder, a zip file or a place in one, or a URL.
    level : int
        Which resolution, 0 for the finest.
    axes : str or None
        What the user says of them.

    Returns
    -------
    Raw
        Nothing of its pixels is read yet.
    """
    store = store_of(path)
    node = read_node(store)
    if node is None:
        raise no_image(store, {}, found=f"is a {_place(path)} without one")
    if node.kind == "array":
        return _open_array(store, node, level=level, axes=axes)
    about = about_of(node.attributes)
    image = multiscale_of(about, path)
    if image is not None:
        return _open_level(store, node, image, level=level, axes=axes)
    alone = _only_series(store, about)
    if alone is not None:
        return open_zarr(f"{path.rstrip('/')}/{alone}", level=level, axes=axes)
    raise no_image(store, about)


def _open_array(store: Store, node: Node, *, level: int, axes: str | None) -> Raw:
    if level:
        raise ValueError(f"{store.name} is one array, of level 0, asked for {level}.")
    source = open_pixels(store, "", node.metadata)
    names = node.metadata.get("dimension_names")
    plain = isinstance(names, list) and all(isinstance(n, str) and len(n) == 1 for n in names)
    known = "".join(names).lower() if plain and isinstance(names, list) else None
    if axes is None and (known is None or not set(known) <= set("tczyx")):
        raise ValueError(
            f"{store.name} is a plain Zarr array of shape {source.shape}, not an OME-Zarr image."
            " Give axes=, a letter for each axis, or name the group that holds it."
        )
    return Raw(
        source,
        axes=known,
        chunk=source.chunk,
        in_place=True,
        format=f"Zarr {node.metadata['zarr_format']}",
        identity=_identity(store, "", [node]),
    )


def _open_level(
    store: Store, node: Node, image: Multiscale, *, level: int, axes: str | None
) -> Raw:
    if not 0 <= level < len(image.paths):
        raise ValueError(f"{store.name} has levels 0 to {len(image.paths) - 1}, asked for {level}.")
    key = image.paths[level].strip("/")
    array = read_node(store, key)
    if array is None or array.kind != "array":
        raise ValueError(f"{store.name} names {key!r} as its pixels: no array. Copy it again.")
    source = open_pixels(store, key, array.metadata)
    named = image.letters(len(source.shape))
    if axes is None and (named is None or image.mixes(level)):
        mixed = ", put into another order by its transformations" if image.mixes(level) else ""
        raise ValueError(
            f"{store.name} needs a name for each of its {len(source.shape)} axes, out of t, c, z,"
            f" y, x in the order of the array; got {_names(image)}{mixed}. Export it again, or give"
            " axes=."
        )
    about = about_of(node.attributes)
    sizes, places = image.place(level, len(source.shape))
    return Raw(
        source,
        axes=named,
        channel_names=labels_of(about),
        spacing_um=sizes,
        offset_um=places,
        chunk=source.chunk,
        in_place=True,
        format=f"OME-Zarr {image.version}".strip(),
        n_levels=len(image.paths),
        rgb=record(node.attributes.get(MARKER)).get("rgb") is True,
        identity=_identity(store, key, [node, array]),
    )


def _place(path: str) -> str:
    if "://" not in path and os.path.isdir(path):
        return "folder"
    return "zip file" if path.lower().endswith(".zip") else "place"


def _names(image: Multiscale) -> str:
    names = [axis if isinstance(axis, str) else record(axis).get("name") for axis in image.axes]
    return f"{names!r:.80}"


def _identity(store: Store, key: str, nodes: list[Node]) -> dict[str, Any]:
    """Return hashes of the metadata, and when those of the array were written."""
    name = "zarr.json" if nodes[-1].metadata.get("zarr_format") == 3 else ".zarray"
    digest = hashlib.sha256("".join(node.digest for node in nodes).encode()).hexdigest()
    stamp = store.stamp(f"{key}/{name}" if key else name)
    return {"array": key, "metadata": digest, **stamp}


def _only_series(store: Store, about: dict[str, Any]) -> str | None:
    """Return the one image of a folder of bioformats2raw; None where there are more or none."""
    if "bioformats2raw.layout" not in about:
        return None
    series = series_of(store, about)
    return series[0] if len(series) == 1 else None
