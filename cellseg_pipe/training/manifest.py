"""Which images a network is trained, tuned and tested on: read from a CSV or from folders."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

__all__ = ["Pair", "Split", "read_folder", "read_manifest", "split_by_group", "write_manifest"]

Split = Literal["train", "tune", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
REQUIRED = ("image", "labels")


@dataclass(frozen=True)
class Pair:
    """An image and its labels.

    Parameters
    ----------
    image, labels : str
        Files, relative to the folder of the data.
    set : str
        What the image belongs to; sets are weighted by the root of their number of objects, and
        scored each by itself.
    group : str
        Images of one original field or well: never on two sides of a split.
    split : {"train", "tune", "test"}
        What it is used for.
    channels : str
        What the network's inputs take, as in `channels=`, separated by commas; empty for the usual.
    spacing_um : str
        Size of a voxel along z, y, x, separated by slashes, where the file does not say it.
    classes : str
        File that tells the class of each object: an image of class numbers from 1, or JSON or CSV
        of label and class; empty where classes are not known.
    """

    image: str
    labels: str
    set: str = "images"
    group: str = ""
    split: Split = "train"
    channels: str = ""
    spacing_um: str = ""
    classes: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.split not in SPLITS:
            raise ValueError(
                f"{self.image}: split needs to be one of {', '.join(SPLITS)}, got {self.split!r}."
            )
        object.__setattr__(self, "group", self.group or self.image)


def read_manifest(path: Path | str) -> tuple[Pair, ...]:
    """Read a list of pairs.

    Parameters
    ----------
    path : path
        CSV with the columns of `Pair`; only image and labels are required.

    Returns
    -------
    tuple of Pair
        In the file's order; no group is on two sides of a split.
    """
    known = [field.name for field in fields(Pair)]
    with open(path, newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it, too
        reader = csv.DictReader(file)
        found = reader.fieldnames or []
        missing = [name for name in REQUIRED if name not in found]
        unknown = [name for name in found if name not in known]
        if missing or unknown:
            raise ValueError(
                f"{path} needs the columns {', '.join(known)} (image and labels at least), got"
                f" {', '.join(found) or 'none'}."
            )
        pairs = tuple(_pair(row, f"{path}:{reader.line_num}") for row in reader)
    if not pairs:
        raise ValueError(f"{path} needs a row for each image, and has none.")
    check_groups(pairs)
    return pairs


def _pair(row: dict[str | None, Any], where: str) -> Pair:
    """Return the pair of a row, which has as many entries as there are columns."""
    if None in row or None in row.values():
        raise ValueError(f"{where} needs an entry for each column. Quote names that hold a comma.")
    if empty := [name for name in REQUIRED if not row[name]]:
        raise ValueError(f"{where} needs {' and '.join(empty)}, got nothing.")
    return Pair(**{str(name): text for name, text in row.items() if text})


def write_manifest(path: Path | str, pairs: Iterable[Pair]) -> None:
    """Write a list of pairs.

    Parameters
    ----------
    path : path
        CSV; an old one is replaced.
    pairs : iterable of Pair
        What to write.
    """
    names = [field.name for field in fields(Pair)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([getattr(pair, name) for name in names] for pair in pairs)


def read_folder(
    folder: Path | str, *, image_suffix: str = "_img", labels_suffix: str = "_masks"
) -> tuple[Pair, ...]:
    """Pair the images and labels of a folder by their names; all of them are for training.

    Parameters
    ----------
    folder : path
        Holds NAME and its suffix, each with the ending of a file.
    image_suffix, labels_suffix : str
        What follows NAME before the ending; the suffix of images may be empty.

    Returns
    -------
    tuple of Pair
        In the order of their names.
    """
    from cellseg_pipe.io.inputs import IMAGE_SUFFIXES, is_result, stem_of

    files = [
        f
        for f in sorted(Path(folder).iterdir())
        if f.name.lower().endswith(IMAGE_SUFFIXES) and f.name[0] != "."
    ]
    labels = {
        stem_of(f).removesuffix(labels_suffix): f
        for f in files
        if stem_of(f).endswith(labels_suffix)
    }
    images = {
        stem_of(f).removesuffix(image_suffix): f
        for f in files
        if stem_of(f).endswith(image_suffix) and f not in labels.values()
    }
    if not image_suffix:  # then the flows beside an image, ours or the peer's, look like another
        images = {name: f for name, f in images.items() if name in labels or not is_result(f)}
    alone = sorted(set(images) ^ set(labels))
    if not set(images) & set(labels):
        raise ValueError(
            f"{folder} needs pairs NAME{image_suffix} and NAME{labels_suffix}, and has none."
        )
    if alone:
        raise ValueError(
            f"{folder} needs labels for each image, and {alone[0]} has only one of the two"
            f" ({len(alone)} like it). Move them elsewhere."
        )
    return tuple(Pair(images[name].name, labels[name].name) for name in sorted(images))


def split_by_group(
    pairs: Sequence[Pair], *, shares: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 0
) -> tuple[Pair, ...]:
    """Divide pairs into train, tune and test, by group within each set.

    Parameters
    ----------
    pairs : sequence of Pair
        Their own splits are not looked at.
    shares : tuple of float
        Of train, tune and test; a set of three groups or more has at least one in each.
    seed : int
        Another seed, another division.

    Returns
    -------
    tuple of Pair
        In the same order. What has a share of 0 stays empty.
    """
    chosen: dict[str, Split] = {}
    for name in dict.fromkeys(pair.set for pair in pairs):
        groups = sorted({pair.group for pair in pairs if pair.set == name} - set(chosen))
        groups.sort(key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
        n_test, n_tune = (_count(len(groups), shares[i]) for i in (2, 1))
        for place, group in enumerate(groups):
            chosen[group] = (
                "test" if place < n_test else "tune" if place < n_test + n_tune else "train"
            )
    return tuple(Pair(**{**vars(pair), "split": chosen[pair.group]}) for pair in pairs)


def _count(n_groups: int, share: float) -> int:
    at_least = 1 if share and n_groups >= len(SPLITS) else 0
    return max(at_least, round(n_groups * share))


def check_groups(pairs: Sequence[Pair]) -> None:
    """Refuse a group with images on two sides of a split.

    Parameters
    ----------
    pairs : sequence of Pair
        What is looked at.
    """
    seen: dict[str, Split] = {}
    for pair in pairs:
        if seen.setdefault(pair.group, pair.split) != pair.split:
            raise ValueError(
                f"group {pair.group!r} needs to be on one side of the split, and is in"
                f" {seen[pair.group]} and {pair.split}: a test would be of images seen before."
            )
