"""What every reader of one kind of file gives, and the units that files use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["MICROMETRES", "Raw"]

MICROMETRES = {
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "\\u00B5m": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "Å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "inch": 25400.0,
}


@dataclass(frozen=True)
class Raw:
    """Pixels as they are stored, with what the file says of them.

    Parameters
    ----------
    pixels : array
        In the file's order of axes.
    axes : str or None
        A letter per axis out of t, c, z, y, x, s (colours); None where the file does not say.
    channel_names : tuple of str
        One per channel, or none.
    spacing_um : dict of str to float
        Size of a voxel along z, y, x, as far as it is known.
    """

    pixels: NDArray[Any]
    axes: str | None = None
    channel_names: tuple[str, ...] = ()
    spacing_um: dict[str, float] | None = None
