"""Restores image files one after the other: reads, computes, writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.inputs import find_inputs, stem_of
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.io.reading import Image, in_memory
from cellseg_pipe.io.writing import WRITTEN_SUFFIXES, check_written, write_image
from cellseg_pipe.restoration import Restoration, restore

__all__ = ["RestoreJob", "RestoreOutcome", "restore_jobs", "run"]

log = logging.getLogger(__name__)

Found = TypeVar("Found")

FEW_VALUES, SAMPLES = 50, 1_000_000  # of grey, to which rounding adds noise; pixels that tell


@dataclass(frozen=True)
class RestoreJob:
    """One image and where the restored one goes.

    Parameters
    ----------
    image : path
        The image's file or store.
    out : path
        Of the result.
    """

    image: Path
    out: Path


@dataclass(frozen=True)
class RestoreOutcome:
    """What became of one image.

    Parameters
    ----------
    job : RestoreJob
        The image.
    text : str
        A line for the user.
    done : bool
        Whether its result is there.
    clear : bool
        Whether that is the image as it was, as there was nothing to restore.
    """

    job: RestoreJob
    text: str
    done: bool
    clear: bool = False


def restore_jobs(
    inputs: Sequence[Path | str],
    out: Path,
    *,
    image_format: str = ".tif",
    recursive: bool = False,
    skip_existing: bool = False,
) -> list[RestoreJob]:
    """Say which images there are and what is written where; refuse to replace any file.

    Parameters
    ----------
    inputs : sequence of path
        Files, folders and patterns.
    out : path
        A folder, made if need be; or for one image the file of the result.
    image_format : str
        Ending of the files in a folder.
    recursive : bool
        Whether folders in folders are searched.
    skip_existing : bool
        Whether images whose result is there are left out, in whatever way it was made.

    Returns
    -------
    list of RestoreJob
        In the order of their names.
    """
    if image_format not in WRITTEN_SUFFIXES:
        raise ValueError(
            f"the format needs to be one of {', '.join(WRITTEN_SUFFIXES)}, got {image_format!r}."
        )
    images = find_inputs(inputs, recursive=recursive)
    named = out.name.lower().endswith(WRITTEN_SUFFIXES)
    single = named and (not out.is_dir() or out.suffix.lower() == ".zarr")
    if single and len(images) > 1:
        raise ValueError(
            f"{out} is one file, got {len(images)} images for it. Name a folder instead."
        )
    jobs = [
        RestoreJob(image, out if single else out / f"{stem_of(image)}{image_format}")
        for image in images
    ]
    there = [job for job in jobs if job.out.exists()]
    if there and not skip_existing:
        raise FileExistsError(
            f"{there[0].out} exists. Name another folder, remove it, or pass --skip-existing to"
            " restore only images without a result."
        )
    done = set(there)
    return [job for job in jobs if job not in done]


def run(
    jobs: Sequence[RestoreJob],
    *,
    settings: Mapping[str, Any],
    reading: Mapping[str, Any] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[RestoreOutcome]:
    """Restore images; one that fails is said and does not stop the others.

    Parameters
    ----------
    jobs : sequence of RestoreJob
        From `restore_jobs`.
    settings : mapping
        Those of `restore`: model, method, diameter_px, channels, dtype, device and so on;
        diameter_um instead of diameter_px.
    reading : mapping, optional
        Those of `open_image`: axes, series, level.
    progress : callable, optional
        Is told the image's name and how many of how many windows are done.

    Returns
    -------
    list of RestoreOutcome
        One per image.
    """
    given = dict(settings)
    opened = [_tried(job, partial(_opened, job, given, reading or {})) for job in jobs]
    good = any(isinstance(image, OpenImage) for image in opened)
    if good and given.get("method", "network") == "network":
        from cellseg_pipe.nets.restore import restorer_for

        shared = {key: given[key] for key in ("device", "precision", "threads") if key in given}
        given["model"] = restorer_for(given.get("model", "one-click"), **shared)
    outcomes = []
    for job, image in zip(jobs, opened, strict=True):
        outcome: RestoreOutcome = (
            _tried(job, partial(_one, job, image, given, progress=progress))
            if isinstance(image, OpenImage)
            else image
        )
        outcomes.append(outcome)
        log.log(logging.INFO if outcome.done else logging.ERROR, "%s", outcome.text)
    return outcomes


def _tried(job: RestoreJob, work: Callable[[], Found]) -> Found | RestoreOutcome:
    """Return what is found, or that it failed: other images do not wait for this one."""
    try:
        return work()
    # RuntimeError is what torch says when memory, of a GPU as well, is not enough.
    except (OSError, TypeError, ValueError, MemoryError, OverflowError, RuntimeError) as error:
        log.debug("traceback", exc_info=True)
        return RestoreOutcome(job, f"{job.image.name}: {error}", done=False)


def _opened(job: RestoreJob, settings: Mapping[str, Any], reading: Mapping[str, Any]) -> OpenImage:
    image = open_image(job.image, **reading)
    _check(job, image, settings)
    return image


def _check(job: RestoreJob, image: OpenImage, settings: Mapping[str, Any]) -> None:
    """Refuse before the long work what could not be read or written."""
    if image.n_times > 1:
        raise ValueError(
            f"{job.image} has {image.n_times} times, and restoring takes one. Save each by itself."
        )
    kept = settings.get("dtype") == "input"
    check_written(
        job.out,
        spatial=image.spatial,
        n_channels=image.n_channels,
        dtype=image.dtype if kept else np.dtype(np.float32),
        rgb=image.rgb,
    )
    if settings.get("diameter_um") is not None and _spacing(image, settings) is None:
        raise ValueError(
            f"diameter_um needs the size of a pixel, and {job.image} does not tell it. Give"
            " --spacing-um, or the diameter in px."
        )


def _spacing(image: OpenImage, settings: Mapping[str, Any]) -> tuple[float, ...] | None:
    given: tuple[float, ...] | None = settings.get("spacing_um")
    return image.spacing_um if given is None else given


def _one(
    job: RestoreJob,
    image: OpenImage,
    settings: Mapping[str, Any],
    *,
    progress: Callable[[str, int, int], None] | None,
) -> RestoreOutcome:
    """Restore one image and write it."""
    began = time.monotonic()
    spacing_um, own = _spacing(image, settings), dict(settings)
    diameter_um = own.pop("diameter_um", None)
    if diameter_um is not None and spacing_um is not None:
        own["diameter_px"] = diameter_um / spacing_um[-1]
    own["spacing_um"] = spacing_um

    def told(done: int, total: int) -> None:
        if progress:
            progress(job.image.name, done, total)

    found = restore(
        in_memory(image).pixels,
        axes="c" + image.spatial,
        channel_names=image.channel_names,
        rgb=image.rgb,
        progress=told,
        **own,
    )
    result = Image(
        found.pixels, image.spatial, image.channel_names, found.spacing_um, image.rgb, job.out
    )
    if (few := _few_values(found.pixels)) is not None:
        log.warning(
            "%s: most of it lies within %d grey values, to which it was rounded; --float keeps what"
            " lies between them",
            *(job.image.name, few),
        )
    job.out.parent.mkdir(parents=True, exist_ok=True)
    write_image(result, job.out, offset_um=_place(image, found, spacing_um))
    seconds, stays = time.monotonic() - began, bool(found.plan.clear) and not found.plan.channels
    text = f"{job.image.name}: {found.plan.method}, {_shape(image.shape)}"
    if found.plan.out_shape != tuple(image.shape):
        text += f" to {_shape(found.plan.out_shape)}"
    text += f" px, {len(found.plan.channels)} of {image.n_channels} channels, {seconds:.1f} s"
    if found.plan.clear:
        text += f"; clear and as before: {', '.join(map(str, found.plan.clear))}"
    return RestoreOutcome(job, text, done=True, clear=stays)


def _few_values(pixels: NDArray[Any]) -> int | None:
    """Return how many whole grey values most pixels lie within, where they are too few."""
    if pixels.dtype.kind in "fb":  # of yes and no there is nothing to round
        return None
    some = pixels.ravel()[:: max(1, pixels.size // SAMPLES)]
    low, high = np.percentile(some, (1, 99))
    return int(high - low) if high - low < FEW_VALUES else None


def _place(
    image: OpenImage, found: Restoration, spacing_um: tuple[float, ...] | None
) -> tuple[float, ...] | None:
    """Return where the centre of the first voxel lies: both images have one extent."""
    if found.spacing_um is None or spacing_um is None:
        return None
    old = image.offset_um or (0.0,) * len(spacing_um)
    sizes = zip(old, spacing_um, found.spacing_um, strict=True)
    place = tuple(start + (new - size) / 2 for start, size, new in sizes)
    return place if any(place) else None


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
