"""Writes what a segmentation gives as files that other programs open; each whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.files import binary_whole
from cellseg_pipe.io.ngff import ImageMeta, create_label_store

__all__ = ["folder_whole", "write_flows", "write_labels", "write_overlay", "write_tiff"]

LABEL_MAX = 2**32 - 1
PNG_LABELS = 65_535  # what its 16 bits hold
TILE_PX = 512
TIFF_MAX = 2**31  # bytes before compression, from which BigTIFF is written
UM_PER_CM = 1e4
CHUNK_PX = {2: (512, 512), 3: (64, 256, 256)}


def write_labels(
    path: Path | str,
    labels: NDArray[np.uint32],
    *,
    spacing_um: tuple[float, ...] | None = None,
    offset_um: tuple[float, ...] | None = None,
) -> None:
    """Write a label image.

    Parameters
    ----------
    path : path
        The ending decides: .tif, .png (up to 65,535 labels, 2D), .npy, or .zarr for an OME-Zarr
        label image of its own.
    labels : uint32 array [*spatial]
        2 or 3 axes.
    spacing_um : tuple of float, optional
        Size of a voxel.
    offset_um : tuple of float, optional
        Centre of the first voxel, where its size is known; an OME-Zarr tells it.
    """
    path = Path(path)
    labels = _checked(labels, path, spacing_um)
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        write_tiff(path, labels, "zyx"[-labels.ndim :].upper(), spacing_um=spacing_um)
    elif suffix == ".png":
        _write_png_labels(path, labels)
    elif suffix == ".npy":
        with binary_whole(path) as file:
            np.save(file, labels)
    elif suffix == ".zarr":
        _write_store(path, labels, spacing_um=spacing_um, offset_um=offset_um)
    else:
        raise ValueError(f"labels are written as .tif, .png, .npy or .zarr, got {path.name}.")


def _checked(
    labels: NDArray[Any], path: Path, spacing_um: tuple[float, ...] | None
) -> NDArray[np.uint32]:
    """Return labels as uint32, which all files but PNG hold."""
    if labels.ndim not in CHUNK_PX or labels.dtype.kind not in "bui" or labels.size == 0:
        raise ValueError(
            f"{path.name}: labels are whole numbers along 2 or 3 axes, got {labels.dtype} of shape"
            f" {labels.shape}."
        )
    if int(labels.min()) < 0 or int(labels.max()) > LABEL_MAX:
        raise ValueError(
            f"{path.name}: labels are 0 to {LABEL_MAX}, got {labels.min()} to {labels.max()}."
            " Renumber them first."
        )
    if spacing_um is not None and len(spacing_um) != labels.ndim:
        raise ValueError(f"{path.name}: {labels.ndim} axes need a spacing each, got {spacing_um}.")
    return labels.astype(np.uint32, copy=False)


def write_flows(path: Path | str, flow: NDArray[np.float32], logit: NDArray[np.float32]) -> None:
    """Write the network's answer: flow along each axis, then the logit.

    Parameters
    ----------
    path : path
        A TIFF or NPY of [n_axes + 1, *spatial].
    flow : float32 array [n_axes, *spatial]
        Unit vectors.
    logit : float32 array [*spatial]
        Above the threshold in cells.
    """
    path = Path(path)
    stack = np.concatenate([flow, logit[None]]).astype(np.float32, copy=False)
    if path.suffix.lower() == ".npy":
        with binary_whole(path) as file:
            np.save(file, stack)
        return
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"flows are written as .tif or .npy, got {path.name}.")
    names = [f"flow_{axis}" for axis in "zyx"[-len(flow) :]] + ["logit"]
    write_tiff(path, stack, "CYX" if logit.ndim == 2 else "CZYX", names=names)


def write_overlay(path: Path | str, picture: NDArray[np.uint8]) -> None:
    """Write a picture.

    Parameters
    ----------
    path : path
        A PNG.
    picture : uint8 array [y, x, 3 or 4]
        Colours.
    """
    from PIL import Image

    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"pictures are written as .png, got {Path(path).name}.")
    with binary_whole(Path(path)) as file:
        Image.fromarray(picture).save(file, format="PNG")


def write_tiff(
    path: Path,
    pixels: NDArray[Any],
    axes: str,
    *,
    spacing_um: tuple[float, ...] | None = None,
    names: list[str] | None = None,
) -> None:
    """Write an OME-TIFF, tiled and compressed.

    Parameters
    ----------
    path : path
        The file.
    pixels : array
        In the order of the axes.
    axes : str
        A letter per axis, upper case; S for the colours of a pixel.
    spacing_um : tuple of float, optional
        Size of a voxel along its axes in space.
    names : list of str, optional
        Of the channels.
    """
    import tifffile

    plane = [n for n, axis in zip(pixels.shape, axes, strict=True) if axis in "YX"]
    about: dict[str, Any] = {"axes": axes}
    tags: dict[str, Any] = {}
    if spacing_um is not None:
        spatial = axes.removesuffix("S")[-len(spacing_um) :]
        for axis, size in zip(spatial, spacing_um, strict=True):
            about |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
        # Programs that do not read OME-XML find the size of a pixel in the plain tags.
        per_cm = tuple(UM_PER_CM / size for size in spacing_um[:-3:-1])
        tags = {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
    if names:
        about["Channel"] = {"Name": names}
    with (
        binary_whole(path) as file,
        tifffile.TiffWriter(file, ome=True, bigtiff=pixels.nbytes > TIFF_MAX) as writer,
    ):
        writer.write(
            pixels,
            tile=(TILE_PX, TILE_PX) if min(plane) > TILE_PX else None,
            compression="zlib",
            photometric="rgb" if axes.endswith("S") else "minisblack",
            metadata=about,
            **tags,
        )


def _write_png_labels(path: Path, labels: NDArray[np.uint32]) -> None:
    from PIL import Image

    most = int(labels.max(initial=0))
    if labels.ndim != 2 or most > PNG_LABELS:
        raise ValueError(
            f"{path.name}: a PNG holds 2 axes and {PNG_LABELS} labels, got shape {labels.shape} and"
            f" {most} labels. Write .tif instead."
        )
    with binary_whole(path) as file:
        Image.fromarray(labels.astype(np.uint16)).save(file, format="PNG")


def _write_store(
    path: Path,
    labels: NDArray[np.uint32],
    *,
    spacing_um: tuple[float, ...] | None,
    offset_um: tuple[float, ...] | None,
) -> None:
    """Write an OME-Zarr label image under another name, then rename it."""
    place = (offset_um or ()) if spacing_um is not None else ()
    spacing = spacing_um or (1.0,) * labels.ndim
    meta = ImageMeta("zyx"[-labels.ndim :], spacing, translation_um=place)
    chunks = tuple(
        min(c, max(n, 1)) for c, n in zip(CHUNK_PX[labels.ndim], labels.shape, strict=True)
    )
    with folder_whole(path) as folder:
        array = create_label_store(folder, meta, array={"shape": labels.shape, "chunks": chunks})
        array[...] = labels
        if spacing_um is None:
            _forget_units(folder)


def _forget_units(folder: Path) -> None:
    """Take the unit from the axes of a store: steps of 1 are then pixels, not µm."""
    import zarr

    group = zarr.open_group(str(folder), mode="r+")
    scales: Any = group.attrs["multiscales"]
    for axis in scales[0]["axes"]:
        axis.pop("unit", None)
    group.attrs["multiscales"] = scales


@contextlib.contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """Give a folder that takes the name when it is complete; an old one stays until then.

    Parameters
    ----------
    path : path
        The name.

    Yields
    ------
    path
        A folder beside it that does not exist yet.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    made, old = folder / path.name, folder / "old"
    try:
        yield made
        for file in made.rglob("*"):
            _to_disk(file)
        if path.exists():
            os.replace(path, old)
        os.replace(made, path)
        _to_disk(path.parent)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(folder, ignore_errors=True)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
