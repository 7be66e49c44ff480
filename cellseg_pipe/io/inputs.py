"""Which images a user means by files, folders and patterns."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "PICTURES", "TIFFS", "find_inputs", "is_result", "stem_of"]

log = logging.getLogger(__name__)

TIFFS = (".tif", ".tiff", ".btf", ".tf8", ".svs", ".ndpi", ".scn")
PICTURES = (".png", ".jpg", ".jpeg", ".npy")
# A zip file of another name may hold anything, as outlines for ImageJ: it is one if it is named.
IMAGE_SUFFIXES = (*TIFFS, *PICTURES, ".zarr", ".zarr.zip")
ENDINGS = (".zarr.zip", ".zip", *IMAGE_SUFFIXES)  # the longer before what it ends with
STORE_FILES = (".zgroup", "zarr.json", ".zattrs", ".zarray")
# What we and the peer write beside an image: never an image itself.
RESULTS = re.compile(
    r"_(cp_masks|masks?|labels?|seg|flows|dP|cellprob|outlines|overlay|figure|cp_output)$"
)


def find_inputs(patterns: Sequence[Path | str], *, recursive: bool = False) -> list[Path]:
    """Return the images that are meant, in natural order.

    Parameters
    ----------
    patterns : sequence of path
        Files, OME-Zarr stores, folders for the images in them, shell patterns. What is named
        like a result of an earlier run, ours or the peer's, is left out: a shell that expands
        `*.tif` names those too.
    recursive : bool
        Whether folders in folders are searched.

    Returns
    -------
    list of path
        Each once; no two with one name without its ending.
    """
    found: dict[Path, Path] = {}
    results: list[Path] = []
    for pattern in patterns:
        if is_result(path := Path(pattern)) and path.exists():
            results.append(path)
            continue
        images = list(_meant(path, recursive=recursive))
        if not images:
            raise FileNotFoundError(
                f"{pattern} needs to name an image or a folder of images"
                f" ({', '.join(IMAGE_SUFFIXES)}), and there is none."
            )
        found = {image.resolve(): image for image in images} | found
    _say_results(results, n_images=len(found))
    return _each_named(sorted(found.values(), key=lambda path: [*map(_natural, path.parts)]))


def _say_results(results: list[Path], *, n_images: int) -> None:
    if results and not n_images:
        raise FileNotFoundError(
            f"{results[0]} is named like a result of a segmentation, and no image was named."
            " Rename it if it is one."
        )
    if results:
        log.warning(
            "%d files named like results of a segmentation are left out, as %s",
            len(results),
            results[0],
        )


def _each_named(images: list[Path]) -> list[Path]:
    """Return the images if no two of them would give their results one name."""
    names: dict[str, Path] = {}
    for image in images:
        other = names.setdefault(stem_of(image), image)
        if other is not image:
            raise ValueError(
                f"results are named after their images, and {other} and {image} have one name."
                " Segment them into two folders."
            )
    return images


def stem_of(path: Path | str) -> str:
    """Return the name of an image without its ending, `.ome.tif` and the like as one.

    Parameters
    ----------
    path : path
        Of the image.

    Returns
    -------
    str
        Its name.
    """
    name = Path(path).name
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            short = name[: -len(ending)]
            return short[:-4] if short.lower().endswith(".ome") and len(short) > 4 else short
    return name


def _meant(pattern: Path, *, recursive: bool) -> Iterator[Path]:
    if pattern.exists() or _is_in_zip(pattern):
        if _is_store(pattern) or not pattern.is_dir():
            yield pattern
        else:
            yield from _in_folder(pattern, recursive=recursive)
        return
    for name in sorted(glob.glob(str(pattern), recursive=recursive)):
        path = Path(name)
        if _is_image(path):
            yield path


def _in_folder(folder: Path, *, recursive: bool) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if _is_image(path):
            yield path
        elif recursive and path.is_dir() and not _is_store(path) and path.name[0] != ".":
            yield from _in_folder(path, recursive=recursive)


def _is_image(path: Path) -> bool:
    return _has_ending(path) and not path.name.startswith(".") and not is_result(path)


def is_result(path: Path) -> bool:
    """Tell whether an image is named like what we and the peer write beside an image.

    Parameters
    ----------
    path : path
        Its file.

    Returns
    -------
    bool
        Such a file is never segmented unasked.
    """
    return _has_ending(path) and RESULTS.search(stem_of(path)) is not None


def _has_ending(path: Path) -> bool:
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def _is_store(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in STORE_FILES)


def _is_in_zip(path: Path) -> bool:
    return any(file.suffix.lower() == ".zip" and file.is_file() for file in path.parents)


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts 2 before 10."""
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
