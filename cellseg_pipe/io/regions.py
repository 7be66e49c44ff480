"""Reads what a user says of a region: boxes, outlines in GeoJSON, mask images; and stores it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.files import size_and_age
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.regions import (
    Outline,
    Part,
    Region,
    box_part,
    compose,
    outlines_part,
    region_of_arrays,
    region_to_arrays,
    runs_of_rows,
    spread_part,
)

__all__ = [
    "mask_part",
    "part_of_file",
    "read_outlines",
    "region_from_bytes",
    "region_identity",
    "region_of",
    "region_to_bytes",
]

OUTLINES = (".geojson", ".json")
ROWS_PX = 1 << 24  # of a mask in memory at once
KEYS = ("file", "box_px", "box_um", "name")


def region_of(
    said: Any, *, shape: Sequence[int], spacing_um: Sequence[float] | None = None
) -> Region:
    """Return the region that a user means.

    Parameters
    ----------
    said : Region, path, mask, or mapping
        A file of outlines or a mask image; a mask as an array; or, as in the experiment file, one
        of file, box_px and box_um with perhaps a name, or lists of these as include and exclude.
    shape : sequence of int
        Of the image.
    spacing_um : sequence of float, optional
        Size of a pixel.

    Returns
    -------
    Region
        With pixels; one that has none is refused.
    """
    shape = tuple(shape)
    if isinstance(said, Region):
        if said.shape != shape:
            raise ValueError(f"the region is of an image of shape {said.shape}, this is {shape}.")
        return said
    if not isinstance(said, Mapping):
        said = {"include": [said]}
    own = {key: said[key] for key in KEYS if key in said}
    include = [*([own] if own else []), *said.get("include", ())]
    exclude = said.get("exclude", ())
    if unknown := sorted(set(said) - {*KEYS, "include", "exclude"}):
        raise ValueError(
            f"a region needs keys out of include, exclude, {', '.join(KEYS)}, got"
            f" {', '.join(unknown)}."
        )
    if not include and not exclude:
        raise ValueError("a region needs something that is included or excluded, got nothing.")
    parts = [
        [
            _part(item, number, shape=shape, spacing_um=spacing_um)
            for number, item in enumerate(items, 1)
        ]
        for items in (include, exclude)
    ]
    region = compose(*parts, shape=shape)
    if not len(region.start):
        raise ValueError(
            f"the region needs pixels of the image of shape {shape}, and what it excludes leaves"
            " none. Check exclude."
        )
    return region


def _part(
    item: Any, number: int, *, shape: tuple[int, ...], spacing_um: Sequence[float] | None
) -> Part:
    """Return the pixels of one item, of which there must be some."""
    if isinstance(item, np.ndarray):
        part, what = mask_part(_ArrayMask(item), shape, what="the mask"), "the mask"
    elif isinstance(item, Mapping):
        part, what = _of_mapping(item, number, shape=shape, spacing_um=spacing_um)
    else:
        part, what = part_of_file(item, shape=shape), str(item)
    if not len(part.row):
        raise ValueError(
            f"{what} needs to lie in the image of shape {shape}, and covers none of its pixels."
            " Check that it is of this image, and its order of axes: y, x in boxes, x, y in"
            " GeoJSON."
        )
    return part


def _of_mapping(
    item: Mapping[str, Any],
    number: int,
    *,
    shape: tuple[int, ...],
    spacing_um: Sequence[float] | None,
) -> tuple[Part, str]:
    """Return a part, and what messages call it."""
    given = [key for key in KEYS[:3] if item.get(key) is not None]
    if len(given) != 1 or set(item) - set(KEYS):
        raise ValueError(
            f"a part of a region needs one of {', '.join(KEYS[:3])}, and perhaps a name, got"
            f" {', '.join(item) or 'nothing'}."
        )
    (key,), name = given, item.get("name")
    if key == "file":
        return part_of_file(item["file"], shape=shape, name=name), str(item["file"])
    corners = np.asarray(item[key], np.float64)
    if corners.ndim != 2 or corners.shape not in ((2, 2), (2, len(shape))):
        raise ValueError(
            f"{key} needs two corners of {' or '.join(str(n) for n in sorted({2, len(shape)}))}"
            f" numbers each, as the image has axes {'zyx'[-len(shape) :]}, got {item[key]}."
        )
    if not np.isfinite(corners).all() or not (corners[0] < corners[1]).all():
        raise ValueError(f"{key} needs the lower corner first, got {item[key]}.")
    if key == "box_um":
        if spacing_um is None:
            raise ValueError(
                "box_um needs the size of a pixel, and the image does not tell it. Give spacing_um,"
                " or box_px."
            )
        corners = corners / np.asarray(spacing_um)[-corners.shape[1] :]
    start, stop = corners.tolist()
    part = box_part(start, stop, shape=shape, name=name or str(number))
    return part, f"{key} {item[key]}"


def part_of_file(path: Path | str, *, shape: Sequence[int], name: str | None = None) -> Part:
    """Read the pixels of a file of outlines or of a mask image.

    Parameters
    ----------
    path : path
        .geojson or .json; else an image.
    shape : sequence of int
        Of the image whose region it is.
    name : str, optional
        Of all that is in it, instead of names and numbers in the file.

    Returns
    -------
    Part
        On level 0.
    """
    if str(path).lower().endswith(OUTLINES):
        outlines = read_outlines(path)
        _check_inside(outlines, shape, path)
        part = outlines_part(outlines, shape=shape)
    else:
        part = mask_part(open_image(path), shape, what=str(path))
    names = part.names if name is None else (name,) * len(part.names)
    return Part(part.breaks, part.row, part.start, part.stop, part.number, names)


def _check_inside(outlines: Sequence[Outline], shape: Sequence[int], path: Path | str) -> None:
    """Refuse outlines of which one lies beside the image: they are of another one."""
    for outline in outlines:
        corners = np.concatenate([np.zeros((0, 2)), *outline.rings])
        low, high = corners.min(axis=0, initial=np.inf), corners.max(axis=0, initial=-np.inf)
        if not ((high > 0) & (low < shape[-2:])).all():
            raise ValueError(
                f"{path}: region {outline.name} lies outside the image of shape {tuple(shape)}."
                " Check that it is of this image and of its full resolution, or remove it."
            )


def region_identity(said: Any) -> Any:
    """Return what tells that a region is the same: of its files, what is in them.

    Parameters
    ----------
    said : path, mapping or None
        As of `region_of`.

    Returns
    -------
    object
        JSON: a hash of outlines; of a mask, what tells that an image is the same.
    """
    if isinstance(said, Mapping):
        inner = [
            region_identity(said[key]) for key in ("include", "exclude", "file") if key in said
        ]
        return [dict(said), inner]
    if isinstance(said, list | tuple):
        return [region_identity(item) for item in said]
    if said is None:
        return None
    if str(said).lower().endswith(OUTLINES):
        return hashlib.sha256(Path(said).read_bytes()).hexdigest()
    about = open_image(said).identity  # of a store it does not tell that pixels were painted over
    return about if "://" in str(said) else {**about, "changed": list(size_and_age(said))}


def read_outlines(path: Path | str) -> list[Outline]:
    """Read regions from GeoJSON, as QuPath writes it: x, y in px of the full resolution.

    Parameters
    ----------
    path : path
        A FeatureCollection, a list of features, one feature, or one geometry; of polygons.

    Returns
    -------
    list of Outline
        In the order of the file; each is called by its class, else by its name, else its number.
    """
    try:
        stored = json.loads(Path(path).read_bytes())
    except ValueError as error:  # bytes that are no text, or text that is no JSON
        raise ValueError(f"{path} needs to be GeoJSON, and cannot be read: {error}.") from error
    features = list(_features(stored))
    if not features:
        raise ValueError(f"{path} needs polygons, and holds nothing. Export the annotations again.")
    found = []
    for number, feature in enumerate(features, 1):
        geometry = feature.get("geometry", feature)
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind not in ("Polygon", "MultiPolygon"):
            raise ValueError(
                f"{path}: feature {number} needs a Polygon or MultiPolygon, got {kind}. Remove it,"
                " or make it an area."
            )
        polygons = geometry.get("coordinates") or []
        polygons = [polygons] if kind == "Polygon" else polygons
        rings = tuple(
            _ring(ring, f"{path}: feature {number}") for polygon in polygons for ring in polygon
        )
        found.append(Outline(_name(feature, number), rings))
    return found


def _features(stored: Any) -> Iterator[dict[str, Any]]:
    """Yield features, or bare geometries."""
    if isinstance(stored, dict) and stored.get("type") == "FeatureCollection":
        stored = stored.get("features") or []
    items = stored if isinstance(stored, list) else [stored]
    yield from (item if isinstance(item, dict) else {"type": type(item).__name__} for item in items)


def _name(feature: dict[str, Any], number: int) -> str:
    about = feature.get("properties") or {}
    kind = about.get("classification")
    name = kind
    if isinstance(kind, dict):  # a derived class may be told by its parts
        name = kind.get("name") or ": ".join(map(str, kind.get("names") or ()))
    return str(name or about.get("name") or number)


def _ring(ring: Any, what: str) -> NDArray[np.float64]:
    """Return corners y, x."""
    try:
        corners = np.array([corner[:2] for corner in ring], np.float64)
    except (TypeError, ValueError, KeyError):
        corners = np.zeros(0)
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise ValueError(f"{what} needs rings of corners [x, y], got {str(ring)[:60]}.")
    return corners[:, ::-1]


class _ArrayMask:
    """An array as a mask: what `mask_part` needs of an open image."""

    n_channels = n_times = 1

    def __init__(self, pixels: NDArray[Any]) -> None:
        self.pixels = pixels
        self.shape, self.dtype = pixels.shape, pixels.dtype

    def read(self, box: Box) -> NDArray[Any]:
        """Return a box of it with one channel."""
        return self.pixels[box.slices][None]


def mask_part(image: OpenImage | _ArrayMask, shape: Sequence[int], *, what: str) -> Part:
    """Read a mask of any resolution: each pixel of the image takes the nearest one.

    Parameters
    ----------
    image : OpenImage
        Of the same field of view; not 0 is inside, and values are the names of regions.
    shape : sequence of int
        Of the image whose region it is.
    what : str
        What messages call it.

    Returns
    -------
    Part
        On level 0.
    """
    own = tuple(image.shape)
    if image.n_channels != 1 or image.n_times != 1 or image.dtype.kind not in "biu":
        raise ValueError(
            f"{what} needs to be a mask of whole numbers in one channel, got {image.dtype} of"
            f" {image.n_channels} channels and {image.n_times} times."
        )
    if len(own) not in (2, len(shape)) or 0 in own:
        raise ValueError(
            f"{what} needs the axes of the image of shape {tuple(shape)}, or y, x alone, got shape"
            f" {own}."
        )
    columns: list[list[NDArray[Any]]] = [[] for _ in range(4)]
    for first_row, strip in _strips(image, own):
        row, start, stop, value = runs_of_rows(strip)
        for column, values in zip(columns, (row + first_row, start, stop, value), strict=True):
            column.append(values)
    row, start, stop, value = (np.concatenate(column) for column in columns)
    values, number = np.unique(value, return_inverse=True)
    names = tuple(str(int(one)) for one in values)
    runs = Part((), row, start, stop, number.astype(np.int64), names)
    return spread_part(runs, own_shape=own, shape=shape)


def _strips(
    image: OpenImage | _ArrayMask, own: tuple[int, ...]
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the number of a row, and pixels [rows, width] from it on."""
    *depth, height, width = own
    rows = max(1, ROWS_PX // width)
    for z in range(depth[0] if depth else 1):
        for low in range(0, height, rows):
            high = min(low + rows, height)
            box = Box((*(z for _ in depth), low, 0), (*(z + 1 for _ in depth), high, width))
            yield z * height + low, image.read(box).reshape(high - low, width)


def region_to_bytes(region: Region) -> bytes:
    """Return the bytes of a region.

    Parameters
    ----------
    region : Region
        The region.

    Returns
    -------
    bytes
        Compressed.
    """
    return pack(region_to_arrays(region), shape=region.shape, names=region.names)


def region_from_bytes(blob: bytes) -> Region:
    """Return the region that was stored.

    Parameters
    ----------
    blob : bytes
        From `region_to_bytes`.

    Returns
    -------
    Region
        Equal to what was stored.
    """
    arrays, about = unpack(blob)
    return region_of_arrays(arrays, shape=about["shape"], names=about["names"])
