"""Seeded label fields and network-like outputs, with numpy and scipy only."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter
from scipy.ndimage import label as connected_pieces

__all__ = ["Scene", "centre_flow", "label_field", "network_like", "scene_labels"]

Scene = Literal["touching", "elongated", "large", "sparse"]

# Mean distance of neighbouring centres: 45 px gives 2,000 cells in 2048 x 2048.
PITCH_PX = {"touching": 45.0, "elongated": 36.0, "large": 228.0, "sparse": 45.0}
MIN_PIECE_PX = 30
LOBES = np.array([2.0, 3.0, 4.0])


def label_field(
    shape: tuple[int, ...],
    n_cells: int,
    *,
    seed: int = 0,
    fill: float = 0.92,
    elongation: float = 1.0,
    occupied: float = 1.0,
) -> np.ndarray:
    """Return a label image of perturbed ellipsoids cut where they meet.

    Where cells overlap, a voxel belongs to the cell whose centre is nearest in units of that
    cell's radii. Only the largest connected piece of a cell is kept, and none below 30 voxels.

    Parameters
    ----------
    shape : tuple of int
        Extent per axis, 2 or 3 axes.
    n_cells : int
        About how many cells. Centres lie on a jittered grid, so the number is rounded.
    seed : int
        Equal seeds give equal fields.
    fill : float
        Mean diameter in units of the distance of neighbouring centres. Cells touch above .85.
    elongation : float
        Long over short axis. Above 1 the cells lie along the last axis, tilted by up to .2 rad.
    occupied : float
        Share of the grid's sites that hold a cell, .06 makes a sparse field.

    Returns
    -------
    uint32 array [*shape]
        0 is background, cells are 1..N without gaps.
    """
    rng = np.random.default_rng(seed)
    stretch = _stretch(len(shape), elongation)
    pitch_px = (np.prod(shape, dtype=float) * occupied / n_cells) ** (1 / len(shape))
    centres = _centres(shape, pitch_px * stretch, rng)
    if occupied < 1:
        centres = rng.permutation(centres)[: max(1, n_cells)]
    nearest = np.full(shape, np.inf, np.float32)
    labels = np.zeros(shape, np.uint32)
    tilt = 0.2 if elongation > 1.5 else np.pi
    for number, centre in enumerate(centres, start=1):
        radii = pitch_px / 2 * fill * stretch * _wobble(len(shape), rng)
        rotation = _rotation(rng.uniform(-tilt, tilt, len(shape) * (len(shape) - 1) // 2))
        _paint_cell(labels, nearest, number, _Ellipsoid(centre, radii, rotation, rng))
    return _largest_pieces(labels)


def scene_labels(scene: Scene, shape: tuple[int, ...], *, seed: int = 0) -> np.ndarray:
    """Return the label field of a named kind.

    Parameters
    ----------
    scene : {"touching", "elongated", "large", "sparse"}
        Touching cells of 41 px; cells of axis ratio 4; cells of 200 px; 5 % foreground.
    shape : tuple of int
        Extent per axis, 2 or 3 axes.
    seed : int
        Equal seeds give equal fields.

    Returns
    -------
    uint32 array [*shape]
        0 is background, cells are 1..N without gaps.
    """
    occupied = 0.075 if scene == "sparse" else 1.0
    sites = np.prod(shape, dtype=float) / PITCH_PX[scene] ** len(shape)
    return label_field(
        shape,
        max(1, round(sites * occupied)),
        seed=seed,
        elongation=4.0 if scene == "elongated" else 1.0,
        occupied=occupied,
    )


def centre_flow(labels: np.ndarray) -> np.ndarray:
    """Return unit vectors that point straight to the centre of mass of each cell.

    A stand-in for true flows where their exact form does not matter: it needs no other code.

    Parameters
    ----------
    labels : integer array [*spatial]
        0 is background.

    Returns
    -------
    float32 array [ndim, *spatial]
        Zero in the background and on centres; component order is that of the axes.
    """
    voxels = np.nonzero(labels)
    owners = labels[voxels].astype(np.int64)
    counts = np.maximum(np.bincount(owners), 1)
    offsets = [
        (np.bincount(owners, weights=position) / counts)[owners] - position for position in voxels
    ]
    vectors = np.stack(offsets)
    vectors /= np.maximum(np.sqrt((vectors**2).sum(0)), 1e-6)
    flow = np.zeros((labels.ndim, *labels.shape), np.float32)
    flow[(slice(None), *voxels)] = vectors
    return flow


def network_like(
    flow: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
    noise: float = 0.1,
    edge_blur_px: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a network might give for these cells: noisy flow and logit.

    Parameters
    ----------
    flow : float array [ndim, *spatial]
        True flow, unit vectors in the cells.
    labels : integer array [*spatial]
        0 is background.
    seed : int
        Equal seeds give equal noise.
    noise : float
        Standard deviation, in unit vectors for the flow and five times that for the logit
        (.1 is the .5 of programs whose flow has length 5).
    edge_blur_px : float
        Sigma of the blur of the logit, so that it crosses zero slowly.

    Returns
    -------
    flow : float32 array [ndim, *spatial]
        Unit vectors plus noise, in the background noise alone.
    logit : float32 array [*spatial]
        About 4 in cells, about -4 outside.
    """
    rng = np.random.default_rng((seed, 1))
    noisy_flow = rng.standard_normal(flow.shape, np.float32)
    noisy_flow *= np.float32(noise)
    noisy_flow += flow
    logit = np.where(labels > 0, np.float32(4), np.float32(-4))
    if edge_blur_px > 0:
        logit = gaussian_filter(logit, edge_blur_px)
    logit += np.float32(5 * noise) * rng.standard_normal(labels.shape, np.float32)
    return noisy_flow, logit


