"""Tiles that see cells differently are joined: by the peers' experiment, and case by case."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import boxes_and_areas, iou_of, overlap_pairs, relabel
from cellseg_pipe.segmentation import Answer, ImageSource, Settings, make_plan
from cellseg_pipe.segmentation.seams import (
    View,
    link_views,
    nodes_of,
    paint_margin_px,
    paint_seams,
    seam_overlaps,
    see_cells,
)
from cellseg_pipe.segmentation.tiled import BLOCK_PX
from cellseg_pipe.tiles import TilePlan
from tests.golden.synthetic import centre_flow, label_field, network_like


class Network:
    ndim, n_inputs, n_outputs, divisor = 2, 1, 3, 8


def plan_of(shape, mode=None, **changes):
    source = ImageSource(shape, 1, lambda box: np.zeros((1, *box.shape), np.uint8))
    mode = mode or {2: "2d", 3: "3d"}[len(shape)]
    return make_plan(
        source,
        Settings(mode=mode, **{"min_size_px": 15, **changes}),
        network=Network,
        diameter_px=20.0,
        network_diameter_px=20.0,
    )


def in_order_of_peaks(labels):
    """Labels from 1 by the place of their pixel nearest to the mean, and these pixels."""
    ids = np.unique(labels[labels > 0])
    objects = ndimage.find_objects(relabel(labels, ids, np.arange(1, ids.size + 1)).astype(int))
    peaks = []
    for label, box in zip(ids, objects, strict=True):
        pixels = np.argwhere(labels[box] == label)
        nearest = ((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()
        peaks.append(pixels[nearest] + [axis.start for axis in box])
    peaks = np.array(peaks, np.int64).reshape(-1, labels.ndim)
    order = np.lexsort(peaks.T[::-1])
    return relabel(labels, ids[order], np.arange(1, ids.size + 1)), peaks[order]


def view_of(seen, tile, plan):
    """The view of a tile that sees these labels in its window."""
    labels, peaks = in_order_of_peaks(seen)
    nodes = nodes_of(
        labels, peaks + tile.outer.start, plan=plan, tile=tile, kept=np.ones(len(peaks), bool)
    )
    nothing = np.full(len(peaks), np.nan)
    area = nodes.size
    return View(tile, labels, nodes, area, nothing, nothing, np.zeros((len(peaks), 0)))


def tables_of(views):
    return [
        seam_overlaps(one, other)
        for one, other in itertools.combinations(views, 2)
        if one.tile.outer.meets(other.tile.outer)
    ]


def link(views, plan, **options):
    return link_views([view.nodes for view in views], tables_of(views), plan=plan, **options)


def painted(views, linked, plan, shards=None):
    labels = np.zeros(plan.walk_shape, np.uint32)
    parts = [(view, linked.of(view.tile.number)) for view in views]
    for box in shards or [Box.of(plan.walk_shape)]:
        labels[box.slices] = paint_seams(box, parts, plan=plan)
    return labels


# The peers' experiment: every tile sees the truth bent, or wrongly cut and joined


def bent(truth, box, amplitude_px, rng):
    """A box of the truth, seen through a smooth displacement of this standard deviation."""
    places = list(np.meshgrid(*map(np.arange, box.start, box.stop), indexing="ij"))
    for axis, place in enumerate(places):
        field = ndimage.gaussian_filter(rng.standard_normal(box.shape), 8)
        moved = np.rint(place + amplitude_px * field / field.std()).astype(int)
        places[axis] = np.clip(moved, 0, truth.shape[axis] - 1)
    return truth[tuple(places)]


def wrongly_cut(truth, tile, share, rng):
    """A share of the cells near the tile's own edges, one half halved, one merged in pairs."""
    labels = truth[tile.outer.slices].copy()
    inner = tile.core.grow(-10).relative_to(tile.outer.start)
    near = labels.copy()
    near[inner.slices] = 0
    free = labels.max() + 1
    for label in np.unique(near[near > 0]):
        chance = rng.random() / share if share else 1
        pixels = np.argwhere(labels == label)
        if chance >= 0.75 or not len(pixels):
            continue
        if chance < 0.5:
            way = rng.standard_normal(truth.ndim)
            side = (pixels - pixels.mean(axis=0)) @ way > 0
            labels[tuple(pixels[side].T)] = free
            free += 1
        else:
            around = ndimage.binary_dilation(labels == label, iterations=2)
            others = labels[around & (labels != label) & (labels > 0)]
            if others.size:
                labels[labels == np.bincount(others).argmax()] = label
    return labels


def with_errors(truth, tile, *, amplitude_px=0.0, share=0.0, rng):
    wrong = truth.copy()
    wrong[tile.outer.slices] = wrongly_cut(truth, tile, share, rng)
    return bent(wrong, tile.outer, amplitude_px, rng)


@dataclass(frozen=True)
class Score:
    """How many cells there are on seams, how many are right; objects by truth and as found."""

    n_seam: int
    right: int
    n_true: int
    n_found: int
    slivers: int
    extra: int
    conflicts: int = 0


def seam_cells(truth, tiles):
    owners = np.zeros(truth.shape, np.uint32)
    for number in range(len(tiles)):
        owners[tiles.tile(number).core.slices] = number
    pairs = overlap_pairs(truth, owners)
    ids, n = np.unique(pairs.left[pairs.left > 0], return_counts=True)
    return ids[n > 1]


def score_of(labels, truth, tiles):
    pairs = iou_of(overlap_pairs(truth, labels))
    good = pairs.iou >= 0.5
    on_seam = seam_cells(truth, tiles)
    area = boxes_and_areas(labels).area
    usual = np.median(boxes_and_areas(truth).area)
    return Score(
        n_seam=on_seam.size,
        right=int(np.isin(on_seam, pairs.left[good]).sum()),
        n_true=int(np.unique(truth[truth > 0]).size),
        n_found=area.size,
        slivers=int((area < usual / 5).sum()),
        extra=area.size - np.unique(pairs.right[good]).size,
    )


def experiment(truth, tiles, *, seed=0, amplitude_px=0.0, share=0.0):
    plan = plan_of(truth.shape)
    rng = np.random.default_rng(seed)
    views = []
    for number in range(len(tiles)):
        tile = tiles.tile(number)
        seen = with_errors(truth, tile, amplitude_px=amplitude_px, share=share, rng=rng)
        views.append(view_of(seen, tile, plan))
    linked = link(views, plan)
    labels = painted(views, linked, plan)
    assert np.unique(labels[labels > 0]).tolist() == list(range(1, linked.n_cells + 1))
    return labels, views, linked
