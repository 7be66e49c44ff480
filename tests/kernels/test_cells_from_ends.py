"""Peaks and growth against a plain search, ties included."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.kernels import Ends, cells_from_ends

GOLDEN = Path(__file__).parents[1] / "golden"
ONE = 4096


def ends_at(shape, pixels, *, verdict=None):
    """Particles on the first pixels of the array that rest at given pixels."""
    end = np.array(pixels, np.int32).reshape(-1, len(shape)) * ONE + 7
    verdict = np.zeros(len(end), np.uint8) if verdict is None else np.asarray(verdict, np.uint8)
    return Ends(shape, np.arange(len(end)), end, verdict)


def plain_cells(ends):
    """Labels by pixel and the peaks, from the rules as they are written."""
    shape = ends.shape
    pixel = [tuple(p) for p in ends.end // ONE]
    counts = np.zeros(shape, int)
    for p, verdict in zip(pixel, ends.verdict, strict=True):
        counts[p] += verdict == 0
    key = {p: (counts[p], tuple(-x for x in p)) for p in np.ndindex(*shape)}

    def around(p, reach):
        steps = itertools.product(range(-reach, reach + 1), repeat=len(shape))
        spots = (tuple(np.add(p, step)) for step in steps)
        return [spot for spot in spots if spot in key]

    peaks = [p for p in key if counts[p] > 10 and key[p] == max(key[q] for q in around(p, 2))]
    owner = {}
    for peak in sorted(peaks, key=key.get):
        region = {peak}
        for _ in range(5):
            region |= {q for p in region for q in around(p, 1) if counts[q] > 2}
        owner.update(dict.fromkeys(region, sorted(peaks).index(peak) + 1))
    labels = np.zeros(shape, np.uint32)
    for start, p, verdict in zip(ends.start, pixel, ends.verdict, strict=True):
        labels.flat[start] = owner.get(p, 0) if verdict == 0 else 0
    return labels, sorted(peaks)


@settings(max_examples=60)
@given(st.data())
def test_cells_are_those_of_the_rules(data):
    shape = data.draw(st.sampled_from([(24, 30), (30, 17), (8, 12, 9)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n_sinks = data.draw(st.integers(1, 6))
    sinks = rng.integers(0, shape, (n_sinks, len(shape)))
    n = data.draw(st.integers(0, int(np.prod(shape))))
    spread = data.draw(st.sampled_from([0.0, 0.8, 2.5]))
    where = sinks[rng.integers(0, n_sinks, n)] + np.rint(rng.normal(0, spread, (n, len(shape))))
    pixels = np.clip(where, 0, np.array(shape) - 1).astype(int)
    ends = ends_at(shape, pixels, verdict=rng.random(n) < 0.1)
    labels, peaks = plain_cells(ends)
    cells = cells_from_ends(ends, threads=data.draw(st.integers(1, 2)))
    np.testing.assert_array_equal(cells.labels, labels)
    assert [tuple(p) for p in cells.peak] == peaks


def test_of_peaks_with_equal_counts_the_first_is_the_cell():
    pixels = [(5, 5)] * 20 + [(5, 7)] * 20 + [(5, 6)] * 3
    cells = cells_from_ends(ends_at((12, 14), pixels))
    assert cells.peak.tolist() == [[5, 5]] and cells.count.tolist() == [20]
    assert np.count_nonzero(cells.labels) == 43


def test_a_pixel_between_two_peaks_goes_to_the_fuller_and_then_to_the_first():
    bridge = [(5, x) for x in range(3, 9) for _ in range(4)]
    for counts, winner in (((20, 21), 2), ((21, 20), 1), ((20, 20), 1)):
        pixels = [(5, 2)] * counts[0] + [(5, 9)] * counts[1] + bridge
        cells = cells_from_ends(ends_at((12, 14), pixels))
        shared = cells.labels.ravel()[sum(counts) + 4 * 2]  # an end at (5, 5), within 5 of both
        assert cells.peak.tolist() == [[5, 2], [5, 9]] and shared == winner


def test_growth_does_not_cross_pixels_with_two_ends():
    pixels = [(5, 5)] * 20 + [(5, 6)] * 2 + [(5, 7)] * 5
    labels = cells_from_ends(ends_at((12, 14), pixels)).labels.ravel()
    assert labels[:20].all() and not labels[20:27].any()


@pytest.mark.parametrize("name", ["2d_touching", "2d_elongated", "2d_crowded", "2d_large", "3d"])
def test_cells_of_the_peers_ends_are_the_peers_cells(name):
    golden = np.load(GOLDEN / f"dynamics_{name}.npz")
    foreground = golden["logit"].astype(np.float32) > 0
    end = np.floor(golden["end_points"].T).astype(np.int32) * ONE
    start = np.flatnonzero(foreground)
    cells = cells_from_ends(Ends(foreground.shape, start, end, np.zeros(start.size, np.uint8)))
    expected = golden["masks_unlimited"]
    assert len(np.unique(expected)) == len(np.unique(cells.labels))
    pairs = set(zip(cells.labels.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(expected)), "not the same cells under other names"


def test_nothing_to_find():
    cells = cells_from_ends(ends_at((4, 5), np.empty((0, 2))))
    assert cells.peak.shape == (0, 2) and not cells.labels.any()
    few = cells_from_ends(ends_at((4, 5), [(1, 1)] * 10))
    assert few.peak.size == 0 and not few.labels.any()


def damaged(**changes):
    """Twenty particles of a 20 x 21 array, with some fields exchanged."""
    fields = {
        "shape": (20, 21),
        "start": np.arange(20),
        "end": np.full((20, 2), 5 * ONE, np.int32),
        "verdict": np.zeros(20, np.uint8),
    }
    return Ends(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"end": np.full((20, 2), 20 * ONE)}, ValueError, "inside the array of shape"),
        ({"end": np.full((20, 2), 400_000 * ONE)}, ValueError, "inside the array"),
        ({"end": np.full((20, 2), -1, np.int32)}, ValueError, "inside the array"),
        ({"start": np.arange(20) + 401}, ValueError, "inside the array"),
        ({"start": np.arange(20) - 1}, ValueError, "inside the array"),
        ({"start": np.arange(19)}, ValueError, "a start, an end and a verdict per particle"),
        ({"end": np.zeros((20, 3), np.int32)}, ValueError, "over 2 or 3 axes"),
        ({"verdict": np.zeros(21, np.uint8)}, ValueError, "per particle"),
        ({"shape": (420,), "end": np.zeros((20, 1), np.int32)}, ValueError, "2 or 3 axes"),
        ({"end": np.zeros((20, 2))}, TypeError, "needs integers, got int64 starts and float64"),
    ],
)
def test_ends_that_point_out_of_the_array_are_refused(changes, error, message):
    # Unchecked, they were counted outside of the memory of the array.
    with pytest.raises(error, match=message):
        cells_from_ends(damaged(**changes))


def test_ends_up_to_the_far_corner_count():
    corner = np.tile(np.array([19 * ONE + ONE - 1, 20 * ONE + ONE - 1], np.int32), (20, 1))
    cells = cells_from_ends(damaged(end=corner, start=np.arange(400, 420)))
    assert cells.peak.tolist() == [[19, 20]] and cells.count.tolist() == [20]
