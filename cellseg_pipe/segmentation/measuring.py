"""Measures cells in a part of an image: what it sees of them whole, and what will add up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import (
    Corners,
    Sums,
    Tally,
    convex_sizes,
    convex_volumes,
    object_contours,
    object_quantiles,
    object_rings,
    object_sums,
    object_texture,
    plane_hulls,
    ring_reach,
)
from cellseg_pipe.segmentation.measured import Measured, join_measured
from cellseg_pipe.segmentation.plan import Plan

__all__ = ["Measurer", "Measuring", "View", "measurer_for"]


@dataclass(frozen=True)
class Measuring:
    """What is measured of each cell beside its place, size and scores.

    Parameters
    ----------
    shape : bool
        Axes, hull and border.
    intensity : bool
        Mean, standard deviation, least and largest value of each channel.
    quantiles : tuple of float
        Of each channel's values, from 0 to 1.
    ring_px : int
        Width of the background round a cell whose mean is taken; 0 for none.
    texture : bool
        How much neighbouring pixels differ.
    spacing : tuple of float, optional
        Edges of a voxel, whose proportions count; by default as the plan's anisotropy says.
    seams : {"exact", "iou"}
        With iou tiles see cells in part.
    """

    shape: bool = True
    intensity: bool = True
    quantiles: tuple[float, ...] = (0.05, 0.5, 0.95)
    ring_px: int = 0
    texture: bool = False
    spacing: tuple[float, ...] | None = None
    seams: str = "exact"


@dataclass(frozen=True)
class View:
    """The part of an image in which cells are measured.

    Parameters
    ----------
    box : Box
        What is seen of level 0: `inner`, and the margin of the `Measurer` as far as the image goes.
    labels : uint32 array [*box]
        Of all cells.
    pixels : array [C, *box]
        The channels that are measured.
    inner : Box
        Whose pixels count.
    core : Box
        Where borders count of which parts are added up: cores cover the image once.
    """

    box: Box
    labels: NDArray[np.uint32]
    pixels: NDArray[Any]
    inner: Box
    core: Box

    @cached_property
    def image(self) -> NDArray[Any]:
        """The pixels as a type that can be measured."""
        known = self.pixels.dtype in (np.uint8, np.uint16, np.float64)
        return self.pixels if known else self.pixels.astype(np.float32)

    @property
    def frame(self) -> View:
        """The same of one time of a series, as of an image y, x."""
        boxes = (Box(b.start[1:], b.stop[1:]) for b in (self.box, self.inner, self.core))
        box, inner, core = boxes
        return View(box, self.labels[0], self.pixels[:, 0], inner, core)

    @property
    def inside(self) -> Box:
        """The inner box as a part of the view."""
        return self.inner.relative_to(self.box.start)

    def framed(self, box: Box) -> NDArray[np.uint32]:
        """Return the labels of a box that may reach beyond the image, where there are none."""
        seen = box.clip(self.box)
        labels = self.labels[seen.relative_to(self.box.start).slices]
        beyond = [
            (a - low, high - b)
            for low, high, a, b in zip(box.start, box.stop, seen.start, seen.stop, strict=True)
        ]
        return np.pad(labels, beyond)


@dataclass(frozen=True)
class Measurer:
    """Measures the cells of one image.

    Parameters
    ----------
    plan : Plan
        Of the image.
    measuring : Measuring
        What is measured.
    threads : int, optional
        Threads to use; the result does not depend on it.
    """

    plan: Plan
    measuring: Measuring = Measuring()
    threads: int | None = None

    @property
    def sees_whole(self) -> bool:
        """Whether each cell is seen as a whole; else planes or tiles add up."""
        return self.measuring.seams == "exact" and self.plan.mode != "planes"

    @property
    def proportions(self) -> tuple[float, ...]:
        """The edges of a voxel in units of its last one."""
        if self.measuring.spacing is not None:
            return tuple(edge / self.measuring.spacing[-1] for edge in self.measuring.spacing)
        return (self.plan.settings.anisotropy, 1.0, 1.0)[-len(self.plan.shape) :]

    @property
    def ring_edges(self) -> tuple[float, ...]:
        """The edges of a voxel as rings see them: in mode planes they stay in their plane."""
        edges = self.proportions
        return (math.inf, *edges[1:]) if self.plan.mode == "planes" else edges

    @property
    def margin_px(self) -> tuple[int, ...]:
        """How far beyond the pixels that count must be looked, per axis."""
        beside = int(self.measuring.shape or self.measuring.texture)
        return tuple(max(beside, r) for r in ring_reach(self.measuring.ring_px, self.ring_edges))

    def view(
        self, view: View, ids: NDArray[np.uint32], peaks: NDArray[np.int64] | None = None
    ) -> Measured:
        """Measure the cells of a part of an image.

        Parameters
        ----------
        view : View
            The part.
        ids : uint32 array [n]
            Which cells, ascending.
        peaks : int64 array [n, ndim], optional
            From which moments count; the image's corner by default, so that parts of a cell add up.

        Returns
        -------
        Measured
            Where parts of borders add up, those of further cells are in it.
        """
        labels = view.labels[view.inside.slices]
        pixels = view.image[(slice(None), *view.inside.slices)]
        shape = self.measuring.shape
        return Measured(
            self._sums(labels, pixels, ids=ids, peaks=peaks, start=view.inner.start),
            self._contours(view, ids) if shape else Tally.none(),
            self._texture(view, ids) if self.measuring.texture else Tally.none(),
            self._ring(view, ids) if self.measuring.ring_px else Tally.none(),
            self._convex(labels, ids)
            if shape and self.sees_whole
            else np.zeros((len(ids), 0), np.int64),
            self._quantiles(labels, pixels, ids),
            self._corners(labels, ids, view.inner.start),
        )

    def image(
        self,
        labels: NDArray[np.uint32],
        pixels: NDArray[Any],
        *,
        ids: NDArray[np.uint32],
        peaks: NDArray[np.int64],
    ) -> Measured:
        """Measure the cells of a whole image.

        Parameters
        ----------
        labels : uint32 array [*spatial]
            On level 0.
        pixels : array [C, *spatial]
            The image.
        ids : uint32 array [n]
            Its cells, ascending.
        peaks : int64 array [n, ndim]
            From which their moments count; not in mode planes.

        Returns
        -------
        Measured
            One row per cell.
        """
        whole = Box.of(labels.shape)
        if self.plan.mode == "planes":
            return join_measured(self._planes(labels, pixels, ids))
        walked = peaks if self.plan.walks_level_0 else np.zeros_like(peaks)
        return self.view(View(whole, labels, pixels, whole, whole), ids, walked)

    def _planes(
        self, labels: NDArray[np.uint32], pixels: NDArray[Any], ids: NDArray[np.uint32]
    ) -> Iterator[Measured]:
        """Measure plane by plane, as tiles do it: sums of floats depend on their order."""
        whole = Box.of(labels.shape)
        for z, plane in enumerate(labels):
            inner = Box((z, 0, 0), (z + 1, *whole.stop[1:]))
            box = inner.grow(self.margin_px).clip(whole)
            here = np.unique(plane)
            view = View(box, labels[box.slices], pixels[(slice(None), *box.slices)], inner, inner)
            yield self.view(view, here[np.isin(here, ids)])

    def _sums(
        self,
        labels: NDArray[np.uint32],
        pixels: NDArray[Any],
        *,
        ids: NDArray[np.uint32],
        peaks: NDArray[np.int64] | None,
        start: tuple[int, ...],
    ) -> Sums:
        return object_sums(
            labels,
            pixels if self.measuring.intensity else pixels[:0],
            peaks=np.zeros((len(ids), labels.ndim), np.int64) if peaks is None else peaks,
            ids=ids,
            origin=start,
            threads=self.threads,
        )

    def _contours(self, view: View, ids: NDArray[np.uint32]) -> Tally:
        """Count at corners of voxels: all that the cells have, or those of the core."""
        if self.sees_whole:
            return object_contours(view.framed(view.inner.grow(1)), ids=ids, threads=self.threads)
        ends = zip(view.core.stop, self.plan.shape, strict=True)
        start = tuple(low - 1 for low in view.core.start)
        stop = tuple(high + (high == n) for high, n in ends)
        return object_contours(view.framed(Box(start, stop)), threads=self.threads)

    def _texture(self, view: View, ids: NDArray[np.uint32]) -> Tally:
        inner, threads = view.inside, self.threads
        return object_texture(view.labels, view.image, ids=ids, inner=inner, threads=threads)

    def _ring(self, view: View, ids: NDArray[np.uint32]) -> Tally:
        near = view.inner if self.measuring.seams == "iou" else view.box
        if self.plan.mode == "planes":
            flat = (view.inner.start[0], *near.start[1:]), (view.inner.stop[0], *near.stop[1:])
            near = Box(*flat)
        return object_rings(
            view.labels,
            view.image,
            ring_px=self.measuring.ring_px,
            proportions=self.ring_edges,
            ids=ids,
            inner=near.relative_to(view.box.start),
            threads=self.threads,
        )

    def _convex(self, labels: NDArray[np.uint32], ids: NDArray[np.uint32]) -> NDArray[np.int64]:
        if labels.ndim == 2:
            area, crossings = convex_sizes(labels, ids=ids, threads=self.threads)
            return np.column_stack([area, crossings])
        return convex_volumes(plane_hulls(labels, ids=ids, threads=self.threads), ids)[:, None]

    def _quantiles(
        self, labels: NDArray[np.uint32], pixels: NDArray[Any], ids: NDArray[np.uint32]
    ) -> NDArray[np.float64]:
        shares = self.measuring.quantiles if self.sees_whole else ()
        if not shares:
            return np.zeros((len(ids), len(pixels), 0))
        return object_quantiles(labels, pixels, shares=shares, ids=ids, threads=self.threads)

    def _corners(
        self, labels: NDArray[np.uint32], ids: NDArray[np.uint32], start: tuple[int, ...]
    ) -> Corners:
        """Return the corners of hulls of which further planes will bring more."""
        planes = self.plan.mode == "planes" and self.measuring.seams == "exact"
        if not (planes and self.measuring.shape):
            return Corners(np.zeros(0, np.uint32), np.zeros((0, 3), np.int64))
        return plane_hulls(labels, ids=ids, origin=start, threads=self.threads)


def measurer_for(plan: Plan, measuring: Measuring, threads: int | None = None) -> Measurer:
    """Return what measures the cells of an image, or of one time of a series.

    Parameters
    ----------
    plan : Plan
        Of the image or series.
    measuring : Measuring
        What is measured.
    threads : int, optional
        Threads to use.

    Returns
    -------
    Measurer
        Of a series it takes each time for an image y, x.
    """
    return Measurer(plan.frame if plan.series else plan, measuring, threads)
