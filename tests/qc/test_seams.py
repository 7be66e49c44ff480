"""Seams are scored 0 where they are as other lines, and by what is wrong where they are not."""

import math
from functools import cache

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import rankdata

import cellseg_pipe as cs
from cellseg_pipe.geometry import Box
from cellseg_pipe.qc import SeamCounts, count_lines, lines_of, margin_px, score_counts, seams
from cellseg_pipe.qc._counting import COUNTS, SEGMENT_PX
from cellseg_pipe.qc._lines import seam_positions
from tests.golden.synthetic import label_field
from tests.qc import faults

CORE = (210, 230)


@cache
def truth(seed, edge=900, *, dense=False):
    radius = (0.5, 0.62) if dense else (0.42, 0.56)
    return faults.field((edge, edge), seed=seed, radius=radius)


def figure(score, name):
    (found,) = [one for one in score.figures if one.name == name]
    return found


# Where lines are


@given(n=st.integers(1, 500), places=st.lists(st.integers(1, 499)), clear=st.floats(0, 60))
def test_lines_keep_away_from_seams(n, places, clear):
    known = seam_positions((n,), [places])
    assert known == (tuple(sorted({p for p in places if p < n})),)
    (lines,) = lines_of((n,), known, clear_px=clear)
    assert tuple(lines.position[lines.is_seam]) == known[0]
    assert (np.diff(lines.position) > 0).all()
    ends = np.array([0, *known[0], n])
    for line in lines.position[~lines.is_seam]:
        after = np.searchsorted(ends, line)
        room = ends[after] - ends[after - 1]
        assert min(ends[after] - line, line - ends[after - 1]) + 1 > min(clear, room / 4)


def test_seams_are_said_in_three_ways():
    assert seam_positions((10, 7), 3) == ((3, 6, 9), (3, 6))
    assert seam_positions((10, 7), (4, 0)) == ((4, 8), ())
    assert seam_positions((10, 7), [[9, 2, 0, 10], []]) == ((2, 9), ())
    with pytest.raises(ValueError, match="an entry for each of 2 axes, got 1"):
        seam_positions((10, 7), [3])
    with pytest.raises(ValueError, match="0 or more, got -3"):
        seam_positions((10, 7), -3)


# What is counted, against plain counting


def plain_counts(labels, place, *, axis, typical):
    """Cells that touch a line, that end flat on it, and slivers; whole line."""
    left, right = np.take(labels, place - 1, axis), np.take(labels, place, axis)
    touching = set(np.unique([left, right])) - {0}
    cut = set()
    for label in touching:
        for mine, other in ((left, right), (right, left)):
            beside = other[(mine == label) & (other != label)]
            counts = np.unique(beside, return_counts=True)[1]
            section = typical if labels.ndim == 2 else math.pi / 4 * typical**2
            if counts.max(initial=0) >= 0.6 * section:
                cut.add(label)
    boxes = ndimage.find_objects(labels.astype(int))
    unit = math.pi / 4 if labels.ndim == 2 else math.pi / 6
    slivers = {
        label
        for label in touching
        if (labels == label).sum() < 0.25 * unit * typical**labels.ndim
        and place in (boxes[label - 1][axis].start, boxes[label - 1][axis].stop)
    }
    return len(touching), len(cut), len(slivers)


