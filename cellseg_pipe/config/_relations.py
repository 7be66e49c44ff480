"""What does not fit together in targets that depend on other targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cellseg_pipe.config._problems import Key, Problem
from cellseg_pipe.config._sections import Target

if TYPE_CHECKING:
    from cellseg_pipe.config.experiment import Experiment

__all__ = ["CYTOPLASM", "expanded_problems", "related_problems"]

CYTOPLASM = "cytoplasm"  # the target that is made of nuclei and cells
OF_DIAMETERS = ("diameter_um", "diameter_px", "diameter_by", "diameter_classes")
OF_MODELS = ("model", "side_model", "channels", *OF_DIAMETERS)


def expanded_problems(experiment: Experiment) -> Iterator[Problem]:
    """Yield what is wrong with targets that are grown from others.

    Parameters
    ----------
    experiment : Experiment
        Each key of it right by itself.

    Yields
    ------
    Problem
        In no order.
    """
    for name, target in experiment.targets.items():
        path: Key = ("targets", name)
        given = [k for k in ("expand_um", "expand_px") if getattr(target, k) is not None]
        if target.expand is None:
            for key in given:
                yield Problem(
                    (*path, key), "has no effect without expand: name the target that is grown."
                )
            continue
        if fault := _source_fault(experiment, name):
            yield Problem((*path, "expand"), fault, (("targets",),))
        if len(given) != 1:
            found = " and ".join(given) or "none"
            yield Problem(
                (*path, "expand"), f"needs either expand_um or expand_px, got {found}.", (path,)
            )
        for key in OF_MODELS:
            if getattr(target, key) != Target.model_fields[key].default:
                yield Problem(
                    (*path, key),
                    f"has no effect with expand: labels are those of {target.expand}, grown. Leave"
                    " one out.",
                )


def _source_fault(experiment: Experiment, name: str) -> str:
    """Return what is wrong with the target that another one is grown from; nothing if right."""
    source = str(experiment.targets[name].expand)
    if source == name:
        return "needs another target, got its own name."
    if source not in experiment.targets:
        return _unknown(experiment, source)
    if experiment.targets[source].expand is not None:
        return (
            f"needs a target that a model finds, got {source!r}, which is grown itself. Name the"
            " one that it is grown from."
        )
    return ""


def related_problems(experiment: Experiment) -> Iterator[Problem]:
    """Yield what is wrong with the section `relate`.

    Parameters
    ----------
    experiment : Experiment
        Each key of it right by itself.

    Yields
    ------
    Problem
        In no order.
    """
    relate = experiment.relate
    if relate is None:
        return
    for key in ("nuclei", "cells"):
        if (name := getattr(relate, key)) not in experiment.targets:
            yield Problem(("relate", key), _unknown(experiment, name), (("targets",),))
    if relate.nuclei == relate.cells:
        yield Problem(
            ("relate", "cells"), f"needs another target than nuclei, got {relate.cells!r} twice."
        )
    if relate.labels and CYTOPLASM in experiment.targets:
        yield Problem(
            ("targets", CYTOPLASM),
            "needs another name: relate.labels makes results that are called so.",
            (("relate", "labels"),),
        )


def _unknown(experiment: Experiment, name: str) -> str:
    known = ", ".join(experiment.targets)
    return f"needs the name of a target, got {name!r}: the experiment has {known}."
