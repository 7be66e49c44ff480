"""What does not fit together, though each key is right by itself: nothing is silently ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cellseg_pipe.config._classes import classes_problems
from cellseg_pipe.config._clusters import cluster_problems
from cellseg_pipe.config._problems import Key, Problem
from cellseg_pipe.config._relations import expanded_problems, related_problems
from cellseg_pipe.config._restoring import restore_problems
from cellseg_pipe.config._sections import (
    Drop,
    Measure,
    Normalise,
    Qc,
    Region,
    RegionPart,
    Segment,
    Stitch,
    Tiles,
)

if TYPE_CHECKING:
    from cellseg_pipe.config.experiment import Experiment, ImageEntry

__all__ = ["broken", "merged"]

FLAT = ("2d", "planes")
PLACES = ("file", "box_px", "box_um")
NAME_BYTES = 200  # file systems take 255 with our endings
# Names of files and folders in the output folder.
TAKEN = {
    *("cells.parquet", "config.yaml", "failed.json", "plan.json", "report.html", "summary.json"),
    *("benchmarks.parquet", "logs", "report", "runs"),
}
PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy")


def merged(experiment: Experiment, image: ImageEntry | None) -> tuple[Segment, Normalise]:
    """Return the settings of an image: its own before those of the experiment.

    Parameters
    ----------
    experiment : Experiment
        The experiment.
    image : ImageEntry, optional
        One of its images; none for the experiment's own settings.

    Returns
    -------
    Segment, Normalise
        Complete.
    """
    return (
        _over(experiment.segment, image and image.segment),
        _over(experiment.normalise, image and image.normalise),
    )


def _over(base: Any, own: Any) -> Any:
    """Return a section with the keys that another one was given."""
    if own is None:
        return base
    return base.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})


def broken(experiment: Experiment) -> list[Problem]:
    """Return what does not fit together.

    Parameters
    ----------
    experiment : Experiment
        Each key of it right by itself.

    Returns
    -------
    list of Problem
        In no order.
    """
    found = [*_segment(experiment.segment, ()), *_normalise(experiment.normalise, ())]
    segments = []
    for number, image in enumerate(experiment.images):
        place = ("images", number)
        found += _image(image, place, experiment)
        segment, normalise = merged(experiment, image)
        segments.append(segment)
        if image.segment is not None:
            found += _segment(segment, place)
        if image.normalise is not None:
            found += _normalise(normalise, place)
    found += [*_tiles(experiment.tiles), *_stitch(experiment.stitch)]
    found += [
        *_measure(experiment),
        *_targets(experiment),
        *_names(experiment),
        *_results(experiment),
    ]
    found += [*expanded_problems(experiment), *related_problems(experiment)]
    found += [*restore_problems(experiment), *cluster_problems(experiment)]
    found += classes_problems(experiment, segments)
    return found


def _segment(segment: Segment, place: Key) -> Iterator[Problem]:
    path = (*place, "segment")
    needs = (("segment",), path)
    if segment.mode in FLAT:
        if segment.anisotropy != "auto":
            yield Problem(
                (*path, "anisotropy"),
                f"needs mode 3d or auto, got mode {segment.mode}, in which it has no effect. Leave"
                " it out (auto).",
                needs,
            )
        if segment.flow_smooth_px:
            yield Problem(
                (*path, "flow_smooth_px"),
                f"needs mode 3d or auto, got mode {segment.mode}, in which it has no effect. Leave"
                " it out (0).",
                needs,
            )
    if segment.max_size_px is not None and segment.max_size_px < segment.min_size_px:
        yield Problem(
            (*path, "max_size_px"),
            f"needs min_size_px ({segment.min_size_px}) or more, got {segment.max_size_px}: no cell"
            " would be left.",
            needs,
        )


def _normalise(normalise: Normalise, place: Key) -> Iterator[Problem]:
    path = (*place, "normalise")
    needs = (("normalise",), path)
    method = normalise.method
    if normalise.range is not None and method != "global":
        yield Problem((*path, "range"), f"needs method global, got method {method}.", needs)
    for name in ("range", "percentiles"):
        pair = getattr(normalise, name)
        if isinstance(pair, tuple) and not pair[0] < pair[1]:
            text = f"needs the lower value first, got [{pair[0]:g}, {pair[1]:g}]."
            yield Problem((*path, name), text, needs)
    if isinstance(normalise.percentiles, tuple):
        low, high = normalise.percentiles
        if low < 0 or high > 100:
            text = f"needs percentiles from 0 to 100, got [{low:g}, {high:g}]."
            yield Problem((*path, "percentiles"), text, needs)
        if method == "off" or normalise.range is not None:
            other = "method off" if method == "off" else "a range, which replaces them"
            yield Problem((*path, "percentiles"), f"has no effect: there is {other}.", needs)
    if method != "local" and normalise.local_px != Normalise().local_px:
        yield Problem((*path, "local_px"), f"needs method local, got method {method}.", needs)


def _tiles(tiles: Tiles) -> Iterator[Problem]:
    if tiles.window_px != "auto" and 2 * tiles.overlap_px > tiles.window_px:
        yield Problem(
            ("tiles", "overlap_px"),
            f"needs at most half of window_px ({tiles.window_px}), got {tiles.overlap_px}.",
            (("tiles",),),
        )


def _stitch(stitch: Stitch) -> Iterator[Problem]:
    if stitch.seams == "exact" and stitch.seam_iou != Stitch().seam_iou:
        yield Problem(
            ("stitch", "seam_iou"),
            "needs seams: iou, got seams: exact, which joins nothing.",
            (("stitch",),),
        )


def _measure(experiment: Experiment) -> Iterator[Problem]:
    said, iou = experiment.measure, experiment.stitch.seams == "iou"
    modes = {merged(experiment, image)[0].mode for image in experiment.images}
    if said.outlines and iou:
        yield Problem(
            ("measure", "outlines"),
            "needs seams: exact, with seams: iou no tile sees a cell whole. Leave it false.",
            (("stitch",),),
        )
    if said.quantiles != Measure().quantiles and said.quantiles and (iou or modes == {"planes"}):
        what = "seams: iou" if iou else "mode planes"
        yield Problem(
            ("measure", "quantiles"),
            f"needs cells that are seen whole, got {what}, in which parts of them are added up."
            " Leave it out.",
            (("stitch",), ("segment",), ("images",)),
        )
    if len(set(said.quantiles)) < len(said.quantiles):
        yield Problem(("measure", "quantiles"), "needs each quantile once.")


def _targets(experiment: Experiment) -> Iterator[Problem]:
    modes = {merged(experiment, image)[0].mode for image in experiment.images}
    for name, target in experiment.targets.items():
        path: Key = ("targets", name)
        if not re.fullmatch(r"\w+", name) or len(name.encode()) > NAME_BYTES // 4:
            yield Problem(path, "needs a short name of letters, digits and _.")
        yield from _diameters(target, path)
        known = "auto" not in (target.diameter_um, target.diameter_px)
        given = target.diameter_um != "auto" or target.diameter_px != "auto"
        if given and not known and target.diameter_by != "samples":
            yield Problem(
                (*path, "diameter_by"),
                "has no effect where a diameter is given. Leave one out.",
                (path,),
            )
        if target.side_model is not None and modes <= set(FLAT):
            yield Problem(
                (*path, "side_model"),
                f"needs mode 3d or auto, got mode {' and '.join(sorted(modes))}: only volumes are"
                " seen from the side.",
                (path, ("segment",), ("images",)),
            )


def _diameters(holder: Any, path: Key) -> Iterator[Problem]:
    """Yield a problem if a diameter is given in both units."""
    numbers = [n for n in (holder.diameter_um, holder.diameter_px) if n not in (None, "auto")]
    if len(numbers) == 2:
        yield Problem(
            (*path, "diameter_px"), "needs to be the only one, got diameter_um too. Leave one out."
        )


def _image(image: ImageEntry, path: Key, experiment: Experiment) -> Iterator[Problem]:
    yield from _diameters(image, path)
    ending = image.path.lower().rstrip("/")
    store = image.path.startswith(("http://", "https://", "s3://")) or ending.endswith(".zarr")
    if store and image.series:
        yield Problem(
            (*path, "series"), "is for files such as TIFF. Name a group of a store: STORE/1."
        )
    if image.axes is not None:
        yield from _axes(image, path)
    if isinstance(image.region, Region):
        yield from _region(image.region, (*path, "region"))
    for name in ("channels", "diameter_um", "diameter_px"):
        found = [target for target in experiment.targets.values() if target.expand is None]
        if getattr(image, name) is not None and len(found) > 1:
            yield Problem(
                (*path, name),
                f"needs an experiment of one target, got {len(found)}: it would mean"
                " each of them. Set it for the targets, or write a file for each.",
                (("targets",),),
            )
    if experiment.output.into_image and ending.startswith("http"):
        text = f"needs stores that can be written, got {image.path}."
        yield Problem(("output", "into_image"), text, (path,))
    elif experiment.output.into_image and ending.endswith(PICTURES):
        text = f"needs OME-Zarr stores, got {image.path}."
        yield Problem(("output", "into_image"), text, (path,))


def _region(region: Region, path: Key) -> Iterator[Problem]:
    own = any(getattr(region, name) is not None for name in PLACES)
    parts: list[tuple[Key, RegionPart]] = [(path, region)] if own else []
    for kind in ("include", "exclude"):
        items = enumerate(getattr(region, kind))
        parts += [((*path, kind, k), item) for k, item in items if isinstance(item, RegionPart)]
    if own and region.include:
        yield Problem(
            (*path, "include"),
            "needs all that is included, got a part beside it. Move it in.",
        )
    if not own and region.name is not None:
        yield Problem((*path, "name"), "is that of one part. Give each of include its own.")
    if not (own or region.include or region.exclude):
        yield Problem(path, f"needs include, exclude or one of {', '.join(PLACES)}, got nothing.")
    for place, part in parts:
        yield from _region_part(part, place)


def _region_part(part: RegionPart, path: Key) -> Iterator[Problem]:
    given = [name for name in PLACES if getattr(part, name) is not None]
    if len(given) != 1:
        said = " and ".join(given) or "none"
        yield Problem(path, f"needs one of {', '.join(PLACES)}, got {said}.")
    for name in given:
        corners = getattr(part, name)
        if name != "file" and not _ordered(*corners):
            yield Problem(
                (*path, name),
                "needs two corners of as many numbers, the lower one first, got"
                f" {[list(corner) for corner in corners]}.",
            )


def _ordered(low: tuple[float, ...], high: tuple[float, ...]) -> bool:
    return len(low) == len(high) and all(a < b for a, b in zip(low, high, strict=True))


def _axes(image: ImageEntry, path: Key) -> Iterator[Problem]:
    axes = str(image.axes)
    if not {"y", "x"} <= set(axes) <= set("tczyxs") or len(set(axes)) != len(axes):
        yield Problem(
            (*path, "axes"),
            f"needs a letter out of t, c, z, y, x for each axis, with y and x, got {axes!r}.",
        )
    elif image.spacing_um is not None and len(image.spacing_um) == 3 and "z" not in axes:
        yield Problem(
            (*path, "spacing_um"), f"needs 2 numbers for axes {axes}, got 3: there is no z."
        )


def _names(experiment: Experiment) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for number, image in enumerate(experiment.images):
        if image.name is None:
            continue
        path: Key = ("images", number, "name")
        if fault := name_fault(image.name):
            yield Problem(path, fault)
        other = first.setdefault(image.name.casefold(), number)
        if other != number:
            yield Problem(
                path,
                f"needs to be another one: images[{other}] is named"
                f" {experiment.images[other].name!r} (results of both would have one folder).",
            )


def name_fault(name: str) -> str:
    """Return what is wrong with the name of an image; nothing if it is right.

    Parameters
    ----------
    name : str
        The name.

    Returns
    -------
    str
        The end of a sentence.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name) or len(name.encode()) > NAME_BYTES:
        return f"needs letters, digits and _ . + - (first a letter or digit), got {name[:64]!r}."
    if name.casefold() in TAKEN:
        return f"needs another name: {name!r} is a file or folder of every run."
    return ""


