"""Measures what an image's windows depend on: for its plan, or to segment it whole at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellseg_pipe.diameter import Diameter
from cellseg_pipe.segmentation.plan import ImageSource, Plan
from cellseg_pipe.segmentation.run import Run
from cellseg_pipe.segmentation.whole import flat_inputs, settings_for, unmeasured
from cellseg_pipe.stages.unit import UnitRun

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import AnyEngine

__all__ = ["Decided", "decide"]


@dataclass(frozen=True)
class Decided:
    """What an image's windows depend on, and how it was found.

    Parameters
    ----------
    run : Run
        The image with its networks.
    plan : Plan
        Of the image.
    measured : Diameter or None
        How the diameter was measured, if it was.
    warnings : tuple of str
        What the user should know.
    """

    run: Run
    plan: Plan
    measured: Diameter | None
    warnings: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Diameter and warnings, as JSON."""
        measured = None if self.measured is None else dataclasses.asdict(self.measured)
        fields = self.plan.fields
        return {
            "diameter_px": self.plan.diameter_px,
            "diameter": measured,
            **({} if fields is None else {"diameter_classes": fields.facts}),
            "warnings": list(self.warnings),
        }


def decide(
    unit: UnitRun,
    engines: tuple[AnyEngine, ...],
    source: ImageSource,
    *,
    settings: Mapping[str, Any],
    threads: int | None = None,
) -> Decided:
    """Measure what has to be measured of an image.

    Parameters
    ----------
    unit : UnitRun
        The unit.
    engines : tuple of AnyEngine
        Its networks.
    source : ImageSource
        Its pixels.
    settings : mapping
        Those of the unit, or the part of them that windows depend on.
    threads : int, optional
        Threads to use.

    Returns
    -------
    Decided
        The plan, and how it came about.
    """
    chosen = settings_for(
        engines[0],
        settings,
        source.spatial_shape,
        spacing_um=unit.spacing_um,
        diameter_um=unit.chosen.diameter_um,
    )
    run = Run(source, chosen, engines, threads)
    plan, measured = run.decided()
    if plan.mode != unit.mode:
        raise ValueError(
            f"{unit.name}: mode auto was taken as {unit.mode}, the network wants {plan.mode}. Set"
            f" segment.mode to {plan.mode}."
        )
    return Decided(run, plan, measured, (*flat_inputs(plan), *unmeasured(plan)))
