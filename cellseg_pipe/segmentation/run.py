"""One image with its networks: what is measured of it, planned and carried out. No files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.diameter import (
    Diameter,
    Sample,
    measure_diameter,
    measure_near,
    nothing_found,
    refined,
    region_edge,
    sample_regions,
)
from cellseg_pipe.geometry import Box, ceil_div
from cellseg_pipe.kernels import border_objects, diameter_px
from cellseg_pipe.preprocess import Range
from cellseg_pipe.segmentation.cells import Cells, cells_of
from cellseg_pipe.segmentation.fields import Fields, check_mode, fields_of, measuring_grid
from cellseg_pipe.segmentation.image import source_of
from cellseg_pipe.segmentation.joining import joined_cells
from cellseg_pipe.segmentation.plan import (
    ImageSource,
    Plan,
    make_plan,
    mode_of,
    network_source,
)
from cellseg_pipe.segmentation.predict import Answer, on_walked_grid, records_of
from cellseg_pipe.segmentation.scope import only_needed
from cellseg_pipe.segmentation.settings import CELL_SETTINGS, Settings
from cellseg_pipe.segmentation.tiled import find_cells

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import AnyEngine

__all__ = ["Run", "class_plans"]

# How samples are segmented to measure the diameter, whatever is set for the cells: a threshold
# that changes must not change what the network sees.
MEASURING: dict[str, Any] = {
    **{name: getattr(Settings(), name) for name in CELL_SETTINGS},
    "mode": "2d",
    "augment": False,
}


@dataclass(frozen=True)
class Run:
    """One image with its networks: plans and carries out at any diameter."""

    source: ImageSource
    settings: Settings
    nets: tuple[AnyEngine, ...]
    threads: int | None

    def plan(self, diameter: float, ranges: tuple[Range, ...] | None = None) -> Plan:
        """Freeze everything for a diameter, with ranges that are known or are measured."""
        return make_plan(
            self.source,
            self.settings,
            network=self.nets[0].architecture,
            diameter_px=diameter,
            network_diameter_px=self.nets[0].diameter_px,
            ranges=ranges,
        )

    def decided(self) -> tuple[Plan, Diameter | None]:
        """Measure what has to be measured, and return the plan, and how its diameter was found."""
        given, several = self.settings.diameter_px, self.settings.diameter_classes > 1
        shape, series = self.source.shape, self.source.series
        n_axes = self.nets[0].architecture.ndim
        if not given and n_axes == 3:
            raise ValueError(
                f"the diameter is measured on planes, and {self.nets[0].name} is a network of 3"
                f" axes. Give diameter_px (its own is {self.nets[0].diameter_px:g})."
            )
        self._check_sides(mode_of(self.settings, shape, n_axes, series=series))
        if several:
            check_mode(mode_of(self.settings, shape, n_axes, series=series), series=series)
        measured = None if given else self.measured_diameter()
        plan = self.plan(given or (measured.px if measured else self.nets[0].diameter_px))
        if measured is not None and self.settings.diameter_by == "samples":
            plan = replace(plan, unmeasured=measured.n_cells == 0)
        if measured is None or not several:
            return plan, measured
        return replace(plan, fields=self.fields(measured)), measured

    def _check_sides(self, mode: str) -> None:
        """Refuse a second network that no view is for, or that needs other images."""
        main, *sides = self.nets
        if sides and (mode != "3d" or main.architecture.ndim == 3):
            raise ValueError(
                f"side_model is for volumes seen from three sides by networks of 2 axes, got mode"
                f" {mode!r} and {main.name}, of {main.architecture.ndim} axes. Leave it out."
            )
        for side in sides:
            ours, theirs = (
                (net.architecture.ndim, net.architecture.n_inputs, net.architecture.n_outputs,
                 net.diameter_px)
                for net in (main, side)
            )  # fmt: skip
            if ours != theirs:
                raise ValueError(
                    f"side_model {side.name} needs the axes, inputs, outputs and diameter of"
                    f" {main.name}, {ours}, got {theirs}."
                )

    def cells(
        self, plan: Plan, progress: Callable[[int, int], None] | None = None
    ) -> tuple[Answer, Cells]:
        """Return the network's answer for the whole image, and its cells."""
        fields = plan.fields
        plans = [plan] if fields is None or not fields.differ else class_plans(self, plan)
        total, done = sum(len(view.lattice) for each in plans for view in each.views), 0

        def count(n: int) -> None:
            nonlocal done
            done += n
            if progress:
                progress(done, total)

        if fields is None or len(plans) == 1:
            answer = self._answer(plan, count)
            return answer, cells_of(answer, plan, threads=self.threads)
        box, found, joined = Box.of(plan.walk_shape), [], None
        for number, each in enumerate(plans):
            answer = self._answer(each, count)
            part = find_cells(answer, each, window=box, core=box, threads=self.threads)
            found.append(part)
            joined = _overlaid(joined, answer, fields=fields, number=number)
        assert joined is not None  # there are two classes or more
        return joined, joined_cells(found, plans, plan)

    def _answer(self, plan: Plan, count: Callable[[int], None]) -> Answer:
        make = only_needed(network_source(self.source, plan, threads=self.threads), plan)
        records = records_of(self.nets, make, plan, progress=count)
        return on_walked_grid(records, plan, Box.of(plan.walk_shape))

    def measured_diameter(self) -> Diameter:
        """Segment samples of the image at several scales; grey values as in the whole image."""
        engine = self.nets[0]
        styles: list[NDArray[np.float32]] = []
        sample_at = self._sampler(Box.of(self.source.shape), styles)
        if self.settings.diameter_by == "samples":
            return measure_diameter(sample_at, engine.diameter_px)
        if engine.size is None:
            raise ValueError(
                f"diameter_by='style' needs a model with a size regression, and"
                f" {engine.name} has none. Give diameter_px, or diameter_by='samples'."
            )
        sample_at(engine.diameter_px, region_edge(engine.diameter_px))
        seen = [style for style in styles if style.any()]  # none of a region of one value
        if not seen:
            return nothing_found(engine.diameter_px)
        guess = engine.size.diameter_px(np.mean(seen, axis=0))
        found = refined(sample_at, Sample(np.array([guess]), np.ones(1), 1), rounds=1)
        # Too few cells at this diameter to measure it: it is what the regression says.
        return found if found.n_cells > 1 else replace(found, n_cells=0)

    def fields(self, measured: Diameter) -> Fields:
        """Measure the diameter in each field of the image, and sort fields into classes."""
        grid = measuring_grid(self.source.shape, measured.px)
        found = [
            measure_near(self._sampler(grid.box(number), []), measured.px)
            for number in range(len(grid) if measured.n_cells else 0)
        ] or [None] * len(grid)
        sizes = [None if one is None else one.px for one in found]
        most = self.settings.diameter_classes
        return fields_of(grid, sizes, typical_px=measured.px, most=most)

    def _sampler(
        self, part: Box, styles: list[NDArray[np.float32]]
    ) -> Callable[[float, int], Sample]:
        """Return what segments samples of a part of the image, and lists their styles."""
        ranges = self._ranges

        def sample_at(trial: float, edge_px: int) -> Sample:
            # Cells of a part count if their peak lies in it. More is seen of a small one, or its
            # border would cut too many.
            lacks = [max(0, ceil_div(edge_px - n, 2)) for n in part.shape[-2:]]
            wide = part.grow((*(0,) * (part.ndim - 2), *lacks)).clip(Box.of(self.source.shape))
            regions = [box.shift(wide.start) for box in sample_regions(wide.shape, edge_px)]
            seen = [self._sample(box, trial, ranges=ranges, part=part) for box in regions]
            styles.extend(one[2] for one in seen)
            sizes, qualities = (np.concatenate([one[i] for one in seen]) for i in (0, 1))
            return Sample(sizes, qualities, sum(box.clip(part).size for box in regions))

        return sample_at

    @cached_property
    def _ranges(self) -> Any:
        """Grey values that become 0 and 1, as the network's own diameter has them."""
        return self.plan(self.nets[0].diameter_px).ranges

    def _sample(
        self, box: Box, trial: float, *, ranges: Any, part: Box
    ) -> tuple[NDArray[Any], ...]:
        """Return diameters and qualities of a part's cells inside one region, and its style."""
        flat = self.source.read(box)
        pixels = flat.reshape(flat.shape[0], *box.shape[-2:])
        region = source_of(pixels, self.source.names, rgb=self.source.rgb)
        alone = replace(self.settings, **MEASURING)
        run = replace(self, source=region, settings=alone)
        # A grid of local ranges fits no other image: the region gets its own.
        plan = run.plan(trial, ranges if isinstance(ranges, tuple) else None)
        answer, cells = run.cells(plan)
        rows = cells.rows
        inside = ~np.isin(rows.id, border_objects(cells.labels))
        peak = rows.peak + np.asarray(box.start[-2:])
        inside &= ((peak >= part.start[-2:]) & (peak < part.stop[-2:])).all(axis=1)
        areas = np.bincount(cells.labels.ravel(), minlength=rows.id.size + 1)[1:]
        error = np.nan_to_num(rows.flow_error)
        quality = rows.probability * np.clip(1 - error / 0.4, 0, 1)
        return diameter_px(areas[inside], 2), quality[inside], answer.style


def class_plans(run: Run, plan: Plan) -> list[Plan]:
    """Return how each class of an image's diameters is seen.

    Parameters
    ----------
    run : Run
        The image.
    plan : Plan
        With fields.

    Returns
    -------
    list of Plan
        That of the image at the diameter of the class, for cells whose peak lies in its fields.
    """
    fields = plan.fields
    assert fields is not None
    return [
        replace(run.plan(px), region=fields.region(number, plan.region))
        for number, px in enumerate(fields.diameter_px)
    ]


def _overlaid(below: Answer | None, answer: Answer, *, fields: Fields, number: int) -> Answer:
    """Return the answers of all classes as one: each pixel has that of its field."""
    if below is None:
        return answer
    for field in np.flatnonzero(np.asarray(fields.classes) == number):
        part = (..., *fields.grid.box(int(field)).slices)
        for name in ("flow", "logit", "classes", "spread"):
            getattr(below, name)[part] = getattr(answer, name)[part]
    share = fields.shares
    return replace(below, style=answer.style) if share[number] > max(share[:number]) else below
