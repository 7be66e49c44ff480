"""What a user may set for one image, checked before any work; numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cellseg_pipe.kernels.follow import Mode as Following
from cellseg_pipe.kernels.follow import Sampling

__all__ = ["CELL_SETTINGS", "Mode", "Settings", "check_given"]

Mode = Literal["auto", "2d", "planes", "3d"]
DiameterBy = Literal["samples", "style"]
Normalise = Literal["global", "local", "off"]
MOST_CLASSES = 4
# What the network's answer does not depend on.
CELL_SETTINGS = (
    "cellprob_threshold",
    "flow_threshold",
    "min_size_px",
    "max_size_px",
    "niter",
    "following",
    "sampling",
    "reach_px",
    "resample",
    "fill",
    "keep_border",
    "flow_smooth_px",
    "stitch_threshold",
    "time_iou",
)
CHOICES = {
    "mode": get_args(Mode),
    "normalise": get_args(Normalise),
    "diameter_by": get_args(DiameterBy),
    "following": get_args(Following),
    "sampling": get_args(Sampling),
}
# name: (lowest, whether the lowest itself is allowed)
LOWEST = {
    "diameter_px": (0, False),
    "anisotropy": (0, False),
    "smooth_px": (0, True),
    "sharpen_px": (0, True),
    "flow_smooth_px": (0, True),
    "min_size_px": (0, True),
    "max_size_px": (1, True),
    "niter": (1, True),
    "flow_threshold": (0, True),
    "local_px": (16, True),
    "window_px": (64, True),
    "overlap_px": (0, True),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one image is segmented.

    Parameters
    ----------
    channels : int, str or sequence of these, optional
        What the network's inputs take: numbers from 0, names, "grey", "hematoxylin", "eosin",
        "dab"; None in a sequence for an input of zeros.
    mode : {"auto", "2d", "planes", "3d"}
        How a volume is seen: plane by plane with cells joined through Z, or from three sides.
        "auto" is "2d" for an image, and "3d" for a volume unless it is very anisotropic.
    diameter_px : float, optional
        Diameter of a typical cell along the axes y, x; measured if it is not given.
    diameter_by : {"samples", "style"}
        How it is measured: samples are segmented at several scales, or at the one that a regression
        on the network's style suggests, where the model has one.
    diameter_classes : int
        Where the parts of an image differ, up to so many diameters are measured, each part is seen
        at its own, and cells along their borders are joined; from 1, one for all, to 4.
    anisotropy : float
        Distance of planes over the edge of a pixel.
    normalise : {"global", "local", "off"}
        Whether grey values are brought to 0 .. 1 over the whole image, in blocks, or not at all.
    percentiles : tuple of float, optional
        Which of the sampled pixels become 0 and 1; those of the model by default.
    value_range : tuple of float, optional
        Grey values that become 0 and 1, instead of percentiles.
    local_px : int
        Edge of a block of the local normalisation.
    invert : bool
        Dark cells on bright ground.
    smooth_px, sharpen_px : float
        Sigma of the gaussian that smooths, and of the one that is taken away, before normalising.
    antialias : bool
        Smooth before the image is made smaller.
    augment : bool
        Average over the mirror images of each window.
    window_px, overlap_px : int
        Edge of the network's windows, and what neighbours share.
    cellprob_threshold : float
        Logit above which a pixel is in a cell.
    flow_threshold : float or None
        Cells with a larger flow error are dropped; None or 0 keeps all.
    min_size_px, max_size_px : int, optional
        Smallest and largest area (volume) of a cell.
    niter : int, optional
        Steps along the flow; by default 200 at the network's scale.
    following : {"fast", "exact"}
        How particles follow the flow.
    sampling : {"linear", "nearest"}
        Where particles read it.
    reach_px : int or sequence of int, optional
        How far from its centre a cell may extend, per axis; twice the diameter by default.
    resample : bool
        Follow the flow on the image's own grid; else on the network's.
    fill : bool
        Whether cells get the background that they enclose.
    keep_border : bool
        Whether cells that touch the border of the image are kept.
    flow_smooth_px : float
        Sigma of a gaussian over the flow, in 3D.
    stitch_threshold : float
        IoU above which cells of neighbouring planes are one, in mode planes.
    time_iou : float or None
        Likewise of neighbouring times of a series; None to link none.
    """

    channels: int | str | None | Sequence[int | str | None] = None
    mode: Mode = "auto"
    diameter_px: float | None = None
    diameter_by: DiameterBy = "samples"
    diameter_classes: int = 1
    anisotropy: float = 1.0
    normalise: Normalise = "global"
    percentiles: tuple[float, float] | None = None
    value_range: tuple[float, float] | None = None
    local_px: int = 256
    invert: bool = False
    smooth_px: float = 0.0
    sharpen_px: float = 0.0
    antialias: bool = False
    augment: bool = False
    window_px: int = 512
    overlap_px: int = 48
    cellprob_threshold: float = 0.0
    flow_threshold: float | None = 0.4
    min_size_px: int = 15
    max_size_px: int | None = None
    niter: int | None = None
    following: Following = "fast"
    sampling: Sampling = "linear"
    reach_px: int | Sequence[int] | None = None
    resample: bool = True
    fill: bool = True
    keep_border: bool = True
    flow_smooth_px: float = 0.0
    stitch_threshold: float = 0.25
    time_iou: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} needs to be one of {', '.join(choices)}, got {value!r}.")
        for name, (low, included) in LOWEST.items():
            value = getattr(self, name)
            if value is None:
                continue
            # Written so that NaN is refused too.
            if not (value >= low if included else value > low) or value == float("inf"):
                rule = f"{low} or more" if included else f"above {low}"
                raise ValueError(f"{name} needs a number {rule}, got {value}.")
        self._check_overlaps()
        self._check_classes()
        self._check_used()
        self._check_ranges()

    def _check_ranges(self) -> None:
        if self.percentiles is not None:
            low, high = self.percentiles
            if not 0 <= low < high <= 100:
                raise ValueError(
                    "percentiles needs two numbers from 0 to 100, the lower one first, got"
                    f" {self.percentiles}."
                )
        if self.max_size_px is not None and self.max_size_px < self.min_size_px:
            raise ValueError(
                f"max_size_px needs min_size_px ({self.min_size_px}) or more, got"
                f" {self.max_size_px}: no cell would be left."
            )
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(
                f"value_range needs two grey values, the lower one first, got {self.value_range}."
            )
        if self.value_range is not None and self.normalise != "global":
            raise ValueError(
                f"value_range needs normalise='global', got {self.normalise!r}. Leave one out."
            )

    def _check_overlaps(self) -> None:
        for name in ("stitch_threshold", "time_iou"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} needs an IoU above 0, up to 1, got {value}.")
        if 2 * self.overlap_px > self.window_px:
            raise ValueError(
                f"overlap_px needs at most half of window_px ({self.window_px}), got"
                f" {self.overlap_px}."
            )

    def _check_used(self) -> None:
        """Refuse what nothing would come of."""
        if self.local_px != Settings.local_px and self.normalise != "local":
            raise ValueError(f"local_px needs normalise='local', got {self.normalise!r}.")
        if self.flow_smooth_px and self.mode in ("2d", "planes"):
            raise ValueError(f"flow_smooth_px needs mode '3d', got {self.mode!r}. Leave it out.")

    def _check_classes(self) -> None:
        n = self.diameter_classes
        if isinstance(n, bool) or n not in range(1, MOST_CLASSES + 1):
            raise ValueError(
                f"diameter_classes needs a whole number from 1 to {MOST_CLASSES}, got {n!r}."
            )
        without = {
            "a diameter that is measured: leave diameter_px out": self.diameter_px is not None,
            "diameter_by='samples'": self.diameter_by != "samples",
            "resample=True": not self.resample,
        }
        if n > 1 and (lacks := [name for name, is_so in without.items() if is_so]):
            raise ValueError(f"diameter_classes={n} needs {' and '.join(lacks)}.")


def check_given(settings: Mapping[str, Any]) -> None:
    """Refuse two wishes of which one would have no effect.

    Parameters
    ----------
    settings : mapping
        What a user set, by name.
    """
    value = {name: settings.get(name) for name in ("percentiles", "value_range", "diameter_px")}
    if value["percentiles"] is not None and (
        value["value_range"] is not None or settings.get("normalise") == "off"
    ):
        raise ValueError("percentiles have no effect with value_range or normalise='off'.")
    if value["diameter_px"] is not None and settings.get("diameter_by") == "style":
        raise ValueError("diameter_by has no effect where diameter_px is given. Leave one out.")