@pytest.mark.parametrize("shape", [(170, 190), (60, 70, 80)])
def test_counts_of_a_line(shape):
    labels = faults.field(shape, seed=4)
    labels = faults.naive(labels, (47, 61, 53)[: len(shape)], seed=2)
    labels = np.unique(labels, return_inverse=True)[1].reshape(shape).astype(np.uint32)
    whole = Box.of(shape)
    for axis, place in ((0, 47), (1, 61), (0, 20), (1, 33)):
        positions = [() for _ in shape]
        positions[axis] = (place,)
        lines = lines_of(shape, positions, clear_px=1000.0)
        counts = count_lines(labels, window=whole, core=whole, lines=lines, typical_px=22.0)
        found = dict(zip(COUNTS, counts.seam.sum(axis=1), strict=True))
        expected = plain_counts(labels, place, axis=axis, typical=22.0)
        assert (found["touching"], found["cut"], found["slivers"]) == expected
        sides = [np.take(labels, place - k, axis) for k in (0, 1)]
        assert found["crossed"] == 2 * sides[0].size
        assert found["covered"] == sum(np.count_nonzero(side) for side in sides)
        across = [n for a, n in enumerate(shape) if a != axis]
        edge = SEGMENT_PX[len(shape)]
        assert counts.seam.shape[1] == math.prod(-(-n // edge) for n in across)


def test_blocks_add_up_to_the_whole(monkeypatch):
    labels = faults.naive(truth(5)[:520, :600], (130, 170), seed=1)
    whole = Box.of(labels.shape)
    lines = lines_of(labels.shape, seam_positions(labels.shape, (130, 170)), clear_px=22.0)

    def totals(blocks):
        parts = []
        for core in blocks:
            window = core.grow(margin_px(22.0)).clip(whole)
            part = labels[window.slices]
            parts.append(count_lines(part, window=window, core=core, lines=lines, typical_px=22.0))
        return SeamCounts.add(parts)

    blocks = [Box((y, x), (min(y + 256, 520), min(x + 256, 600)))
              for y in range(0, 520, 256) for x in range(0, 600, 256)]  # fmt: skip
    one, many = totals([whole]), totals(blocks)
    np.testing.assert_array_equal(one.seam.sum(axis=1)[1:-4], many.seam.sum(axis=1)[1:-4])
    np.testing.assert_array_equal(one.other.sum(axis=1)[1:-4], many.other.sum(axis=1)[1:-4])


# What it says


@pytest.mark.parametrize("seed", range(6))
def test_seams_of_a_whole_image_score_zero(seed):
    score = cs.seam_score(truth(seed), CORE)
    assert score.score == 0 and score.verdict == "cells at seams are as elsewhere"
    assert 150 < score.n_cells < 320 and abs(score.typical_px - 20) < 2
    assert cs.seam_score(truth(seed), [[100, 333, 700], [450]]).score == 0
    assert all(one.low <= 0 <= one.high for one in score.figures)


def discs(shape, diameters, *, seed=0):
    """Round cells in rows, of the diameter that each column of pixels has."""
    rng, labels, number = np.random.default_rng(seed), np.zeros(shape, np.uint32), 0
    for px in np.unique(diameters):
        disc = sum((np.indices((px, px)) - (px - 1) / 2) ** 2) <= px * px / 4
        for y in range(4, shape[0] - px - 4, px + 6):
            for x in range(4, shape[1] - px - 4, px + 6):
                y0, x0 = (place + int(rng.integers(-3, 4)) for place in (y, x))
                if (diameters[x0 : x0 + px] == px).all():
                    number += 1
                    labels[y0 : y0 + px, x0 : x0 + px][disc] = number
    return labels


@pytest.mark.parametrize(("start", "stop", "edge"), [(0.28, 0.72, 512), (0, 0.6, 768)])
def test_parts_with_larger_cells_are_no_fault(start, stop, edge):
    """Seams lie in them more often than other lines do, and their cells are large together."""
    n = 1536
    place = np.arange(n) / n
    labels = discs((n, n), np.where((start < place) & (place < stop), 36, 20))
    score = cs.seam_score(labels, edge)
    assert figure(score, "fused").seams > figure(score, "fused").elsewhere
    assert score.score == 0


@pytest.mark.parametrize("px", [300, 450])
def test_large_cells_are_seen_whole(px):
    labels = discs((4096, 4096), np.full(4096, px))
    assert cs.seam_score(labels, 1024).score == 0


@pytest.mark.parametrize("fault", [name for name in faults.FAULTS if name not in faults.FEW])
def test_each_fault_is_found(fault):
    labels = faults.FAULTS[fault](truth(1), CORE, seed=1)
    overlap = faults.HALO_PX * (fault in faults.OVERLAPPING)
    score = cs.seam_score(labels, CORE, overlap_px=overlap)
    assert score.score > 0.02
    expected = {
        "tiles side by side": "cut", "a third is linked": "cut", "best on the face": "slivers",
        "strip IoU": "cut", "first come": "cut", "union": "slivers",
        "shifted tiles": "cut", "strips twice": "repeats", "slivers": "slivers",
        "wrong cells, strip IoU": "cut", "wrong cells, strip IoU of .25": "fused",
        "wrong cells, best on the face": "close", "wrong cells, first come": "cut",
        "wrong cells, union": "slivers",
    }  # fmt: skip
    found = figure(score, expected[fault])
    assert found.low > 0 and found.text in score.verdict
    assert found.low < found.excess <= found.high


@pytest.mark.parametrize("fault", faults.FEW)
def test_cells_that_are_lost_are_missed(fault):
    """Few are: a large field of cells that touch tells."""
    labels = truth(1, 1800, dense=True)
    assert cs.seam_score(labels, CORE).score == 0
    score = cs.seam_score(faults.FAULTS[fault](labels, CORE, seed=1), CORE)
    found = figure(score, "cover" if fault == "centroid owner" else "starts")
    assert found.high < 0 and found.text in score.verdict


@pytest.mark.parametrize("fault", ["shifted tiles", "strips twice"])
def test_faulty_fields_are_told_from_others(fault):
    clean = [cs.seam_score(truth(seed)[:600], CORE).score for seed in range(6)]
    wrong = [
        cs.seam_score(faults.FAULTS[fault](truth(seed)[:600], CORE, seed=seed), CORE).score
        for seed in range(6)
    ]
    assert auroc(clean, wrong) >= 0.95


def auroc(clean, wrong):
    rank = rankdata([*clean, *wrong])[len(clean) :]
    return (rank.sum() - len(wrong) * (len(wrong) + 1) / 2) / (len(clean) * len(wrong))


def test_volumes():
    labels = faults.field((72, 110, 120), seed=3)
    core = (36, 55, 60)
    assert cs.seam_score(labels, core).score == 0
    score = cs.seam_score(faults.naive(labels, core, bent_px=1.0), core)
    assert figure(score, "cut").low > 0.2 and figure(score, "slivers").low > 0.05


@pytest.mark.parametrize("bent_px", [0, 0.4, 0.8])
def test_volumes_as_the_peer_joins_them(bent_px):
    """Even where all tiles see the truth: slivers, and halves that are not linked."""
    labels, core = label_field((78, 182, 182), 1134, seed=11), (39, 91, 91)
    assert cs.seam_score(labels, core).score == 0
    joined = faults.where_shrunk_faces_touch(labels, core, bent_px=bent_px)
    score = cs.seam_score(joined, core)
    assert figure(score, "slivers").low > 0.1 and figure(score, "close").low > 0.1


def test_a_store_is_read_block_by_block(tmp_path, monkeypatch):
    labels = faults.naive(truth(2), CORE, seed=2)
    monkeypatch.setitem(seams.BLOCK_PX, 2, (256, 256))
    expected = cs.seam_score(labels, CORE)
    array = zarr.create_array(str(tmp_path / "a.zarr"), data=labels, chunks=(128, 128))
    most = []

    class Watched:
        shape = array.shape

        def __getitem__(self, where):
            found = array[where]
            most.append(found.size)
            return found

    assert cs.seam_score(Watched(), CORE) == expected
    assert max(most) <= (256 + 2 * margin_px(expected.typical_px)) ** 2


def test_what_cannot_be_scored():
    nothing = np.zeros((300, 300), np.uint32)
    score = cs.seam_score(nothing, 100)
    assert score.score == 0 and score.verdict == "no cells touch a seam"
    with pytest.raises(ValueError, match="seams inside the labels of shape"):
        cs.seam_score(nothing, 400)
    with pytest.raises(ValueError, match="2 or 3 axes"):
        cs.seam_score(nothing[0], 100)
    one = nothing.copy()
    one[140:160, 90:112] = 1
    few = cs.seam_score(one, 100)
    assert few.score == 0 and few.n_cells == 1


def test_intervals_of_shares_hold_the_truth():
    """Draws from known shares: nearly all intervals hold their difference."""
    rng = np.random.default_rng(0)
    for share, more in ((0.0, 0.0), (0.02, 0.0), (0.05, 0.03)):
        missed = 0
        for _ in range(300):
            seam, other = np.zeros((2, len(COUNTS), 40), np.int64)
            seam[1], other[1] = 12, 60
            seam[2] = rng.binomial(12, share + more, 40)
            other[2] = rng.binomial(60, share, 40)
            found = figure(score_counts([SeamCounts(seam, other)], typical_px=20.0), "cut")
            missed += not found.low <= more <= max(found.high, more)
        assert missed <= 3