def _results(experiment: Experiment) -> Iterator[Problem]:
    sections = [merged(experiment, image)[0] for image in experiment.images]
    if "geojson" in experiment.output.export and {s.mode for s in sections} <= {"planes", "3d"}:
        yield Problem(
            ("output", "export"),
            "of geojson needs images y, x: volumes have no outlines. Leave it out.",
            (("segment",), ("images",)),
        )
    if len(set(experiment.output.export)) < len(experiment.output.export):
        yield Problem(("output", "export"), "needs each format once.")
    yield from _qc(experiment.qc, measures_errors=any(s.flow_threshold for s in sections))
    flat = {s.mode for s in sections} <= {"2d", "planes"}
    if flat and not experiment.tiles.overlap_px:
        yield from _seen_once(experiment.qc)


def _seen_once(qc: Qc) -> Iterator[Problem]:
    for kind, limits in (("flag", qc.flag), ("drop", qc.drop)):
        if limits.min_agreement is not None:
            yield Problem(
                ("qc", kind, "min_agreement"),
                "needs windows that overlap, and tiles.overlap_px is 0: each cell is seen once.",
                (("tiles",), ("segment",)),
            )


def _qc(qc: Qc, *, measures_errors: bool) -> Iterator[Problem]:
    if qc.labels and qc.drop == Drop():
        yield Problem(
            ("qc", "labels"),
            "needs a rule in qc.drop: without one the second label image is the first. Add one, as"
            " drop: {min_confidence: 0.5}, or leave it false.",
            (("qc",),),
        )
    for kind, limits in (("flag", qc.flag), ("drop", qc.drop)):
        if limits.max_flow_error is not None and not measures_errors:
            yield Problem(
                ("qc", kind, "max_flow_error"),
                "needs flow errors, and segment.flow_threshold of 0 measures none. Give that a"
                " large number, as 10.",
                (("segment",), ("images",)),
            )
        for what in ("size_px", "diameter_um"):
            low, high = getattr(limits, f"min_{what}"), getattr(limits, f"max_{what}")
            if None not in (low, high) and high < low:
                yield Problem(
                    ("qc", kind, f"max_{what}"),
                    f"needs min_{what} ({low:g}) or more, got {high:g}: all cells would break it.",
                )
