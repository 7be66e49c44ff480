"""Which cells the rules of an experiment flag or drop, and which rule it was."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Limits", "check_limits", "judged"]


@dataclass(frozen=True)
class Limits:
    """What a cell must keep to.

    Parameters
    ----------
    min_confidence, min_probability : float
        From 0 to 1; 0 for no rule.
    max_flow_error : float, optional
        Largest one.
    min_agreement : float, optional
        From 0 to 1; cells that are seen once do not break it.
    min_size_px, max_size_px : int, optional
        Area or volume.
    min_diameter_um, max_diameter_um : float, optional
        Need the size of a voxel.
    border : {"keep", "flag", "drop"}
        Whether touching the border of the image breaks a rule; not with keep.
    """

    min_confidence: float = 0.0
    min_probability: float = 0.0
    max_flow_error: float | None = None
    min_agreement: float | None = None
    min_size_px: int | None = None
    max_size_px: int | None = None
    min_diameter_um: float | None = None
    max_diameter_um: float | None = None
    border: Literal["keep", "flag", "drop"] = "keep"

    @property
    def empty(self) -> bool:
        """Whether no cell can break them."""
        return self == Limits()


def judged(
    columns: dict[str, NDArray[Any]], *, flag: Limits, drop: Limits
) -> dict[str, NDArray[Any]]:
    """Return which cells are marked, which are dropped, and why.

    Parameters
    ----------
    columns : dict of str to array [n]
        The table of cells.
    flag, drop : Limits
        Rules of either kind.

    Returns
    -------
    dict of str to array [n]
        `flagged` and `dropped`, and `qc_reason`: the keys of the rules that a cell breaks, such as
        "flag.border, drop.min_confidence"; empty for most.
    """
    broken = {
        f"{kind}.{name}": rows
        for kind, limits in (("flag", flag), ("drop", drop))
        for name, rows in _broken(columns, limits).items()
    }
    n = len(columns["label"])
    marked = {
        kind: np.any([np.zeros(n, bool), *(v for k, v in broken.items() if k.startswith(kind))], 0)
        for kind in ("flag", "drop")
    }
    reason = _reasons(broken, n)
    return {"flagged": marked["flag"], "dropped": marked["drop"], "qc_reason": reason}


def check_limits(limits: Limits, *, spacing_um: tuple[float, ...] | None) -> None:
    """Refuse rules in µm of an image that does not tell the size of its voxels.

    Parameters
    ----------
    limits : Limits
        Rules of one kind.
    spacing_um : tuple of float or None
        Of the image.
    """
    unlimited = vars(Limits())
    for name, limit in vars(limits).items():
        if spacing_um is None and name.endswith("_um") and limit != unlimited[name]:
            raise _no_voxel_size(name)


def _no_voxel_size(rule: str) -> ValueError:
    return ValueError(
        f"the rule {rule} needs the size of a voxel, and the image does not tell it. Set"
        " spacing_um of the image, or give the limit in px."
    )


def _broken(columns: dict[str, NDArray[Any]], limits: Limits) -> dict[str, NDArray[np.bool_]]:
    """Return for each rule that there is which cells break it."""
    size = "area_px" if "area_px" in columns else "volume_px"
    measured = {"size_px": size, "confidence": "confidence", "probability": "probability"}
    found = {}
    unlimited = vars(Limits())
    for name, limit in vars(limits).items():
        if name == "border" or limit == unlimited[name]:
            continue
        end, _, what = name.partition("_")
        column = measured.get(what, what)
        if column not in columns:
            raise _no_voxel_size(name)
        values = columns[column]
        found[name] = values < limit if end == "min" else values > limit
    if limits.border != "keep":
        found["border"] = columns["on_border"]
    return found


def _reasons(broken: dict[str, NDArray[np.bool_]], n: int) -> NDArray[Any]:
    """Return the names of broken rules; each set of them is written once."""
    code = np.zeros(n, np.int64)
    for bit, rows in enumerate(broken.values()):
        code |= rows.astype(np.int64) << bit
    codes, place = np.unique(code, return_inverse=True)
    texts = [", ".join(k for b, k in enumerate(broken) if c >> b & 1) for c in codes.tolist()]
    return np.array(texts or [""], object)[place] if n else np.array([], "U1")


def limits_of(section: Any) -> Limits:
    """Return limits from a section of an experiment.

    Parameters
    ----------
    section : object
        Has some of the names of `Limits`.

    Returns
    -------
    Limits
        The same numbers.
    """
    return Limits(**{f.name: getattr(section, f.name) for f in dataclasses.fields(Limits)})
