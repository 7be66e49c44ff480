"""Writes OME-Zarr 0.4 and 0.5 groups: arrays of all levels with their metadata, no pixels."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cellseg_pipe.io._attributes import (
    MARKER,
    described,
    level_paths,
    ngff_version,
    set_attribute,
    to_disk,
)
from cellseg_pipe.io._image_meta import ImageMeta, multiscale
from cellseg_pipe.io.levels import (
    Version,
    choose_version,
    chunk_shape,
    level_factors,
    level_shape,
    shard_shape,
)

if TYPE_CHECKING:
    import zarr

__all__ = [
    "ImageMeta",
    "Version",
    "choose_version",
    "create_image",
    "create_image_pyramid",
    "create_label_pyramid",
    "create_label_store",
    "create_labels",
    "show_values",
]

ZARR_FORMAT: dict[str, Literal[2, 3]] = {"0.4": 2, "0.5": 3}
COLORS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00")


def create_image(
    path: Path | str,
    meta: ImageMeta,
    *,
    array: dict[str, Any],
    value_range: tuple[float, float],
    version: Version = "0.4",
    n_levels: int | None = 1,
) -> zarr.Array:
    """Create an OME-Zarr image and return its level 0, still without pixels.

    Parameters
    ----------
    path : path
        The new store; it must not exist.
    meta : ImageMeta
        Axes, spacing and channel names.
    array : dict
        `shape`, `dtype` and, for level 0 alone, `chunks` and `shards` where the usual ones do not
        suit.
    value_range : tuple of float
        Lowest and highest grey value that a viewer shows.
    version : {"0.4", "0.5"}
        Of the OME-Zarr format; 0.4 is read by more viewers, 0.5 knows shards.
    n_levels : int, optional
        Levels of the pyramid; None for as many as the size asks for.

    Returns
    -------
    zarr.Array
        Level 0, to be filled.
    """
    group = _new_group(path, version)
    low, high = value_range
    window = {"min": low, "max": high, "start": low, "end": high}
    omero = {
        "channels": [
            {"label": name, "color": COLORS[i % len(COLORS)], "active": True, "window": window}
            for i, name in enumerate(meta.channels or ("image",))
        ]
    }
    factors = _factors(meta, array["shape"], n_levels)
    levels = _create_levels(group, meta, array, codec="image", factors=factors)
    scales = [multiscale(_name_of(path), meta, factors)]
    _describe(group, {"multiscales": scales, "omero": omero}, version)
    _mark(group, meta)
    return levels[0]


def show_values(store: Path, ranges: Sequence[tuple[float, float]]) -> None:
    """Say which grey values of each channel a viewer shows.

    Parameters
    ----------
    store : path
        An image of `create_image`.
    ranges : sequence of (float, float)
        Lowest and highest value, per channel; they may be one and the same.
    """
    omero = described(store)["omero"]
    for channel, (low, high) in zip(omero["channels"], ranges, strict=True):
        high = high if high > low else low + 1
        channel["window"] = {"min": low, "max": high, "start": low, "end": high}
    set_attribute(store, ("ome", "omero") if ngff_version(store) == "0.5" else ("omero",), omero)


def create_labels(
    image: Path | str,
    name: str,
    meta: ImageMeta,
    *,
    array: dict[str, Any],
    version: Version = "0.4",
) -> zarr.Array:
    """Create a label image under an OME-Zarr image, with as many levels, all background.

    Parameters
    ----------
    image : path
        The image's store.
    name : str
        Of the new label image.
    meta : ImageMeta
        Axes and spacing, without a channel axis.
    array : dict
        `shape` and, where the usual ones do not suit, `chunks` and `shards`. Labels are uint32.
    version : {"0.4", "0.5"}
        Of the OME-Zarr format; the same as the image's.

    Returns
    -------
    zarr.Array
        Level 0, to be filled.
    """
    import zarr

    labels = zarr.open_group(str(image), mode="r+").require_group("labels")
    known = _described(labels, version).get("labels", [])
    array = {**array, "n_levels": len(level_paths(Path(image))) or 1}
    level = _fill_label_group(labels.create_group(name), name, meta, array=array, version=version)
    _describe(labels, {"labels": [*known, name]}, version)
    return level


def create_label_store(
    path: Path | str, meta: ImageMeta, *, array: dict[str, Any], version: Version = "0.4"
) -> zarr.Array:
    """Create a label image of one level that stands by itself and return its array.

    Parameters
    ----------
    path : path
        The new store; it must not exist.
    meta : ImageMeta
        Axes and spacing, without a channel axis.
    array : dict
        `shape` and, where the usual ones do not suit, `chunks` and `shards`. Labels are uint32.
    version : {"0.4", "0.5"}
        Of the OME-Zarr format.

    Returns
    -------
    zarr.Array
        Level 0, all background, to be filled.
    """
    group = _new_group(path, version)
    return _fill_label_group(group, Path(path).stem, meta, array=array, version=version)


def create_label_pyramid(
    path: Path | str,
    meta: ImageMeta,
    *,
    shape: Sequence[int],
    version: Version,
    n_levels: int | None = None,
) -> None:
    """Create a label image with all its levels; it appears whole, all background, or not at all.

    Parameters
    ----------
    path : path
        The new store; it must not exist.
    meta : ImageMeta
        Axes and spacing, without a channel axis.
    shape : sequence of int
        Of level 0.
    version : {"0.4", "0.5"}
        Of the OME-Zarr format.
    n_levels : int, optional
        Levels of the pyramid; by default as many as the size asks for.
    """
    path = Path(path)
    name = _name_of(path)
    with _at_once(path) as made:
        group = _new_group(made, version)
        array = {"shape": tuple(shape), "n_levels": n_levels}
        _fill_label_group(group, name, meta, array=array, version=version)


def create_image_pyramid(
    path: Path | str, meta: ImageMeta, *, array: dict[str, Any], version: Version
) -> None:
    """Create an image with all its levels; it appears whole, all zero, or not at all.

    Parameters
    ----------
    path : path
        The new store; it must not exist.
    meta : ImageMeta
        Axes, spacing and channel names.
    array : dict
        `shape` and `dtype`.
    version : {"0.4", "0.5"}
        Of the OME-Zarr format.
    """
    with _at_once(Path(path)) as made:
        create_image(made, meta, array=array, value_range=(0, 1), version=version, n_levels=None)


def _name_of(path: Path | str) -> str:
    return Path(path).name.removesuffix(".zarr").removesuffix(".ome")


@contextmanager
def _at_once(path: Path) -> Iterator[Path]:
    """Give a place for a new store, which gets its name when it is complete."""
    if path.exists():
        raise FileExistsError(f"{path} exists. Name another store, or remove it first.")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made = Path(folder) / path.name
        yield made
        for file in (made, *made.rglob("*")):
            to_disk(file)
        os.rename(made, path)
        to_disk(path.parent)


def _new_group(path: Path | str, version: Version) -> zarr.Group:
    import zarr  # here: most jobs write into stores that are there, and begin sooner

    return zarr.open_group(str(path), mode="w-", zarr_format=ZARR_FORMAT[version])


def _fill_label_group(
    group: zarr.Group, name: str, meta: ImageMeta, *, array: dict[str, Any], version: Version
) -> zarr.Array:
    """Give a new group the levels and metadata of a label image and return its level 0."""
    if "c" in meta.axes:
        raise ValueError(f"labels have no channel axis, got axes {meta.axes!r}.")
    factors = _factors(meta, array["shape"], array.get("n_levels", 1))
    levels = _create_levels(group, meta, array, codec="labels", factors=factors)
    inside = bool(group.path)  # below an image, which is then its source
    about = {
        "multiscales": [multiscale(name, meta, factors)],
        "image-label": {"source": {"image": "../../"}} if inside else {},
    }
    _describe(group, about, version)
    _mark(group, meta)
    return levels[0]


def _factors(meta: ImageMeta, shape: Sequence[int], n_levels: int | None) -> list[tuple[int, ...]]:
    if len(shape) != len(meta.axes):
        raise ValueError(f"axes {meta.axes!r} need a shape with as many numbers, got {shape}.")
    return level_factors(shape[-len(meta.spatial) :], meta.spacing_um, n_levels=n_levels)


def _create_levels(
    group: zarr.Group,
    meta: ImageMeta,
    array: dict[str, Any],
    *,
    codec: Literal["image", "labels"],
    factors: list[tuple[int, ...]],
) -> list[zarr.Array]:
    """Create the arrays of all levels, of which level 0 may have chunks and shards of its own."""
    ndim, lead = len(meta.spatial), (1,) * (len(meta.axes) - len(meta.spatial))
    levels = []
    for number, factor in enumerate(factors):
        shape = level_shape(array["shape"], (*lead, *factor))
        own = array if number == 0 and "chunks" in array else {}
        layout = {
            "shape": shape,
            "dtype": "uint32" if codec == "labels" else array["dtype"],
            "chunks": tuple(own.get("chunks", chunk_shape(shape, ndim))),
            "shards": own.get("shards") if own else shard_shape(shape, ndim),
        }
        levels.append(_create_level(group, str(number), meta.axes, layout=layout, codec=codec))
    return levels


def _create_level(
    group: zarr.Group, name: str, axes: str, *, layout: dict[str, Any], codec: str
) -> zarr.Array:
    """Create one array with the codec that suits its content (zstd-1 took 44x off labels)."""
    compressors: Any
    if group.metadata.zarr_format == 3:
        from zarr.codecs import BloscCodec, ZstdCodec

        # The sum that zstd can append tells a reader of a flipped bit; blosc has none.
        blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
        compressors = blosc if codec == "image" else ZstdCodec(level=1, checksum=True)
        extra: dict[str, Any] = {"dimension_names": list(axes)}
    else:
        import numcodecs

        # QuPath's JZarr knows zstd inside blosc alone; labels lose 15 % of their factor by it.
        shuffle = numcodecs.Blosc.SHUFFLE if codec == "image" else numcodecs.Blosc.NOSHUFFLE
        compressors = numcodecs.Blosc("zstd", clevel=1, shuffle=shuffle)
        extra = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        layout = {**layout, "shards": None}
    return group.create_array(name, compressors=compressors, fill_value=0, **layout, **extra)


def _mark(group: zarr.Group, meta: ImageMeta) -> None:
    """Note who made a store, so that it is known from those of others when it is replaced."""
    group.attrs[MARKER] = {"version": version_of("cellseg_pipe"), "stage_hash": meta.stage_hash}


def _describe(group: zarr.Group, about: dict[str, Any], version: Version) -> None:
    """Write metadata where the version wants it: under `ome`, or at the root."""
    if version == "0.5":
        group.attrs["ome"] = {"version": version, **about}
        return
    for scale in about.get("multiscales", []):
        scale["version"] = version
    if "image-label" in about:
        about["image-label"]["version"] = version
    group.attrs.update(about)


def _described(group: zarr.Group, version: Version) -> dict[str, Any]:
    attributes: dict[str, Any] = dict(group.attrs)
    return attributes.get("ome", {}) if version == "0.5" else attributes
