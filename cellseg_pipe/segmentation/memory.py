"""How much memory one image will take, and how much there is; before any of it is taken."""

from __future__ import annotations

import math

from cellseg_pipe.machine import available_bytes
from cellseg_pipe.segmentation.plan import Plan

__all__ = ["check_memory", "needed_bytes"]

NETWORK_BYTES_PER_PX = 1600  # of a window: maps of a network of full width in float32
BASE_BYTES = 300_000_000  # libraries and compiled loops
BLENDING = 8  # values of the network's grid beside its outputs, while windows are blended
# Per pixel on which particles walk: the field, ends and starts, counts, owners, labels (see
# docs/decisions.md), as if all were foreground.
FOLLOW_BYTES = {2: 50, 3: 60}


def needed_bytes(plan: Plan) -> int:
    """Return the memory that segmenting an image takes at most, beside the image itself.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    int
        Bytes.
    """
    on_grid = math.prod(plan.grid_shape)
    walked = math.prod(plan.walk_shape)
    outputs = 4 * (plan.n_outputs + 4) * (on_grid + walked)
    blending = 4 * (plan.n_outputs + BLENDING) * on_grid
    plane = math.prod(plan.shape[1:]) if plan.mode == "planes" else walked
    window = max(math.prod(view.lattice.edge) for view in plan.views)
    if plan.fields is not None and plan.fields.differ:  # two answers at once, and labels of each
        outputs = 2 * outputs + 8 * len(plan.fields.diameter_px) * walked
    following = outputs + FOLLOW_BYTES[len(plan.flow_axes)] * plane
    network = NETWORK_BYTES_PER_PX * window
    return BASE_BYTES + network + max(following, blending) + 8 * math.prod(plan.shape)


def check_memory(plan: Plan) -> None:
    """Refuse an image that does not fit.

    Parameters
    ----------
    plan : Plan
        Of the image.
    """
    needed, there = needed_bytes(plan), available_bytes()
    if there is not None and needed > there:
        raise MemoryError(
            f"segmenting an image of shape {plan.shape} needs about {needed / 1e9:.1f} GB, got"
            f" {there / 1e9:.1f} GB. Run the pipeline, which works in tiles, or give a larger"
            " diameter or resample=False."
        )
