"""One unit of an experiment: its files, and a hash per stage of all that its result depends on."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cellseg_pipe.config import (
    Experiment,
    Unit,
    UnitSettings,
    settings_of,
    unit_of,
)
from cellseg_pipe.geometry import ceil_div
from cellseg_pipe.io.embed import version_for
from cellseg_pipe.io.levels import choose_version, level_factors, level_grid
from cellseg_pipe.io.ngff import Version
from cellseg_pipe.io.opening import OpenImage, open_image
from cellseg_pipe.io.regions import region_identity
from cellseg_pipe.nets._info import stored_info
from cellseg_pipe.nets.catalog import SAM_PREFIX, load_model, resolve
from cellseg_pipe.paths import RunPaths, StagePaths
from cellseg_pipe.segmentation.plan import mode_of
from cellseg_pipe.segmentation.settings import Settings
from cellseg_pipe.stages._digests import GROUP, OF_CLASSES, OF_NETWORKS, own_digests
from cellseg_pipe.stages._hashes import hash_of
from cellseg_pipe.stages.growth import Growth, growth_of
from cellseg_pipe.stages.relation import Relation
from cellseg_pipe.tiles import Grid

__all__ = [
    "UnitRun",
    "unit_of_image",
]

# One job each of so many voxels of level 0, if the experiment does not say how many jobs.
BATCH_VOXELS = {"predict": 1 << 26, "masks": 1 << 27, "paint": 1 << 28}
# Every job of masks waits for all of predict: 7,000 and 4,000 of a terabyte are 28 million pairs.
MOST_JOBS = 512
OF_CLASS = re.compile(rf"({'|'.join(OF_CLASSES)})(\d+)")
READ_WHOLE_BYTES = 1 << 28  # an image that can only be read whole is copied from this size on
PAINT_PX = {"2d": (2048, 2048), "planes": (128, 1024, 1024), "3d": (128, 256, 256)}
PAINT_PX["series"] = (4, 2048, 2048)  # shards of planes


@dataclass(frozen=True)
class UnitRun:
    """A unit with its image and where its files are.

    Parameters
    ----------
    unit : Unit
        Image and target.
    experiment : Experiment
        What the unit is of.
    chosen : UnitSettings
        How it is segmented.
    image : OpenImage
        The image.
    run : RunPaths
        Where all files of the run are.
    network_ndim : int
        Axes of the network.
    sources : tuple of UnitRun
        Units from whose labels its own are made, first the one that gives the ids; none where a
        network makes them.
    growth : Growth, optional
        How far the labels of its source are grown.
    part : int, optional
        Which class of diameters is meant, of a unit that is seen at several.
    """

    unit: Unit
    experiment: Experiment
    chosen: UnitSettings
    image: OpenImage
    run: RunPaths
    network_ndim: int
    sources: tuple[UnitRun, ...] = ()
    growth: Growth | None = None
    part: int | None = None

    @property
    def name(self) -> str:
        """Name of the unit."""
        return self.unit.name

    @property
    def origin(self) -> UnitRun:
        """The unit whose network found the cells: this one, or the one that gives its ids."""
        return self.sources[0].origin if self.sources else self

    @cached_property
    def parts(self) -> tuple[UnitRun, ...]:
        """The same for each class of diameters; none where there is one for all."""
        n_classes = self.chosen.settings.get("diameter_classes", 1)
        if n_classes == 1 or self.sources or self.part is not None:
            return ()
        return tuple(dataclasses.replace(self, part=number) for number in range(n_classes))

    @cached_property
    def whole(self) -> UnitRun:
        """The unit that this is a class of, or itself."""
        return self if self.part is None else dataclasses.replace(self, part=None)

    def named(self, stage: str) -> tuple[UnitRun, str]:
        """Return whose a stage is, and what it is called there.

        Parameters
        ----------
        stage : str
            Its name, with a number if it is that of a class of diameters.

        Returns
        -------
        UnitRun
            This unit, or one of its classes.
        str
            Without the number of a class.
        """
        match = OF_CLASS.fullmatch(stage)
        return (self.parts[int(match[2]) - 1], match[1]) if match else (self, stage)

    @cached_property
    def relation(self) -> Relation | None:
        """What relates this unit to another one of its image, where the experiment asks for it."""
        said = self.experiment.relate
        if said is None or self.unit.target not in (said.nuclei, said.cells):
            return None
        if self.unit.target == said.nuclei:
            return Relation(nuclei=self, cells=self.sibling(said.cells))
        return Relation(nuclei=self.sibling(said.nuclei), cells=self)

    def sibling(self, target: str) -> UnitRun:
        """Return another unit of the same image.

        Parameters
        ----------
        target : str
            Of that unit.

        Returns
        -------
        UnitRun
            The unit.
        """
        unit = unit_of(self.experiment, self.unit.image, target)
        return unit_of_image(self.experiment, unit, self.image)

    @property
    def spacing_um(self) -> tuple[float, ...] | None:
        """Size of a voxel: what the experiment says, else the file."""
        given = self.unit.image.spacing_um
        return tuple(given) if given is not None else self.image.spacing_um

    @property
    def n_voxels(self) -> int:
        """Voxels of the image, of one channel."""
        return math.prod(self.image.shape)

    @property
    def needs_copy(self) -> bool:
        """Whether the image is large and can only be read as a whole."""
        n_bytes = self.n_voxels * self.image.voxel_bytes
        return not self.image.in_place and n_bytes > READ_WHOLE_BYTES

    @property
    def copy(self) -> Path:
        """Where the copy of such an image is."""
        return self.stage("prepare").root / "image.ome.zarr"

    @cached_property
    def pixels(self) -> OpenImage:
        """What pixels are read from: the image, or its copy."""
        return open_image(self.copy) if self.needs_copy else self.image

    @cached_property
    def mode(self) -> str:
        """How the image is seen."""
        known = {k: v for k, v in self.chosen.settings.items() if k in ("mode", "anisotropy")}
        spacing = self.spacing_um
        if spacing is not None and len(spacing) == 3:
            known.setdefault("anisotropy", spacing[0] / spacing[-1])
        shape = self.image.shape
        return mode_of(Settings(**known), shape, self.network_ndim, series=self.is_series)

    @property
    def is_series(self) -> bool:
        """Whether the first axis of the image is time."""
        return self.image.spatial == "tyx"

    @property
    def is_chained(self) -> bool:
        """Whether cells of neighbouring planes are joined."""
        linked = self.chosen.settings.get("time_iou") is not None
        return self.mode == "planes" and (linked or not self.is_series)

    @property
    def paint_px(self) -> tuple[int, ...]:
        """Edges of a box that is painted at once."""
        return PAINT_PX["series" if self.is_series else self.mode]

    @property
    def look_mode(self) -> str:
        """Into which blocks quality control cuts the image."""
        return "series" if self.is_series else self.mode

    @property
    def n_space(self) -> int:
        """Axes of space."""
        return len(self.image.shape) - int(self.is_series)

    @cached_property
    def version(self) -> Version:
        """Of the OME-Zarr format of the labels."""
        output = self.experiment.output
        if output.ngff != "auto":
            return output.ngff
        of_image = version_for(self.unit.image.path) if output.into_image else None
        return of_image or choose_version(self.image.shape, self.n_space)

    @property
    def saves_restored(self) -> bool:
        """Whether the restored image is written: once, by the unit whose network sees it."""
        first = self.chosen.restore
        return first is not None and first.save and not self.sources and self.part is None

    @property
    def restored_version(self) -> Version:
        """Of the OME-Zarr format of the restored image, which has channels."""
        given = self.experiment.output.ngff
        if given != "auto":
            return given
        return choose_version(self.image.shape, self.n_space, self.image.n_channels)

    @property
    def restored_grid(self) -> Grid:
        """The boxes of the restored image that are written at once: wide, as windows are."""
        return Grid(self.image.shape, PAINT_PX["planes"] if self.mode == "3d" else self.paint_px)

    @property
    def n_levels(self) -> int:
        """Levels of the labels: as many as those of the image that they are added to."""
        if self.experiment.output.into_image:
            return self.image.n_levels
        return self.usual_levels

    @property
    def usual_levels(self) -> int:
        """Levels of labels that are a store of their own."""
        return len(level_factors(self.image.shape[-self.n_space :], self.label_spacing))

    @property
    def label_spacing(self) -> tuple[float, ...]:
        """Size of a voxel in the labels' metadata: 1 where nobody says it."""
        return self.spacing_um or (1.0,) * self.n_space

    @property
    def region_said(self) -> str | dict[str, Any] | None:
        """What the user says of the region; None for all of the image."""
        said = self.unit.image.region
        return said if said is None or isinstance(said, str) else said.model_dump(exclude_none=True)

    @cached_property
    def region_identity(self) -> Any:
        """What tells that the region is the same; None for all of the image."""
        return region_identity(self.region_said)

    @property
    def is_confined(self) -> bool:
        """Whether a region limits what is computed: elsewhere a cell depends on all tiles."""
        exact = self.experiment.stitch.seams == "exact"
        said = self.region_said is not None or self.part is not None
        return said and exact and self.mode != "planes"

    @cached_property
    def digests(self) -> dict[str, str]:
        """A hash for each group of stages: of its settings and of all upstream."""
        found, output = self.own_digests, self.experiment.output
        relation, said = self.relation, (output.into_image, output.export)
        related = [] if relation is None else [relation.digests]
        if relation is not None and relation.cells is self:
            found = found | relation.digests
        judged = hash_of(found["measure"], self.experiment.qc.model_dump(), *related)
        seen = [found["looked"]] if self.experiment.qc.maps else []
        seen += [found["restored"]] if self.saves_restored else []
        return found | {"judged": judged, "audit": hash_of(judged, said, self.name, *seen)}

    @cached_property
    def own_digests(self) -> dict[str, str]:
        """The hashes that other targets do not change."""
        return own_digests(self)

    @property
    def labels_digest(self) -> str:
        """The hash of this unit's labels."""
        return self.own_digests["labels"]

    @cached_property
    def batches(self) -> dict[str, int]:
        """Into how many jobs each stage is cut, which the size of the image decides."""
        voxels = self.n_voxels
        asked = self.experiment.tiles.batches
        return {
            stage: min(ceil_div(voxels, most), MOST_JOBS)
            if (n := getattr(asked, stage)) == "auto"
            else n
            for stage, most in BATCH_VOXELS.items()
        }

    def stage(self, stage: str) -> StagePaths:
        """Return the files of a stage.

        Parameters
        ----------
        stage : str
            Its name.

        Returns
        -------
        StagePaths
            Under the hash of the stage.
        """
        unit, stage = self.named(stage)
        if unit is not self:
            return unit.stage(stage)
        if self.sources and stage in OF_NETWORKS:
            return self.origin.stage(stage)
        if self.part is not None:
            if stage not in OF_CLASSES:
                return self.whole.stage(stage)
            digest = self.own_digests[GROUP.get(stage, stage)]
            return self.run.unit(self.name).stage(f"{stage}{self.part + 1}", digest)
        group = GROUP.get(stage, "labels" if stage.startswith("level") else stage)
        return self.run.unit(self.name).stage(stage, self.digests[group])

    def level_shards(self, level: int) -> int:
        """Return how many shards a level of the labels has.

        Parameters
        ----------
        level : int
            0 for the finest.

        Returns
        -------
        int
            Shards.
        """
        return len(self.level_grid(level))

    def level_grid(self, level: int) -> Grid:
        """Return the shards of a level of the labels.

        Parameters
        ----------
        level : int
            0 for the finest.

        Returns
        -------
        Grid
            In voxels of that level.
        """
        spacing, ndim = self.label_spacing, self.n_space
        return level_grid(self.image.shape, level, spacing_um=spacing, ndim=ndim)


