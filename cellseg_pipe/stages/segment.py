"""Segments image files one after the other: reads, computes, writes; what is done is skipped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from cellseg_pipe import __version__
from cellseg_pipe.io._moving import remove
from cellseg_pipe.io.files import size_and_age, written_whole
from cellseg_pipe.io.inputs import IMAGE_SUFFIXES, find_inputs, stem_of
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.io.reading import Image, in_memory
from cellseg_pipe.io.results import write_flows, write_labels, write_overlay
from cellseg_pipe.io.rois import (
    ROI_MAX_PX,
    polygons_of,
    write_geojson,
    write_outlines_text,
    write_roi_zip,
)
from cellseg_pipe.io.seg_npy import write_seg_npy
from cellseg_pipe.io.tables import write_table
from cellseg_pipe.nets.engine import engines_for
from cellseg_pipe.plot import overlay, show
from cellseg_pipe.segmentation import Segmentation, segment
from cellseg_pipe.segmentation.image import with_spacing
from cellseg_pipe.segmentation.settings import Settings, check_given

__all__ = ["EXTRAS", "LABEL_SUFFIXES", "Job", "Outcome", "jobs_for", "run"]

log = logging.getLogger(__name__)

LABEL_SUFFIXES = (".tif", ".tiff", ".png", ".npy", ".ome.zarr", ".zarr")
# What can be written beside the labels: name, and what is added to the image's name.
EXTRAS = {
    "csv": "_cells.csv",
    "parquet": "_cells.parquet",
    "flows": "_flows.tif",
    "overlay": "_overlay.png",
    "figure": "_figure.png",
    "outlines": "_outlines.txt",
    "rois": "_rois.zip",
    "geojson": "_cells.geojson",
    "seg": "_seg.npy",
}
FLAT = {"outlines", "rois", "geojson"}  # what has no third axis


@dataclass(frozen=True)
class Job:
    """One image and what is written of it.

    Parameters
    ----------
    image : path
        The image's file or store.
    labels : path
        Where the labels go.
    extras : dict of str to path
        What else is written, by its name in `EXTRAS`.
    """

    image: Path
    labels: Path
    extras: dict[str, Path] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        """The file that says that this image is done, and how."""
        return self.labels.parent / f"{stem_of(self.labels)}.cellseg.json"

    @property
    def outputs(self) -> list[Path]:
        """Everything that is written of the image but the record."""
        return [self.labels, *self.extras.values()]


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Parameters
    ----------
    job : Job
        The image.
    state : {"done", "skipped", "failed"}
        Skipped if it had been done before with the same settings.
    text : str
        A line for the user.
    """

    job: Job
    state: str
    text: str


def jobs_for(
    inputs: Sequence[Path | str],
    out: Path,
    *,
    label_format: str = ".tif",
    extras: Sequence[str] = (),
    recursive: bool = False,
) -> list[Job]:
    """Say which images there are and what is written where, before any work.

    Parameters
    ----------
    inputs : sequence of path
        Files, folders and patterns.
    out : path
        A folder, made if need be; or for one image the file of its labels.
    label_format : str
        Ending of the label files in a folder, one of `LABEL_SUFFIXES`.
    extras : sequence of str
        What else to write, names in `EXTRAS`.
    recursive : bool
        Whether folders in folders are searched.

    Returns
    -------
    list of Job
        In the order of their names.
    """
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown or label_format not in LABEL_SUFFIXES:
        raise ValueError(
            f"a label format is one of {', '.join(LABEL_SUFFIXES)} and further outputs are of"
            f" {', '.join(EXTRAS)}, got {', '.join([label_format, *unknown])}."
        )
    images = find_inputs(inputs, recursive=recursive)
    jobs = _jobs(images, out, label_format=label_format, extras=extras)
    _keep_images(images, jobs)
    return jobs


