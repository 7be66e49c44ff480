"""What does not fit together in targets whose diameter differs over an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cellseg_pipe.config._problems import Key, Problem

if TYPE_CHECKING:
    from cellseg_pipe.config.experiment import Experiment

__all__ = ["classes_problems"]

DIAMETERS = ("diameter_um", "diameter_px")


def classes_problems(experiment: Experiment, segments: list[Any]) -> Iterator[Problem]:
    """Yield what is wrong with targets of several classes of diameters.

    Parameters
    ----------
    experiment : Experiment
        Each key of it right by itself.
    segments : list of Segment
        The complete section `segment` of each image.

    Yields
    ------
    Problem
        In no order.
    """
    for name, target in experiment.targets.items():
        if target.diameter_classes > 1 and target.expand is None:
            path: Key = ("targets", name, "diameter_classes")
            for text, needs in (*_given(experiment, name), *_around(experiment, segments)):
                yield Problem(path, text, needs)


Fault = tuple[str, tuple[Key, ...]]  # what is wrong, and which other keys that hangs on


def _given(experiment: Experiment, name: str) -> Iterator[Fault]:
    """Yield what is said of the diameter, which is measured."""
    target, own = experiment.targets[name], ("targets", name)
    places: list[tuple[Key, Any]] = [(own, target)]
    places += [(("images", n), image) for n, image in enumerate(experiment.images)]
    if target.diameter_by != "samples":
        yield "needs diameter_by: samples, got style, which is of a whole image.", (own,)
    for path, holder in places:
        for key in DIAMETERS:
            if getattr(holder, key) not in (None, "auto"):
                where = key if holder is target else f"images[{path[1]}].{key}"
                text = f"needs diameters that are measured, got {where}. Leave one out."
                yield text, (path,)


def _around(experiment: Experiment, segments: list[Any]) -> Iterator[Fault]:
    """Yield what other sections say."""
    if experiment.stitch.seams == "iou":
        yield "needs seams: exact, got iou, which lets cells depend on tiles.", (("stitch",),)
    places = (("segment",), ("images",))
    if not all(segment.resample for segment in segments):
        yield "needs segment.resample: true, as cells of all classes lie on one grid.", places
    if any(segment.mode == "planes" for segment in segments):
        yield "needs mode 2d or 3d, got mode planes, whose cells are joined over planes.", places
