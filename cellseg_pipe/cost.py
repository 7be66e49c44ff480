"""What work will take, said before it is begun."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cellseg_pipe.segmentation.memory import (
    BASE_BYTES,
    FOLLOW_BYTES,
    NETWORK_BYTES_PER_PX,
    available_bytes,
)
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.tiles import TilePlan

__all__ = ["Cost", "check_fits", "masks_bytes", "paint_bytes", "predict_bytes"]

LABELS_BYTES = 4
PAINTED = 6  # arrays of labels of a box that painting it takes at most


@dataclass(frozen=True)
class Cost:
    """What one job takes.

    Parameters
    ----------
    memory_bytes : int
        At most.
    """

    memory_bytes: int


def predict_bytes(plan: Plan) -> int:
    """Return the memory of running the network on one window.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Returns
    -------
    int
        Bytes.
    """
    window = max(math.prod(view.lattice.edge) for view in plan.views)
    source = window / math.prod(min(f, 1.0) for f in plan.scale.factors)
    return round(BASE_BYTES + NETWORK_BYTES_PER_PX * window + 16 * len(plan.picks) * source)


def masks_bytes(plan: Plan, tiles: TilePlan) -> int:
    """Return the memory of finding the cells of one tile.

    Parameters
    ----------
    plan : Plan
        Of the image.
    tiles : TilePlan
        Its tiles.

    Returns
    -------
    int
        Bytes.
    """
    outer = math.prod(
        min(core + 2 * halo, n)
        for core, halo, n in zip(tiles.core, tiles.halo, tiles.shape, strict=True)
    )
    on_grid = outer * (math.prod(plan.scale.factors) if plan.walks_level_0 else 1.0)
    answer = 4 * (plan.n_outputs + 2) * (outer + on_grid)
    return round(BASE_BYTES + answer + FOLLOW_BYTES[len(plan.flow_axes)] * outer)


def paint_bytes(shape: tuple[int, ...], plan: Plan) -> int:
    """Return the memory of painting one box.

    Parameters
    ----------
    shape : tuple of int
        Of the box on level 0.
    plan : Plan
        Of the image.

    Returns
    -------
    int
        Bytes.
    """
    walked = math.prod(shape)
    if not plan.walks_level_0:
        walked += round(walked * math.prod(plan.scale.factors))
    return BASE_BYTES + PAINTED * LABELS_BYTES * walked


def check_fits(cost: Cost, limit_bytes: int | None, *, what: str) -> None:
    """Refuse work that does not fit.

    Parameters
    ----------
    cost : Cost
        What it takes.
    limit_bytes : int or None
        What it may take; None for what this machine has.
    what : str
        What it is, for the message.
    """
    there = available_bytes() if limit_bytes is None else limit_bytes
    if there is not None and cost.memory_bytes > there:
        raise MemoryError(
            f"{what} needs about {cost.memory_bytes / 1e9:.1f} GB and may take {there / 1e9:.1f} GB."
            " Raise resources.memory_gb, give a smaller segment.reach_px or tiles.core_px, or set"
            " segment.resample to false."
        )
