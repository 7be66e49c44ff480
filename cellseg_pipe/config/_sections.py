"""The sections of an experiment file with their defaults; how they fit together is in `_rules`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from cellseg_pipe.config._kinds import (
    Auto,
    ChannelNumber,
    ClusterName,
    Count,
    Edges,
    Factor,
    Folder,
    Length,
    ModelName,
    NgffVersion,
    Number,
    Pixels,
    Place,
    Reach,
    Section,
    Share,
    Sigma,
    Size,
    Switch,
    Text,
    Zoom,
)

__all__ = [
    "Batches", "Channels", "Dask", "Drop", "Flag", "Measure", "Normalise", "Output", "Qc", "Region",
    "RegionPart", "Relate", "Resources", "Segment", "Stitch", "Target", "Tiles",
]  # fmt: skip

METHODS = ("global", "local", "off")
Words = Annotated[str, Field(strict=True)]
Inputs = Annotated[tuple[ChannelNumber | Words | None, ...], Field(min_length=1, max_length=64)]
Channels = ChannelNumber | Text | Inputs
Method = Annotated[
    Literal["global", "local", "off"],
    # YAML reads a bare `off` as false.
    BeforeValidator(lambda value: "off" if value is False else value),
    WithJsonSchema({"enum": [*METHODS, False]}),
]
Portion = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Voxels = Annotated[int, Field(strict=True, ge=1, le=1 << 40)]
Pair = Annotated[tuple[Number, Number], Field(description="Lower and upper value.")]


Corner = Annotated[tuple[Number, ...], Field(min_length=2, max_length=3)]
Corners = Annotated[
    tuple[Corner, ...], Field(min_length=2, max_length=2, description="Lower and upper corner.")
]


class RegionPart(Section):
    """A part of an image: one of file, box_px and box_um."""

    file: Place | None = None
    """Outlines in GeoJSON, as QuPath writes them, or a mask image of any resolution."""
    box_px: Corners | None = None
    """Lower and upper corner, each z, y, x or y, x, in pixels."""
    box_um: Corners | None = None
    """The same in micrometres."""
    name: Text | None = None
    """What the table calls it, instead of the names in the file or a number."""


class Region(RegionPart):
    """Where cells are meant: one part, or what is included, less what is excluded."""

    include: tuple[Place | RegionPart, ...] = ()
    """Parts that are meant; all of the image if there are none. The first one names a cell."""
    exclude: tuple[Place | RegionPart, ...] = ()
    """Parts that are not."""


class Output(Section):
    """Where results go, and as what."""

    dir: Folder
    """Folder of all results; relative to the working directory."""
    ngff: NgffVersion = "auto"
    """Version of OME-Zarr; auto: 0.4, which every viewer reads, and 0.5 for very large labels."""
    into_image: Switch = False
    """Add the labels to the image's own store too, if it has none of that name."""
    export: tuple[Literal["csv", "geojson"], ...] = ()
    """Further files of the cells: csv is the table, geojson outlines of an image (no volume)."""


class Target(Section):
    """One kind of thing to find."""

    model: ModelName = "nuclei"
    """Name or file of a model."""
    side_model: ModelName | None = None
    """Another model for the views along y and x of a volume, mode 3d."""
    channels: Channels | None = None
    """What the model's inputs take: numbers from 0, names, grey, hematoxylin, eosin, dab; null in
    a list for an empty input. null: the only channel, or all if there are as many as inputs."""
    diameter_um: Auto | Length = "auto"
    """Diameter of a typical cell in micrometres; auto measures it on samples of each image."""
    diameter_px: Auto | Length = "auto"
    """The same in pixels, for images that do not tell the size of a pixel."""
    diameter_by: Literal["samples", "style"] = "samples"
    """How auto measures: samples at several scales, or by the model's regression on its style."""
    diameter_classes: Annotated[int, Field(strict=True, ge=1, le=4)] = 1
    """Where cells of the parts of an image differ in size: up to so many diameters are measured,
    and each part is seen at its own. 1: one for all."""
    expand: Text | None = None
    """Name of another target whose labels are grown, instead of running a model: whole cells from
    a stain of nuclei. Ids are those of that target."""
    expand_um: Length | None = None
    """How far they are grown in micrometres; where two meet, each pixel has the nearer label."""
    expand_px: Length | None = None
    """The same in pixels, along z too in these units."""


class Relate(Section):
    """Two targets whose labels are related: which nucleus belongs to which cell."""

    nuclei: Text
    """Name of the target that finds nuclei."""
    cells: Text
    """Name of the target that finds whole cells."""
    min_overlap: Share = 0.5
    """Least share of a nucleus that lies in its cell."""
    cytoplasm: Switch = True
    """Measure sizes and intensities of nucleus and cytoplasm of each cell."""
    labels: Switch = False
    """Make label images of the cytoplasm too, with a table, as if it were a target."""


