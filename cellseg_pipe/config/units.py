"""The units of an experiment, one image and one target each, and the settings of a unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellseg_pipe.config._relations import CYTOPLASM
from cellseg_pipe.config._restoring import OF_METHOD, Restore
from cellseg_pipe.config._rules import merged
from cellseg_pipe.config._sections import Target
from cellseg_pipe.config.experiment import Experiment, ImageEntry
from cellseg_pipe.config.images import with_images

__all__ = [
    "CYTOPLASM",
    "Restoring",
    "Unit",
    "UnitSettings",
    "made_targets",
    "settings_of",
    "unit_of",
    "units",
    "units_of",
]


@dataclass(frozen=True)
class Unit:
    """One image and one target.

    Parameters
    ----------
    name : str
        The image's; with the target's if there are several targets.
    image : ImageEntry
        The image.
    target : str
        Name of the target.
    sources : tuple of str
        Targets from whose labels those of this unit are made, first the one that gives the ids;
        none where a network makes them.
    """

    name: str
    image: ImageEntry
    target: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Restoring:
    """How an image is restored before a network sees it.

    Parameters
    ----------
    settings : dict
        Keyword arguments of `restoration.RestoreSettings`: those that the method looks at.
    diameter_um : float or None
        Diameter that needs the size of a pixel to become `diameter_px`.
    model : str or None
        Name or file; None for a filter.
    save : bool
        Whether the restored image is written, too.
    """

    settings: dict[str, Any]
    diameter_um: float | None
    model: str | None
    save: bool = False


@dataclass(frozen=True)
class UnitSettings:
    """How one image is segmented for one target.

    Parameters
    ----------
    settings : dict
        Keyword arguments of `segmentation.Settings`. What the image or the model decides is not
        among them: an automatic diameter, anisotropy, window and percentiles; nor is one class of
        diameters.
    diameter_um : float or None
        Diameter that needs the size of a pixel to become `diameter_px`.
    anisotropy : float or None
        As it was set; None for that of the image's voxels.
    model : str
        Name or file.
    side_model : str or None
        That of the side views.
    restore : Restoring or None
        What is done to the image first.
    """

    settings: dict[str, Any]
    diameter_um: float | None
    anisotropy: float | None
    model: str
    side_model: str | None
    restore: Restoring | None = None


def units(experiment: Experiment) -> tuple[Unit, ...]:
    """Return the units of an experiment.

    Parameters
    ----------
    experiment : Experiment
        Its folders and patterns are looked up now.

    Returns
    -------
    tuple of Unit
        Image by image, in the order of the file, but each after those that it is made from; no two
        have one name.
    """
    return units_of(with_images(experiment))


def units_of(experiment: Experiment) -> tuple[Unit, ...]:
    """Return the units of an experiment whose images are found already. Nothing is looked up.

    Parameters
    ----------
    experiment : Experiment
        From `with_images`, or as a run has kept it.

    Returns
    -------
    tuple of Unit
        As from `units`.
    """
    targets = made_targets(experiment)
    return tuple(
        unit_of(experiment, image, target) for image in experiment.images for target in targets
    )


def made_targets(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """Return the targets of an experiment with those from whose labels theirs are made.

    Parameters
    ----------
    experiment : Experiment
        The experiment.

    Returns
    -------
    dict of str to tuple of str
        Each after its sources. The cytoplasm is one where its labels are asked for.
    """
    found = {name: () for name, target in experiment.targets.items() if target.expand is None}
    grown = {name: (t.expand,) for name, t in experiment.targets.items() if t.expand is not None}
    relate = experiment.relate
    both = {CYTOPLASM: (relate.cells, relate.nuclei)} if relate and relate.labels else {}
    return {**found, **grown, **both}


def unit_of(experiment: Experiment, image: ImageEntry, target: str) -> Unit:
    """Return one unit of an image.

    Parameters
    ----------
    experiment : Experiment
        The experiment.
    image : ImageEntry
        One of its images.
    target : str
        Name of one of its targets, or `CYTOPLASM`.

    Returns
    -------
    Unit
        The unit.
    """
    several = len(experiment.targets) > 1
    name = f"{image.name}-{target}" if several else str(image.name)
    return Unit(name, image, target, made_targets(experiment)[target])


def settings_of(experiment: Experiment, image: ImageEntry, target: str) -> UnitSettings:
    """Return the settings of a unit.

    Parameters
    ----------
    experiment : Experiment
        The experiment.
    image : ImageEntry
        One of its images; what is set for it goes before what the experiment says.
    target : str
        Name of one of its targets.

    Returns
    -------
    UnitSettings
        Numbers and words only.
    """
    if target not in experiment.targets:
        known = ", ".join(experiment.targets)
        raise KeyError(f"there is no target {target!r}: the experiment has {known}.")
    aim = experiment.targets[target]
    segment, normalise = merged(experiment, image)
    own = image.diameter_um is not None or image.diameter_px is not None
    diameters = image if own else aim
    settings = segment.model_dump(exclude={"anisotropy", "niter", "reach_px"})
    settings |= normalise.model_dump(exclude={"method", "range", "percentiles"})
    settings |= {
        "niter": _number(segment.niter),
        "reach_px": _number(segment.reach_px),
        "normalise": normalise.method,
        "value_range": normalise.range,
        "channels": aim.channels if image.channels is None else image.channels,
        "diameter_by": aim.diameter_by,
        "overlap_px": experiment.tiles.overlap_px,
        "stitch_threshold": experiment.stitch.plane_iou,
        "time_iou": experiment.stitch.time_iou,
    }
    decided = {
        "anisotropy": _number(segment.anisotropy),
        "percentiles": _number(normalise.percentiles),
        "window_px": _number(experiment.tiles.window_px),
        "diameter_px": _number(diameters.diameter_px),
        # Runs that were begun before there were classes go on with what they have.
        "diameter_classes": aim.diameter_classes if aim.diameter_classes > 1 else None,
    }
    settings |= {name: value for name, value in decided.items() if value is not None}
    return UnitSettings(
        settings=settings,
        diameter_um=_number(diameters.diameter_um),
        anisotropy=decided["anisotropy"],
        model=aim.model,
        side_model=aim.side_model,
        restore=_restoring(experiment.restore, diameters),
    )


def _restoring(said: Restore | None, of_cells: ImageEntry | Target) -> Restoring | None:
    """Return what is set of restoring; what another method would look at is left out.

    Cells are as large for the network that restores as for the one that segments, if that is said.
    """
    if said is None:
        return None
    if said.diameter_px is said.diameter_um is None:
        both = {name: _number(getattr(of_cells, name)) for name in ("diameter_px", "diameter_um")}
        said = said.model_copy(update=both)
    names = ("method", "channels", "offset", *OF_METHOD[said.method])
    given = {name: _number(getattr(said, name)) for name in names}
    diameter_um, model = given.pop("diameter_um", None), given.pop("model", None)
    # What is not said the model decides.
    settings = {name: value for name, value in given.items() if value is not None}
    return Restoring(settings, diameter_um, model, said.save)


def _number(value: Any) -> Any:
    """Return what was set; None for auto."""
    return None if value == "auto" else value
