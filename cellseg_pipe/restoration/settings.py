"""What a user may set for restoring one image, checked before any work; numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

__all__ = ["Method", "RestoreSettings"]

Method = Literal["network", "gaussian", "median"]
LOWEST = {"diameter_px": 0, "anisotropy": 0, "sigma_px": 0, "window_px": 63, "overlap_px": -1}


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How one image is restored.

    Parameters
    ----------
    method : {"network", "gaussian", "median"}
        A trained network, or one of the two filters that it has to beat.
    diameter_px : float, optional
        Diameter of a typical cell along y, x; without it the network sees the image as it is.
    channels : int, str or sequence of these, optional
        Numbers from 0, or names, of the channels to restore; all by default. Others stay.
    offset : float or sequence of float, optional
        Grey value of no light, for all restored channels or for each: what lies below it is noise
        of the camera, and is taken as no light before anything is scaled.
    anisotropy : float, optional
        Distance of planes (of rows, in an image) over the edge of a pixel, for aniso models.
    sigma_px : float
        Of the gaussian filter, along y and x.
    size_px : int
        Edge of the median filter along y and x, an odd number.
    clear_below : float, optional
        Noise, in shares of a channel's range, below which it is clear and stays as it is; by
        default what the model says, 0 restores all.
    window_px, overlap_px : int
        Edge of the network's windows, and what neighbours share.
    """

    method: Method = "network"
    diameter_px: float | None = None
    channels: int | str | None | Sequence[int | str] = None
    offset: float | Sequence[float] | None = None
    anisotropy: float | None = None
    sigma_px: float = 1.0
    size_px: int = 3
    clear_below: float | None = None
    window_px: int = 512
    overlap_px: int = 48

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.method not in get_args(Method):
            raise ValueError(
                f"method needs to be one of {', '.join(get_args(Method))}, got {self.method!r}."
            )
        for name, low in LOWEST.items():
            value = getattr(self, name)
            if value is not None and not low < value < math.inf:
                raise ValueError(f"{name} needs a number above {low}, got {value}.")
        if self.clear_below is not None and not 0 <= self.clear_below < math.inf:
            raise ValueError(f"clear_below needs a number from 0, got {self.clear_below}.")
        if not isinstance(self.size_px, int | np.integer):
            raise TypeError(f"size_px needs a whole number, got {self.size_px!r}.")
        if self.size_px < 1 or self.size_px % 2 == 0:
            raise ValueError(f"size_px needs an odd number from 1, got {self.size_px}.")
