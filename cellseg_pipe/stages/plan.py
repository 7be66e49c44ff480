"""Decides, once per unit, all that its windows depend on."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from pathlib import Path
from typing import Any

from cellseg_pipe import __version__
from cellseg_pipe.cost import MEND, Cost, check_fits, predict_bytes
from cellseg_pipe.io.opening import OpenImage
from cellseg_pipe.restoration import RestorePlan, restore_plan_to_json
from cellseg_pipe.segmentation.frozen import plan_to_json
from cellseg_pipe.segmentation.plan import ImageSource, Plan
from cellseg_pipe.segmentation.scope import windows_needed
from cellseg_pipe.segmentation.settings import CELL_SETTINGS
from cellseg_pipe.stages._digests import WINDOW_SETTINGS
from cellseg_pipe.stages.canaries import restoring_window_s, window_s
from cellseg_pipe.stages.classes import seen_as
from cellseg_pipe.stages.decide import decide
from cellseg_pipe.stages.networks import Networks, networks_of, numerics_of
from cellseg_pipe.stages.pixels import channels_of, source_of_image
from cellseg_pipe.stages.region import freeze_region, region_facts
from cellseg_pipe.stages.restored import plan_restoring, restored
from cellseg_pipe.stages.restoring_costs import (
    RESTORING_MEND,
    filtering_s,
    n_restored,
    reading_bytes,
)
from cellseg_pipe.stages.tiling import memory_limit, write_plan
from cellseg_pipe.stages.unit import UnitRun

__all__ = ["plan_network"]

log = logging.getLogger(__name__)


def plan_network(unit: UnitRun) -> Path:
    """Measure what has to be measured and write down what all windows depend on.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    path
        The plan; what is there already is left as it is.
    """
    paths = unit.stage("plan")
    if paths.plan.exists():
        return paths.plan
    channels_of(unit)  # refuses a name that is wrong now, not when all is segmented
    seen, known, unmeasured = seen_as(unit)
    region = freeze_region(unit, paths, known=known) if unit.is_confined else None
    networks = networks_of(unit.chosen, unit.experiment.resources)
    raw = source_of_image(unit.pixels)
    restoring = plan_restoring(unit, raw, networks)
    source = restored(raw, restoring, networks.restorer)
    network = {k: v for k, v in unit.chosen.settings.items() if k not in CELL_SETTINGS}
    decided = decide(unit, networks.engines, source, settings=network | seen)
    plan = dataclasses.replace(decided.plan, unmeasured=decided.plan.unmeasured or unmeasured)
    if region is not None:
        near = {name: unit.chosen.settings[name] for name in WINDOW_SETTINGS}
        settings = dataclasses.replace(plan.settings, **near)
        plan = dataclasses.replace(plan, region=region, settings=settings)
    n_jobs = unit.batches["predict"]
    needed = predict_bytes(plan, [engine.footprint for engine in networks.engines])
    needed += reading_bytes(plan, restoring, networks.restorer)
    mend, what = MEND, f"{unit.name}: one window of the network"
    if restoring is not None:
        mend, what = RESTORING_MEND, f"{what}, restored"
    check_fits(Cost(needed), memory_limit(unit), what=what, mend=mend)
    facts = {
        "version": __version__,
        "unit": unit.name,
        "image": _image_facts(unit, unit.pixels),
        **decided.facts,
        **numerics_of(unit, networks, plan=plan, restoring=restoring),
        **_times(networks, source, plan=plan, restoring=restoring, n_jobs=n_jobs),
        "predict_bytes": needed,
        "region": region_facts(region),
        "n_windows": sum(int(windows_needed(plan, view).sum()) for view in plan.views),
        "n_batches": n_jobs,
    }
    if restoring is not None:
        facts["restoring"] = restore_plan_to_json(restoring)
    for warning in decided.warnings:
        log.warning("%s: %s", unit.name, warning)
    write_plan(paths.plan, {**facts, "plan": plan_to_json(plan)})
    return paths.plan


def _image_facts(unit: UnitRun, image: OpenImage) -> dict[str, Any]:
    return {
        "path": image.path,
        "axes": None if unit.needs_copy else unit.unit.image.axes,
        "series": 0 if unit.needs_copy else unit.unit.image.series,
        "identity": json.loads(json.dumps(image.identity, default=str)),
        "shape": image.shape,
        "chunk": image.chunk,
        "n_channels": image.n_channels,
        "channel_names": image.channel_names,
        "dtype": str(image.dtype),
        "spacing_um": unit.spacing_um,
        "format": image.format,
    }


def _times(
    networks: Networks,
    source: ImageSource,
    *,
    plan: Plan,
    restoring: RestorePlan | None,
    n_jobs: int,
) -> dict[str, float]:
    """Return what one window takes, with its share of restoring, and one that is restored."""
    own_s = window_s(networks.engines[0], plan)
    if restoring is None:
        return {"window_s": own_s}
    one_s = 0.0
    if networks.restorer is None:
        seconds = filtering_s(source, plan)
    else:
        one_s = restoring_window_s(networks.restorer, restoring)
        seconds = n_restored(plan, restoring, n_jobs) * one_s
    # All windows, counted in those of the first view, as costs are.
    n_px = sum(view.lattice.size(windows_needed(plan, view)) for view in plan.views)
    n_windows = n_px / math.prod(plan.views[0].lattice.edge)
    share_s = seconds / max(n_windows, 1)
    return {
        "window_s": own_s + share_s,
        "restoring_window_s": share_s,
        "restored_window_s": one_s,
    }
