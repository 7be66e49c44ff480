"""Which images an experiment means by its folders and patterns, and what they are called."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from cellseg_pipe.config._kinds import URL
from cellseg_pipe.config._problems import ConfigError, Problem
from cellseg_pipe.config._rules import name_fault
from cellseg_pipe.config.experiment import Experiment, ImageEntry
from cellseg_pipe.io.inputs import find_inputs, stem_of

__all__ = ["default_name", "expand_images", "with_images"]

SEARCHED = (
    " A relative path is looked for in the folder of the experiment file, then in the working"
    " directory."
)


def expand_images(experiment: Experiment) -> tuple[ImageEntry, ...]:
    """Find the images.

    Parameters
    ----------
    experiment : Experiment
        With folders and patterns.

    Returns
    -------
    tuple of ImageEntry
        One per image, with an absolute path and a name that no other has; in the order of the
        file, those of one entry in natural order.
    """
    problems: list[Problem] = []
    found: list[tuple[int, ImageEntry]] = []
    for number, entry in enumerate(experiment.images):
        try:
            found += [(number, image) for image in _images_of(entry)]
        except (OSError, ValueError) as error:
            hint = SEARCHED if isinstance(error, FileNotFoundError) else ""
            problems.append(Problem(("images", number, "path"), f"is not usable: {error}{hint}"))
    problems += _collisions(found)
    if problems:
        source = experiment._source
        raise ConfigError.of(problems, file=source.file, lines=source.lines)
    return tuple(image for _, image in found)


def with_images(experiment: Experiment) -> Experiment:
    """Return the same experiment with each image by itself, as it is to be kept.

    Parameters
    ----------
    experiment : Experiment
        With folders and patterns.

    Returns
    -------
    Experiment
        What a folder gets later does not change it.
    """
    return experiment.model_copy(update={"images": expand_images(experiment)})


def default_name(path: str) -> str:
    """Return what an image is called if its entry does not say.

    Parameters
    ----------
    path : str
        File, store, group in a store, or URL.

    Returns
    -------
    str
        Its name without the ending; what a shell or a file system may trip over becomes `_`.
    """
    parts = [part for part in re.split(r"[?#]", path)[0].split("/") if part]
    store = next((i for i, part in enumerate(parts) if part.lower().endswith(".zarr")), None)
    first = len(parts) - 1 if store is None else store
    name = "-".join([stem_of(parts[first]), *parts[first + 1 :]])
    plain = re.sub(r"[^\w.+-]+", "_", unicodedata.normalize("NFC", name))
    return re.sub(r"^[^\w]+", "", plain) or "image"


def _images_of(entry: ImageEntry) -> Iterator[ImageEntry]:
    if URL.match(entry.path):
        yield entry.model_copy(update={"name": entry.name or default_name(entry.path)})
        return
    paths = find_inputs([Path(entry.path)], recursive="**" in entry.path)
    if entry.name is not None and len(paths) > 1:
        raise ValueError(
            f"{entry.path} is {len(paths)} images, and there is one name for them, {entry.name!r}."
            " Leave the name out."
        )
    for path in paths:
        name = entry.name or default_name(os.fspath(path))
        yield entry.model_copy(update={"path": os.fspath(path), "name": name})


def _collisions(found: list[tuple[int, ImageEntry]]) -> Iterator[Problem]:
    """Yield the names that are no names, and those that two images have."""
    first: dict[str, ImageEntry] = {}
    for number, image in found:
        name = str(image.name)
        path = ("images", number, "name")
        if fault := name_fault(name):
            yield Problem(path, fault)
        other = first.setdefault(name.casefold(), image)
        if other is not image and other.path == image.path:
            yield Problem(path, f"needs a name of its own: {image.path} is named twice. Leave one.")
        elif other is not image:
            yield Problem(
                path,
                f"needs a name of its own: {other.path} and {image.path} would both be {name!r}."
                " Give one of them a name.",
            )
