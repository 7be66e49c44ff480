"""Cells at the seams of tiles, built so that each rule of ownership decides, against the whole.

Most flows here teleport: a pixel's vector leads to its sink in one step, and lands there exactly.
So any pixels can be a cell with any peak, which no flow of a network would give.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellseg_pipe.kernels import (
    HALO_BEYOND_REACH,
    boxes_and_areas,
    find_masks,
    follow_flows,
    hole_claims,
    relabel,
)
from tests.golden.synthetic import centre_flow, label_field, network_like

MODES = st.sampled_from(["exact", "fast"])
FEWEST = 24  # steps with which fast mode jumps; a particle on its sink takes them all there
TELEPORT = {"flow_threshold": None, "min_size_px": 1}  # such a flow is not the cell's own


def teleport(shape, cells):
    """Flow and logit of cells {peak: pixels [n, ndim]}; of pixels named twice the last cell."""
    flow = np.zeros((len(shape), *shape), np.float32)
    logit = np.full(shape, -5, np.float32)
    for peak, pixels in cells.items():
        where = tuple(np.asarray(pixels).T)
        logit[where] = 5
        for axis, place in enumerate(peak):
            flow[axis][where] = place - where[axis]
    return flow, logit


def tiles(shape, cuts):
    """Half-open cores (start, stop) between the cuts of each axis."""
    edges = [[0, *sorted(cut), n] for cut, n in zip(cuts, shape, strict=True)]
    spans = [list(pairwise(edge)) for edge in edges]
    for index in np.ndindex(*map(len, spans)):
        yield np.array([spans[axis][k] for axis, k in enumerate(index)]).T


def owned(flow, logit, core, *, reach_px, **options):
    """The cells whose peak lies in a core, found in its window alone: (labels, masks, low).

    Labels are those of the window, other cells removed; `low` is where the window begins.
    """
    start, stop = core
    low = np.maximum(start - reach_px - HALO_BEYOND_REACH, 0)
    high = np.minimum(stop + reach_px + HALO_BEYOND_REACH, logit.shape)
    cut = tuple(map(slice, low, high))
    edges = list(zip(low > 0, high < logit.shape, strict=True))
    masks = find_masks(
        flow[(slice(None), *cut)],
        logit[cut],
        reach_px=reach_px,
        open_edges=edges,
        fill=False,
        **options,
    )
    inside = ((masks.peak + low >= start) & (masks.peak + low < stop)).all(axis=1)
    kept = np.flatnonzero(inside).astype(np.uint32) + 1
    return relabel(masks.labels, kept, kept), masks, low


def composed(flow, logit, cuts, *, reach_px, **options):
    """Paint an array from its tiles: (labels with holes, filled labels, peaks in C order)."""
    shape = logit.shape
    parts = [owned(flow, logit, core, reach_px=reach_px, **options) for core in tiles(shape, cuts)]
    found = [masks.peak[boxes_and_areas(labels).label - 1] + low for labels, masks, low in parts]
    peaks = np.unique(np.concatenate(found), axis=0)
    assert len(peaks) == sum(map(len, found)), "two tiles own one cell"
    number = {tuple(peak): k + 1 for k, peak in enumerate(peaks.tolist())}
    raw = np.zeros(shape, np.uint32)
    claims = {}
    for labels, masks, low in parts:
        names = np.array([0, *(number.get(tuple(p), 0) for p in (masks.peak + low).tolist())])
        where = tuple((np.argwhere(labels) + low).T)
        assert not raw[where].any(), "two tiles own one pixel"
        raw[where] = names[labels[labels > 0]]
        index, claimant = hole_claims(labels)
        places = np.stack(np.unravel_index(index, labels.shape), axis=1) + low
        for place, label in zip(places.tolist(), claimant.tolist(), strict=True):
            # Numbers follow the peaks, so the second entry settles equal areas by peak.
            rank = masks.area[label - 1], names[label]
            claims[tuple(place)] = min(rank, claims.get(tuple(place), rank))
    filled = raw.copy()
    for place, (_, label) in claims.items():
        if not raw[place]:
            filled[place] = label
    return raw, filled, peaks


def assert_tiles_give_the_whole(flow, logit, cuts, *, reach_px, **options):
    """Compare tiles with the whole, before and after holes are filled; return the whole."""
    raw, filled, peaks = composed(flow, logit, cuts, reach_px=reach_px, **options)
    whole = find_masks(flow, logit, reach_px=reach_px, fill=False, **options)
    np.testing.assert_array_equal(peaks, whole.peak)
    np.testing.assert_array_equal(raw, whole.labels)
    with_fill = find_masks(flow, logit, reach_px=reach_px, **options)
    np.testing.assert_array_equal(filled, with_fill.labels)
    return with_fill


# Peaks of equal count


@settings(max_examples=20)
@given(
    apart=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    cut=st.tuples(st.integers(20, 50), st.integers(20, 50)),
    bridge=st.booleans(),
    mode=MODES,
)
def test_equal_peaks_across_a_seam_are_settled_as_in_the_whole(apart, cut, bridge, mode):
    first, second = np.array((34, 34)), np.add((34, 34), apart)
    assume(any(apart))
    disc = np.argwhere(np.hypot(*(np.indices((70, 70)) - 34)) < 9)
    shared = [tuple(np.rint(first + (second - first) * t / 9).astype(int)) for t in range(1, 9)]
    shared = [spot for spot in dict.fromkeys(shared) if spot not in {(34, 34), tuple(second)}]
    pixels = [tuple(p) for p in disc.tolist()]
    pixels = [p for p in pixels if p not in {*shared, tuple(first), tuple(second)}]
    # A pixel at rest counts on itself: both sinks get it or neither, and the bridge 4 ends a pixel.
    taken = 3 * len(shared) if bridge else 0
    half = (len(pixels) - taken) // 2
    cells = {spot: [*pixels[3 * k : 3 * k + 3], spot] for k, spot in enumerate(shared) if bridge}
    cells[34, 34] = [*pixels[taken : taken + half], (34, 34)]
    cells[tuple(second)] = [*pixels[taken + half : taken + 2 * half], tuple(second)]
    flow, logit = teleport((70, 70), cells)
    whole = assert_tiles_give_the_whole(
        flow, logit, [[cut[0]], [cut[1]]], reach_px=18, mode=mode, niter=FEWEST, **TELEPORT
    )
    ends = follow_flows(flow, logit > 0, n_steps=1).end // 4096
    counts = [(ends == peak).all(axis=1).sum() for peak in (first, second)]
    assert counts[0] == counts[1] > 10
    both = sorted([(34, 34), tuple(second.tolist())])
    # Up to 2 px apart they are one peak, named by the first. Up to 5 px, the first one grows over
    # the bridge onto the other peak, which keeps nothing.
    expected = both[:1] if np.abs(apart).max() <= (5 if bridge else 2) else both
    assert whole.peak.tolist() == [list(peak) for peak in expected]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("distance", [1, 2, 3, 5, 8, 10, 11])
@pytest.mark.parametrize("ndim", [2, 3])
def test_equal_peaks_with_the_seam_between_them(distance, ndim, mode):
    shape = (9,) * (ndim - 2) + (13, 96)
    middle = tuple(n // 2 for n in shape[:-1])
    left, right = (*middle, 44), (*middle, 44 + distance)
    bridge = [(*middle, x) for x in range(45, 44 + distance)]
    rows = [(*middle[:-1], y) for y in range(2, 11) if y != middle[-1]]
    pool = [(*row, x) for row in rows for x in range(36, 44)]
    other = [(*row, x) for row in rows for x in range(50, 58)]
    spare = [(*row, x) for row in rows for x in range(44, 50)]
    cells = {spot: [*spare[3 * k : 3 * k + 3], spot] for k, spot in enumerate(bridge)}
    cells |= {left: [*pool, left], right: [*other, right]}
    flow, logit = teleport(shape, cells)
    for cut in (44, 45, 44 + distance, 45 + distance):
        cuts = [[] for _ in shape[:-1]] + [[cut]]
        whole = assert_tiles_give_the_whole(
            flow, logit, cuts, reach_px=20, mode=mode, niter=FEWEST, **TELEPORT
        )
        if distance > 5:
            assert whole.peak.tolist() == [list(left), list(right)]
            # Of the bridge the first peak has what it reaches, the other one what is left.
            ends = [1 if x - 44 <= 5 else 2 for x in range(45, 44 + distance)]
            assert [whole.labels[spot] for spot in bridge] == ends
        else:
            assert whole.peak.tolist() == [list(left)]


# Nested rings


def square_ring(centre, outer, inner):
    """Pixels of a square frame, at most `outer` and at least `inner` px from its centre."""
    box = np.indices((2 * outer + 1,) * len(centre)).reshape(len(centre), -1).T - outer
    return box[np.abs(box).max(axis=1) >= inner] + centre


@st.composite
def nested_rings(draw, ndim):
    """Frames in frames, drawn from the outside inwards, each with a peak somewhere in its box."""
    side = {2: 120, 3: 60}[ndim]
    largest = {2: 24, 3: 11}[ndim]
    centre = np.full(ndim, side // 2)
    cells, outer = {}, largest
    while outer >= 2 and len(cells) < 4:
        inner = draw(st.integers(max(1, outer - 5), outer))
        peak = tuple(centre + draw(st.tuples(*[st.integers(-outer, outer)] * ndim)))
        if all(np.abs(np.subtract(peak, other)).max() > 10 for other in cells):
            cells[peak] = square_ring(centre, outer, inner)
            outer = inner - draw(st.integers(1, 4))
            centre = centre + draw(st.tuples(*[st.integers(-1, 1)] * ndim))
            outer -= 1  # for the shift of the centre
        else:
            outer -= 1
    return (side,) * ndim, cells, 2 * largest + 3


@pytest.mark.parametrize("ndim", [2, 3])
@settings(max_examples=15)
@given(data=st.data(), mode=MODES)
def test_nested_rings_across_seams_are_filled_as_in_the_whole(ndim, data, mode):
    shape, cells, reach_px = data.draw(nested_rings(ndim))
    flow, logit = teleport(shape, cells)
    middle = shape[0] // 2
    cuts = [[data.draw(st.integers(middle - 20, middle + 20))] for _ in shape]
    options = {"mode": mode, "niter": FEWEST, **TELEPORT}
    whole = assert_tiles_give_the_whole(flow, logit, cuts, reach_px=reach_px, **options)
    raw = find_masks(flow, logit, reach_px=reach_px, fill=False, **options)
    plain = raw.labels.copy()
    for label in np.lexsort((np.arange(raw.area.size), raw.area))[::-1] + 1:
        plain[ndimage.binary_fill_holes(raw.labels == label) & (raw.labels == 0)] = label
    np.testing.assert_array_equal(whole.labels, plain)


def test_a_hole_goes_to_the_smaller_ring_though_its_tile_does_not_see_that_one_whole():
    # The inner ring is thick (616 px), the outer one thin (224 px) and owned by the other tile. It
    # reaches beyond the window of the inner one's tile, where it is open and encloses nothing.
    shape, reach_px, cut = (120, 130), 28, 51
    frames = {
        (60, 50): square_ring((60, 60), 12, 2),
        (60, 74): square_ring((60, 74), 28, 28),
    }
    flow, logit = teleport(shape, frames)
    options = {"reach_px": reach_px, "niter": FEWEST, **TELEPORT}
    whole = assert_tiles_give_the_whole(flow, logit, [[], [cut]], **options)
    assert whole.area.tolist() == [616, 224]
    assert whole.labels[60, 60] == 2 and whole.labels[60, 50] == 1
    assert cut + reach_px + HALO_BEYOND_REACH < 74 + 28


@pytest.mark.parametrize("cut", [40, 60, 62, 80])
def test_of_rings_with_equal_area_the_one_with_the_first_peak_takes_the_hole(cut):
    # 25 x 25 without 23 x 23 px is 96 px; so is 11 x 11 without 5 x 5.
    frames = {
        (60, 72): square_ring((60, 60), 12, 12),
        (58, 56): square_ring((60, 60), 5, 3),
    }
    assert [len(pixels) for pixels in frames.values()] == [96, 96]
    for peaks in [[(60, 72), (58, 56)], [(59, 72), (61, 56)]]:
        cells = dict(zip(peaks, frames.values(), strict=True))
        flow, logit = teleport((120, 120), cells)
        whole = assert_tiles_give_the_whole(
            flow, logit, [[60], [cut]], reach_px=24, niter=FEWEST, **TELEPORT
        )
        first = min(peaks)
        assert whole.labels[60, 60] == whole.peak.tolist().index(list(first)) + 1 == 1


# Crowds of peaks, and the reach


def crowd(rng, shape, reach_px):
    """Lines of sinks of very different weight; each pixel is led to one of those in reach."""
    sinks = np.zeros(shape, bool)
    sinks[(slice(None, None, 3),) * (len(shape) - 2) + (slice(None, None, 6),)] = True
    places = np.argwhere(sinks & (rng.random(shape) < 0.95))
    weight = rng.choice([0.3, 1, 1, 1, 5], len(places))
    pixels = np.argwhere(rng.random(shape) < 0.95)
    far = np.abs(pixels[:, None] - places).max(axis=2)
    score = np.where(far <= reach_px, rng.exponential(size=far.shape) / weight, np.inf)
    chosen = places[score.argmin(axis=1)]
    # A sink stays where it is; one step over the reach is added, which must not count anywhere.
    stays = (far == 0).any(axis=1) | np.isinf(score.min(axis=1))
    step = np.where(stays[:, None], 0, chosen - pixels)
    step[rng.random(len(step)) < 0.02, -1] = reach_px + 1
    flow, logit = np.zeros((len(shape), *shape), np.float32), np.full(shape, -5, np.float32)
    logit[tuple(pixels.T)] = rng.random(len(pixels)) + 0.1
    for axis in range(len(shape)):
        flow[axis][tuple(pixels.T)] = step[:, axis]
    return flow, logit


@settings(max_examples=12)
@given(
    shape=st.sampled_from([(50, 60), (50, 60), (13, 24, 33)]),
    seed=st.integers(0, 2**32 - 1),
    reach_px=st.integers(3, 7),
    niter=st.sampled_from([1, FEWEST, 40]),
    mode=MODES,
    data=st.data(),
)
def test_crowded_peaks_are_settled_as_in_the_whole(shape, seed, reach_px, niter, mode, data):
    flow, logit = crowd(np.random.default_rng(seed), shape, reach_px)
    cuts = [[data.draw(st.integers(1, n - 1))] for n in shape]
    whole = assert_tiles_give_the_whole(
        flow, logit, cuts, reach_px=reach_px, niter=niter, mode=mode, **TELEPORT
    )
    assert len(whole.peak) > 3 and whole.n_too_far > 0


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    reach_px=st.sampled_from([4, 9, 14]),
    mode=MODES,
    cut=st.tuples(st.integers(1, 99), st.integers(1, 89)),
)
def test_four_tiles_of_noisy_flows_make_up_the_whole(seed, reach_px, mode, cut):
    # 0.3 is sigma 1.5 on the scale of the peer's flows. Holes are filled across the seams as well.
    labels = label_field((100, 90), 40, seed=seed)
    flow, logit = network_like(centre_flow(labels), labels, seed=seed, noise=0.3)
    cuts = [[cut[0]], [cut[1]]]
    whole = assert_tiles_give_the_whole(flow, logit, cuts, reach_px=reach_px, mode=mode)
    assert len(whole.peak) > (0 if reach_px == 4 else 15)


def straight_cell(shape, peak, reach_px, *, axis, sign):
    """A cross round its peak, with one arm as long as the reach along an axis."""
    arm = np.zeros((reach_px + 1, len(shape)), int)
    arm[:, axis] = sign * np.arange(reach_px + 1)
    around = np.indices((3,) * len(shape)).reshape(len(shape), -1).T - 1
    pixels = np.unique(np.concatenate([arm, around]) + peak, axis=0)
    return pixels[((pixels >= 0) & (pixels < shape)).all(axis=1)]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("travel", [-1, 0, 1])
@pytest.mark.parametrize("seam", [(0, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_cells_at_the_reach_on_faces_edges_and_corners(seam, travel, mode):
    # Unit steps along the arm of a cell whose peak is the last voxel before the seam, or the first
    # after it, and whose arm is one shorter, as long as, or one longer than the reach.
    reach_px, shape, middle = 7, (40, 40, 40), 20
    cuts = [[middle] if cut else [] for cut in seam]
    for side in (-1, 0):
        for axis in range(3):
            for sign in (-1, 1):
                peak = np.full(3, middle + side)
                pixels = straight_cell(shape, peak, reach_px + travel, axis=axis, sign=sign)
                flow = np.zeros((3, *shape), np.float32)
                logit = np.full(shape, -5, np.float32)
                logit[tuple(pixels.T)] = 5
                for k in range(3):
                    flow[k][tuple(pixels.T)] = np.sign(peak[k] - pixels[:, k])
                whole = assert_tiles_give_the_whole(
                    flow, logit, cuts, reach_px=reach_px, mode=mode, **TELEPORT
                )
                # Only the arm's last voxel can be too far.
                assert whole.peak.tolist() == [peak.tolist()]
                assert whole.area.tolist() == [len(pixels) - (travel > 0)]
                assert whole.n_too_far == (travel > 0)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("shape", [(40, 46), (12, 26, 24)])
def test_sixteen_origins_give_equal_bits(shape, mode):
    # A margin without flow keeps particles off the array's border, so that nothing may differ.
    labels = np.pad(label_field(shape, 12, seed=4), 3)
    flow, logit = network_like(centre_flow(labels), labels, seed=4, noise=0.3)
    logit[labels == 0] = -9
    here = find_masks(flow, logit, mode=mode, reach_px=14)
    assert len(here.peak) > 5
    for k in range(16):
        before = [(5 * k + 3 * axis) % 37 for axis in range(len(shape))]
        margins = [(n, k % 4) for n in before]
        moved = find_masks(
            np.pad(flow, [(0, 0), *margins]),
            np.pad(logit, margins, constant_values=-9),
            mode=mode,
            reach_px=14,
        )
        inner = tuple(slice(n, n + size) for n, size in zip(before, labels.shape, strict=True))
        np.testing.assert_array_equal(moved.labels[inner], here.labels)
        np.testing.assert_array_equal(moved.peak - before, here.peak)
        np.testing.assert_array_equal(moved.flow_error, here.flow_error)
        np.testing.assert_array_equal(moved.logit, here.logit)
        assert moved.n_too_far == here.n_too_far