class Segment(Section):
    """From the network's answer to cells."""

    mode: Literal["auto", "2d", "planes", "3d"] = "auto"
    """How a volume is seen: plane by plane with cells joined through z, or from three sides. auto:
    3d unless its planes are far apart."""
    cellprob_threshold: Number = 0.0
    """Logit above which a pixel is in a cell: lower finds more and larger cells."""
    flow_threshold: Factor | None = 0.4
    """Cells with a larger flow error are dropped: higher keeps more; null or 0 keeps all."""
    min_size_px: Size = 15
    """Smallest area or volume of a cell in pixels."""
    max_size_px: Voxels | None = None
    """Largest area or volume of a cell in pixels; null for no limit."""
    niter: Auto | Count = "auto"
    """Steps along the flow; more for long, thin cells. auto: 200 at the network's scale."""
    following: Literal["fast", "exact"] = "fast"
    """How pixels follow the flow: fast gives the same cell for 99.99 % of them."""
    sampling: Literal["linear", "nearest"] = "linear"
    """How the flow is read between pixels."""
    reach_px: Auto | Reach | Annotated[tuple[Reach, ...], Field(min_length=2, max_length=3)] = (
        "auto"
    )
    """How far from its centre a cell may extend, one number or one per axis; tiles overlap by more
    than twice of it. auto: two diameters."""
    resample: Switch = True
    """Follow the flow on the image's own grid; false: on the network's, coarser and faster."""
    fill: Switch = True
    """Fill holes in cells."""
    keep_border: Switch = True
    """Keep cells that touch the border of the image."""
    flow_smooth_px: Sigma = 0.0
    """Sigma of a gaussian over the flow, mode 3d: joins cells that fall apart."""
    augment: Switch = False
    """Average over mirror images of each window: slower by a factor of four."""
    anisotropy: Auto | Zoom = "auto"
    """Distance of planes over the size of a pixel; auto: from the image's voxel size."""


class Normalise(Section):
    """How grey values are brought to the range that the network knows."""

    method: Method = "global"
    """One range for the image, one per block, or none (values are 0 to 1 already)."""
    percentiles: Auto | Pair = "auto"
    """Percentiles of the sampled pixels that become 0 and 1; auto: those of the model."""
    range: Pair | None = None
    """Grey values that become 0 and 1, the same for all images, instead of percentiles."""
    local_px: Annotated[int, Field(strict=True, ge=16, le=1 << 20)] = 256
    """Edge of a block of method local."""
    invert: Switch = False
    """Cells are dark on bright ground."""
    smooth_px: Sigma = 0.0
    """Sigma of a gaussian that smooths the image first."""
    sharpen_px: Sigma = 0.0
    """Sigma of a gaussian that is taken away from the image first."""
    antialias: Switch = False
    """Smooth before an image is made smaller: for cells larger than the model's."""


class Batches(Section):
    """Into how many jobs the stages are cut."""

    predict: Auto | Count = "auto"
    """Jobs that run the network."""
    masks: Auto | Count = "auto"
    """Jobs that find cells in tiles."""
    paint: Auto | Count = "auto"
    """Jobs that write labels."""
    bundles: Auto | Count = "auto"
    """Jobs that segment many small images each."""


class Tiles(Section):
    """How an image is cut; the labels do not depend on it."""

    core_px: Auto | Annotated[int, Field(strict=True, ge=1, le=1 << 20)] | Edges = "auto"
    """Edge of the part that a tile answers for, one number or one per axis; auto: what fits into
    `resources.memory_gb` when tiles are planned."""
    halo_px: Auto | Pixels | Edges = "auto"
    """What a tile reads beyond that part; auto: as much as makes tiles exact."""
    window_px: Auto | Annotated[int, Field(strict=True, ge=64, le=8192)] = "auto"
    """Edge of the network's windows; auto: what the model wants, or 512."""
    overlap_px: Annotated[int, Field(strict=True, ge=0, le=4096)] = 48
    """What neighbouring windows share."""
    bundle_px: Auto | Size = "auto"
    """Pixels of the largest image that is segmented whole, one job taking many of them; auto:
    2048 x 2048, where there are 16 or more such images; 0: none."""
    batches: Batches = Batches()
    """Into how many jobs the stages are cut; auto: by the predicted time."""


class Stitch(Section):
    """How cells are joined."""

    seams: Literal["exact", "iou"] = "exact"
    """exact: as if the image had not been cut. iou: link tiles by overlap, for cells wider than a
    halo can be."""
    seam_iou: Share = 0.5
    """Least overlap (IoU) of two views of a cell, seams iou."""
    plane_iou: Share = 0.25
    """Least overlap (IoU) of cells in neighbouring planes, mode planes."""
    time_iou: Share | None = None
    """Least overlap (IoU) of a cell with itself at the next time of a series; null: cells of
    different times are not linked."""


