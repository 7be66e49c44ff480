"""Stitching of planes against a plain loop and against the peer where the peer is right."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.kernels.planes import stitch_planes

GOLDEN = Path(__file__).parents[1] / "golden" / "stitch.npz"
# In `tie` one old cell lies under two new ones of equal overlap, and the peer names both after it.
CASES = ("drift", "drift_half", "volume", "first_empty", "gap", "exact", "exact_half")


def plain_links(old, new, threshold):
    """{new label: old label}, by looking at every pair of labels."""

    def rank(a, b):
        ours, theirs = old == a, new == b
        shared, union = np.count_nonzero(ours & theirs), np.count_nonzero(ours | theirs)
        reached = shared and shared / union >= threshold
        return (Fraction(int(shared), int(union)), shared) if reached else None

    olds, news = np.unique(old[old > 0]), np.unique(new[new > 0])
    ranks = {(a, b): rank(a, b) for a in olds for b in news}
    ranks = {pair: found for pair, found in ranks.items() if found}
    picked = {}
    for a in olds:
        if partners := [b for b in news if (a, b) in ranks]:
            picked[a] = max(partners, key=lambda b: (ranks[a, b], -int(b)))
    links = {}
    for b in news:
        if pickers := [a for a in olds if picked.get(a) == b]:
            links[b] = max(pickers, key=lambda a: (ranks[a, b], -int(a)))
    return links


def plain_stitch(planes, threshold):
    stitched = np.zeros(planes.shape, np.uint32)
    names, n_cells = {}, 0
    for z, plane in enumerate(planes):
        links = plain_links(planes[z - 1], plane, threshold) if z else {}
        before, names = names, {}
        for label in np.unique(plane[plane > 0]):
            if label in links:
                names[label] = before[links[label]]
            else:
                n_cells += 1
                names[label] = n_cells
            stitched[z][plane == label] = names[label]
    return stitched


def squares(shape, side, pitch, *, shift=0):
    """A lattice of square cells, numbered in raster order."""
    y, x = np.indices(shape)
    inside = (y % pitch < side) & ((x + shift) % pitch < side)
    number = y // pitch * (-(-(shape[1] + shift) // pitch)) + (x + shift) // pitch + 1
    return np.where(inside, number, 0).astype(np.uint32)


@st.composite
def stacks(draw):
    shape = draw(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 6)))
    values = st.sampled_from([0, 0, 1, 2, 3, 4, 70_000, 2**32 - 1])
    planes = draw(hnp.arrays(np.uint32, shape, elements=values))
    for z in draw(st.sets(st.integers(0, 4), max_size=2)):
        planes[z : z + 1] = 0
    return planes


THRESHOLDS = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0])


@given(stacks(), THRESHOLDS, st.sampled_from([1, 2]))
def test_planes_are_stitched_as_by_a_plain_loop(planes, threshold, threads):
    stitched = stitch_planes(planes, threshold, threads=threads)
    assert stitched.dtype == np.uint32
    np.testing.assert_array_equal(stitched, plain_stitch(planes, threshold))


@given(stacks(), THRESHOLDS)
def test_cells_of_one_plane_never_share_an_id_and_ids_have_no_gaps(planes, threshold):
    stitched = stitch_planes(planes, threshold)
    for before, after in zip(planes, stitched, strict=True):
        names = np.unique(np.stack([before.ravel(), after.ravel()]), axis=1).T.tolist()
        labels, ids = {a for a, _ in names}, {b for _, b in names}
        assert len(names) == len(labels) == len(ids)
    ids = np.unique(stitched[stitched > 0])
    np.testing.assert_array_equal(ids, np.arange(1, ids.size + 1))


@given(stacks(), THRESHOLDS)
def test_a_cell_lies_in_planes_without_a_gap(planes, threshold):
    stitched = stitch_planes(planes, threshold)
    for cell in np.unique(stitched[stitched > 0]):
        z = np.flatnonzero((stitched == cell).any(axis=(1, 2)))
        assert z[-1] - z[0] == z.size - 1


@pytest.mark.parametrize("case", CASES)
def test_ids_are_the_peers(case):
    with np.load(GOLDEN) as golden:
        planes, threshold = golden[f"{case}_planes"], float(golden[f"{case}_threshold"])
        expected = golden[f"{case}_stitched"]
    np.testing.assert_array_equal(stitch_planes(planes, threshold), expected)


def test_of_two_new_cells_with_equal_overlap_only_the_lower_keeps_the_old_id():
    with np.load(GOLDEN) as golden:
        planes, expected = golden["tie_planes"], golden["tie_stitched"]
    stitched = stitch_planes(planes)
    shared = [np.unique(planes[1][expected[1] == cell]) for cell in (1, 2)]
    twice = next(labels for labels in shared if labels.size == 2)
    expected = np.where((planes == twice[1]) & (np.arange(2) == 1)[:, None, None], 3, expected)
    np.testing.assert_array_equal(stitched, expected)


def test_an_empty_plane_after_the_first_does_not_start_the_ids_again():
    plane = squares((24, 24), 6, 8)
    stitched = stitch_planes(np.stack([plane, 0 * plane, plane]))
    assert not stitched[1].any()
    np.testing.assert_array_equal(stitched[2], np.where(plane, plane + plane.max(), 0))


@pytest.mark.parametrize("empty", [(0,), (0, 1), (1, 2), (1, 3), (0, 2, 4), (0, 1, 2, 3, 4)])
def test_empty_planes_anywhere_end_cells_and_reuse_no_id(empty):
    plane = squares((24, 24), 6, 8)
    planes = np.stack([plane] * 5)
    planes[list(empty)] = 0
    expected, runs = np.zeros_like(planes), 0
    for z in range(5):
        if z not in empty:
            runs += z == 0 or z - 1 in empty
            expected[z] = np.where(plane, plane + (runs - 1) * plane.max(), 0)
    np.testing.assert_array_equal(stitch_planes(planes), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_more_cells_in_total_than_uint16_holds(dtype):
    n_labels = min(np.iinfo(dtype).max, 10_000)
    n_planes = 70_000 // n_labels + 1
    planes = np.zeros((n_planes, 1, 2 * n_labels), dtype)
    for z in range(n_planes):  # cells of one voxel that never lie on those of the plane before
        planes[z, 0, z % 2 :: 2] = np.arange(1, n_labels + 1)
    stitched = stitch_planes(planes)
    np.testing.assert_array_equal(
        stitched[planes > 0], np.arange(1, n_planes * n_labels + 1, dtype=np.uint32)
    )


def test_gaps_and_order_of_labels_in_a_plane_do_not_matter_to_the_partition():
    rng = np.random.default_rng(3)
    planes = np.stack([squares((40, 40), 7, 8, shift=z) for z in range(6)])
    odd = planes.copy()
    for plane in odd:
        values = rng.choice(2**32 - 1, 100, replace=False).astype(np.uint32) + 1
        plane[...] = np.r_[np.uint32(0), values][plane]
    ours, theirs = stitch_planes(odd), stitch_planes(planes)
    names = np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1)
    assert names.shape[1] == np.unique(theirs).size == np.unique(ours).size
    assert theirs.max() < sum(np.unique(plane).size - 1 for plane in planes), "nothing linked"


def test_an_iou_equal_to_the_threshold_is_kept():
    planes = np.zeros((2, 1, 10), np.uint32)
    planes[0, 0, :6], planes[1, 0, 4:10] = 3, 8
    assert stitch_planes(planes, 0.2).max() == 1
    assert stitch_planes(planes, np.nextafter(0.2, 1)).max() == 2


MANY_LABELS = """
import resource
import numpy as np
from cellseg_pipe.kernels.planes import stitch_planes
stitch_planes(np.zeros((2, 4, 4), np.uint32))  # compiled or read from the cache
numbers = np.arange(1, 20_001, dtype=np.uint32).reshape(100, 200)
plane = np.zeros((1000, 2000), np.uint32)
for y in range(8):
    for x in range(7):
        plane[y::10, x::10] = numbers
