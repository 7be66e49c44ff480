"""Scores against slow plain references, other programs, and the traps of each."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from cellseg_pipe import metrics
from cellseg_pipe.metrics._assign import heaviest_matching

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ("close_2d", "rough_2d", "dense_2d", "shifted_2d", "rough_3d")
LOW_THRESHOLDS = (0.1, 0.25, 0.5, 0.75)
TOP = 2**32 - 1


# ---- slow plain references -------------------------------------------------------------------


def slow_objects(labels, seen):
    """Return voxels outside the ignore region of each object, as sets of flat positions."""
    flat, keep = labels.ravel(), seen.ravel()
    objects = {int(v): set(np.flatnonzero((flat == v) & keep)) for v in np.unique(flat) if v}
    return {label: voxels for label, voxels in objects.items() if voxels}


def slow_excused(labels, seen, objects):
    return {v for v in objects if np.sum((labels == v) & ~seen) > len(objects[v])}


def slow_iou(pred, true):
    return np.array([[len(p & t) / len(p | t) for t in true.values()] for p in pred.values()])


def slow_matches(iou, threshold):
    """Count matches by the dense assignment of all objects, as the peers do."""
    if iou.size == 0:
        return 0
    cost = -(iou >= threshold).astype(float) - iou / (2 * min(iou.shape))
    rows, columns = linear_sum_assignment(cost)
    return int((iou[rows, columns] >= threshold).sum())


def slow_seg_and_det(pred, true):
    """Follow the definitions of the Cell Tracking Challenge object by object."""
    hosts = {
        t: next((p for p in pred if 2 * len(pred[p] & true[t]) > len(true[t])), None) for t in true
    }
    jaccard = [
        0 if p is None else len(pred[p] & true[t]) / len(pred[p] | true[t])
        for t, p in hosts.items()
    ]
    held = [sum(host == p for host in hosts.values()) for p in pred]
    cost = (
        5 * sum(n - 1 for n in held if n > 1)
        + 10 * sum(p is None for p in hosts.values())
        + sum(n == 0 for n in held)
    )
    n_true = len(true)
    if n_true == 0:
        return math.nan, math.nan
    return sum(jaccard) / n_true, 1 - min(cost, 10 * n_true) / (10 * n_true)


def slow_aji(pred, true):
    """Take for each true object the predicted one of greatest IoU, the lowest label on ties."""
    overlap = union = 0
    used = set()
    for voxels in true.values():
        iou = {p: len(pred[p] & voxels) / len(pred[p] | voxels) for p in sorted(pred)}
        best = max(iou, key=iou.get, default=None)
        if best is None or iou[best] == 0:
            union += len(voxels)
            continue
        used.add(best)
        overlap += len(pred[best] & voxels)
        union += len(pred[best] | voxels)
    union += sum(len(pred[p]) for p in pred if p not in used)
    return overlap / union if union else math.nan


def all_matchings(edges):
    """Yield every set of edges that share no node."""
    if not edges:
        yield ()
        return
    (left, right), *rest = edges
    yield from all_matchings(rest)
    free = [e for e in rest if e[0] != left and e[1] != right]
    yield from (((left, right), *others) for others in all_matchings(free))


def slow_aji_plus(pred, true):
    """Return the values of all one-to-one matchings with the greatest sum of IoU."""
    edges = [(p, t) for p in pred for t in true if pred[p] & true[t]]
    by_sum = []
    for chosen in all_matchings(edges):
        weight = sum(len(pred[p] & true[t]) / len(pred[p] | true[t]) for p, t in chosen)
        overlap = sum(len(pred[p] & true[t]) for p, t in chosen)
        union = sum(map(len, pred.values())) + sum(map(len, true.values())) - overlap
        by_sum.append((weight, overlap / union if union else math.nan))
    best = max(weight for weight, _ in by_sum)
    return [value for weight, value in by_sum if weight > best - 1e-9]


def slow_pieces(pred, true):
    """Count the objects of `true` that hold most of two or more of `pred`."""
    return sum(
        sum(2 * len(voxels & host) > len(voxels) for voxels in pred.values()) > 1
        for host in true.values()
    )


# ---- random images ---------------------------------------------------------------------------

shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6)
palette = st.sampled_from([0, 0, 3, 4, 900, 70_000, TOP])


@st.composite
def pairs_of_labels(draw):
    shape = draw(shapes)
    pred, true = (draw(hnp.arrays(np.uint32, shape, elements=palette)) for _ in range(2))
    if draw(st.booleans()):  # make good matches as common as bad ones
        pred = np.where(draw(hnp.arrays(bool, shape)), pred, true)
    return pred, true


def same(left, right):
    return left == pytest.approx(right, nan_ok=True, abs=1e-12)


# ---- against the references ------------------------------------------------------------------


@given(pairs_of_labels())
def test_scores_equal_the_slow_references(images):
    pred, true = (slow_objects(labels, np.ones(labels.shape, bool)) for labels in images)
    scores = metrics.evaluate(*images, thresholds=LOW_THRESHOLDS)
    iou = slow_iou(pred, true)
    assert (scores.n_pred, scores.n_true) == (len(pred), len(true))
    for threshold in LOW_THRESHOLDS:
        tp = slow_matches(iou, threshold)
        errors = len(pred) + len(true) - 2 * tp
        assert scores.tp[threshold] == tp
        assert scores.fp[threshold] + scores.fn[threshold] == errors
        assert same(scores.ap[threshold], tp / (tp + errors) if pred or true else math.nan)
        assert same(scores.f1[threshold], tp / (tp + errors / 2) if pred or true else math.nan)
    sure = iou[iou > 0.5] if iou.size else iou
    expected = 2 * sure.sum() / (len(pred) + len(true)) if pred or true else math.nan
    assert same(scores.pq, expected)
    assert same(scores.sq * scores.rq, scores.pq)
    assert same((scores.seg, scores.det), slow_seg_and_det(pred, true))
    assert same(scores.aji, slow_aji(pred, true))
    assert any(same(scores.aji_plus, value) for value in slow_aji_plus(pred, true))
    assert scores.splits == slow_pieces(pred, true)
    assert scores.merges == slow_pieces(true, pred)


@given(pairs_of_labels(), st.data())
def test_ignore_leaves_out_voxels_and_forgives_what_lies_mostly_there(images, data):
    hidden = data.draw(hnp.arrays(bool, images[0].shape))
    pred, true = (slow_objects(labels, ~hidden) for labels in images)
    free_pred, free_true = (
        slow_excused(labels, ~hidden, objects)
        for labels, objects in zip(images, (pred, true), strict=True)
    )
    scores = metrics.evaluate(*images, ignore=hidden, thresholds=(0.6,))
    edges = [
        (p, t) for p in pred for t in true if len(pred[p] & true[t]) >= 0.6 * len(pred[p] | true[t])
    ]
    assert scores.tp[0.6] == len(edges)
    assert scores.fp[0.6] == len(set(pred) - free_pred - {p for p, _ in edges})
    assert scores.fn[0.6] == len(set(true) - free_true - {t for _, t in edges})
    assert scores.n_pred == len(set(pred) - free_pred)
    assert scores.n_true == len(set(true) - free_true)


@given(pairs_of_labels(), st.data())
def test_counts_of_blocks_add_up_to_those_of_the_whole(images, data):
    pred, true = images
    hidden = data.draw(st.none() | hnp.arrays(bool, pred.shape))
    cut = data.draw(st.integers(0, pred.shape[0]))
    blocks = [slice(0, cut), slice(cut, None)]
    parts = [
        metrics.count_overlaps(
            pred[block], true[block], ignore=None if hidden is None else hidden[block]
        )
        for block in blocks
    ]
    whole = metrics.score_overlaps(metrics.count_overlaps(pred, true, ignore=hidden))
    assert metrics.score_overlaps(metrics.sum_overlaps(parts)).as_dict() == whole.as_dict()
    assert whole.as_dict() == metrics.evaluate(pred, true, ignore=hidden).as_dict()


@given(pairs_of_labels())
def test_scores_do_not_depend_on_label_values(images):
    dense = [np.unique(labels, return_inverse=True) for labels in images]
    renumbered = [
        (position.reshape(labels.shape) + (ids[0] != 0)).astype(np.uint16)
        for labels, (ids, position) in zip(images, dense, strict=True)
    ]
    assert metrics.evaluate(*renumbered).as_dict() == metrics.evaluate(*images).as_dict()


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True, max_size=14),
    st.data(),
)
def test_heaviest_matching_equals_dense_assignment(edges, data):
    weights = data.draw(
        st.lists(
            st.sampled_from([0.1, 0.2, 0.3, 0.7]) | st.floats(0.01, 1),
            min_size=len(edges),
            max_size=len(edges),
        )
    )
    left, right = np.array(edges, np.int64).reshape(-1, 2).T
    chosen = heaviest_matching(left, right, np.array(weights))
    dense = np.zeros((6, 6))
    dense[left, right] = weights
    rows, columns = linear_sum_assignment(dense, maximize=True)
    assert np.unique(left[chosen]).size == np.unique(right[chosen]).size == chosen.size
    assert np.array(weights)[chosen].sum() == pytest.approx(dense[rows, columns].sum())


def lattice(n):
    """Return a component that no dominant edge opens."""
    left = np.repeat(np.arange(n), 3)
    right = (left + np.tile([0, 1, 20], n)) % n
    return left, right, np.random.default_rng(0).uniform(0.5, 0.6, left.size)


def chain(n):
    """Return a path whose edges only settle from one end, one at a time."""
    steps = np.arange(n)
    return steps // 2, (steps + 1) // 2, np.linspace(0.1, 0.2, n)


@pytest.mark.parametrize("edges", [lattice(400), chain(900)], ids=["lattice", "chain"])
def test_heaviest_matching_of_one_large_component(edges):
    left, right, weight = edges
    dense = np.zeros((left.max() + 1, right.max() + 1))
    dense[left, right] = weight
    rows, columns = linear_sum_assignment(dense, maximize=True)
    chosen = heaviest_matching(left, right, weight)
    assert weight[chosen].sum() == pytest.approx(dense[rows, columns].sum(), rel=1e-12)


# ---- against other programs ------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    images = np.load(GOLDEN / "metrics.npz")
    values = json.loads((GOLDEN / "metrics.json").read_text())
    return images, values


def spread(labels):
    """Give the labels gaps, as flow checks and crops do; scores must not notice."""
    return np.where(labels > 0, labels.astype(np.uint32) * 7 + 70_000, 0)


@pytest.mark.parametrize("gaps", [np.asarray, spread], ids=["dense", "gaps"])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_cellpose_and_stardist(golden, case, gaps):
    images, values = golden
    peer, stardist = values["cellpose"][case], values["stardist"][case]
    thresholds = (0.1, 0.3, *metrics.IOU_THRESHOLDS)
    pred, true = gaps(images[f"{case}_pred"]), gaps(images[f"{case}_true"])
    scores = metrics.evaluate(pred, true, thresholds=thresholds)
    for name in ("tp", "fp", "fn"):
        assert list(getattr(scores, name).values()) == peer[name] == stardist[name]
    assert list(scores.ap.values()) == pytest.approx(peer["ap"], rel=1e-6)
    assert list(scores.ap.values()) == pytest.approx(stardist["accuracy"])
    for name in ("f1", "precision", "recall"):
        assert list(getattr(scores, name).values()) == pytest.approx(stardist[name])
    assert scores.pq == pytest.approx(stardist["panoptic_quality"])
    assert scores.sq == pytest.approx(stardist["mean_matched_score"])
    assert scores.aji_cellpose == pytest.approx(peer["aji"], rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_tracking_challenge(golden, case):
    images, values = golden
    scores = metrics.evaluate(images[f"{case}_pred"], images[f"{case}_true"])
    assert scores.seg == pytest.approx(values["ctc"][case]["seg"])
    assert scores.det == pytest.approx(values["ctc"][case]["det"])


@pytest.mark.parametrize("case", CASES)
def test_matches_are_those_of_the_scores(golden, case):
    images, _ = golden
    pred, true = images[f"{case}_pred"], images[f"{case}_true"]
    overlaps = metrics.count_overlaps(pred, true)
    for threshold in (0.2, 0.51):
        found = metrics.match_objects(overlaps, iou_threshold=threshold)
        scores = metrics.evaluate(pred, true, thresholds=(threshold,))
        assert found.iou.size == scores.tp[threshold] > 0
        for p, t, iou in itertools.islice(zip(found.pred, found.true, found.iou, strict=True), 5):
            assert iou == ((pred == p) & (true == t)).sum() / ((pred == p) | (true == t)).sum()


# ---- traps -----------------------------------------------------------------------------------


def cells(*labels):
    """Return a row of 4-voxel cells with these labels, a gap of 2 between them."""
    return np.concatenate([[label] * 4 + [0] * 2 for label in labels]).astype(np.uint32)


def test_identical_images_score_1():
    scores = metrics.evaluate(cells(5, 9, TOP), cells(5, 9, TOP))
    ones = [*scores.ap.values(), *scores.f1.values(), scores.mean_ap, scores.pq, scores.sq]
    ones += [scores.rq, scores.aji, scores.aji_plus, scores.aji_cellpose, scores.seg, scores.det]
    assert ones == [1.0] * len(ones)
    assert (scores.n_pred, scores.count_error, scores.splits, scores.merges) == (3, 0, 0, 0)


def test_both_empty_is_nothing_to_judge():
    scores = metrics.evaluate(cells(0, 0), cells(0, 0))
    assert math.isnan(scores.ap[0.5])
    assert all(math.isnan(v) for v in (scores.pq, scores.aji, scores.seg, scores.det, scores.sq))
    assert (scores.n_pred, scores.tp[0.5]) == (0, 0)
    assert scores.as_dict()["pq"] is None


def test_one_side_empty_scores_0():
    for pred, true in ((cells(1, 2), cells(0, 0)), (cells(0, 0), cells(1, 2))):
        scores = metrics.evaluate(pred, true)
        values = (scores.ap[0.5], scores.f1[0.9], scores.precision[0.5], scores.recall[0.5])
        assert values == (0, 0, 0, 0)
        assert (scores.pq, scores.sq, scores.aji, scores.aji_plus) == (0, 0, 0, 0)
    assert (scores.seg, scores.det, scores.count_error) == (0, 0, -1)
    nothing_true = metrics.evaluate(cells(1, 2), cells(0, 0))
    assert math.isnan(nothing_true.seg) and math.isnan(nothing_true.det)


def test_empty_arrays_have_no_objects():
    scores = metrics.evaluate(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))
    assert (scores.n_pred, scores.n_true) == (0, 0)


def test_iou_of_exactly_one_half_matches_once_and_is_not_panoptic():
    scores = metrics.evaluate(np.array([1, 1, 1, 1]), np.array([3, 3, 8, 8]))
    assert (scores.tp[0.5], scores.fp[0.5], scores.fn[0.5]) == (1, 0, 1)
    assert scores.ap[0.5] == 0.5
    assert scores.pq == 0  # panoptic quality asks for more than .5
    assert scores.seg == 0.5  # the cell covers both true ones
    assert scores.det == 1 - 5 / 20  # one cut mends it
    assert (scores.splits, scores.merges) == (0, 1)


def test_assignment_below_one_half_finds_the_most_matches():
    # Greedy by IoU would take the middle pair (8/20) and leave one of each without a partner.
    pred = np.repeat([1, 2, 2, 0], [6, 8, 6, 0])
    true = np.repeat([5, 5, 7], [6, 8, 6])
    assert metrics.evaluate(pred, true, thresholds=(0.4,)).tp[0.4] == 2


def test_splits_and_merges_are_counted_from_both_sides():
    whole, halves = np.array([1, 1, 1, 1, 0]), np.array([4, 4, 2, 2, 0])
    assert metrics.evaluate(halves, whole).splits == 1
    assert metrics.evaluate(halves, whole).merges == 0
    assert metrics.evaluate(whole, halves).merges == 1


def test_an_image_and_its_planes_reversed_or_strided_score_alike():
    rng = np.random.default_rng(3)
    pred, true = rng.integers(0, 4, (2, 6, 7, 8))
    expected = metrics.evaluate(pred[::2].copy(), true[::2].copy()).as_dict()
    assert metrics.evaluate(pred[::2], true[::2]).as_dict() == expected
    assert metrics.evaluate(pred[::2].T, true[::2].T).as_dict() == expected


@pytest.mark.parametrize("slab_voxels", [1, 7, 1 << 24])
def test_ignored_label_equals_ignored_region(slab_voxels, monkeypatch):
    monkeypatch.setattr(metrics, "SLAB_VOXELS", slab_voxels)
    true = cells(1, 9, 2)
    pred = cells(1, 5, 3)
    by_label = metrics.evaluate(pred, true, ignore=9)
    assert by_label.as_dict() == metrics.evaluate(pred, true, ignore=true == 9).as_dict()
    assert (by_label.n_pred, by_label.n_true, by_label.ap[0.5]) == (2, 2, 1.0)


def test_wrong_input_is_refused_in_plain_words():
    good = cells(1, 2)
    with pytest.raises(ValueError, match=r"got shapes \(12,\) and \(11,\)"):
        metrics.evaluate(good, good[1:])
    with pytest.raises(TypeError, match="pred needs an array of integers"):
        metrics.evaluate(good.astype(float), good)
    with pytest.raises(ValueError, match="truth needs labels from 0"):
        metrics.evaluate(good, good.astype(int) - 1)
    with pytest.raises(TypeError, match="two arrays or two lists"):
        metrics.evaluate([good], good)
    with pytest.raises(ValueError, match="got 1, 2 and 2"):
        metrics.evaluate([good], [good, good])
    with pytest.raises(ValueError, match="at least one"):
        metrics.evaluate([], [])
    with pytest.raises(ValueError, match="write 0.5 for 50 %"):
        metrics.evaluate(good, good, thresholds=(50,))
    with pytest.raises(TypeError, match="ignore needs"):
        metrics.evaluate(good, good, ignore=good.astype(float))
    with pytest.raises(ValueError, match="ignore needs"):
        metrics.evaluate(good, good, ignore=good[1:])


# ---- several images --------------------------------------------------------------------------


def test_lists_are_pooled_averaged_and_resampled():
    perfect, blank = cells(1, 2, 3), cells(0, 0, 0)
    scores = metrics.evaluate([perfect, blank, blank], [perfect, cells(1, 0, 0), blank])
    assert (scores.n_images, scores.tp[0.5], scores.fn[0.5]) == (3, 3, 1)
    assert scores.ap[0.5] == 3 / 4  # objects count alike
    assert scores.mean.ap[0.5] == 1 / 2  # images count alike; the blank pair has no say
    assert scores.mean.n_true == 4 / 3
    assert [image.n_true for image in scores.images] == [3, 1, 0]
    assert (scores.low.ap[0.5], scores.high.ap[0.5]) == (0, 1)
    assert (scores.mean.low.ap[0.5], scores.mean.high.ap[0.5]) == (0, 1)


def test_intervals_narrow_with_more_images_and_hold_the_value():
    rng = np.random.default_rng(0)
    true = [rng.integers(0, 6, (6, 6)) for _ in range(40)]
    pred = [np.where(rng.random((6, 6)) < 0.7, t, 0) for t in true]
    few, many = (metrics.evaluate(pred[:n], true[:n]) for n in (5, 40))
    assert many.low.aji <= many.aji <= many.high.aji
    assert many.high.aji - many.low.aji < few.high.aji - few.low.aji
    assert many.as_dict() == metrics.evaluate(pred, true).as_dict()  # the seed is fixed


def test_one_image_in_a_list_has_a_mean_but_no_interval():
    scores = metrics.evaluate([cells(1, 2)], [cells(1, 3)])
    assert scores.mean.ap[0.5] == scores.ap[0.5] == 1
    assert scores.low is None and scores.mean.high is None


# ---- output ----------------------------------------------------------------------------------


def test_as_dict_is_strict_json_with_all_values():
    scores = metrics.evaluate([cells(1, 2), cells(0)], [cells(1, 3), cells(0)])
    text = json.dumps(scores.as_dict(), allow_nan=False)
    read = json.loads(text)
    assert read["ap"]["0.55"] == 1.0
    assert read["images"][1]["pq"] is None
    assert read["mean"]["low"]["seg"] == 1.0
    assert isinstance(read["n_true"], int)


def test_table_shows_value_interval_and_mean():
    lines = metrics.table(metrics.evaluate([cells(1, 2)] * 2, [cells(1, 0)] * 2)).splitlines()
    by_name = {line[:20].strip(): line[20:].split() for line in lines}
    assert by_name["ap 0.5"] == ["0.5000", "0.5000", "0.5000", "0.5000"]
    assert by_name["n_pred"] == ["4", "4.0000", "4.0000", "2.0000"]
    assert "ap 0.55" not in by_name
    assert metrics.table(metrics.evaluate(cells(1), cells(1))).count("nan") == 3