def unit_of_image(experiment: Experiment, unit: Unit, image: OpenImage) -> UnitRun:
    """Return a unit of an image that is open.

    Parameters
    ----------
    experiment : Experiment
        What it is of.
    unit : Unit
        Which one.
    image : OpenImage
        Its image.

    Returns
    -------
    UnitRun
        The unit.
    """
    if unit.sources:
        sources = tuple(
            unit_of_image(experiment, unit_of(experiment, unit.image, target), image)
            for target in unit.sources
        )
        return made_from(sources, unit)
    chosen = settings_of(experiment, unit.image, unit.target)
    ndim = _ndim_of(chosen.model)
    return UnitRun(unit, experiment, chosen, image, RunPaths(Path(experiment.output.dir)), ndim)


def made_from(sources: tuple[UnitRun, ...], unit: Unit) -> UnitRun:
    """Return a unit whose labels are made from those of others.

    Parameters
    ----------
    sources : tuple of UnitRun
        First the one that gives the ids.
    unit : Unit
        What it is.

    Returns
    -------
    UnitRun
        The unit.
    """
    made = dataclasses.replace(sources[0], unit=unit, sources=sources, growth=None)
    if len(sources) > 1:
        return made
    anisotropy = made.chosen.anisotropy
    said = made.experiment.targets[unit.target]
    growth = growth_of(
        said, unit.name, mode=made.mode, spacing_um=made.spacing_um, anisotropy=anisotropy
    )
    return dataclasses.replace(made, growth=growth)


def _ndim_of(model: str) -> int:
    if model.startswith(SAM_PREFIX):
        return 2
    path = resolve(model)
    return _stored_ndim(path, os.stat(path).st_mtime_ns)


@cache
def _stored_ndim(path: Path, _written: int) -> int:
    info = stored_info(path) or load_model(path).info
    return info.architecture.ndim
