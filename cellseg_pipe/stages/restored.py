"""Restoring the image of a unit where its pixels are read: what is checked, frozen and kept."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets._info import ModelInfo, stored_info
from cellseg_pipe.nets.catalog import load_model, resolve
from cellseg_pipe.restoration import (
    RestorePlan,
    RestoreSettings,
    check_channels,
    check_same_grid,
    make_restore_plan,
    restored_source,
)
from cellseg_pipe.segmentation.plan import ImageSource, Plan
from cellseg_pipe.stages.pixels import source_of_image
from cellseg_pipe.stages.restoring_costs import kept_bytes
from cellseg_pipe.stages.unit import UnitRun

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import Engine
    from cellseg_pipe.stages.networks import Networks

__all__ = [
    "check_restoring",
    "plan_restoring",
    "restored",
    "restored_facts",
    "restored_whole",
]

log = logging.getLogger(__name__)

OTHER_GRID = ("upsample", "aniso")


def check_restoring(unit: UnitRun) -> None:
    """Refuse before any work what cannot restore the image of a unit.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    """
    if unit.chosen.restore is None:
        return
    settings = _settings(unit)
    try:
        check_channels(source_of_image(unit.image), settings)
    except ValueError as error:
        raise ValueError(f"{unit.name}: restore: {error}") from error
    if unit.chosen.restore.model is None:
        return
    path = resolve(unit.chosen.restore.model)
    info = _info(path, os.stat(path).st_mtime_ns)
    if info.task != "restoration":
        raise ValueError(
            f"restore.model needs a network that restores, got {info.name}, which is for"
            f" {info.task}. `cellseg models list` shows what there is."
        )
    if info.restores in OTHER_GRID:
        raise ValueError(
            f"restore.model {info.name} gives an image other pixels ({info.restores}), and labels"
            " lie on those of the image itself. An image that fits in memory is restored first,"
            " with `cellseg restore`."
        )


@cache
def _info(path: Path, _written: int) -> ModelInfo:
    return stored_info(path) or load_model(path).info


def _settings(unit: UnitRun, window_px: int | None = None) -> RestoreSettings:
    """Return what is set of restoring, with what image and model decide."""
    said = unit.chosen.restore
    assert said is not None  # for those who ask
    given = dict(said.settings)
    if said.diameter_um is not None:
        if unit.spacing_um is None:
            raise ValueError(
                f"{unit.name}: restore.diameter_um needs the size of a pixel, and the image does"
                " not tell it. Give spacing_um, or restore.diameter_px."
            )
        given["diameter_px"] = said.diameter_um / unit.spacing_um[-1]
    if window_px is not None:
        given.setdefault("window_px", window_px)
    return RestoreSettings(**given)


def plan_restoring(unit: UnitRun, source: ImageSource, networks: Networks) -> RestorePlan | None:
    """Decide what restoring the image of a unit depends on.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    source : ImageSource
        Its pixels.
    networks : Networks
        What segments it, and what restores it if a network does.

    Returns
    -------
    RestorePlan or None
        Of those channels that the network sees; None without a section `restore`.
    """
    if unit.chosen.restore is None:
        return None
    restorer = networks.restorer
    settings = _settings(unit, restorer.window_px if restorer else None)
    info = restorer.model.info if restorer else None
    seen = _seen_channels(unit, source, networks.engines[0].architecture.n_inputs)
    plan = make_restore_plan(source, settings, model=info, seen=seen)
    if not (plan.channels or plan.clear):
        log.warning("%s: restore.channels names none that the network sees", unit.name)
    if plan.clear:
        log.warning(
            "%s: channels %s are clear and are not restored; restore.clear_below: 0 restores them",
            *(unit.name, ", ".join(map(str, plan.clear))),
        )
    check_same_grid(plan)
    return plan


def _seen_channels(unit: UnitRun, source: ImageSource, n_inputs: int) -> set[int]:
    """Return the channels that the network of a unit sees."""
    picks = source.picks(unit.chosen.settings.get("channels"), n_inputs)
    if any(pick.kind in ("grey", "stain") for pick in picks):
        return set(range(source.n_channels))
    return {pick.index for pick in picks if pick.kind == "channel"}


def restored(
    source: ImageSource,
    restoring: RestorePlan | None,
    restorer: Engine | None,
    *,
    plan: Plan | None = None,
    threads: int | None = None,
) -> ImageSource:
    """Return the pixels that a network sees: of the restored image, if it is restored.

    Parameters
    ----------
    source : ImageSource
        The image.
    restoring : RestorePlan or None
        What is done to it.
    restorer : Engine or None
        What restores, if a network does.
    plan : Plan, optional
        Gives the windows that will be read; samples by default.
    threads : int, optional
        Threads to use.

    Returns
    -------
    ImageSource
        Any box of it has the bits of the whole.
    """
    if restoring is None:
        return source
    kept = kept_bytes(restoring, plan)
    return restored_source(source, restoring, net=restorer, kept_bytes=kept, threads=threads)


def restored_whole(
    source: ImageSource,
    restoring: RestorePlan | None,
    restorer: Engine | None,
    *,
    threads: int | None = None,
) -> ImageSource:
    """Return the same with all of it in memory.

    Parameters
    ----------
    source : ImageSource
        The image.
    restoring : RestorePlan or None
        What is done to it.
    restorer : Engine or None
        What restores, if a network does.
    threads : int, optional
        Threads to use.

    Returns
    -------
    ImageSource
        Of pixels that are restored already.
    """
    if restoring is None:
        return source
    pixels = restored(source, restoring, restorer, threads=threads).read(Box.of(source.shape))
    return dataclasses.replace(source, read=lambda box: pixels[(slice(None), *box.slices)])


def restored_facts(
    restoring: RestorePlan | None, restorer: dict[str, Any] | None, names: Sequence[str]
) -> dict[str, Any]:
    """Return what `summary.json` says of restoring an image: nothing where it is as it was.

    Parameters
    ----------
    restoring : RestorePlan or None
        What is done to it.
    restorer : dict or None
        Of the network: `model` and `numerics`.
    names : sequence of str
        Of the channels, if they have any.

    Returns
    -------
    dict
        `restore`, or nothing.
    """
    if restoring is None:
        return {}
    facts: dict[str, Any] = {
        "method": restoring.method,
        "channels": [names[c] if names else c for c in restoring.channels],
        "clear": [names[c] if names else c for c in restoring.clear],
        "n_channels": restoring.n_channels,
        "offset": list(restoring.floors),
    }
    if restorer is not None:
        model = {key: restorer["model"][key] for key in ("name", "sha256")}
        facts |= {"model": model, "numerics": restorer["numerics"], "kind": restoring.kind}
        facts |= {"diameter_px": restoring.diameter_px, "scale": restoring.scale.factors[-1]}
    elif restoring.method == "gaussian":
        facts["sigma_px"] = restoring.sigma_px[-1]
    else:
        facts["size_px"] = restoring.size_px[-1]
    return {"restore": facts}
