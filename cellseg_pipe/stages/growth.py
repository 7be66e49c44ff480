"""How far the labels of a target are grown, in the units of its image."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cellseg_pipe.config import Target
from cellseg_pipe.kernels import expand_margin_px

__all__ = ["Growth", "growth_of"]


@dataclass(frozen=True)
class Growth:
    """A distance, and what a step along each axis counts.

    Parameters
    ----------
    distance_px : float
        In pixels of the last axis.
    spacing : tuple of float
        Length of a step along each axis in the same unit; infinite where nothing grows.
    """

    distance_px: float
    spacing: tuple[float, ...]

    @property
    def margin_px(self) -> tuple[int, ...]:
        """How many voxels labels grow along each axis at most."""
        return expand_margin_px(self.distance_px, spacing=self.spacing)


def growth_of(
    said: Target,
    name: str,
    *,
    mode: str,
    spacing_um: tuple[float, ...] | None,
    anisotropy: float | None,
) -> Growth:
    """Return how far labels grow: from the experiment and the size of a voxel.

    Parameters
    ----------
    said : Target
        With `expand_um` or `expand_px`.
    name : str
        Of the unit, for the error message.
    mode : {"2d", "planes", "3d"}
        In mode planes labels grow within their plane: planes know nothing of each other.
    spacing_um : tuple of float or None
        Size of a voxel.
    anisotropy : float or None
        Distance of planes over the size of a pixel, where the experiment says so.

    Returns
    -------
    Growth
        On level 0.
    """
    steps = spacing_um or (1.0,) * (2 if mode == "2d" else 3)
    distance = said.expand_px or 0.0
    if said.expand_um is not None:
        distance = said.expand_um / steps[-1]
    if said.expand_um is not None and spacing_um is None:
        raise ValueError(
            f"{name}: expand_um needs the size of a pixel, and the image does not tell it. Give"
            " images.spacing_um, or expand_px instead."
        )
    relative = tuple(step / steps[-1] for step in steps)
    if mode == "2d":
        return Growth(distance, relative)
    # Micrometres are those of the voxels, whatever the network is told of their proportions.
    deep = relative[0] if anisotropy is None or said.expand_um is not None else anisotropy
    return Growth(distance, (math.inf if mode == "planes" else deep, *relative[1:]))
