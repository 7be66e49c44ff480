"""Quantiles, texture and rings of objects against numpy, voxel by voxel."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import (
    Tally,
    object_quantiles,
    object_rings,
    object_texture,
    ring_reach,
)

SHARES = (0.0, 0.05, 0.3, 0.5, 0.98, 1.0)
TYPES = ("uint8", "uint16", "float32", "float64")
THREADS = st.sampled_from([1, 2, 7])


@st.composite
def scenes(draw, types=TYPES):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=6))
    labels = draw(hnp.arrays(np.uint32, shape, elements=st.sampled_from([0, 0, 1, 2, 9])))
    dtype = np.dtype(draw(st.sampled_from(types)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    image = rng.random((draw(st.integers(0, 2)), *shape)) * 250
    return labels, image.astype(dtype)


def masks(labels):
    return [labels == label for label in np.unique(labels[labels > 0])]


@given(scenes(), THREADS)
def test_quantiles_are_numpys(scene, threads):
    labels, image = scene
    found = object_quantiles(labels, image, shares=SHARES, threads=threads)
    assert found.shape == (len(masks(labels)), len(image), len(SHARES))
    for k, mask in enumerate(masks(labels)):
        for values, quantiles in zip(image, found[k], strict=True):
            expected = np.quantile(values[mask].astype(float), SHARES)
            np.testing.assert_allclose(quantiles, expected, rtol=1e-12)


def plain_texture(mask, image):
    """Return the number of pairs over faces, and the sum of their squares for each channel."""
    count, total = 0, np.zeros(len(image))
    for axis in range(mask.ndim):
        inside = np.moveaxis(mask, axis, 0)
        step = np.diff(np.moveaxis(image.astype(float), axis + 1, 1), axis=1)
        both = inside[1:] & inside[:-1]
        count += both.sum()
        total += (step[:, both] ** 2).sum(axis=1)
    return [count, *total]


@given(scenes(), THREADS)
def test_texture_counts_neighbours_of_one_object(scene, threads):
    labels, image = scene
    found = object_texture(labels, image, threads=threads)
    assert found.values.dtype == (np.int64 if image.dtype.kind == "u" else np.float64)
    for row, mask in zip(found.values, masks(labels), strict=True):
        np.testing.assert_allclose(row, plain_texture(mask, image), rtol=1e-9)


def plain_ring(mask, labels, image, *, ring_px, edges):
    """Compare each background voxel with each voxel of the object."""
    mine, beside = np.argwhere(mask), np.argwhere(labels == 0)
    away = (beside[:, None] - mine).astype(float)
    flat = np.isinf(edges)
    reachable = (away[..., flat] == 0).all(axis=2)
    squared = ((away[..., ~flat] * np.asarray(edges)[~flat]) ** 2).sum(axis=2)
    near = (reachable & (squared <= ring_px**2)).any(axis=1)
    values = image[(slice(None), *beside[near].T)].astype(float)
    return [near.sum(), *values.sum(axis=1)]


EDGES = st.sampled_from([1.0, 2.0, 0.5, np.inf])


@given(scenes(), THREADS, st.integers(1, 4), st.tuples(EDGES, EDGES))
def test_rings_are_background_near_by(scene, threads, ring_px, first):
    labels, image = scene
    edges = (*first[: labels.ndim - 1], 1.0)
    about = {"ring_px": ring_px, "proportions": edges}
    found = object_rings(labels, image, threads=threads, **about)
    for row, mask in zip(found.values, masks(labels), strict=True):
        expected = plain_ring(mask, labels, image, ring_px=ring_px, edges=edges)
        np.testing.assert_allclose(row, expected, rtol=1e-6)


@given(scenes(("uint8", "uint16")), st.data())
def test_blocks_with_a_margin_add_up(scene, data):
    """Texture needs a layer before the block, rings their width on both sides."""
    labels, image = scene
    ids = np.unique(labels[labels > 0])
    axis = data.draw(st.integers(0, labels.ndim - 1))
    n = labels.shape[axis]
    edges = (1.0,) * labels.ndim
    cuts = sorted({0, n, *data.draw(st.sets(st.integers(0, n), max_size=2))})
    texture, rings = [], []
    for low, high in pairwise(cuts):
        start, stop = max(low - 2, 0), min(high + 2, n)
        seen = np.take(labels, range(start, stop), axis)
        pixels = np.take(image, range(start, stop), axis + 1)
        corner = [low - start if a == axis else 0 for a in range(labels.ndim)]
        end = [high - start if a == axis else m for a, m in enumerate(labels.shape)]
        about = {"ids": ids, "inner": Box(tuple(corner), tuple(end))}
        texture.append(object_texture(seen, pixels, **about))
        rings.append(object_rings(seen, pixels, ring_px=2, proportions=edges, **about))
    for parts, whole in (
        (texture, object_texture(labels, image)),
        (rings, object_rings(labels, image, ring_px=2, proportions=edges)),
    ):
        np.testing.assert_array_equal(Tally.add(parts).values, whole.values)


def test_what_does_not_fit_is_refused():
    labels, image = np.ones((2, 2), int), np.ones((1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        object_quantiles(labels, image, shares=[1.5])
    with pytest.raises(ValueError, match="2 or 3 axes"):
        object_texture(np.ones(3, int), np.ones((1, 3), np.uint8))
    assert ring_reach(5, (np.inf, 2.0, 1.0)) == (0, 2, 5)
    assert object_quantiles(labels, image, shares=[0.5], ids=[7]).tolist() == [[[0.0]]]
