"""Plans of restored images as JSON and back: what a job reads is exactly what was decided."""

from __future__ import annotations

from typing import Any

from cellseg_pipe.nets.windows import View
from cellseg_pipe.preprocess import Range, Scale
from cellseg_pipe.restoration.plan import RestorePlan
from cellseg_pipe.segmentation.frozen import from_plain, to_plain
from cellseg_pipe.tiles import Lattice

__all__ = ["restore_plan_from_json", "restore_plan_to_json"]

KINDS = {kind.__name__: kind for kind in (RestorePlan, Range, Scale, View, Lattice)}


def restore_plan_to_json(plan: RestorePlan) -> Any:
    """Return what JSON can hold of a plan: all of it.

    Parameters
    ----------
    plan : RestorePlan
        The plan.

    Returns
    -------
    object
        Dicts, lists, numbers, texts.
    """
    return to_plain(plan)


def restore_plan_from_json(stored: Any) -> RestorePlan:
    """Return the plan that was stored.

    Parameters
    ----------
    stored : object
        From `restore_plan_to_json`, or from JSON.

    Returns
    -------
    RestorePlan
        Equal to the one that was stored.
    """
    plan = from_plain(stored, KINDS)
    if not isinstance(plan, RestorePlan):
        raise TypeError(
            f"expected a stored plan of a restored image, found {type(plan).__name__}. Plan again."
        )
    return plan
