"""Plans as JSON and back: what a job reads is exactly what was decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cellseg_pipe.nets.windows import View
from cellseg_pipe.preprocess import Filters, LocalRanges, Pick, Range, Scale
from cellseg_pipe.segmentation.fields import Fields
from cellseg_pipe.segmentation.plan import Plan
from cellseg_pipe.segmentation.settings import Settings
from cellseg_pipe.tiles import Lattice

__all__ = ["from_plain", "plan_from_json", "plan_to_json", "to_plain"]

TAG = "is a"
KINDS = {
    kind.__name__: kind
    for kind in (Plan, Settings, Pick, Range, LocalRanges, Filters, Scale, View, Lattice, Fields)
}


def plan_to_json(plan: Plan) -> Any:
    """Return what JSON can hold of a plan: all of it but the region, which is a file of its own.

    Parameters
    ----------
    plan : Plan
        The plan.

    Returns
    -------
    object
        Dicts, lists, numbers, texts.
    """
    return to_plain(plan)


def plan_from_json(stored: Any) -> Plan:
    """Return the plan that was stored.

    Parameters
    ----------
    stored : object
        From `plan_to_json`, or from JSON.

    Returns
    -------
    Plan
        Equal to the one that was stored.
    """
    plan = from_plain(stored, KINDS)
    if not isinstance(plan, Plan):
        raise TypeError(f"expected a stored plan, found {type(plan).__name__}. Plan again.")
    return plan


def to_plain(value: Any) -> Any:
    """Return what JSON can hold of a value: dataclasses with their names, arrays, tuples.

    Parameters
    ----------
    value : object
        The value.

    Returns
    -------
    object
        Dicts, lists, numbers, texts.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.compare]
        return {TAG: type(value).__name__} | {n: to_plain(getattr(value, n)) for n in names}
    if isinstance(value, np.ndarray):
        return {TAG: "array", "dtype": value.dtype.str, "values": value.tolist()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(value: Any, kinds: Mapping[str, type]) -> Any:
    """Return the value that was stored.

    Parameters
    ----------
    value : object
        From `to_plain`, or from JSON.
    kinds : mapping of str to type
        Dataclasses that it may be made of, by their names.

    Returns
    -------
    object
        Equal to the one that was stored; lists are tuples.
    """
    if isinstance(value, list):
        return tuple(from_plain(item, kinds) for item in value)
    if not isinstance(value, dict):
        return value
    fields = {name: part for name, part in value.items() if name != TAG}
    if value[TAG] == "array":
        return np.array(fields["values"], np.dtype(fields["dtype"]))
    if value[TAG] not in kinds:
        raise ValueError(
            f"a stored plan names {value[TAG]!r}, which this version does not know. Plan again."
        )
    return kinds[value[TAG]](**{name: from_plain(part, kinds) for name, part in fields.items()})