class _Ellipsoid:
    """A tilted ellipsoid whose outline is perturbed by a few lobes."""

    def __init__(self, centre, radii, rotation, rng):
        self.centre, self.radii, self.rotation = centre, radii, rotation
        self.phases = rng.uniform(0, 2 * np.pi, len(LOBES))
        self.amplitudes = rng.uniform(0, 0.08, len(LOBES))
        # The half extent of a tilted ellipsoid's box, and room for the lobes.
        self.reach = np.sqrt(((rotation * radii) ** 2).sum(1)) * 1.25 + 1

    def box(self, shape) -> tuple[slice, ...]:
        starts = np.maximum(0, np.floor(self.centre - self.reach)).astype(int)
        stops = np.minimum(shape, np.ceil(self.centre + self.reach) + 1).astype(int)
        return tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))

    def scaled_distance(self, box) -> np.ndarray:
        offsets = [
            np.arange(axis.start, axis.stop, dtype=np.float32) - np.float32(middle)
            for axis, middle in zip(box, self.centre, strict=True)
        ]
        turned = [
            sum(np.ix_(*[off * w for off, w in zip(offsets, weights, strict=True)]))
            for weights in (self.rotation / self.radii).T.astype(np.float32)
        ]
        square = sum(component * component for component in turned)
        in_plane = turned[-1] * turned[-1] + turned[-2] * turned[-2]
        azimuth = np.arctan2(turned[-1], turned[-2])
        bulge = np.zeros_like(square)
        for lobe, phase, amplitude in zip(LOBES, self.phases, self.amplitudes, strict=True):
            bulge += np.float32(amplitude) * np.cos(np.float32(lobe) * azimuth + np.float32(phase))
        # Fading the lobes towards the poles keeps a 3D outline smooth there.
        bulge *= in_plane / np.maximum(square, np.float32(1e-6))
        return np.sqrt(square) / (1 + bulge)


def _stretch(ndim: int, elongation: float) -> np.ndarray:
    """Axis factors of product 1, the last one `elongation` times the others."""
    stretch = np.full(ndim, elongation ** (-1 / ndim))
    stretch[-1] *= elongation
    return stretch


def _wobble(ndim: int, rng) -> np.ndarray:
    axes = rng.uniform(0.85, 1.2, ndim)
    return rng.uniform(0.85, 1.15) * axes / np.prod(axes) ** (1 / ndim)


def _centres(shape, pitch_px, rng) -> np.ndarray:
    """Jittered grid [n, ndim], every second row moved by half a pitch along the last axis."""
    sites = np.maximum(1, np.round(np.asarray(shape) / pitch_px)).astype(int)
    spacing = np.asarray(shape) / sites
    index = np.stack(np.meshgrid(*map(np.arange, sites), indexing="ij"), -1)
    index = index.reshape(-1, len(shape)).astype(float)
    index[:, -1] += 0.25 - 0.5 * (index[:, -2] % 2)
    centres = (index + 0.5 + rng.uniform(-0.2, 0.2, index.shape)) * spacing
    return np.clip(centres, 0, np.asarray(shape) - 1)


def _rotation(angles) -> np.ndarray:
    """Product of one plane rotation per pair of axes."""
    ndim = 2 if len(angles) == 1 else 3
    rotation = np.eye(ndim)
    for (i, j), angle in zip(itertools.combinations(range(ndim), 2), angles, strict=True):
        turn = np.eye(ndim)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    return rotation


def _paint_cell(labels, nearest, number, cell) -> None:
    box = cell.box(labels.shape)
    distance = cell.scaled_distance(box)
    inside = (distance < 1) & (distance < nearest[box])
    nearest[box][inside] = distance[inside]
    labels[box][inside] = number


def _largest_pieces(labels) -> np.ndarray:
    """Largest piece of each label with at least 30 voxels, renumbered 1..N."""
    kept = np.zeros_like(labels)
    n_kept = 0
    for number, box in enumerate(find_objects(labels.astype(np.int32)), start=1):
        if box is None:
            continue
        pieces, _ = connected_pieces(labels[box] == number)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        if sizes.max() >= MIN_PIECE_PX:
            n_kept += 1
            kept[box][pieces == sizes.argmax()] = n_kept
    return kept
