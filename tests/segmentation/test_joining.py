"""Cells of several classes of diameters: which stay, and whose the pixels are."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg_pipe.segmentation.joining import (
    add_shared,
    cells_in,
    joined_labels,
    keys_of,
    settle,
    shared_pixels,
    standing,
)
from cellseg_pipe.segmentation.tiled import DROPPED

LABELS = arrays(np.uint32, (7, 9), elements=st.integers(0, 5))
CLASSES = st.lists(LABELS, min_size=2, max_size=4)


def settled_of(labels, fit):
    """What is decided, with a misfit by class and number that no two cells share."""
    shared = shared_pixels(labels)
    key = np.union1d(shared.left, shared.right)
    area = [np.sum(labels[k >> 32] == (k & 0xFFFFFFFF)) for k in key.tolist()]
    order = np.array([fit[k >> 32][k & 0xFFFFFFFF] for k in key.tolist()], float)
    return settle(shared, area=np.array(area, np.int64), misfit=order)


def joined(labels, fit):
    """Each pixel's cell as class * 10 + number, 0 for none; and who goes."""
    settled = settled_of(labels, fit)
    numbers = []
    for number in range(len(labels)):
        own = np.arange(1, 6, dtype=np.uint32)
        numbers.append((standing(own, number, settled), own + np.uint32(10 * number)))
    kept = [
        np.where(np.isin(keys_of(n, part), settled.gone), np.uint32(0), part)
        for n, part in enumerate(labels)
    ]
    return joined_labels(kept, settled, numbers), settled


def fits(labels):
    """A fit of each cell of each class, all different."""
    return [np.random.default_rng(n).permutation(6) * 10 + n for n in range(len(labels))]


def slow(labels, fit):
    """The rule in sets of pixels: each pixel's cell, and who stays."""
    cells = {
        (n, k): set(zip(*np.nonzero(part == k), strict=True))
        for n, part in enumerate(labels)
        for k in range(1, 6)
        if (part == k).any()
    }
    stays = set(cells)
    for cell, pixels in cells.items():
        better = [c for c in cells if c[0] != cell[0] and fit[c[0]][c[1]] < fit[cell[0]][cell[1]]]
        shares = [len(pixels & cells[c]) for c in better]
        halves = [
            2 * n >= min(len(pixels), len(cells[c])) and n
            for n, c in zip(shares, better, strict=True)
        ]
        if any(halves) or (sum(shares) and 2 * sum(shares) >= len(pixels)):
            stays.discard(cell)
    found = np.zeros(labels[0].shape, np.uint32)
    for cell in sorted(stays, key=lambda c: -fit[c[0]][c[1]]):  # the best one is painted last
        for place in cells[cell]:
            found[place] = cell[0] * 10 + cell[1]
    return found, stays, cells


@given(CLASSES)
def test_the_rule_is_that_of_sets(labels):
    fit = fits(labels)
    found, settled = joined(labels, fit)
    expected, stays, cells = slow(labels, fit)
    np.testing.assert_array_equal(found, expected)
    gone = {(int(k >> 32), int(k & 0xFFFFFFFF)) for k in settled.gone}
    assert gone == set(cells) - stays
    for cell in stays:  # more than half of each is left
        assert 2 * np.sum(found == cell[0] * 10 + cell[1]) > len(cells[cell])
    for one, other in itertools.combinations(stays, 2):  # rivals do not both stay
        common = len(cells[one] & cells[other])
        assert one[0] == other[0] or 2 * common < min(len(cells[one]), len(cells[other]))


@given(CLASSES, st.randoms(use_true_random=False))
def test_the_order_of_classes_and_the_cut_do_not_matter(labels, order):
    fit = fits(labels)
    found, settled = joined(labels, fit)
    turned = list(range(len(labels)))
    order.shuffle(turned)
    again, _ = joined([labels[n] for n in turned], [fit[n] for n in turned])
    names = np.array([0, *(10 * n + k for n in turned for k in range(10))][1:], np.uint32)
    np.testing.assert_array_equal(np.where(again > 0, names[again], 0), found)
    whole = shared_pixels(labels)
    parts = [
        shared_pixels([part[rows, columns] for part in labels])
        for rows in (slice(0, 3), slice(3, 7))
        for columns in (slice(0, 5), slice(5, 9))
    ]
    order.shuffle(parts)
    added = add_shared(parts)
    for name in ("left", "right", "count"):
        np.testing.assert_array_equal(getattr(added, name), getattr(whole, name))
    for number in range(len(labels)):
        assert set(cells_in(settled.key, number).tolist()) <= set(range(1, 6))


def test_cells_that_fit_alike():
    labels = [np.ones((2, 2), np.uint32), np.ones((2, 2), np.uint32)]
    shared = shared_pixels(labels)
    settled = settle(shared, area=np.array([4, 4]), misfit=np.ones(2))
    assert settled.gone.tolist() == [(1 << 32) + 1]
    assert standing(np.array([1], np.uint32), 1, settled).tolist() == [DROPPED]
