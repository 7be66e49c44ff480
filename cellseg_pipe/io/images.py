"""Reads whole image and label files into memory, and pairs the files of two folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["list_images", "pair_files", "read_array"]

# What programs append to the name of an image to name its masks, longest first.
SUFFIXES = (
    "_cp_masks", "_masks", "_mask", "_labels", "_label", "_pred", "_truth", "_seg", "_img", "_gt",
)  # fmt: skip
SEG_SUFFIX = "_seg.npy"
PNG_DEPTH, PNG_KIND, PNG_PALETTE = 24, 25, 3  # bytes of the header, and the kind with a palette


def read_array(path: Path | str) -> NDArray[Any]:
    """Return the pixels of an image file, in the file's own axis order and type.

    Parameters
    ----------
    path : path
        TIFF, PNG, NPY, the masks of a `_seg.npy`, or an OME-Zarr image or label image (its
        level 0).

    Returns
    -------
    array
        All pixels in memory.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    return _reader(path)(path)


def _reader(path: Path) -> Callable[[Path], NDArray[Any]]:
    if path.is_dir():
        return _read_zarr
    known = {
        ".tif": _read_tiff,
        ".tiff": _read_tiff,
        ".png": _read_png,
        ".npy": _read_npy,
    }
    try:
        return known[path.suffix.lower()]
    except KeyError:
        raise ValueError(
            f"{path} needs to be one of {', '.join(known)} or an OME-Zarr folder,"
            f" got {path.suffix or 'no ending'}."
        ) from None


def _read_tiff(path: Path) -> NDArray[Any]:
    import tifffile

    return np.asarray(tifffile.imread(path))


def _read_npy(path: Path) -> NDArray[Any]:
    if not path.name.endswith(SEG_SUFFIX):
        return np.asarray(np.load(path, allow_pickle=False))
    from cellseg_pipe.io.seg_npy import read_seg_npy

    return np.asarray(read_seg_npy(path)["masks"])


def _read_png(path: Path) -> NDArray[Any]:
    """Read the numbers as stored; Pillow refuses large pictures, and cuts 16-bit colours."""
    import imagecodecs
    from PIL import Image

    data = path.read_bytes()
    if (
        data[PNG_KIND : PNG_KIND + 1] != bytes([PNG_PALETTE])
        and data[PNG_DEPTH:PNG_KIND] >= b"\x08"
    ):
        return np.asarray(imagecodecs.png_decode(data))
    with Image.open(path) as image:
        return np.asarray(image)


def _read_zarr(path: Path) -> NDArray[Any]:
    import zarr

    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        return np.asarray(node[...])
    attributes: dict[str, Any] = dict(node.attrs)
    about = attributes.get("ome", attributes)
    try:
        level = about["multiscales"][0]["datasets"][0]["path"]
    except (KeyError, IndexError):
        raise ValueError(
            f"{path} needs to be an OME-Zarr image or label image, and has no multiscales."
            " Name the group that has: image.ome.zarr/labels/NAME for labels."
        ) from None
    pixels = node[level]
    if not isinstance(pixels, zarr.Array):
        raise ValueError(f"{path} names {level!r} as its pixels, and that is no array.")
    return np.asarray(pixels[...])


def list_images(folder: Path | str, pattern: str = "*") -> list[Path]:
    """Return the image files of a folder in the order of their names.

    Parameters
    ----------
    folder : path
        Where they lie; folders below it are not searched.
    pattern : str
        Shell pattern that a name must match.

    Returns
    -------
    list of path
        Files that `read_array` reads.
    """
    wanted = (".tif", ".tiff", ".png", ".npy", ".zarr")
    found = (path for path in Path(folder).glob(pattern) if path.suffix.lower() in wanted)
    return sorted(path for path in found if not path.name.startswith("."))


def pair_files(pred: list[Path], truth: list[Path]) -> list[tuple[str, Path, Path]]:
    """Return (name, prediction, truth) for files that belong together by their names.

    Names are compared without their ending and without what programs append to name masks
    (`_masks`, `_cp_masks`, `_labels` ...). Nothing is left out: a file without its partner is an
    error.

    Parameters
    ----------
    pred, truth : list of path
        The files of two folders.

    Returns
    -------
    list of tuple
        One entry per image, by name.
    """
    left, right = _by_key(pred), _by_key(truth)
    for here, there, what in ((left, right, "truth"), (right, left, "prediction")):
        if alone := sorted(str(here[key].name) for key in here.keys() - there.keys()):
            shown = ", ".join(alone[:5]) + (" ..." if len(alone) > 5 else "")
            raise ValueError(
                f"each file needs its partner, got {len(alone)} without a {what}: {shown}."
                " Restrict the files with --pred-pattern and --truth-pattern."
            )
    if not left:
        raise ValueError("no image files were found. Name folders that hold .tif, .png or .npy.")
    return [(key, left[key], right[key]) for key in sorted(left)]


def _by_key(files: list[Path]) -> dict[str, Path]:
    keyed: dict[str, Path] = {}
    for path in files:
        key = path.name.removesuffix(path.suffix).removesuffix(".ome")
        for suffix in SUFFIXES:
            if key.endswith(suffix) and key != suffix:
                key = key.removesuffix(suffix)
                break
        if key in keyed:
            raise ValueError(
                f"each image needs one file, got {keyed[key].name} and {path.name} for {key!r}."
                " Restrict the files with --pred-pattern and --truth-pattern."
            )
        keyed[key] = path
    return keyed
