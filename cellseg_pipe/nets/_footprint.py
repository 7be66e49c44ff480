"""How much memory a network takes on a CPU, from its form alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cellseg_pipe.nets._architecture import Architecture

__all__ = ["Footprint", "footprint_of", "sam_footprint"]

# Measured (docs/decisions.md) and a third more: bytes per pixel of a window and channel of the
# widest level, in 2D with and without shortcuts and in 3D.
CHANNEL_BYTES = {"fp32": 50, "bf16": 27}
COPIES = 5  # of the weights while they are read, folded and laid out
LIBRARIES_BYTES = 100_000_000  # torch itself, and what the first run of a network makes it load
SAM_PX_BYTES = {"fp32": 4200, "bf16": 2000}  # attention of all with all in a window of 256 px
SAM_MARGIN = 1.1


@dataclass(frozen=True)
class Footprint:
    """Memory of a network.

    Parameters
    ----------
    loaded_bytes : int
        At most until it is ready, with the file that it is read from.
    px_bytes : int
        Beside that while it runs, for each pixel of a window.
    """

    loaded_bytes: int
    px_bytes: int


def footprint_of(form: Architecture, n_weights: int, precision: str) -> Footprint:
    """Return the memory of a network of the Cellpose kind.

    Parameters
    ----------
    form : Architecture
        Of the network.
    n_weights : int
        How many it has.
    precision : {"fp32", "bf16"}
        Type of the maps.

    Returns
    -------
    Footprint
        At most.
    """
    # Each level has a fraction of the pixels: only odd widths make a deeper one the largest.
    widest = max(width / 2 ** (form.ndim * level) for level, width in enumerate(form.widths))
    channels = max(widest, form.n_inputs + form.n_outputs)
    loaded = LIBRARIES_BYTES + COPIES * 4 * n_weights
    return Footprint(loaded, math.ceil(CHANNEL_BYTES[precision] * channels))


def sam_footprint(n_weights: int, file_bytes: int, precision: str) -> Footprint:
    """Return the memory of a network of Cellpose 4, which is there twice while it is read.

    Parameters
    ----------
    n_weights : int
        How many it has.
    file_bytes : int
        Of its file.
    precision : {"fp32", "bf16"}
        Type of the maps.

    Returns
    -------
    Footprint
        At most.
    """
    # The package makes the network in float32, whatever it will run in.
    loaded = round(SAM_MARGIN * (4 * n_weights + file_bytes))
    return Footprint(loaded, SAM_PX_BYTES[precision])
