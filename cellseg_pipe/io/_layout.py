"""Which axis of a file is what, and how a box of the image lies in it. Arithmetic only, no I/O."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from cellseg_pipe.geometry import Box

__all__ = ["Layout", "layout_of", "named_axes", "steps_error"]

log = logging.getLogger(__name__)

COLOURS = (3, 4)
CHANNELS_MAX = 4  # a leading axis as short as this is taken for channels where nothing is said


@dataclass(frozen=True)
class Layout:
    """Where time, channels and space lie in a file.

    Parameters
    ----------
    named : str
        A letter per axis of the file.
    shape : tuple of int
        Of the file.
    channel : str
        Letter of the axis of the channels, c or s; empty where there is one channel.
    n_channels : int
        Without the opacity.
    spatial : {"yx", "zyx", "tyx"}
        The axes that remain.
    """

    named: str
    shape: tuple[int, ...]
    channel: str
    n_channels: int
    spatial: str

    @property
    def n_times(self) -> int:
        """Steps along t, unless they are an axis of the image."""
        of_file = "t" in self.named and "t" not in self.spatial
        return self.shape[self.named.index("t")] if of_file else 1

    def of_space(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """Return the values of the spatial axes, out of one per axis of the file."""
        return tuple(values[self.named.index(axis)] for axis in self.spatial)

    def box(self, wanted: Box, time: int) -> Box:
        """Return the box of the file that holds all channels of a box of the image."""
        start, stop = [0] * len(self.named), [1] * len(self.named)
        for axis, first, end in zip(self.spatial, wanted.start, wanted.stop, strict=True):
            start[self.named.index(axis)] = first
            stop[self.named.index(axis)] = end
        if "t" in self.named and "t" not in self.spatial:
            start[self.named.index("t")] = time
            stop[self.named.index("t")] = time + 1
        if self.channel:
            stop[self.named.index(self.channel)] = self.n_channels
        return Box(tuple(start), tuple(stop))

    def arranged(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return what was read of the file as channels, then space."""
        kept = self.channel + self.spatial
        dropped = tuple(i for i, axis in enumerate(self.named) if axis not in kept)
        left = [axis for axis in self.named if axis in kept]
        pixels = pixels.squeeze(dropped).transpose([left.index(axis) for axis in kept])
        return pixels if self.channel else pixels[None]


def layout_of(named: str, shape: tuple[int, ...], path: str) -> Layout:
    """Return the layout of a file; axes of length one that say nothing are left out.

    Parameters
    ----------
    named : str
        A letter per axis.
    shape : tuple of int
        Of the file.
    path : str
        For messages.

    Returns
    -------
    Layout
        Channels and space.
    """
    sizes = dict(zip(named, shape, strict=True))
    colours = "s" in named
    if colours and sizes.get("c", 1) > 1:  # colours of several channels: a file of nobody
        raise ValueError(f"{path} has both channels and colours ({named}). Split it first.")
    for axis, size in sizes.items():
        if axis not in "tcszyx" and size != 1:
            raise steps_error(path, named, axis, size=size)
    channel = "s" if colours else "c" if "c" in named else ""
    n_channels = sizes.get(channel, 1)
    if colours and n_channels == COLOURS[1]:
        log.info("%s: the alpha channel is left out", path)
        n_channels = COLOURS[0]
    spatial = "zyx" if sizes.get("z", 1) > 1 else "yx"
    return Layout(named, shape, channel, n_channels, spatial)


def steps_error(path: str, named: str, axis: str, *, size: int) -> ValueError:
    """Return the error of an axis along which an image cannot go.

    Parameters
    ----------
    path, named : str
        The file and its axes.
    axis : str
        Which of them.
    size : int
        Its length.

    Returns
    -------
    ValueError
        To be raised.
    """
    return ValueError(
        f"{path} has {size} steps along axis {axis!r} of {named}, and one image is needed. Save"
        " each as a file of its own, or give axes= if they are planes or channels."
    )


def named_axes(
    shape: tuple[int, ...], path: str, *, file_axes: str | None, given: str | None
) -> str:
    """Return a letter per axis: what the user says, else the file, else its shape.

    Parameters
    ----------
    shape : tuple of int
        Of the file.
    path : str
        For messages.
    file_axes, given : str or None
        What the file says, and the user.

    Returns
    -------
    str
        With y and x, each letter once.
    """
    known = file_axes if given is None else given
    named = _guessed(shape, path) if known is None else known.lower()
    fits = len(named) == len(shape) == len(set(named)) and set("yx") <= set(named)
    if not fits or (given is not None and not set(named) <= set("tczyxs")):
        raise ValueError(
            f"{path} has shape {shape} and needs a letter for each axis, with y and x, got"
            f" {named!r} (of tczyxs). Give axes=, as in zcyx."
        )
    return named


def _guessed(shape: tuple[int, ...], path: str) -> str:
    if len(shape) == 3 and shape[-1] in COLOURS and shape[0] > CHANNELS_MAX:
        guess = "yxs"
    elif len(shape) == 3 and shape[-1] < COLOURS[0] and shape[0] > CHANNELS_MAX:
        guess = "yxc"  # no volume is a pixel or two wide
    elif len(shape) == 3:
        guess = "cyx" if shape[0] <= CHANNELS_MAX else "zyx"
    else:
        guess = {2: "yx", 4: _guessed_4(shape)}.get(len(shape), "")
    if not guess:
        raise ValueError(f"{path} has shape {shape}: give axes=, a letter for each axis.")
    if len(shape) > 2:
        log.info("%s: shape %s is taken as %s; axes= says otherwise", path, shape, guess)
    return guess


def _guessed_4(shape: tuple[int, ...]) -> str:
    if shape[-1] in COLOURS and shape[1:2] > (CHANNELS_MAX,):
        return "zyxs"
    return "zcyx" if shape[1:2] <= (CHANNELS_MAX,) else "czyx"
