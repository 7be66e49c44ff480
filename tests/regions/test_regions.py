"""Which pixels lie in a region, against programs that test them one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Curve
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.packing import pack, unpack
from cellseg_pipe.regions import (
    Outline,
    Part,
    Region,
    _parts,
    border_distance_px,
    box_part,
    compose,
    outlines_part,
    region_of_arrays,
    region_to_arrays,
    runs_of_rows,
    spread_part,
)

SEEDS = st.integers(0, 10**6)


def centres(shape):
    return np.stack(np.mgrid[tuple(slice(n) for n in shape)], axis=-1).reshape(-1, len(shape))


def raster(region):
    return region.numbers_at(centres(region.shape)).reshape(region.shape)


def some_ring(rng, *, corners, low=-15, high=60):
    """Corners whose edges go through no centre of a pixel: these have odd thirds."""
    return np.rint(rng.uniform(low, high, (corners, 2)) * 64) / 64 + 1 / 1024


@given(SEEDS)
def test_polygons_are_those_of_another_program(seed):
    """Convex ones: what lies in self-crossing rings programs decide by other rules."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 30)))
    middle, radius = rng.uniform(0, 40, 2), rng.uniform(3, 30)
    ring = middle + radius * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    ring = np.rint(ring * 64) / 64 + 1 / 1024
    shape = (int(rng.integers(5, 50)), int(rng.integers(5, 50)))
    region = compose([outlines_part([Outline("a", (ring,))], shape=shape)], [], shape=shape)
    inside = Curve(ring).contains_points(centres(shape) + 0.5).reshape(shape)
    np.testing.assert_array_equal(raster(region) > 0, inside)


