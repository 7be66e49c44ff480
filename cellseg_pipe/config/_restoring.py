"""The section `restore` of an experiment file, and what does not fit together in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cellseg_pipe.config._kinds import (
    Auto,
    ChannelNumber,
    Length,
    ModelName,
    Number,
    Pixels,
    Section,
    Switch,
    Text,
)
from cellseg_pipe.config._problems import Key, Problem

if TYPE_CHECKING:
    from cellseg_pipe.config.experiment import Experiment

__all__ = ["OF_METHOD", "Restore", "keys_of_others", "restore_problems"]

# Which keys mean something with one method alone.
OF_METHOD = {
    "network": ("model", "diameter_um", "diameter_px", "window_px", "overlap_px", "clear_below"),
    "gaussian": ("sigma_px",),
    "median": ("size_px",),
}
STAINS = ("grey", "hematoxylin", "eosin", "dab")
Several = Annotated[tuple[ChannelNumber | Text, ...], Field(min_length=1, max_length=64)]
Each = Annotated[tuple[Number, ...], Field(min_length=1, max_length=64)]


class Restore(Section):
    """What takes noise and blur from images before a network sees them.

    Intensities are measured on the images as they are.
    """

    method: Literal["network", "gaussian", "median"] = "network"
    """A network that restores, or one of the two filters that it has to beat."""
    model: ModelName = "one-click"
    """Name or file of a network that restores and leaves the size of a pixel as it is."""
    channels: ChannelNumber | Text | Several | None = None
    """Numbers from 0, or names, of the channels that are restored; null: all. Others stay."""
    diameter_um: Length | None = None
    """Diameter of a typical cell in micrometres; without one it is that of the target, where one
    is given, else the network sees images as they are."""
    diameter_px: Length | None = None
    """The same in pixels."""
    offset: Number | Each | None = None
    """Grey value of no light, for all restored channels or for each in their order."""
    sigma_px: Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)] = 1.0
    """Of the filter gaussian, along y and x."""
    size_px: Annotated[int, Field(strict=True, ge=1, le=999)] = 3
    """Edge of the filter median along y and x, an odd number."""
    clear_below: Auto | Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = "auto"
    """Noise, in shares of a channel's range, below which it is clear and stays as it is; auto: what
    the model says; 0 restores all."""
    window_px: Auto | Annotated[int, Field(strict=True, ge=64, le=8192)] = "auto"
    """Edge of the network's windows; auto: 512, or what the model says."""
    overlap_px: Pixels = 48
    """What neighbouring windows share."""
    save: Switch = False
    """Write the restored image, too, with all its levels: restored.ome.zarr beside the labels."""


def keys_of_others(chosen: str) -> list[tuple[str, str]]:
    """Return what a method does not look at.

    Parameters
    ----------
    chosen : {"network", "gaussian", "median"}
        The method.

    Returns
    -------
    list of (str, str)
        Keys, each with the method that it is of.
    """
    others = (method for method in OF_METHOD if method != chosen)
    return [(key, method) for method in others for key in OF_METHOD[method]]


def restore_problems(experiment: Experiment) -> Iterator[Problem]:
    """Yield what is wrong with the section `restore`.

    Parameters
    ----------
    experiment : Experiment
        Each key of it right by itself.

    Yields
    ------
    Problem
        In no order.
    """
    said, path = experiment.restore, ("restore",)
    if said is None:
        return
    for key, method in keys_of_others(said.method):
        if getattr(said, key) != Restore.model_fields[key].default:
            text = f"needs method {method}, got method {said.method}."
            yield Problem((*path, key), text, (path,))
    if said.size_px % 2 == 0:
        yield Problem((*path, "size_px"), f"needs an odd number, got {said.size_px}.")
    if said.diameter_um is not None and said.diameter_px is not None:
        yield Problem(
            (*path, "diameter_px"), "needs to be the only one, got diameter_um too. Leave one out."
        )
    if said.window_px != "auto" and 2 * said.overlap_px > said.window_px:
        yield Problem(
            (*path, "overlap_px"),
            f"needs at most half of window_px ({said.window_px}), got {said.overlap_px}.",
            (path,),
        )
    yield from _channels(said, path)


def _channels(said: Restore, path: Key) -> Iterator[Problem]:
    chosen = said.channels if isinstance(said.channels, tuple) else (said.channels,)
    if stains := [name for name in chosen if name in STAINS]:
        yield Problem(
            (*path, "channels"),
            f"needs channels of the image itself, got {stains[0]!r}. Give their numbers from 0, or"
            " their names.",
        )
    if len(set(chosen)) < len(chosen):
        yield Problem((*path, "channels"), "needs each channel once.")
    known = said.channels is not None
    if known and isinstance(said.offset, tuple) and len(said.offset) != len(chosen):
        yield Problem(
            (*path, "offset"),
            f"needs a number, or one for each of {len(chosen)} channels, got {len(said.offset)}.",
            (path,),
        )