def _jobs(
    images: Sequence[Path], out: Path, *, label_format: str, extras: Sequence[str]
) -> list[Job]:
    # A store is a folder, too, and one that is there is the result of an earlier run.
    name = out.name.lower()
    if name.endswith(IMAGE_SUFFIXES) and not name.endswith(LABEL_SUFFIXES) and not out.is_dir():
        raise ValueError(
            f"{out}: labels are written as {', '.join(LABEL_SUFFIXES)}. Name such a file, or a"
            " folder."
        )
    if name.endswith(LABEL_SUFFIXES) and (name.endswith(".zarr") or not out.is_dir()):
        if len(images) > 1:
            raise ValueError(
                f"{out} is one file, got {len(images)} images for it. Name a folder instead."
            )
        stem = out.parent / stem_of(out)
        return [Job(images[0], out, {name: Path(f"{stem}{EXTRAS[name]}") for name in extras})]
    jobs = []
    for image in images:
        stem = out / stem_of(image)
        named = {name: Path(f"{stem}{EXTRAS[name]}") for name in extras}
        jobs.append(Job(image, Path(f"{stem}_labels{label_format}"), named))
    return jobs


def _keep_images(images: Sequence[Path], jobs: Sequence[Job]) -> None:
    """Refuse to write over an image, or into one that is a folder, whatever is asked for."""
    there = {image.resolve() for image in images}
    for path in (path for job in jobs for path in (*job.outputs, job.record)):
        where = path.resolve()
        if hit := there.intersection((where, *where.parents)):
            raise ValueError(
                f"{path} would be written over the image {hit.pop()}, or into it. Name another"
                " place for the results."
            )


