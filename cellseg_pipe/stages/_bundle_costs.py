"""What the jobs of small images will take, as the plan of the largest one tells."""

from __future__ import annotations

import json

from cellseg_pipe.cost import StageCost, bundle_cost
from cellseg_pipe.stages._run_layout import PLAN, SMALL, RunLayout

__all__ = ["bundle_costs"]


def bundle_costs(layout: RunLayout) -> dict[str, StageCost]:
    """Return what each of them will take.

    Parameters
    ----------
    layout : RunLayout
        The run.

    Returns
    -------
    dict of str to StageCost
        By name of the stage; nothing before the plan is made.
    """
    if not layout.bundles or not (plan := layout.files(SMALL, PLAN).plan).exists():
        return {}
    timed = json.loads(plan.read_text())
    return {
        stage.name: bundle_cost(
            stage.name, n_images=len(stage.images), voxels=stage.voxels, timed=timed
        )
        for stage in layout.bundles
    }
