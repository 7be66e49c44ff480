"""Which images a user means by files, folders and patterns."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "find_inputs", "stem_of"]

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy", ".zarr")
DOUBLE = (".ome.tif", ".ome.tiff", ".ome.zarr")
# What we and the peer write beside an image: never an image itself.
RESULTS = re.compile(
    r"_(cp_masks|masks?|labels?|seg|flows|dP|cellprob|outlines|overlay|cp_output)$"
)


def find_inputs(patterns: Sequence[Path | str], *, recursive: bool = False) -> list[Path]:
    """Return the images that are meant, in natural order.

    Parameters
    ----------
    patterns : sequence of path
        Files and OME-Zarr stores as they are, folders for the images in them, shell patterns.
        Results of earlier runs in folders and patterns are left out.
    recursive : bool
        Whether folders in folders are searched.

    Returns
    -------
    list of path
        Each once; no two with one name without its ending.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        images = list(_meant(Path(pattern), recursive=recursive))
        if not images:
            raise FileNotFoundError(
                f"{pattern} needs to name an image or a folder of images"
                f" ({', '.join(IMAGE_SUFFIXES)}), and there is none."
            )
        found.update(dict.fromkeys(images))
    images = sorted(found, key=lambda path: [_natural(part) for part in path.parts])
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
    for ending in (*DOUBLE, *IMAGE_SUFFIXES):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def _meant(pattern: Path, *, recursive: bool) -> Iterator[Path]:
    if pattern.exists():
        if _is_store(pattern) or pattern.is_file():
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
    wanted = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return wanted and RESULTS.search(stem_of(path)) is None


def _is_store(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in (".zgroup", "zarr.json"))


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts 2 before 10."""
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
