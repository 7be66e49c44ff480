"""Outlines of cells as other programs read them: text, ImageJ ROIs, GeoJSON. Planes only."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.files import binary_whole, written_whole
from cellseg_pipe.kernels import outline_polygons

__all__ = ["ROI_MAX_PX", "polygons_of", "write_geojson", "write_outlines_text", "write_roi_zip"]

Polygon = tuple[int, NDArray[np.float64]]

ROI_HEADER_BYTES = 64
# ImageJ keeps 16 bits of a coordinate and takes those above 60,535 for negative ones.
ROI_MAX_PX = 60_535
ROI_MAX_CORNERS = 65_535
ROI_VERSION = 227
POLYGON = 0  # ImageJ's number of this kind of ROI
SUBPIXEL = 128  # an option: coordinates follow a second time, as floats
EPOCH = (1980, 1, 1, 0, 0, 0)  # of zip files: equal content gives equal bytes


def write_outlines_text(path: Path | str, labels: NDArray[np.uint32]) -> None:
    """Write a line x,y,x,y,... per cell, as the peer does.

    Parameters
    ----------
    path : path
        A text file.
    labels : uint32 array [y, x]
        The cells.
    """
    with written_whole(path) as file:
        for _, vertices in polygons_of(labels):
            file.write(",".join(f"{v:g}" for v in vertices[:, ::-1].ravel()) + "\n")


def write_geojson(path: Path | str, polygons: Iterable[Polygon]) -> None:
    """Write a polygon per cell that QuPath imports as a cell.

    Parameters
    ----------
    path : path
        A GeoJSON file; coordinates in px.
    polygons : iterable of (int, array [n, 2])
        Label and corners y, x of each cell; one after the other is written.
    """
    with written_whole(path) as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for k, (number, vertices) in enumerate(polygons):
            file.write(",\n" if k else "\n")
            file.write(json.dumps(_feature(number, vertices)))
        file.write("\n]}\n")


def write_roi_zip(path: Path | str, labels: NDArray[np.uint32]) -> None:
    """Write a polygon per cell for ImageJ's ROI manager.

    Parameters
    ----------
    path : path
        A zip file.
    labels : uint32 array [y, x]
        The cells.
    """
    if max(labels.shape, default=0) > ROI_MAX_PX:
        raise ValueError(
            f"{Path(path).name}: ImageJ's ROIs reach to {ROI_MAX_PX} px, got an image of"
            f" {labels.shape}. Write GeoJSON instead."
        )
    with binary_whole(path) as file, zipfile.ZipFile(file, "w") as archive:
        for number, vertices in polygons_of(labels):
            entry = zipfile.ZipInfo(f"{number:06d}.roi", EPOCH)
            archive.writestr(entry, roi_bytes(vertices[:, ::-1]))


def roi_bytes(points: NDArray[np.float64]) -> bytes:
    """Return one polygon in ImageJ's format: big-endian header, offsets, then exact coordinates.

    Parameters
    ----------
    points : array [n, 2]
        Corners x, y in px.

    Returns
    -------
    bytes
        A .roi file.
    """
    if len(points) > ROI_MAX_CORNERS:
        raise ValueError(f"an ImageJ ROI has {ROI_MAX_CORNERS} corners at most, got {len(points)}.")
    whole = np.floor(points).astype(np.int64)
    left, top = whole.min(axis=0)
    right, bottom = np.ceil(points).astype(np.int64).max(axis=0)
    header = struct.pack(
        ">4shBBHHHHH", b"Iout", ROI_VERSION, POLYGON, 0, top, left, bottom, right, len(points)
    )
    header = header.ljust(50, b"\0") + struct.pack(">h", SUBPIXEL)
    offsets = (whole - (left, top)).T.astype(">u2").tobytes()
    return header.ljust(ROI_HEADER_BYTES, b"\0") + offsets + points.T.astype(">f4").tobytes()


def polygons_of(
    labels: NDArray[np.uint32], *, origin: tuple[int, int] = (0, 0)
) -> Iterator[Polygon]:
    """Yield the outer border of each cell's largest piece.

    Parameters
    ----------
    labels : uint32 array [y, x]
        The cells.
    origin : tuple of int
        What is added to y and x.

    Yields
    ------
    (int, float64 array [n, 2])
        Label and corners y, x; ascending.
    """
    if labels.ndim != 2:
        raise ValueError(f"outlines are those of an image of 2 axes, got {labels.ndim}.")
    found = outline_polygons(labels)
    for k, label in enumerate(found.label):
        vertices = found.vertex[found.offset[k] : found.offset[k + 1]]
        yield int(label), (vertices + np.asarray(origin)).astype(float)


def _feature(number: int, vertices: NDArray[np.float64]) -> dict[str, Any]:
    ring = vertices[:, ::-1].tolist()
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"objectType": "cell", "name": str(number), "label": number},
    }
