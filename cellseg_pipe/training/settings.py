"""What a user may set for a training run, checked as it is made; numbers and words only."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

__all__ = ["Augmentation", "Data", "Network", "Reading", "Recipe", "Restore", "TrainingPlan"]

# Strict: YAML's `yes` is no number, nor is "5".
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e12, le=1e12)]
Weight = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1e6)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=1e6)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Whole = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
Switch = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Range = tuple[Number, Number]
STRICT = ConfigDict(extra="forbid")
WIDTHS = (16, 32, 64, 128)
DIAMETER_PX = 18.0
CHANNELS = ("main", "second (optional)")
LEARNING_RATE, FINE_TUNING_RATE = 2e-3, 5e-4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """Where the images are.

    Parameters
    ----------
    root : str or list of str
        Folders that hold the files; relative to the configuration.
    manifest : str, optional
        CSV of pairs; without it the folder's own files are paired by their names.
    image_suffix, labels_suffix : str
        How they are paired.
    cache : str, optional
        Folder of prepared images.
    licences : dict of str to str
        Licence of each set, for the model card.
    draw : dict of str to float
        How many times as often as else a set is drawn: sets that are harder to learn.
    """

    root: Text | list[Text] = "."
    manifest: Text | None = None
    image_suffix: str = "_img"
    labels_suffix: str = "_masks"
    cache: Text | None = None
    licences: dict[str, str] = field(default_factory=dict)
    draw: dict[str, Positive] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Network:
    """What is trained.

    Parameters
    ----------
    name : str
        What the model will be called.
    start : str, optional
        Name or file of a model to begin with, ours or the peer's; a fresh network by default.
    widths : tuple of int, optional
        Of a fresh network.
    diameter_px : float, optional
        Diameter that cells are brought to; that of the start, or 18.
    channels : tuple of str, optional
        What the inputs mean; as in the start.
    licence : str
        Of the weights.
    target : {"flow", "three-classes"}
        What is learned: flow and foreground, or interior, boundary and background.
    boundary_px : int
        How many pixels deep the boundary of a cell is, with three classes.
    classes : tuple of str
        Names of what cells may be.
    class_weights : tuple of float, optional
        How much each class counts, those of cells or the three; 1 by default.
    """

    name: Text
    start: Text | None = None
    widths: tuple[Count, ...] | None = None
    diameter_px: Positive | None = None
    channels: tuple[Text, ...] | None = None
    licence: str = ""
    target: Literal["flow", "three-classes"] = "flow"
    boundary_px: Count = 2
    classes: tuple[Text, ...] = ()
    class_weights: tuple[Positive, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        n_classes = 3 if self.target == "three-classes" else len(self.classes)
        if self.target == "three-classes" and self.classes:
            raise ValueError(
                "needs either target: three-classes or classes of cells, got both. The three are"
                " interior, boundary and background."
            )
        if len(self.classes) == 1:
            raise ValueError("needs two classes or more, got one: every cell would be of it.")
        if self.class_weights is not None and len(self.class_weights) != n_classes:
            raise ValueError(
                f"needs a class_weights entry for each of {n_classes} classes, got"
                f" {len(self.class_weights)}."
            )
        if self.start is not None and self.widths is not None:
            raise ValueError("needs either start or widths, got both. The start has its widths.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reading:
    """How pairs are read.

    Parameters
    ----------
    n_inputs : int
        Of the network; follows from its channels.
    percentiles : tuple of float
        Of the grey values, those that become 0 and 1.
    min_objects : int
        Images with fewer are left out, and that is said; 0 keeps those without any.
    ignore_label : int, optional
        Label of what nobody annotated.
    """

    n_inputs: Count = 2
    percentiles: Range = (1.0, 99.0)
    min_objects: Whole = 0
    ignore_label: Annotated[int, Field(strict=True)] | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Augmentation:
    """What is done to crops, and how often.

    Parameters
    ----------
    crop_px : int
        Edge of a crop.
    margin_px : int
        Labels are drawn this much beyond the crop, so that a cell which the crop cuts keeps its
        centre; the image's own border is where cells end.
    scale_octaves : float
        Cells are drawn up to this many octaves larger or smaller than the network's diameter.
    rotate : bool
        By any angle; else by none.
    gamma, gain, offset : tuple of float
        Ranges of what is done to grey values.
    blur_px : tuple of float
        Range of the sigma of a blur.
    photons : tuple of float
        Range of the photons at full brightness of Poisson noise.
    noise : tuple of float
        Range of the sigma of gaussian noise.
    p_blur, p_poisson, p_noise, p_invert, p_drop : float
        How often; drop leaves out the second and further inputs.
    p_empty : float
        How often a crop shows only noise, without any cell.
    """

    crop_px: Count = 160
    margin_px: Whole = 32
    scale_octaves: Annotated[float, Field(strict=True, ge=0, le=4)] = 0.8
    rotate: Switch = True
    gamma: Range = (0.6, 1.6)
    gain: Range = (0.6, 1.5)
    offset: Range = (-0.1, 0.1)
    blur_px: Range = (0.4, 1.5)
    photons: Range = (5.0, 200.0)
    noise: Range = (0.01, 0.12)
    p_blur: Share = 0.3
    p_poisson: Share = 0.3
    p_noise: Share = 0.3
    p_invert: Share = 0.1
    p_drop: Share = 0.2
    p_empty: Share = 0.02


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    steps : int
        How many.
    batch : int
        Crops in each.
    learning_rate : float, optional
        Highest rate; 2e-3, or 5e-4 from a model that was trained before.
    warmup_steps : int
        Steps in which it rises from 0.
    decay_steps : int, optional
        Steps at the end in which it falls to 0 as a cosine; all after the rise by default.
    weight_decay : float
        Of AdamW.
    clip_norm : float
        Longest gradient.
    ema : float
        How much of the mean of weights is kept at each step.
    precision : {"fp32", "bf16"}
        Of the maps; losses and weights are float32.
    seed : int
        Another seed, other crops and other first weights.
    checkpoint_every, evaluate_every : int
        Steps between them.
    workers : int
        Threads that draw crops ahead.
    """

    steps: Count
    batch: Count = 8
    learning_rate: Positive | None = None
    warmup_steps: Whole = 100
    decay_steps: Whole | None = None
    weight_decay: Share = 1e-4
    clip_norm: Positive = 1.0
    ema: Share = 0.998
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: Whole = 0
    checkpoint_every: Count = 250
    evaluate_every: Count = 1000
    workers: Count = 1

    @property
    def highest_rate(self) -> float:
        """The learning rate, that of a fresh network where none is given."""
        return LEARNING_RATE if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Restore:
    """What a network that restores images learns; without this section one learns to segment.

    Parameters
    ----------
    kind : {"denoise", "deblur", "upsample", "one-click", "aniso"}
        How images are made worse: few photons; blur; large pixels; any of these; large pixels along
        one axis.
    segmenter : str
        Name or file of the model that restored images are for; it is frozen.
    perceptual, segmentation, reconstruction, statistics : float
        How much its maps, its answer, the grey values, and their mean and percentiles count.
    photons : tuple of float
        At full brightness, of the noisy images that evaluations restore.
    """

    kind: Literal["denoise", "deblur", "upsample", "one-click", "aniso"] = "one-click"
    segmenter: Text = "nuclei"
    perceptual: Weight = 1.0
    segmentation: Weight = 1.5
    reconstruction: Weight = 1.0
    statistics: Weight = 1.0
    photons: tuple[Positive, ...] = (2.0, 8.0)

    def __post_init__(self) -> None:
        """Refuse a loss of nothing, and evaluations of nothing."""
        if not any(self.weights.values()):
            raise ValueError(f"needs one of these above 0: {', '.join(self.weights)}.")
        if not self.photons:
            raise ValueError("needs photons: a number or more.")

    @property
    def weights(self) -> dict[str, float]:
        """The parts of the loss, each with how much it counts."""
        parts = ("perceptual", "segmentation", "reconstruction", "statistics")
        return {name: getattr(self, name) for name in parts}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingPlan:
    """A configuration file.

    Parameters
    ----------
    output : str
        Folder of the run.
    data : Data
        Images.
    network : Network
        What is trained.
    recipe : Recipe
        The loop.
    reading : Reading
        How images are read.
    augmentation : Augmentation
        What is done to them.
    evaluate_images : int
        Images of each set that are looked at in evaluations, at most.
    test : bool
        Whether the best model is scored on the images of the split `test` at the end.
    size : bool
        Whether the regression from style to diameter is fitted at the end.
    restore : Restore, optional
        Train a network that restores images instead of one that segments them.
    """

    output: Text
    data: Data
    network: Network
    recipe: Recipe
    reading: Reading = field(default_factory=Reading)
    augmentation: Augmentation = field(default_factory=Augmentation)
    evaluate_images: Count = 8
    test: Switch = True
    size: Switch = False
    restore: Restore | None = None

    def __post_init__(self) -> None:
        """Refuse what a network that restores does not have."""
        if self.restore is None:
            return
        network = self.network
        if self.size or network.target != "flow" or network.classes or network.channels:
            raise ValueError(
                "needs no size, target, classes or channels beside restore: such a network sees one"
                " channel at a time, and answers with it."
            )