planes = np.stack([np.roll(plane, z, axis=1) for z in range(5)])
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stitched = stitch_planes(planes)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
cells = [np.unique(one).size - 1 for one in stitched]
print(grown // 1024, int(stitched.max()), *cells)
"""


def test_planes_of_20000_labels_take_little_memory():
    done = subprocess.run(
        [sys.executable, "-c", MANY_LABELS], capture_output=True, text=True, check=True
    )
    grown_mb, n_cells, *cells = map(int, done.stdout.split())
    assert cells == [20_000] * 5
    # Moved by 1 of 7 voxels a plane: every cell goes on, but for those cut by the edge.
    assert 20_000 <= n_cells <= 20_000 + 5 * 100
    assert grown_mb < 200


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        (np.zeros((4, 4), int), ValueError, r"masks \[z, y, x\], got shape \(4, 4\)"),
        (np.zeros((2, 4, 4)), TypeError, "masks needs an array of integers"),
        (np.full((2, 4, 4), -1), ValueError, "masks needs labels from 0 to"),
    ],
)
def test_what_is_no_stack_of_labels_is_refused(masks, error, message):
    with pytest.raises(error, match=message):
        stitch_planes(masks)


def test_the_input_is_left_alone_and_may_be_a_view():
    planes = np.stack([squares((24, 24), 6, 8, shift=z) for z in range(4)])
    view = planes.transpose(0, 2, 1)[::-1]
    view.flags.writeable = False
    before = planes.copy()
    np.testing.assert_array_equal(stitch_planes(view), stitch_planes(view.copy()))
    np.testing.assert_array_equal(planes, before)


@pytest.mark.parametrize("shape", [(0, 5, 5), (3, 0, 5), (1, 5, 5)])
def test_no_planes_no_pixels_and_a_single_plane(shape):
    planes = np.full(shape, 9, np.int32)
    np.testing.assert_array_equal(stitch_planes(planes), np.ones(shape, np.uint32))
