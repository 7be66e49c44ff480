"""Restores one image in memory: arrays in, arrays out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.machine import available_bytes
from cellseg_pipe.restoration.boxes import as_type, restored_box, restored_records
from cellseg_pipe.restoration.plan import RestorePlan, make_restore_plan
from cellseg_pipe.restoration.settings import RestoreSettings
from cellseg_pipe.segmentation.image import channels_first, check_spacing, source_of
from cellseg_pipe.segmentation.plan import ImageSource

if TYPE_CHECKING:
    from cellseg_pipe.nets.engine import Engine

__all__ = ["Restoration", "restore"]

MODEL = "one-click"
BASE_BYTES = 300_000_000  # libraries and compiled loops
STEPS = 4  # arrays of float32 that are held at once on the network's grid
RESULT_BYTES = 24  # of each value of the result: float32, and float64 twice where it is rounded

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restoration:
    """One restored image.

    Parameters
    ----------
    pixels : array
        Grey values of the image, with its axes; channels first, colours last.
    pixel_factor : tuple of float
        Edge of a pixel of the result over that of the image, per spatial axis.
    spacing_um : tuple of float or None
        Size of a voxel of the result, if that of the image is known.
    plan : RestorePlan
        What the result depends on beside pixels and network.
    model : str
        Name of the network; "" for a filter.
    model_sha256 : str
        Checksum of its file.
    numerics : str
        Device, type, instructions and version that the last bits depend on; "" for a filter.
    """

    pixels: NDArray[Any]
    pixel_factor: tuple[float, ...]
    spacing_um: tuple[float, ...] | None
    plan: RestorePlan
    model: str
    model_sha256: str
    numerics: str


def restore(
    image: ArrayLike,
    *,
    model: Any = MODEL,
    axes: str | None = None,
    rgb: bool | None = None,
    channel_names: Iterable[str] = (),
    spacing_um: tuple[float, ...] | None = None,
    dtype: Literal["float32", "input"] = "float32",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Restoration:
    """Restore one image: take noise and blur from it, or give it more pixels.

    Parameters
    ----------
    image : real array
        An image y, x; a volume z, y, x or a series t, y, x, plane by plane; with channels first,
        or colours last.
    model : str, path, Model or Engine
        Name or file of a network that restores, ours or the peer's; not looked at by a filter.
    axes : str, optional
        A letter per axis, out of t, c, z, y, x; guessed from the shape by default.
    rgb : bool, optional
        Whether the channels are red, green and blue; colours last by default.
    channel_names : iterable of str
        Names of the channels.
    spacing_um : tuple of float, optional
        Size of a voxel; tells how coarse the first axis is, for aniso models.
    dtype : {"float32", "input"}
        Type of the result: "input" rounds to that of the image.
    device : {"auto", "cpu", "cuda"}
        Where the network runs.
    precision : {"auto", "fp32", "bf16"}
        Type of its maps.
    threads : int, optional
        Threads to use.
    progress : callable, optional
        Is told how many of how many windows are done.
    **settings
        Those of `RestoreSettings`: method, diameter_px, channels, offset, anisotropy and so on.

    Returns
    -------
    Restoration
        Pixels, their size, and what was used.
    """
    if dtype not in ("float32", "input"):
        raise ValueError(f"dtype needs to be float32 or input, got {dtype!r}.")
    pixels, colours = channels_first(image, axes, rgb=rgb)
    series = axes is not None and "t" in axes.lower()
    source = source_of(pixels, tuple(channel_names), rgb=colours, series=series)
    engine, chosen = _chosen(
        model,
        settings,
        ndim=len(source.spatial_shape),
        spacing_um=spacing_um,
        device=device,
        precision=precision,
        threads=threads,
    )
    info = engine.model.info if engine else None
    plan = make_restore_plan(source, chosen, model=info)
    if plan.clear:
        log.warning(
            "channels %s are clear and stay as they are; clear_below 0 restores them",
            ", ".join(map(str, plan.clear)),
        )
    _check_memory(plan)
    found = _pixels(source, plan, engine, progress=progress, threads=threads)
    result = as_type(found, np.float32 if dtype == "float32" else pixels.dtype)
    if plan.out.identity and dtype == "input":  # float32 does not hold all whole numbers
        kept = [n for n in range(plan.n_channels) if n not in plan.channels]
        result[kept] = pixels[kept]
    if colours:
        result = np.moveaxis(result, 0, -1)
    elif np.ndim(image) == len(source.shape):
        result = result[0]
    factor = plan.pixel_factor
    return Restoration(
        pixels=result,
        pixel_factor=factor,
        spacing_um=_spacing(spacing_um, factor),
        plan=plan,
        model=engine.name if engine else "",
        model_sha256=engine.sha256 if engine else "",
        numerics=engine.numerics if engine else "",
    )


def _chosen(
    model: Any,
    settings: dict[str, Any],
    *,
    ndim: int,
    spacing_um: tuple[float, ...] | None,
    **running: Any,
) -> tuple[Engine | None, RestoreSettings]:
    """Return the network, and settings with what it and the image decide."""
    given = dict(settings)
    if spacing_um is not None:
        check_spacing(spacing_um, ndim)
        given.setdefault("anisotropy", spacing_um[0] / spacing_um[-1])
    if given.get("method", "network") != "network":
        return None, RestoreSettings(**given)
    from cellseg_pipe.nets.restore import restorer_for  # here: a filter needs no torch

    engine = restorer_for(model, **running)
    if settings.get("anisotropy") is not None and engine.model.info.restores != "aniso":
        raise ValueError(
            f"anisotropy is for models that fill in planes, and {engine.name} does not. Leave it"
            " out."
        )
    if engine.window_px:
        given.setdefault("window_px", engine.window_px)
    return engine, RestoreSettings(**given)


def _pixels(
    source: ImageSource,
    plan: RestorePlan,
    engine: Engine | None,
    *,
    progress: Callable[[int, int], None] | None,
    threads: int | None,
) -> NDArray[np.float32]:
    """Return all of the result."""
    total = sum(len(view.lattice) for view in plan.views) if plan.channels else 0
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(done, total)

    records = None
    if engine:
        records = restored_records(engine, source, plan, progress=count, threads=threads)
    box = Box.of(plan.out_shape)
    return restored_box(source, plan, box, records=records, threads=threads)


def _spacing(
    spacing_um: tuple[float, ...] | None, factor: tuple[float, ...]
) -> tuple[float, ...] | None:
    if spacing_um is None:
        return None
    own = factor[-len(spacing_um) :]  # times have none
    return tuple(edge * part for edge, part in zip(spacing_um, own, strict=True))


def _check_memory(plan: RestorePlan) -> None:
    """Refuse an image that does not fit."""
    n_grid = math.prod(plan.grid_shape) * len(plan.channels)
    n_out = math.prod(plan.out_shape) * plan.n_channels
    needed = BASE_BYTES + 4 * STEPS * n_grid + RESULT_BYTES * n_out
    there = available_bytes()
    if there is not None and needed > there:
        raise MemoryError(
            f"restoring an image of shape {plan.shape} to {plan.out_shape} needs about"
            f" {needed / 1e9:.1f} GB, got {there / 1e9:.1f} GB. Restore fewer channels, a part of"
            " the image, or give a larger diameter."
        )
