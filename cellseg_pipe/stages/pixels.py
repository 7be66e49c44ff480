"""Where the pixels of a unit come from, and which channels are measured."""

from __future__ import annotations

from cellseg_pipe.io.opening import OpenImage
from cellseg_pipe.preprocess import white_of
from cellseg_pipe.segmentation.plan import ImageSource
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["channels_of", "source_of_image"]


def channels_of(unit: UnitRun) -> list[int]:
    """Return the channels that are measured.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    list of int
        Their numbers.
    """
    said, names = unit.experiment.measure.channels, unit.image.channel_names
    if said == "all":
        return list(range(unit.image.n_channels))
    found = []
    for channel in said:
        number = names.index(channel) if channel in names else channel
        if not isinstance(number, int) or number >= unit.image.n_channels:
            known = ", ".join(names) or f"0 to {unit.image.n_channels - 1}"
            raise ValueError(
                f"{unit.name}: measure.channels names {channel!r}, the image has {known}."
            )
        found.append(number)
    return found


def source_of_image(image: OpenImage) -> ImageSource:
    """Return where the pixels of an open image come from.

    Parameters
    ----------
    image : OpenImage
        The image.

    Returns
    -------
    ImageSource
        Of its only time, or of a series.
    """
    return ImageSource(
        image.shape,
        image.n_channels,
        image.read,
        names=image.channel_names,
        rgb=image.rgb,
        series=image.spatial == "tyx",
        white=white_of(image.dtype),
    )
