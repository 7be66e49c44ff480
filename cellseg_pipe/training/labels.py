"""Labels as training needs them: numbered without gaps, checked, with the class of each object."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.images import read_array
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.kernels import diameter_px

__all__ = ["Objects", "Reader", "class_table", "labels_reader", "objects_of", "refuse_binary"]

Reader = Callable[[Box], NDArray[Any]]
IGNORED = -1


@dataclass(frozen=True)
class Objects:
    """The objects of a label image.

    Parameters
    ----------
    ids : int64 array [n]
        Their labels, ascending.
    area_px : int64 array [n]
        Pixels or voxels of each.
    ignore_label : int or None
        Label of what nobody annotated.
    """

    ids: NDArray[np.int64]
    area_px: NDArray[np.int64]
    ignore_label: int | None

    def numbered(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        """Return labels from 1 without gaps, -1 for what is ignored.

        Parameters
        ----------
        labels : integer array [*spatial]
            A part of the image.

        Returns
        -------
        int32 array [*spatial]
            0 for background.
        """
        values, inverse = np.unique(labels, return_inverse=True)
        places = np.searchsorted(self.ids, values) + 1
        places[values == 0] = 0
        if self.ignore_label is not None:
            places[values == self.ignore_label] = IGNORED
        return places[inverse].reshape(labels.shape).astype(np.int32)

    def diameter_px(self, ndim: int) -> float:
        """Return the median diameter; nan without objects.

        Parameters
        ----------
        ndim : int
            Axes of the image.

        Returns
        -------
        float
            In pixels.
        """
        if not self.ids.size:
            return float("nan")
        return float(np.median(diameter_px(self.area_px, ndim)))


def labels_reader(path: Path, shape: tuple[int, ...], image: str) -> Reader:
    """Open labels that fit an image; boxes of large ones are read where they lie.

    Parameters
    ----------
    path : path
        The labels.
    shape : tuple of int
        Of the image.
    image : str
        Its name, for the message if they do not fit.

    Returns
    -------
    callable
        From a box to labels.
    """
    if not path.name.endswith("_seg.npy"):
        opened = open_image(path)
        if (opened.shape, opened.n_channels, opened.n_times) == (shape, 1, 1):
            _refuse_fractions(opened.dtype, path)
            return lambda box: opened.read(box)[0]
    array = np.squeeze(read_array(path))
    if array.shape != shape:
        raise ValueError(f"{path} needs the shape of {image}, {shape}, got {array.shape}.")
    _refuse_fractions(array.dtype, path)
    return lambda box: array[box.slices]


def _refuse_fractions(dtype: np.dtype[Any], path: Path) -> None:
    if dtype.kind not in "biu":
        raise ValueError(f"{path} needs whole numbers as labels, got {dtype}.")


def objects_of(read: Reader, boxes: Iterable[Box], *, ignore_label: int | None) -> Objects:
    """Find the objects of a label image, part by part.

    Parameters
    ----------
    read : callable
        Gives labels.
    boxes : iterable of Box
        Cover the image.
    ignore_label : int or None
        Label of what nobody annotated.

    Returns
    -------
    Objects
        Ascending.
    """
    areas: dict[int, int] = {}
    for box in boxes:
        values, counts = np.unique(read(box), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            areas[int(value)] = areas.get(int(value), 0) + count
    ids = sorted(i for i in areas if i not in (0, ignore_label))
    if ids and ids[0] < 0:
        raise ValueError(
            f"labels need numbers of 0 or more, got {ids[0]}. Say ignore_label: {ids[0]} if it"
            " marks what nobody annotated."
        )
    return Objects(
        np.array(ids, np.int64), np.array([areas[i] for i in ids], np.int64), ignore_label
    )


def refuse_binary(labels: NDArray[np.int32], objects: Objects, name: str) -> None:
    """Refuse one label that lies in many pieces: a mask of foreground, not of objects.

    Parameters
    ----------
    labels : int32 array [*spatial]
        Numbered.
    objects : Objects
        What they hold.
    name : str
        Of the file.
    """
    if objects.ids.size != 1:
        return
    pieces = ndimage.label(labels > 0)[1]
    if pieces > 1:
        raise ValueError(
            f"{name} needs a number for each object, got the one value {objects.ids[0]} in {pieces}"
            " pieces: a mask of foreground. Label its connected parts first, as with"
            " scipy.ndimage.label, and look at cells that touch."
        )


def class_table(
    path: Path, objects: Objects, names: Sequence[str], *, labels: Reader, boxes: Iterable[Box]
) -> NDArray[np.int16]:
    """Return the class of each object.

    Parameters
    ----------
    path : path
        An image of class numbers, or JSON (`{"label": class}`) or CSV (label, class); a class is a
        number from 1 or one of the names, 0 or nothing where it is not known.
    objects : Objects
        Those of the image.
    names : sequence of str
        Of the classes.
    labels : callable
        Gives the labels.
    boxes : iterable of Box
        Cover the image.

    Returns
    -------
    int16 array [n + 1]
        From 1; 0 where it is not known. The first entry is background.
    """
    boxes = list(boxes)
    table = np.zeros(objects.ids.size + 1, np.int16)
    if path.suffix.lower() in (".json", ".csv"):
        said = _classes_said(path)
        for n, number in enumerate(objects.ids.tolist(), start=1):
            table[n] = _class_number(said.get(number, ""), names, path)
        if objects.ids.size and not set(said).intersection(objects.ids.tolist()):
            raise ValueError(
                f"{path} needs classes of labels that its image has ({objects.ids[0]}, ...), and"
                f" names none of them ({', '.join(map(str, list(said)[:3]))}, ...)."
            )
        return table
    shape = tuple(max(box.stop[axis] for box in boxes) for axis in range(boxes[0].ndim))
    read = labels_reader(path, shape, "its labels")
    counts = np.zeros((objects.ids.size + 1, len(names) + 1), np.int64)
    for box in boxes:
        classes, numbered = read(box), np.maximum(objects.numbered(labels(box)), 0)
        if int(classes.max(initial=0)) > len(names):
            raise ValueError(
                f"{path} needs class numbers up to {len(names)}, one for each of"
                f" {', '.join(names)}, got {int(classes.max())}."
            )
        flat = numbered.ravel().astype(np.int64) * counts.shape[1] + classes.ravel()
        counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
    best = counts[:, 1:].argmax(axis=1) + 1
    table[1:] = np.where(counts[1:, 1:].any(axis=1), best[1:], 0)
    return table


def _classes_said(path: Path) -> dict[int, str]:
    """Return the class of each label as it is written."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        said = json.loads(text)
        if not isinstance(said, dict):
            raise ValueError(f'{path} needs {{"label": class}}, got a {type(said).__name__}.')
        return {_label(key, path): str(value) for key, value in said.items()}
    reader = csv.DictReader(text.splitlines())
    if not {"label", "class"} <= set(reader.fieldnames or ()):
        raise ValueError(
            f"{path} needs the columns label and class, got {', '.join(reader.fieldnames or ())}."
        )
    return {_label(row["label"], path): row["class"] for row in reader}


def _label(said: str, path: Path) -> int:
    """Return a label, which tables with gaps in other columns have as 1.0."""
    try:
        number = float(said)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise ValueError(f"{path} needs whole numbers as labels, got {said!r}.")
    return int(number)


def _class_number(said: str, names: Sequence[str], path: Path) -> int:
    if said in names:
        return names.index(said) + 1
    if said.isdecimal() and int(said) <= len(names):
        return int(said)
    if said:
        raise ValueError(
            f"{path} needs classes out of {', '.join(names)}, or their numbers from 1, got"
            f" {said!r}."
        )
    return 0