def crossings(point, rings):
    """How many edges lie to the left of a point."""
    count = 0
    for ring in rings:
        for (y0, x0), (y1, x1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if (y0 <= point[0]) != (y1 <= point[0]):
                count += x0 + (x1 - x0) * (point[0] - y0) / (y1 - y0) <= point[1]
    return count


@settings(max_examples=40)
@given(SEEDS)
def test_rings_of_any_kind_are_even_odd(seed):
    """Crossing themselves and each other, in and beyond the image; the first outline counts."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(5, 30)), int(rng.integers(5, 30)))
    outlines = [
        Outline(str(k), tuple(some_ring(rng, corners=rng.integers(3, 9)) for _ in range(2)))
        for k in range(3)
    ]
    expected = np.zeros(shape, int)
    for k, outline in reversed(list(enumerate(outlines, 1))):
        inside = [crossings(point + 0.5, outline.rings) % 2 == 1 for point in centres(shape)]
        expected[np.array(inside).reshape(shape)] = k
    region = compose([outlines_part(outlines, shape=shape)], [], shape=shape)
    np.testing.assert_array_equal(raster(region), expected)
    assert region.size == np.count_nonzero(expected)


def test_centres_on_edges_belong_to_one_of_two_outlines():
    left = np.array([[0.5, 0.5], [0.5, 2.5], [3.5, 2.5], [3.5, 0.5]])
    right = left + [0, 2]
    below = left + [3, 0]
    shape = (8, 6)
    for ring, start in ((left, (0, 0)), (right, (0, 2)), (below, (3, 0))):
        region = compose([outlines_part([Outline("", (ring,))], shape=shape)], [], shape=shape)
        expected = np.zeros(shape, int)
        expected[start[0] : start[0] + 3, start[1] : start[1] + 2] = 1
        np.testing.assert_array_equal(raster(region), expected)


def test_corners_far_away_and_bands_of_rows(monkeypatch):
    shape = (300, 70)
    far = np.array([[-1e6, -1e6], [-1e6, 1e6], [1e6, 1e6], [1e6, -1e6]])
    ring = some_ring(np.random.default_rng(0), corners=40, low=-50, high=320)
    both = [Outline("far", (far,)), Outline("ring", (ring,))]
    whole = outlines_part(both[1:], shape=shape)
    assert raster(compose([outlines_part(both, shape=shape)], [], shape=shape)).min() == 1
    monkeypatch.setattr(_parts, "AT_ONCE", 50)
    cut = outlines_part(both[1:], shape=shape)
    for name in ("row", "start", "stop", "number"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))
    with pytest.raises(ValueError, match="corners within 1048576 px, got 2e"):
        outlines_part([Outline("a", (2 * far,))], shape=shape)


def some_mask(rng, shape):
    """A mask of another resolution as a part, and what it is on the image's own grid."""
    own = tuple(int(n) for n in rng.integers(1, 16, rng.integers(2, len(shape) + 1)))
    mask = rng.integers(0, 3, own)
    row, start, stop, value = runs_of_rows(mask.reshape(-1, own[-1]))
    runs = Part((), row, start, stop, value - 1, ("p", "q"))
    places = [
        (2 * np.arange(n) + 1) * m // (2 * n)
        for m, n in zip(own, shape[len(shape) - len(own) :], strict=True)
    ]
    part = spread_part(runs, own_shape=own, shape=shape)
    return part, np.broadcast_to(mask[np.ix_(*places)], shape)


def some_box(rng, shape):
    """A box with ends of any kind; of volumes sometimes for all planes."""
    n = int(rng.integers(2, len(shape) + 1))
    low = np.rint(rng.uniform(-3, 10, n) * 4) / 4
    high = low + np.rint(rng.uniform(0.25, 12, n) * 4) / 4
    inside = (centres(shape)[:, -n:] + 0.5 >= low) & (centres(shape)[:, -n:] + 0.5 < high)
    part = box_part(low.tolist(), high.tolist(), shape=shape, name="box")
    return part, inside.all(axis=1).reshape(shape).astype(int)


def some_region(rng):
    """A region of masks and boxes, and its numbers pixel by pixel."""
    shape = tuple(int(n) for n in rng.integers(2, 14, rng.integers(2, 4)))
    kinds = (some_mask, some_box)
    include = [kinds[rng.integers(2)](rng, shape) for _ in range(rng.integers(0, 4))]
    exclude = [kinds[rng.integers(2)](rng, shape) for _ in range(rng.integers(0, 3))]
    expected, first = np.zeros(shape, int), 0
    for part, numbers in include:
        free = (expected == 0) & (numbers > 0)
        expected[free] = numbers[free] + first
        first += len(part.names)
    if not include:
        expected[:] = 1
    for _, numbers in exclude:
        expected[numbers > 0] = 0
    parts = ([part for part, _ in side] for side in (include, exclude))
    return compose(*parts, shape=shape), expected


@given(SEEDS)
def test_included_and_excluded_parts(seed):
    region, expected = some_region(np.random.default_rng(seed))
    np.testing.assert_array_equal(raster(region), expected)
    assert region.size == np.count_nonzero(expected)
    names = np.array(["", *region.names])
    np.testing.assert_array_equal(region.names_at(centres(region.shape)), names[expected.ravel()])
    outside = centres(region.shape) + np.array(region.shape)
    assert not region.numbers_at(np.concatenate([outside, -1 - outside])).any()


@given(SEEDS)
def test_boxes_that_meet_a_region(seed):
    rng = np.random.default_rng(seed)
    region, expected = some_region(rng)
    for _ in range(4):
        start = rng.integers(-4, 13, expected.ndim)
        box = Box(tuple(start), tuple(start + rng.integers(0, 9, expected.ndim)))
        inner = box.clip(Box.of(region.shape))
        found = np.argwhere(expected[inner.slices] > 0) + inner.start
        if len(found):
            around = Box(tuple(found.min(axis=0)), tuple(found.max(axis=0) + 1))
            assert region.bounds(box) == around
        else:
            assert region.bounds(box) is None


@given(SEEDS)
def test_boxes_of_a_grid_that_a_region_touches(seed):
    rng = np.random.default_rng(seed)
    region, expected = some_region(rng)
    ends = []
    for _ in range(expected.ndim):
        low = rng.integers(-4, 13, rng.integers(1, 4))
        ends.append((low, low + rng.integers(0, 9, len(low))))
    found = region.touched(ends)
    for index in np.ndindex(found.shape):
        box = Box(*(tuple(side[k][i] for side, i in zip(ends, index, strict=True)) for k in (0, 1)))
        assert found[index] == (expected[box.clip(Box.of(region.shape)).slices] > 0).any()


@given(SEEDS)
def test_distances_to_the_border_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    region, expected = some_region(rng)
    planes = expected.reshape(-1, *expected.shape[-2:]) > 0
    truth = np.stack(
        [np.full(p.shape, np.inf) if p.all() else ndimage.distance_transform_edt(p) for p in planes]
    )
    found = border_distance_px(region, centres(region.shape), most_px=7)
    np.testing.assert_allclose(found, np.minimum(truth, 7).ravel(), rtol=1e-12)


@given(SEEDS)
def test_stored_and_read_again(seed):
    region, expected = some_region(np.random.default_rng(seed))
    arrays, about = unpack(pack(region_to_arrays(region), shape=region.shape, names=region.names))
    again = region_of_arrays(arrays, shape=about["shape"], names=about["names"])
    assert isinstance(again, Region) and again.names == region.names
    np.testing.assert_array_equal(raster(again), expected)


def test_too_many_runs_are_refused(monkeypatch):
    monkeypatch.setattr(_parts, "MAX_RUNS", 10)
    ring = np.array([[0, 0], [0, 9], [40, 9], [40, 0]], float)
    with pytest.raises(ValueError, match="at most 10 runs of pixels"):
        outlines_part([Outline("a", (ring,))], shape=(50, 50))


def test_outlines_of_many_corners_are_indexed_by_row():
    """10^5 corners on a slide of 100,000 px: a table of rows, not a test of each edge."""
    angle = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
    radius = 30_000 * (1 + 0.3 * np.sin(5 * angle))
    ring = 50_000 + radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    shape = (100_000, 100_000)
    region = compose([outlines_part([Outline("a", (ring,))], shape=shape)], [], shape=shape)
    area = 0.5 * abs(
        np.sum(ring[:, 0] * np.roll(ring[:, 1], -1) - ring[:, 1] * np.roll(ring[:, 0], -1))
    )
    assert region.size == pytest.approx(area, rel=1e-6)
    assert len(region.start) < 200_000
    low = np.arange(0, 100_000, 976)
    touched = region.touched([(low, low + 1024)] * 2)
    assert touched.mean() == pytest.approx(area / 1e10, rel=0.1)
