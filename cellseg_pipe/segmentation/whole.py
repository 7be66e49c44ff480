"""Segments one image in memory: arrays in, arrays out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.diameter import Diameter
from cellseg_pipe.io.regions import region_of
from cellseg_pipe.preprocess import is_blank
from cellseg_pipe.segmentation.cells import Cells
from cellseg_pipe.segmentation.image import channels_first, source_of, with_spacing
from cellseg_pipe.segmentation.measuring import Measuring, measurer_for
from cellseg_pipe.segmentation.memory import check_memory
from cellseg_pipe.segmentation.plan import SURE_FLOW_ERROR, Plan
from cellseg_pipe.segmentation.predict import Answer
from cellseg_pipe.segmentation.run import Run
from cellseg_pipe.segmentation.settings import Settings, check_given
from cellseg_pipe.segmentation.table import table_of_image

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import AnyEngine

__all__ = ["Segmentation", "segment", "segment_many"]

log = logging.getLogger(__name__)
SHARE_DROPPED = 0.01  # of the foreground, beyond which it is worth a warning


@dataclass(frozen=True)
class Segmentation:
    """One segmented image.

    Parameters
    ----------
    labels : uint32 array [*spatial]
        Ids from 1 without gaps, 0 for background.
    flow : float32 array [n_axes, *spatial]
        Unit vectors, on the grid on which particles followed them. Where parts of the image are
        seen at diameters of their own, each pixel has the answer of its part.
    logit : float32 array [*spatial]
        On the same grid.
    style : float32 array [n]
        The network's summary of the image.
    table : dict of str to array [n]
        One row per cell, ascending by label.
    diameter_px : float
        Given, or measured.
    diameter : Diameter or None
        How it was measured.
    plan : Plan
        What the result depends on beside pixels and network.
    numerics : str
        Device, type, instructions and version that the last bits depend on.
    n_too_far : int
        Particles left out because their path strays beyond the reach.
    warnings : tuple of str
        What the user should know.
    """

    labels: NDArray[np.uint32]
    flow: NDArray[np.float32]
    logit: NDArray[np.float32]
    style: NDArray[np.float32]
    table: dict[str, NDArray[Any]]
    diameter_px: float
    diameter: Diameter | None
    plan: Plan
    numerics: str
    n_too_far: int
    warnings: tuple[str, ...]

    @property
    def n_cells(self) -> int:
        """How many cells were found, one that was linked through time once."""
        return int(self.labels.max(initial=0))


def segment(
    image: ArrayLike,
    *,
    model: Any = "nuclei",
    axes: str | None = None,
    rgb: bool | None = None,
    channel_names: Iterable[str] = (),
    spacing_um: tuple[float, ...] | None = None,
    diameter_um: float | None = None,
    side_model: Any = None,
    region: Any = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    measuring: Measuring | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Segmentation:
    """Segment the cells of one image.

    Parameters
    ----------
    image : real array
        An image y, x; a volume z, y, x; a series t, y, x, of which each time is an image by itself
        under one plan; with channels first, or colours last.
    model : str, path, Model or Engine
        Name or file of a model, ours or the peer's, or one that is loaded.
    axes : str, optional
        A letter per axis, out of t, c, z, y, x; guessed from the shape by default, and logged.
    rgb : bool, optional
        Whether the channels are red, green and blue; by default if there are 3 or 4 and come last.
    channel_names : iterable of str
        Names of the channels.
    spacing_um : tuple of float, optional
        Edges of a voxel along z, y, x (or y, x). Sets the anisotropy of a volume.
    diameter_um : float, optional
        Diameter of a typical cell; needs `spacing_um`.
    side_model : str, path or Model, optional
        Another network for the views along y and x, in mode 3d.
    region : optional
        Where the peaks of cells must lie: a mask array of any resolution, a file of outlines
        (GeoJSON) or a mask image, or what the experiment file says, as
        ``{"box_px": [[y0, x0], [y1, x1]]}`` or ``{"include": [...], "exclude": [...]}``. The cells
        are those of the whole image; what cannot matter to them is not computed.
    device : {"auto", "cpu", "cuda"}
        Where the network runs; auto takes a GPU if there is one, and says so.
    precision : {"auto", "fp32", "bf16"}
        Type of the network's maps; fp32 gives the same bits on more machines.
    threads : int, optional
        Threads to use; all that the process may use by default. The result does not depend on it.
    measuring : Measuring, optional
        What the table tells of each cell; form and intensities by default.
    progress : callable, optional
        Is told how many of how many windows are done.
    **settings
        Those of `Settings`: channels, mode, diameter_px, anisotropy, thresholds and so on.

    Returns
    -------
    Segmentation
        Labels, flow, logit, style, table.
    """
    from cellseg_pipe.nets.engine import engine_for  # here: labels are painted without torch

    engine = engine_for(model, device=device, precision=precision, threads=threads)
    sides = (
        engine_for(side_model, device=device, precision=precision, threads=threads)
        if side_model is not None
        else None
    )
    pixels, colours = channels_first(image, axes, rgb=rgb)
    series = axes is not None and "t" in axes.lower()
    source = source_of(pixels, tuple(channel_names), rgb=colours, series=series)
    settings = _of_planes(settings, is_volume=len(source.spatial_shape) == 3)
    chosen = settings_for(
        engine, settings, source.spatial_shape, spacing_um=spacing_um, diameter_um=diameter_um
    )
    meant = None
    if region is not None:
        if series:
            raise ValueError(
                "a region needs an image or volume, got a series in time. Leave it out."
            )
        meant = region_of(region, shape=source.shape, spacing_um=spacing_um)
    nets = (engine, sides) if sides else (engine,)
    run = Run(source, chosen, nets, threads)
    plan, measured = run.decided()
    plan = replace(plan, region=meant)
    check_memory(plan)
    answer, cells = run.cells(plan, progress)
    warnings = [*flat_inputs(plan), *unmeasured(plan), *left_out(plan, answer, cells)]
    warnings += without_effect(settings, plan)
    if not warnings and not cells.rows.id.size and is_blank(pixels):
        warnings.append("the image is of one grey value throughout: there is nothing to find")
    if spacing_um is not None and spacing_um[-1] != spacing_um[-2]:
        warnings.append(
            f"pixels are not square (y {spacing_um[-2]:g}, x {spacing_um[-1]:g} µm): the diameter"
            " is that along x, and cells are seen as they are stretched"
        )
    if plan.mode == "3d" and spacing_um is None and "anisotropy" not in settings:
        warnings.append(
            "neither the size of a voxel nor an anisotropy is known: planes are taken to be as far"
            " apart as pixels"
        )
    for warning in warnings:
        log.warning("%s", warning)
    wanted = replace(measuring or Measuring(), spacing=spacing_um)
    names = source.names or tuple(str(i) for i in range(source.n_channels))
    return Segmentation(
        labels=cells.labels,
        flow=answer.flow,
        logit=answer.logit,
        style=answer.style,
        table=table_of_image(cells, pixels, measurer_for(plan, wanted, threads), names=names),
        diameter_px=plan.diameter_px,
        diameter=measured,
        plan=plan,
        numerics=engine.numerics,
        n_too_far=cells.n_too_far,
        warnings=tuple(warnings),
    )


def _of_planes(settings: dict[str, Any], *, is_volume: bool) -> dict[str, Any]:
    """Return settings of a volume whose planes are to be joined, if it is said how.

    To say how cells of neighbouring planes are joined is to ask for planes.
    """
    if not is_volume or settings.get("stitch_threshold") is None:
        return settings
    mode = settings.get("mode", "auto")
    if mode == "3d":
        raise ValueError(
            f"stitch_threshold joins cells of planes, mode 'planes', got mode {mode!r}. Leave one"
            " out."
        )
    return settings | {"mode": "planes"} if mode == "auto" else settings


def settings_for(
    engine: AnyEngine,
    settings: Mapping[str, Any],
    shape: tuple[int, ...],
    *,
    spacing_um: tuple[float, ...] | None,
    diameter_um: float | None,
) -> Settings:
    """Return settings with what the network and the image decide where nothing is said.

    Parameters
    ----------
    engine : AnyEngine
        The network.
    settings : mapping
        What the user set.
    shape : tuple of int
        Spatial shape of the image.
    spacing_um : tuple of float or None
        Edges of a voxel.
    diameter_um : float or None
        Diameter of a typical cell.

    Returns
    -------
    Settings
        Checked.
    """
    check_given(settings)
    given = {"percentiles": engine.percentiles, **settings}
    if engine.window_px:
        given.setdefault("window_px", engine.window_px)
        # Networks whose windows cannot be divided take one size.
        if engine.architecture.divisor == engine.window_px != given["window_px"]:
            raise ValueError(
                f"{engine.name} takes windows of {engine.window_px} px alone, got"
                f" {given['window_px']}. Leave window_px out."
            )
    return with_spacing(given, shape, spacing_um, diameter_um=diameter_um)


def without_effect(settings: Mapping[str, Any], plan: Plan) -> Iterator[str]:
    """Yield a warning for each setting that means nothing to an image of this kind.

    Parameters
    ----------
    settings : mapping
        What the user set, for images of all kinds.
    plan : Plan
        Of the image.

    Yields
    ------
    str
        The warning.
    """
    modes = {
        "anisotropy": ("3d", "planes"),
        "flow_smooth_px": ("3d",),
        "stitch_threshold": ("planes",),
        "time_iou": ("planes",),
    }
    for name, meant in modes.items():
        if settings.get(name) is not None and plan.mode not in meant:
            yield f"{name} has no effect in mode {plan.mode}"


def segment_many(
    images: Iterable[ArrayLike | tuple[ArrayLike, Mapping[str, Any]]], **settings: Any
) -> Iterator[Segmentation]:
    """Segment images one after the other with one loaded model.

    Parameters
    ----------
    images : iterable of array or (array, settings)
        Each image, with what is set for it alone.
    **settings
        Those of `segment`, for all of them.

    Yields
    ------
    Segmentation
        In the order of the images; nothing of one is kept for the next.
    """
    from cellseg_pipe.nets.engine import engines_for

    loaded = engines_for(settings)
    for image in images:
        pixels, own = image if isinstance(image, tuple) else (image, {})
        # Networks that run elsewhere, or otherwise, are loaded for it.
        nets = {} if {"device", "precision"} & set(own) else loaded
        yield segment(pixels, **{**settings, **nets, **own})


def flat_inputs(plan: Plan) -> Iterator[str]:
    """Yield a warning for each input that takes something and finds no contrast in it.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Yields
    ------
    str
        The warning.
    """
    if all(pick.kind == "zero" for pick in plan.picks):
        yield "no input of the network takes a channel: there is nothing to find cells in"
    flat = (
        [part.flat for part in plan.ranges] if isinstance(plan.ranges, tuple) else plan.ranges.flat
    )
    for number, (pick, is_flat) in enumerate(zip(plan.picks, flat, strict=True)):
        if is_flat and pick.kind != "zero":
            yield f"input {number} of the network has no contrast: its channel is constant"


def unmeasured(plan: Plan) -> Iterator[str]:
    """Yield a warning if there were no cells to measure the diameter on.

    Parameters
    ----------
    plan : Plan
        Of the image.

    Yields
    ------
    str
        The warning.
    """
    if plan.unmeasured:
        only = f", and only cells with a flow error up to {SURE_FLOW_ERROR:g} count"
        yield (
            "no cells were found to measure the diameter on: the model's own,"
            f" {plan.diameter_px:g} px, is taken{only if plan.settings.flow_threshold else ''}."
            " Give diameter_px if there are any"
        )


def left_out(plan: Plan, answer: Answer, cells: Cells) -> Iterator[str]:
    """Yield a warning if much of the foreground counts for no cell.

    Parameters
    ----------
    plan : Plan
        Of the image.
    answer : Answer
        The network's.
    cells : Cells
        What was made of it.

    Yields
    ------
    str
        The warning.
    """
    foreground = np.count_nonzero(answer.logit > plan.settings.cellprob_threshold)
    if cells.n_too_far > SHARE_DROPPED * foreground:
        yield (
            f"{cells.n_too_far} of {foreground} foreground pixels lead farther than the reach of"
            f" {plan.reach_px} px and were left out: cells are larger than the diameter of"
            f" {plan.diameter_px:.1f} px suggests. Give a larger diameter or reach_px."
        )
