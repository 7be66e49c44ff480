"""Units of one image that depend on each other: nuclei and cells, and labels made from others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cellseg_pipe.config import made_targets, unit_of
from cellseg_pipe.stages._hashes import hash_of

if TYPE_CHECKING:
    from cellseg_pipe.stages.unit import UnitRun

__all__ = ["Relation", "made_needs", "readers_of", "records_of", "related_needs"]


@dataclass(frozen=True)
class Relation:
    """Nuclei and cells of one image. The stages that relate them are among those of the cells.

    Parameters
    ----------
    nuclei, cells : UnitRun
        The units.
    """

    nuclei: UnitRun
    cells: UnitRun

    @property
    def measures(self) -> bool:
        """Whether nucleus and cytoplasm of cells are measured."""
        said = self.cells.experiment.relate
        return said is not None and said.cytoplasm

    @property
    def last(self) -> str:
        """The stage after which all is known."""
        return "compartments" if self.measures else "match"

    @property
    def min_overlap(self) -> float:
        """Least share of a nucleus that lies in its cell."""
        said = self.cells.experiment.relate
        assert said is not None  # or there would be no relation
        return said.min_overlap

    @cached_property
    def digests(self) -> dict[str, str]:
        """A hash for each stage: of its settings and of the labels of both."""
        overlap = hash_of(self.nuclei.labels_digest, self.cells.labels_digest)
        match = hash_of(overlap, self.min_overlap)
        found = {"overlap": overlap, "match": match}
        if not self.measures:
            return found
        said = self.cells.experiment.measure
        return found | {"compartments": hash_of(match, said.channels, said.intensity)}


def made_needs(unit: UnitRun) -> dict[str, tuple[str, ...]]:
    """Return what the stages need that make labels from those of other units.

    Parameters
    ----------
    unit : UnitRun
        With sources.

    Returns
    -------
    dict of str to tuple of str
        Stages by stage; those of other units as UNIT/STAGE.
    """
    painted = tuple(f"{source.name}/paint" for source in unit.sources)
    return {"tiles": (f"{unit.origin.name}/tiles",), "paint": ("tiles", *painted)}


def related_needs(unit: UnitRun) -> dict[str, tuple[str, ...]]:
    """Return what the stages need that relate a unit's cells to nuclei.

    Parameters
    ----------
    unit : UnitRun
        Any; only cells have such stages.

    Returns
    -------
    dict of str to tuple of str
        Stages by stage.
    """
    relation = unit.relation
    if relation is None or relation.cells is not unit:
        return {}
    needs: dict[str, tuple[str, ...]] = {
        "overlap": ("paint", f"{relation.nuclei.name}/paint"),
        "match": ("overlap",),
    }
    masks = records_of(unit, "masks")
    return needs | ({"compartments": ("match", *masks)} if relation.measures else {})


def records_of(unit: UnitRun, stage: str) -> tuple[str, ...]:
    """Return the stages that made what a stage keeps: of each class, or those of another unit.

    Parameters
    ----------
    unit : UnitRun
        Any.
    stage : str
        One that runs the network or finds cells.

    Returns
    -------
    tuple of str
        Those of other units as UNIT/STAGE.
    """
    numbers = range(1, len(unit.origin.parts) + 1)
    names = [f"{stage}{number}" for number in numbers] or [stage]
    return tuple(f"{unit.origin.name}/{name}" if unit.sources else name for name in names)


def readers_of(unit: UnitRun) -> tuple[str, ...]:
    """Return what reads the labels of a unit before they are moved to where users look for them.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    tuple of str
        Stages, mostly of other units: UNIT/STAGE.
    """
    experiment, image = unit.experiment, unit.unit.image
    found = [
        f"{unit_of(experiment, image, target).name}/paint"
        for target, sources in made_targets(experiment).items()
        if unit.unit.target in sources
    ]
    if unit.relation is not None:
        found.append(f"{unit.relation.cells.name}/{unit.relation.last}")
    return tuple(found)
