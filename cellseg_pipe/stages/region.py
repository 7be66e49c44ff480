"""The region of a unit: checked before any work, and kept as it was when it was planned."""

from __future__ import annotations

import math
from typing import Any

from cellseg_pipe.io.regions import (
    region_from_bytes,
    region_identity,
    region_of,
    region_to_bytes,
)
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.paths import StagePaths
from cellseg_pipe.regions import Region
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["check_region", "freeze_region", "frozen_region", "region_facts"]


def check_region(unit: UnitRun) -> None:
    """Refuse a region that cannot be read or lies outside the image, unless it is planned already.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    """
    if unit.region_said is not None and not unit.stage("tiles").region.exists():
        _read(unit)


def freeze_region(
    unit: UnitRun, paths: StagePaths, *, known: Region | None = None
) -> Region | None:
    """Keep the region of a unit with a stage that depends on it.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    paths : StagePaths
        Of the stage.
    known : Region, optional
        As an earlier stage keeps it.

    Returns
    -------
    Region or None
        None for all of the image.
    """
    if unit.region_said is None and known is None:
        return None
    region = _read(unit) if known is None else known
    if known is None and region_identity(unit.region_said) != unit.region_identity:
        raise ValueError(
            f"{unit.name}: the region was changed while it was read. Start the run again."
        )
    paths.region.parent.mkdir(parents=True, exist_ok=True)
    write_whole(paths.region, region_to_bytes(region))
    return region


def _read(unit: UnitRun) -> Region:
    try:
        return region_of(unit.region_said, shape=unit.image.shape, spacing_um=unit.spacing_um)
    except ValueError as error:
        raise ValueError(f"{unit.name}: region: {error}") from error


def frozen_region(paths: StagePaths) -> Region:
    """Read the region that a stage was planned with.

    Parameters
    ----------
    paths : StagePaths
        Of the stage.

    Returns
    -------
    Region
        As it was.
    """
    return region_from_bytes(paths.region.read_bytes())


def region_facts(region: Region | None) -> dict[str, Any] | None:
    """Return what plan and summary say of a region.

    Parameters
    ----------
    region : Region or None
        Of a unit.

    Returns
    -------
    dict or None
        How many regions there are, how many pixels they have, and which share of the image.
    """
    if region is None:
        return None
    share = region.size / math.prod(region.shape)
    return {"n": len(region.names), "pixels": region.size, "share": share}
