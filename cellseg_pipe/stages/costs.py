"""What the stages of a unit are predicted to take, as jobs and those who schedule them read it."""

from __future__ import annotations

import json
from typing import Any

from cellseg_pipe.paths import StagePaths

__all__ = ["planned_costs"]


def planned_costs(tiles_paths: StagePaths) -> list[dict[str, Any]]:
    """Read what a unit is predicted to take.

    Parameters
    ----------
    tiles_paths : StagePaths
        Of the stage `tiles`.

    Returns
    -------
    list of dict
        A `StageCost` each: as calibrated, else as planned; none before there is a plan.
    """
    for path in (tiles_paths.costs, tiles_paths.plan):
        if path.exists():
            found: list[dict[str, Any]] = json.loads(path.read_text())["predicted"]
            return found
    return []