def run(
    jobs: Sequence[Job],
    *,
    settings: dict[str, Any],
    reading: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Outcome]:
    """Segment images; one that fails is said and does not stop the others.

    Parameters
    ----------
    jobs : sequence of Job
        From `jobs_for`.
    settings : dict
        Those of `segment`: model, device, channels, diameter and so on.
    reading : dict, optional
        Those of `read_image`: axes, series, level.
    overwrite : bool
        Replace what other settings gave before.
    progress : callable, optional
        Is told the image's name and how many of how many windows are done.

    Returns
    -------
    list of Outcome
        One per image.
    """
    _check_settings(settings)
    given = {**settings, **engines_for(settings)}
    marks = [mark_of(job, settings=given, reading=reading or {}) for job in jobs]
    todo = [
        not is_done(job, mark, overwrite=overwrite) for job, mark in zip(jobs, marks, strict=True)
    ]
    for folder in {job.labels.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written to. Name another folder.")
    outcomes = []
    for job, mark, wanted in zip(jobs, marks, todo, strict=True):
        if not wanted:
            outcomes.append(Outcome(job, "skipped", f"{job.image.name}: done before"))
            continue
        try:
            outcomes.append(_one(job, mark, given, reading=reading or {}, progress=progress))
        # RuntimeError is what torch says when memory, of a GPU as well, is not enough.
        except (
            OSError, TypeError, ValueError, MemoryError, OverflowError, RuntimeError,
        ) as error:  # fmt: skip
            log.debug("traceback", exc_info=True)
            outcomes.append(Outcome(job, "failed", f"{job.image.name}: {error}"))
        log.log(
            logging.ERROR if outcomes[-1].state == "failed" else logging.INFO,
            "%s",
            outcomes[-1].text,
        )
    return outcomes


def _check_settings(settings: dict[str, Any]) -> None:
    """Refuse what fits no image, before a network or an image is loaded."""
    if (threads := settings.get("threads")) is not None and threads < 1:
        raise ValueError(f"threads needs a number of 1 or more, got {threads}.")
    check_given(settings)
    own = {field.name for field in fields(Settings)} & set(settings)
    with_spacing(
        {name: settings[name] for name in own},
        (1, 1),
        (1.0, 1.0),
        diameter_um=settings.get("diameter_um"),
    )


def mark_of(job: Job, *, settings: dict[str, Any], reading: dict[str, Any]) -> str:
    """Return a checksum of all that decides an image's result.

    Parameters
    ----------
    job : Job
        The image: its size and time of change count, not its pixels.
    settings, reading : dict
        How it is segmented, with networks that are loaded, and how it is read.

    Returns
    -------
    str
        Hexadecimal.
    """
    # How a machine computes is no setting: what another one has done is done.
    nets = {name: settings[name] for name in ("model", "side_model") if settings.get(name)}
    chosen = {k: v for k, v in settings.items() if k not in (*nets, "threads", "device")}
    about = {
        "image": [str(job.image.resolve()), *size_and_age(job.image)],
        "networks": {name: net.sha256 for name, net in nets.items()},
        "settings": {key: repr(value) for key, value in sorted(chosen.items())},
        "reading": {key: repr(value) for key, value in sorted(reading.items())},
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def is_done(job: Job, mark: str, *, overwrite: bool) -> bool:
    """Tell whether an image needs no work; refuse to replace what others wrote.

    Parameters
    ----------
    job : Job
        The image.
    mark : str
        From `mark_of`.
    overwrite : bool
        Replace anything.

    Returns
    -------
    bool
        True if its record says done, with the same mark, and lists every output, and all are there.
    """
    record = _read_record(job)
    # Of others nobody knows with which settings they were made.
    ours = record.get("outputs", []) if record.get("mark") == mark else []
    made = [path for path in job.outputs if path.name in ours]
    if made == job.outputs and record["state"] == "done" and all(path.exists() for path in made):
        return True
    there = [path for path in job.outputs if path.exists() and path not in made]
    if there and not overwrite:
        raise FileExistsError(
            f"{there[0]} exists and was made from another image or with other settings. Name"
            " another folder, or pass --overwrite."
        )
    return False


def _one(
    job: Job,
    mark: str,
    settings: dict[str, Any],
    *,
    reading: dict[str, Any],
    progress: Callable[[str, int, int], None] | None,
) -> Outcome:
    """Segment one image and write what is asked for; the record comes last."""
    began = time.monotonic()
    header = open_image(job.image, **reading)
    _check_outputs(job, header)
    image = in_memory(header)
    own = dict(settings)
    if image.spacing_um is not None:
        own.setdefault("spacing_um", image.spacing_um)

    def told(done: int, total: int) -> None:
        if progress:
            progress(job.image.name, done, total)

    found = segment(
        image.pixels,
        axes="c" + image.spatial,
        channel_names=image.channel_names,
        rgb=image.rgb,
        progress=told,
        **own,
    )
    seconds = time.monotonic() - began
    outputs = _note_outputs(job, mark)
    _write(job, image, found, spacing_um=own.get("spacing_um"), offset_um=header.offset_um)
    megapixels = found.labels.size / 1e6
    _note(job, {"mark": mark, "state": "done", "outputs": outputs, **_facts(found, seconds)})
    said = (
        f"{job.image.name}: {found.n_cells} cells, diameter {_diameters(found)}, mode"
        f" {found.plan.mode}, {megapixels:.2f} Mpx in {seconds:.1f} s"
    )
    return Outcome(job, "done", "; ".join([said, *found.warnings]))


def _read_record(job: Job) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(job.record.read_text())
    except (OSError, ValueError):
        record = {}
    return record


def _note_outputs(job: Job, mark: str) -> list[str]:
    """Note what is about to be written, remove what other settings gave; return all that counts."""
    before, names = _read_record(job), [path.name for path in job.outputs]
    earlier = [name for name in before.get("outputs", []) if name not in names]
    if before.get("mark") != mark:
        for name in earlier:
            _removed(job.labels.with_name(name))
        earlier = []
    outputs = [*names, *earlier]
    _note(job, {"mark": mark, "state": "writing", "outputs": outputs})
    return outputs


def _removed(path: Path) -> None:
    if path.is_dir():
        remove(path)
    else:
        path.unlink(missing_ok=True)


def _check_outputs(job: Job, header: OpenImage) -> None:
    """Refuse what cannot be written of an image before its pixels are read."""
    wanted = sorted(FLAT.intersection(job.extras))
    if job.labels.suffix.lower() == ".png":
        wanted.append("labels as PNG")
    if header.spatial == "zyx" and wanted:
        raise ValueError(f"{', '.join(wanted)}: of planes only, and this is a volume.")
    if "rois" in job.extras and max(header.shape) > ROI_MAX_PX:
        raise ValueError(
            f"rois are of at most {ROI_MAX_PX} px along an axis, got shape {header.shape}. Leave"
            " them out; geojson has no such limit."
        )


def _diameters(found: Segmentation) -> str:
    """Return at which diameters cells were seen: one, or those of the parts of the image.

    With one that was measured come the quartiles of the cells it was measured on.
    """
    fields, measured = found.plan.fields, found.diameter
    if fields is not None:
        return " and ".join(f"{px:.1f}" for px in fields.diameter_px) + " px"
    said = f"{found.diameter_px:.1f} px"
    if measured is None or not measured.n_cells:
        return said
    return f"{said} ({measured.low_px:.1f} to {measured.high_px:.1f})"


def _facts(found: Segmentation, seconds: float) -> dict[str, Any]:
    """Return what the record tells of a result."""
    return {
        "cells": found.n_cells,
        "diameter_px": found.diameter_px,
        **({} if found.plan.fields is None else {"diameter_classes": found.plan.fields.facts}),
        "diameter_cells": found.diameter.n_cells if found.diameter else None,
        "mode": found.plan.mode,
        "shape": list(found.labels.shape),
        "numerics": found.numerics,
        "too_far": found.n_too_far,
        "warnings": list(found.warnings),
        "seconds": round(seconds, 3),
        "version": __version__,
    }


def _note(job: Job, facts: dict[str, Any]) -> None:
    with written_whole(job.record) as file:
        json.dump({"image": str(job.image), **facts}, file, indent=2)
        file.write("\n")


def _write(
    job: Job,
    image: Image,
    found: Segmentation,
    *,
    spacing_um: tuple[float, ...] | None,
    offset_um: tuple[float, ...] | None,
) -> None:
    """Write the labels and all that was asked for beside them."""
    write_labels(job.labels, found.labels, spacing_um=spacing_um, offset_um=offset_um)
    writers: dict[str, Callable[[Path], object]] = {
        "csv": lambda path: write_table(path, found.table),
        "parquet": lambda path: write_table(path, found.table),
        "flows": lambda path: write_flows(path, found.flow, found.logit),
        "overlay": lambda path: write_overlay(path, _shown(image, found)),
        "figure": lambda path: write_overlay(path, _figure(image, found)),
        "outlines": lambda path: write_outlines_text(path, found.labels),
        "rois": lambda path: write_roi_zip(path, found.labels),
        "geojson": lambda path: write_geojson(path, polygons_of(found.labels)),
        "seg": lambda path: write_seg_npy(
            path,
            labels=found.labels,
            flow=found.flow,
            logit=found.logit,
            image_path=job.image,
            diameter_px=found.diameter_px,
        ),
    }
    for name, path in job.extras.items():
        writers[name](path)


def _shown(image: Image, found: Segmentation) -> np.ndarray:
    """Return the picture of an image with outlines; of a volume its middle plane."""
    return overlay(*_plane(image, found))


def _figure(image: Image, found: Segmentation) -> np.ndarray:
    """Return image, outlines, flow and probability side by side; of a volume its middle plane."""
    pixels, labels = _plane(image, found)
    flow, logit = found.flow, found.logit
    if logit.ndim == 3:
        middle = logit.shape[0] // 2
        flow, logit = flow[:, middle], logit[middle]
    return show(pixels, labels, flow=flow, logit=logit)


def _plane(image: Image, found: Segmentation) -> tuple[np.ndarray, np.ndarray]:
    """Return what is shown below outlines: colours, or the first channel that was segmented."""
    pixels, labels = image.pixels, found.labels
    if labels.ndim == 3:
        middle = labels.shape[0] // 2
        pixels, labels = pixels[:, middle], labels[middle]
    seen = [pick.index for pick in found.plan.picks if pick.kind == "channel"]
    return pixels if image.rgb else pixels[seen[0] if seen else 0], labels
