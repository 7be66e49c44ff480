"""Writes OME-Zarr 0.4 and 0.5 groups: arrays with their metadata, no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.codecs import BloscCodec, ZstdCodec

__all__ = ["ImageMeta", "create_image", "create_label_store", "create_labels"]

Version = Literal["0.4", "0.5"]
ZARR_FORMAT: dict[str, Literal[2, 3]] = {"0.4": 2, "0.5": 3}
COLORS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00")


@dataclass(frozen=True)
class ImageMeta:
    """What an OME-Zarr image says about its axes.

    Parameters
    ----------
    axes : str
        One letter per axis, out of t, c, z, y, x in this order.
    spacing_um : tuple of float
        Voxel size of the spatial axes in µm, in axis order.
    channels : tuple of str
        A name for each index of the c axis; empty where there is none.
    """

    axes: str
    spacing_um: tuple[float, ...]
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if not self.axes or any(axis not in "tczyx" for axis in self.axes):
            raise ValueError(f"ImageMeta needs axes out of t, c, z, y, x, got {self.axes!r}.")
        if sorted(self.axes, key="tczyx".index) != list(self.axes):
            raise ValueError(f"ImageMeta needs axes in the order tczyx, got {self.axes!r}.")
        if len(self.spacing_um) != len(self.spatial):
            raise ValueError(
                f"ImageMeta needs a spacing for each of {self.spatial!r}, got {self.spacing_um}."
            )

    @property
    def spatial(self) -> str:
        """The letters of the spatial axes."""
        return "".join(axis for axis in self.axes if axis in "zyx")

    @property
    def scale(self) -> list[float]:
        """Step along every axis, 1 where it has no unit."""
        spacing = iter(self.spacing_um)
        return [float(next(spacing)) if axis in "zyx" else 1.0 for axis in self.axes]


def create_image(
    path: Path | str,
    meta: ImageMeta,
    *,
    array: dict[str, Any],
    value_range: tuple[float, float],
    version: Version = "0.4",
) -> zarr.Array:
    """Create an OME-Zarr image of one level and return its array, still without pixels.

    Parameters
    ----------
    path : path
        The new store; it must not exist.
    meta : ImageMeta
        Axes, spacing and channel names.
    array : dict
        `shape`, `dtype`, `chunks` and, for version 0.5, `shards`.
    value_range : tuple of float
        Lowest and highest grey value that a viewer shows.
    version : {"0.4", "0.5"}
        Of the OME-Zarr format; 0.4 is read by more viewers, 0.5 knows shards.

    Returns
    -------
    zarr.Array
        Level 0, to be filled.
    """
    group = zarr.open_group(str(path), mode="w-", zarr_format=ZARR_FORMAT[version])
    low, high = value_range
    window = {"min": low, "max": high, "start": low, "end": high}
    omero = {
        "channels": [
            {"label": name, "color": COLORS[i % len(COLORS)], "active": True, "window": window}
            for i, name in enumerate(meta.channels or ("image",))
        ]
    }
    level = _create_level(group, meta, array, codec="image")
    _describe(group, {"multiscales": [_multiscale(Path(path).stem, meta)], "omero": omero}, version)
    return level


def create_labels(
    image: Path | str,
    name: str,
    meta: ImageMeta,
    *,
    array: dict[str, Any],
    version: Version = "0.4",
) -> zarr.Array:
    """Create a label image under an OME-Zarr image and return its array, all background.

    Parameters
    ----------
    image : path
        The image's store.
    name : str
        Of the new label image.
    meta : ImageMeta
        Axes and spacing, without a channel axis.
    array : dict
        `shape`, `chunks` and, for version 0.5, `shards`. Labels are uint32.
    version : {"0.4", "0.5"}
        Of the OME-Zarr format; the same as the image's.

    Returns
    -------
    zarr.Array
        Level 0, to be filled.
    """
    labels = zarr.open_group(str(image), mode="r+").require_group("labels")
    known = _described(labels, version).get("labels", [])
    group = labels.create_group(name)
    level = _create_level(group, meta, {**array, "dtype": "uint32"}, codec="labels")
    about = {
        "multiscales": [_multiscale(name, meta)],
        "image-label": {"source": {"image": "../../"}},
    }
    _describe(group, about, version)
    _describe(labels, {"labels": [*known, name]}, version)
    return level


def create_label_store(
    path: Path | str, meta: ImageMeta, *, array: dict[str, Any], version: Version = "0.4"
) -> zarr.Array:
    """Create a label image that stands by itself and return its array, all background.

    Parameters
    ----------
    path : path
        The new store; it must not exist.
    meta : ImageMeta
        Axes and spacing, without a channel axis.
    array : dict
        `shape`, `chunks` and, for version 0.5, `shards`. Labels are uint32.
    version : {"0.4", "0.5"}
        Of the OME-Zarr format.

    Returns
    -------
    zarr.Array
        Level 0, to be filled.
    """
    group = zarr.open_group(str(path), mode="w-", zarr_format=ZARR_FORMAT[version])
    level = _create_level(group, meta, {**array, "dtype": "uint32"}, codec="labels")
    about = {"multiscales": [_multiscale(Path(path).stem, meta)], "image-label": {}}
    _describe(group, about, version)
    return level


def _create_level(
    group: zarr.Group, meta: ImageMeta, array: dict[str, Any], *, codec: Literal["image", "labels"]
) -> zarr.Array:
    """Create level 0 with the codec that suits its content (DESIGN: zstd-1 took 44x off labels)."""
    new = group.metadata.zarr_format == 3
    extra: dict[str, Any]
    if new:
        blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
        compressors: Any = blosc if codec == "image" else ZstdCodec(level=1)
        extra = {"dimension_names": list(meta.axes), "shards": array.get("shards")}
    else:
        import numcodecs

        zstd1 = numcodecs.Blosc("zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE)
        compressors = zstd1 if codec == "image" else numcodecs.Zstd(level=1)
        extra = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    return group.create_array(
        "0",
        shape=tuple(array["shape"]),
        dtype=array["dtype"],
        chunks=tuple(array["chunks"]),
        compressors=compressors,
        fill_value=0,
        **extra,
    )


def _multiscale(name: str, meta: ImageMeta) -> dict[str, Any]:
    kinds = {"t": "time", "c": "channel"}
    axes: list[dict[str, str]] = [{"name": a, "type": kinds.get(a, "space")} for a in meta.axes]
    for axis in axes:
        if axis["type"] == "space":
            axis["unit"] = "micrometer"
    scale = [{"type": "scale", "scale": meta.scale}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    return {"name": name, "axes": axes, "datasets": datasets}


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
