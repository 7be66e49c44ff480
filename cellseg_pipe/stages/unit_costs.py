"""Plans a unit and says what its stages will take."""

from __future__ import annotations

from cellseg_pipe.cost import StageCost, related_costs
from cellseg_pipe.stages import calibration, prepare
from cellseg_pipe.stages.costs import planned_costs
from cellseg_pipe.stages.made import plan_tiles
from cellseg_pipe.stages.plan import plan_network
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["costs_of"]


def costs_of(unit: UnitRun, *, calibrate: bool = False) -> list[StageCost]:
    """Plan a unit, and return what its stages will take.

    Parameters
    ----------
    unit : UnitRun
        The unit; those that it is made from are planned.
    calibrate : bool
        Try a few tiles of it, and predict from what they took.

    Returns
    -------
    list of StageCost
        One per stage of which it is known.
    """
    if not unit.sources:
        if unit.needs_copy:
            prepare.run(unit)
        plan_network(unit)
    for part in unit.parts:
        plan_network(part)
        plan_tiles(part)
    plan_tiles(unit)
    if calibrate and not unit.sources:
        calibration.run(unit)
    costs = [StageCost(**cost) for cost in planned_costs(unit.stage("tiles"))]
    if not unit.saves_restored:
        costs = [cost for cost in costs if cost.stage not in ("restore", "shrink")]
    if "overlap" in unit.digests:
        more = related_costs(costs, unit.image.shape)
        costs += [cost for cost in more if cost.stage in unit.digests]
    return costs