class Measure(Section):
    """What is measured of each cell, beside its place, size and scores."""

    channels: Literal["all"] | tuple[ChannelNumber | Text, ...] = "all"
    """Channels whose pixels are measured: numbers from 0 or names; [] for none."""
    shape: Switch = True
    """Axes, orientation, hull, perimeter or surface, Euler number."""
    intensity: Switch = True
    """Mean, standard deviation, least and largest value of each channel."""
    quantiles: Annotated[tuple[Portion, ...], Field(max_length=100)] = (0.05, 0.5, 0.95)
    """Quantiles of each channel, from 0 to 1; not where parts of cells are added up (mode planes,
    seams iou)."""
    ring_px: Annotated[int, Field(strict=True, ge=0, le=256)] = 0
    """Width of the background round each cell whose mean is measured, without other cells; 0 for
    none."""
    texture: Switch = False
    """How much neighbouring pixels of a cell differ, in each channel."""
    outlines: Switch = False
    """Write outlines.parquet: the shape of each cell, in a volume plane by plane."""


class Limits(Section):
    """What a cell must keep to."""

    min_confidence: Portion = 0.0
    """Cells of lower confidence break this rule."""
    min_probability: Portion = 0.0
    """Cells of lower probability."""
    max_flow_error: Factor | None = None
    """Cells of larger flow error."""
    min_agreement: Portion | None = None
    """Cells on which windows that overlap, or views, agree less; not those that are seen once."""
    min_size_px: Voxels | None = None
    """Cells of smaller area or volume in pixels."""
    max_size_px: Voxels | None = None
    """Cells of larger area or volume in pixels."""
    min_diameter_um: Length | None = None
    """Cells of smaller diameter in micrometres."""
    max_diameter_um: Length | None = None
    """Cells of larger diameter in micrometres."""


class Flag(Limits):
    """Which cells are marked in the table; none is removed."""

    border: Literal["keep", "flag"] = "keep"
    """Whether cells that touch the border of the image are marked."""


class Drop(Limits):
    """Which cells the table calls dropped; qc.labels leaves them out."""

    border: Literal["keep", "drop"] = "keep"
    """Whether cells that touch the border of the image are dropped."""


class Qc(Section):
    """Quality control."""

    maps: Switch = True
    """Look at the image and at seams block by block, which reads the image once more."""
    flag: Flag = Flag()
    """Which cells are marked."""
    drop: Drop = Drop()
    """Which cells are called dropped; labels.ome.zarr keeps them."""
    labels: Switch = False
    """Write a second label image, labels-qc.ome.zarr, without dropped cells."""


class Evaluate(Section):
    """Truth that results are scored against."""

    truth: Text
    """Folder of label files that are called as the images; of one image also its file or store."""
    pattern: Text = "*"
    """Which files of the folder."""
    thresholds: Annotated[tuple[Share, ...], Field(min_length=1)] = (
        *(0.5, 0.55, 0.6, 0.65, 0.7),
        *(0.75, 0.8, 0.85, 0.9, 0.95),
    )
    """Least overlap (IoU) of a match."""
    ignore_label: Annotated[int, Field(strict=True)] | None = None
    """Label of what nobody annotated."""
    boundary_px: Length | None = None
    """Greatest distance of outlines that agree; null: outlines are not scored."""


class Resources(Section):
    """What jobs run on; the labels depend on precision and numerics alone."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto: on a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type of the network's maps; fp32 gives the same bits on more machines."""
    numerics: Literal["strict", "relaxed"] = "strict"
    """strict: a job stops on a machine whose arithmetic differs from that of the plan."""
    threads: Auto | Annotated[int, Field(strict=True, ge=1, le=4096)] = "auto"
    """Threads of a job; auto: all that it may use."""
    memory_gb: Auto | Annotated[float, Field(strict=True, gt=0, le=1e5, allow_inf_nan=False)] = 3.0
    """What one job may take; a plan that needs more is refused. auto: what the machine has."""
    disk: Literal["strict", "relaxed"] = "strict"
    """strict: a run is refused that is predicted not to fit on the disk or into the quota."""


class Dask(Section):
    """Where the engine dask has its workers; their threads and memory are those of resources."""

    cluster: ClusterName = "local"
    """local: processes of this machine; slurm: a Slurm job each; or the address of a scheduler."""
    workers: Auto | Count = "auto"
    """Processes that work; auto: one per GPU or core of this machine, as far as memory allows."""
    partition: Text | None = None
    """Of Slurm; null: that of the site."""
    account: Text | None = None
    """Of Slurm; null: that of the site."""
    walltime_minutes: Auto | Annotated[int, Field(strict=True, ge=10, le=100_000)] = "auto"
    """Of a worker's Slurm job; auto: that of the site, or 240. The next job goes on."""
    interface: Text | None = None
    """Network between machines, as ib0; null: that of this machine's name."""
    dashboard: Switch = True
    """Show the work on a web page of this machine alone; runs/dashboards says where."""
