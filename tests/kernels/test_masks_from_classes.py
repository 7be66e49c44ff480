"""Cells of a network with three classes: growth, and ties decided in a window as in the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellseg_pipe.kernels import masks_from_classes
from cellseg_pipe.metrics import evaluate
from tests.golden.synthetic import label_field


def plain_masks(scores, min_size_px, growth_px):
    """The rules as they are written, one pixel after the other."""
    best = scores.max(axis=0)
    single = (scores == best).sum(axis=0) == 1
    winner = np.where(single, scores.argmax(axis=0), 2)
    pieces, n = ndimage.label(winner == 0)
    areas = np.bincount(pieces.ravel(), minlength=n + 1)
    kept = [k for k in range(1, n + 1) if areas[k] >= min_size_px]
    labels = np.zeros(winner.shape, np.uint32)
    for number, k in enumerate(kept, start=1):
        labels[pieces == k] = number
    ahead, ends = np.eye(winner.ndim, dtype=int), np.array(winner.shape)
    steps = np.concatenate([-ahead, ahead[::-1]])
    for _ in range(growth_px):
        before = labels.copy()
        for spot in np.argwhere((winner == 1) & (labels == 0)):
            around = [tuple(p) for p in spot + steps if (p >= 0).all() and (p < ends).all()]
            cells = [p for p in around if before[p]]
            if cells:
                labels[tuple(spot)] = before[max(cells, key=lambda p: scores[(0, *p)])]
    return labels


def arms(seed=0):
    """Two cells with a boundary column between them; the left one has an arm far to the left."""
    kind = np.full((60, 60), 2)
    kind[2:40, 4:6] = 0
    kind[30:40, 6:22] = 0
    kind[25:40, 23:40] = 0
    kind[30:40, 22] = 1
    scores = np.stack([(kind == k) for k in range(3)]).astype(np.float32)
    return scores + np.random.default_rng(seed).random(scores.shape).astype(np.float32) / 4


@settings(max_examples=40)
@given(
    shape=st.sampled_from([(9, 13), (16, 11), (5, 6, 7)]),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 3, 50]),
    min_size_px=st.integers(0, 4),
    growth_px=st.integers(0, 4),
)
def test_cells_are_those_of_the_rules(shape, seed, levels, min_size_px, growth_px):
    scores = np.random.default_rng(seed).integers(0, levels, (3, *shape)).astype(np.float32)
    labels = masks_from_classes(scores, min_size_px=min_size_px, growth_px=growth_px)
    np.testing.assert_array_equal(labels, plain_masks(scores, min_size_px, growth_px))


@pytest.mark.parametrize("seed", range(4))
def test_a_tie_does_not_go_by_the_number_which_a_window_gives_otherwise(seed):
    scores = arms(seed)
    whole, window = masks_from_classes(scores), masks_from_classes(scores[:, :, 8:])
    left, right = whole[35, 18], whole[35, 30]
    assert (left, right) == (1, 2)
    assert (window[35, 10], window[35, 22]) == (2, 1)  # without its arm the left cell is second
    np.testing.assert_array_equal(whole[:, 10:] == left, window[:, 2:] == 2)
    np.testing.assert_array_equal(whole[:, 10:] == right, window[:, 2:] == 1)


@settings(max_examples=25)
@given(seed=st.integers(0, 50), start=st.tuples(*[st.integers(0, 50)] * 2), noise=st.floats(0, 0.6))
def test_a_crop_has_the_cells_that_it_holds_whole_as_the_whole_has(seed, start, noise):
    truth = label_field((140, 140), 160, seed=seed)
    inside = ndimage.minimum_filter(truth, 3) == ndimage.maximum_filter(truth, 3)
    kind = np.where(truth == 0, 2, np.where(inside, 0, 1))
    scores = np.stack([kind == k for k in range(3)]).astype(np.float32)
    scores += noise * np.random.default_rng(seed).random(scores.shape).astype(np.float32)
    whole = masks_from_classes(scores, growth_px=3)
    cut = tuple(slice(a, a + 90) for a in start)
    shown, part = whole[cut], masks_from_classes(scores[:, *cut], growth_px=3)
    # A cell is right if neither it nor one that it competes with for pixels is cut.
    sides = (shown[0], shown[-1], shown[:, 0], shown[:, -1])
    cut_off = np.isin(shown, np.setdiff1d(np.concatenate(sides), [0]))
    near_cut = ndimage.binary_dilation(cut_off, iterations=7)
    compared = np.setdiff1d(shown, np.append(shown[near_cut], 0))
    assert compared.size > 10
    for label in compared:
        mask = shown == label
        np.testing.assert_array_equal(part == part[mask].max(), mask)


def test_equal_scores_mean_background():
    assert not masks_from_classes(np.zeros((3, 9, 9), np.float32), min_size_px=0).any()
    scores = np.zeros((3, 9, 9), np.float32)
    scores[2] = 1
    scores[0, 2:7, 2:7] = 2
    scores[1, 2:7, 2] = 2
    scores[2, 2:7, 6] = 2
    labels = masks_from_classes(scores)
    assert labels[2:7, 3:6].all() and labels.sum() == 15


def test_three_class_output_gives_touching_cells():
    truth = label_field((120, 110), 20, seed=4)
    padded = np.pad(truth, 1)
    inner = np.ones_like(truth, bool)
    for dy in range(3):
        for dx in range(3):
            inner &= padded[dy : dy + truth.shape[0], dx : dx + truth.shape[1]] == truth
    interior = inner & (truth > 0)
    boundary = (truth > 0) & ~interior
    scores = np.stack([interior, boundary, truth == 0]).astype(np.float32)
    labels = masks_from_classes(scores, min_size_px=10)
    score = evaluate(labels, truth)
    assert score.ap[0.9] > 0.95 and score.merges == 0
    assert labels.dtype == np.uint32
    kept = masks_from_classes(scores, min_size_px=10, growth_px=0)
    assert ((kept > 0) <= interior).all()
    with pytest.raises(ValueError, match="interior, boundary, background"):
        masks_from_classes(scores[:2])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"min_size_px": -1}, ValueError, "min_size_px needs a whole number of 0 or more"),
        ({"growth_px": -1}, ValueError, "growth_px needs a whole number of 0 or more"),
        ({"growth_px": 1.5}, TypeError, "growth_px needs a whole number"),
        ({"scores": np.full((3, 4, 5), np.nan)}, ValueError, "scores without NaN"),
        ({"scores": np.zeros((3, 4, 5), int)}, ValueError, "interior, boundary, background"),
    ],
)
def test_wrong_input_is_refused(change, error, message):
    arguments = {"scores": np.zeros((3, 4, 5), np.float32), **change}
    with pytest.raises(error, match=message):
        masks_from_classes(arguments.pop("scores"), **arguments)


def test_an_empty_image_has_no_cells():
    assert masks_from_classes(np.zeros((3, 0, 5), np.float32)).shape == (0, 5)
