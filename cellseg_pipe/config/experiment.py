"""The experiment as a whole: images, targets and sections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from cellseg_pipe.config import _rules
from cellseg_pipe.config._kinds import Auto, ChannelNumber, Command, Length, Place, Section, Text
from cellseg_pipe.config._problems import RuleError
from cellseg_pipe.config._restoring import Restore
from cellseg_pipe.config._sections import (
    Channels,
    Dask,
    Evaluate,
    Measure,
    Normalise,
    Output,
    Qc,
    Region,
    Relate,
    Resources,
    Segment,
    Stitch,
    Target,
    Tiles,
)
from cellseg_pipe.config._yaml import Source

__all__ = ["Experiment", "ImageEntry"]


class ImageEntry(Section):
    """An image, or a folder or pattern of several, with what is set for it alone."""

    path: Place
    """File, OME-Zarr store, URL (http, https, s3), folder, or pattern such as data/*.tif."""
    name: Text | None = None
    """Name of the image's results; by default that of the file without its ending."""
    channels: Channels | None = None
    """Channels of this image, instead of those of the target."""
    axes: Text | None = None
    """A letter per axis of the file, out of t, c, z, y, x, where it says nothing or is wrong."""
    series: ChannelNumber = 0
    """Which image of a file that holds several."""
    region: Place | Region | None = None
    """Where the cells are that are meant: a file of outlines or a mask, or parts of the image."""
    spacing_um: Annotated[tuple[Length, ...], Field(min_length=2, max_length=3)] | None = None
    """Size of a voxel along z, y, x (or y, x), where the file does not tell or is wrong."""
    diameter_um: Auto | Length | None = None
    """Diameter of a typical cell of this image in micrometres."""
    diameter_px: Auto | Length | None = None
    """The same in pixels."""
    segment: Segment | None = None
    """Keys of segment that differ for this image."""
    normalise: Normalise | None = None
    """Keys of normalise that differ for this image."""


class Experiment(Section):
    """What is segmented, and how."""

    images: Annotated[tuple[ImageEntry, ...], Field(min_length=1)]
    """Images to segment."""
    output: Output
    """Where results go, and as what."""
    targets: Annotated[dict[str, Target], Field(min_length=1)] = {"nuclei": Target()}
    """What to find, by a name of your choice."""
    relate: Relate | None = None
    """Two targets whose labels are related: which nucleus belongs to which cell."""
    segment: Segment = Segment()
    """From the network's answer to cells."""
    restore: Restore | None = None
    """What takes noise and blur from images before a network sees them; nothing by default."""
    normalise: Normalise = Normalise()
    """How grey values are brought to the range that the network knows."""
    tiles: Tiles = Tiles()
    """How an image is cut; the labels do not depend on it."""
    stitch: Stitch = Stitch()
    """How cells are joined."""
    measure: Measure = Measure()
    """What is measured of each cell."""
    qc: Qc = Qc()
    """Quality control."""
    resources: Resources = Resources()
    """What jobs run on."""
    evaluate: Evaluate | None = None
    """Truth that results are scored against."""
    engine: Literal["process", "snakemake", "dask"] = "snakemake"
    """What spreads the work: one process, jobs of Snakemake, or dask."""
    dask: Dask = Dask()
    """Where the engine dask has its workers."""
    on_finish: Command | None = None
    """Command that is run when a run has ended, well or not; it gets the path of summary.json."""

    _source: Source = PrivateAttr(default_factory=Source)

    @model_validator(mode="before")
    @classmethod
    def _without_targets_is_nuclei(cls, value: Any) -> Any:
        if isinstance(value, dict) and "targets" in value and value["targets"] is None:
            return {key: item for key, item in value.items() if key != "targets"}
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if found := _rules.broken(self):
            raise RuleError(found)
        return self
