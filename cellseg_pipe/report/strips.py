"""Pictures of places for a talk or a paper: what the page's switch shows, side by side."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.report.maps import png
from cellseg_pipe.report.samples import Shown

__all__ = ["Strip", "strips"]

GAP_PX = 4
# How the page lays lines and areas over the image; other layers stand for themselves.
OPACITY = {"outlines": 1.0, "fill": 0.62}


@dataclass(frozen=True)
class Strip:
    """The layers of one place in a row.

    Parameters
    ----------
    name : str
        Of its file.
    content : bytes
        A PNG.
    """

    name: str
    content: bytes


def strips(name: str, places: Sequence[Shown]) -> Iterator[Strip]:
    """Yield a strip for each place of a unit.

    Parameters
    ----------
    name : str
        Of the unit.
    places : sequence of Shown
        In the order of the page, which numbers them.

    Yields
    ------
    Strip
        Named by the number and by what is special about the place.
    """
    for number, place in enumerate(places, 1):
        why = place.region.why.replace(" ", "-")
        yield Strip(f"{name}-place-{number}-{why}", png(strip(place.layers)))


def strip(layers: dict[str, bytes]) -> NDArray[np.uint8]:
    """Return the layers of a place side by side.

    Parameters
    ----------
    layers : dict of str to bytes
        As `Shown` has them, the image among them.

    Returns
    -------
    uint8 array [y, x, 3]
        In the same order.
    """
    ground = _read(layers["image"], "RGB").astype(np.float32)
    gap = np.full((len(ground), GAP_PX, 3), 255, np.uint8)
    parts: list[NDArray[np.uint8]] = []
    for name, content in layers.items():
        if name in OPACITY:
            above = _read(content, "RGBA").astype(np.float32)
            share = OPACITY[name] * above[..., 3:] / 255
            mixed = ground * (1 - share) + above[..., :3] * share
            parts += [np.round(mixed).astype(np.uint8), gap]
        else:
            parts += [_read(content, "RGB"), gap]
    return np.concatenate(parts[:-1], axis=1)


def _read(content: bytes, mode: str) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert(mode))
