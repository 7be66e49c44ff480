"""What OME-Zarr metadata say of axes and levels; words only, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["ImageMeta", "multiscale"]


@dataclass(frozen=True)
class ImageMeta:
    """What an OME-Zarr image says about its axes, and who made it.

    Parameters
    ----------
    axes : str
        One letter per axis, out of t, c, z, y, x in this order.
    spacing_um : tuple of float
        Voxel size of the spatial axes in µm, in axis order.
    channels : tuple of str
        A name for each index of the c axis; empty where there is none.
    translation_um : tuple of float
        Where the centre of the first voxel lies along the spatial axes; empty for the origin.
    unit : {"micrometer", None}
        Of spacing and translation; None where they are in voxels of unknown size.
    stage_hash : str
        Of the stage that makes the store; empty where none does.
    """

    axes: str
    spacing_um: tuple[float, ...]
    channels: tuple[str, ...] = ()
    translation_um: tuple[float, ...] = ()
    unit: Literal["micrometer"] | None = "micrometer"
    stage_hash: str = ""

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if not self.axes or any(axis not in "tczyx" for axis in self.axes):
            raise ValueError(f"ImageMeta needs axes out of t, c, z, y, x, got {self.axes!r}.")
        if sorted(set(self.axes), key="tczyx".index) != list(self.axes):
            raise ValueError(f"ImageMeta needs axes in the order tczyx, got {self.axes!r}.")
        if len(self.spacing_um) != len(self.spatial):
            raise ValueError(
                f"ImageMeta needs a spacing for each of {self.spatial!r}, got {self.spacing_um}."
            )
        if len(self.translation_um) not in (0, len(self.spatial)):
            raise ValueError(
                f"ImageMeta needs a translation for each of {self.spatial!r} or none, got"
                f" {self.translation_um}."
            )

    @property
    def spatial(self) -> str:
        """The letters of the spatial axes."""
        return "".join(axis for axis in self.axes if axis in "zyx")

    def transformations(self, factor: Sequence[int]) -> list[dict[str, Any]]:
        """Return where the voxels of a level lie: their size, and the centre of the first one.

        Parameters
        ----------
        factor : sequence of int
            Voxels of level 0 that a voxel spans along each spatial axis.

        Returns
        -------
        list of dict
            A scale and a translation with a number per axis, 1 and 0 where there is no unit.
        """
        lead = len(self.axes) - len(self.spatial)
        origin = self.translation_um or (0.0,) * len(self.spatial)
        scale = [float(s * f) for s, f in zip(self.spacing_um, factor, strict=True)]
        shift = [
            float(o + s * (f - 1) / 2)
            for o, s, f in zip(origin, self.spacing_um, factor, strict=True)
        ]
        return [
            {"type": "scale", "scale": [1.0] * lead + scale},
            {"type": "translation", "translation": [0.0] * lead + shift},
        ]


def multiscale(name: str, meta: ImageMeta, factors: list[tuple[int, ...]]) -> dict[str, Any]:
    """Return the entry of `multiscales` for levels that span so many voxels of level 0."""
    kinds = {"t": "time", "c": "channel"}
    axes: list[dict[str, str]] = [{"name": a, "type": kinds.get(a, "space")} for a in meta.axes]
    for axis in axes:
        if axis["type"] == "space" and meta.unit:
            axis["unit"] = meta.unit
    datasets = [
        {"path": str(number), "coordinateTransformations": meta.transformations(factor)}
        for number, factor in enumerate(factors)
    ]
    return {"name": name, "axes": axes, "datasets": datasets}
