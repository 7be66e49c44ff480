"""Which channels of an image are restored, and from which grey value on; no pixel is read."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from cellseg_pipe.restoration.settings import RestoreSettings
from cellseg_pipe.segmentation.plan import ImageSource

__all__ = ["check_channels", "restored_channels"]


def check_channels(source: ImageSource, settings: RestoreSettings) -> None:
    """Refuse channels that an image does not have, and offsets for others; no pixel is read.

    Parameters
    ----------
    source : ImageSource
        The image.
    settings : RestoreSettings
        What the user set.
    """
    restored_channels(source, settings)


def restored_channels(
    source: ImageSource, settings: RestoreSettings, seen: Collection[int] | None = None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the channels that are restored, ascending, and the grey value of no light of each.

    Parameters
    ----------
    source : ImageSource
        The image.
    settings : RestoreSettings
        What the user set.
    seen : collection of int, optional
        Channels that are looked at; others stay. All by default.

    Returns
    -------
    channels : tuple of int
        Their numbers.
    floors : tuple of float
        One for each of them, or none.
    """
    named = _channels(source, settings)
    floors = _floors(settings, len(named))
    places = (n for n, channel in enumerate(named) if seen is None or channel in seen)
    order = sorted(places, key=named.__getitem__)
    ascending = tuple(named[n] for n in order)
    return ascending, tuple(floors[n] for n in order) if floors else ()


def _channels(source: ImageSource, settings: RestoreSettings) -> tuple[int, ...]:
    """Return the numbers of the channels that are restored, each once, in the order given."""
    if settings.channels is None:
        return tuple(range(source.n_channels))
    picks = source.picks(settings.channels, source.n_channels)
    named = [pick for pick in picks if pick.kind != "zero"]
    if any(pick.kind != "channel" for pick in named):
        raise ValueError(
            f"restoring needs channels of the image itself, got {settings.channels!r}. Give their"
            " numbers from 0, or their names."
        )
    return tuple(dict.fromkeys(pick.index for pick in named))


def _floors(settings: RestoreSettings, n: int) -> tuple[float, ...]:
    if settings.offset is None:
        return ()
    single = np.ndim(settings.offset) == 0
    floors: Any = (settings.offset,) * n if single else settings.offset
    if len(floors) != n or not all(math.isfinite(floor) for floor in floors):
        raise ValueError(
            f"offset needs a grey value, or one for each of {n} restored channels, got"
            f" {settings.offset}."
        )
    return tuple(float(floor) for floor in floors)
