"""From answers to cells: classes, chains through planes, tiles that equal the whole."""

import itertools

import numpy as np
import pytest

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import HALO_BEYOND_REACH, find_masks
from cellseg_pipe.nets.cpnet import Architecture
from cellseg_pipe.segmentation import Answer, ImageSource, Settings, cells_of, make_plan, table_of
from tests.golden.synthetic import centre_flow, label_field, network_like


def plan_for(shape, *, n_classes=0, **settings):
    source = ImageSource(shape, 1, lambda box: np.arange(box.size).reshape(1, *box.shape))
    return make_plan(
        source,
        Settings(**settings),
        network=Architecture(n_outputs=3 + n_classes),
        diameter_px=30.0,
        network_diameter_px=30.0,
    )


def answered(labels, *, classes=None, noise=0.1, seed=0):
    flow, logit = network_like(centre_flow(labels), labels, seed=seed, noise=noise)
    outputs = np.empty((0, *labels.shape), np.float32) if classes is None else classes
    return Answer(flow, logit, outputs.astype(np.float32), np.ones(1, np.float32))


def test_classes_and_their_probabilities():
    truth = label_field((90, 100), 16, seed=2)
    of_cell = np.random.default_rng(0).integers(0, 3, truth.max() + 1)
    outputs = np.stack([(of_cell[truth] == k) * 4.0 - 2 for k in range(3)])
    cells = cells_of(answered(truth, classes=outputs), plan_for(truth.shape, n_classes=3))
    table = table_of(cells, truth[None].astype(np.uint16), ("truth",))
    own = np.rint(table["mean_truth"]).astype(int)
    np.testing.assert_array_equal(table["class"], of_cell[own])
    chances = np.stack([table[f"class_{k}_probability"] for k in range(3)])
    np.testing.assert_allclose(chances.sum(axis=0), 1)
    assert (chances.max(axis=0) > 0.9).all()


def test_a_chain_through_planes_takes_the_mean_of_its_planes():
    plane = label_field((80, 80), 9, seed=1)
    truth = np.stack([plane, plane, np.where(plane == 4, 0, plane)])
    answers = [answered(p, classes=np.stack([p == 2, p != 2]) * 2.0) for p in truth]
    stacked = Answer(
        np.stack([a.flow for a in answers], axis=1),
        np.stack([a.logit for a in answers]),
        np.stack([a.classes for a in answers], axis=1),
        np.ones(1, np.float32),
    )
    plan = plan_for(truth.shape, n_classes=2, mode="planes")
    cells = cells_of(stacked, plan)
    table = table_of(cells, truth[None].astype(np.uint16), ("truth",))
    own = np.rint(table["mean_truth"]).astype(int)
    assert sorted(own) == sorted(np.unique(plane)[1:])
    np.testing.assert_array_equal(table["class"], (own != 2).astype(int))
    assert (cells.labels[2][plane == 4] == 0).all() and table["volume_px"].min() > 0
    assert np.isfinite(cells.flow_error).all() and (cells.probability > 0.5).all()


def test_the_size_of_a_chain_counts_not_that_of_its_planes():
    plane = np.zeros((40, 40), np.uint32)
    plane[10:20, 10:20] = 1
    answer = answered(np.stack([plane] * 3)[0], noise=0)
    stacked = Answer(
        np.stack([answer.flow] * 3, axis=1),
        np.stack([answer.logit] * 3),
        np.empty((0, 3, 40, 40), np.float32),
        answer.style,
    )
    for least, n in ((250, 1), (301, 0)):
        plan = plan_for((3, 40, 40), mode="planes", min_size_px=least)
        assert cells_of(stacked, plan).labels.max() == n


@pytest.mark.parametrize("following", ["exact", "fast"])
@pytest.mark.parametrize(("shape", "core"), [((150, 170), (64, 64)), ((40, 60, 60), (20, 30, 30))])
def test_tiles_own_the_cells_of_the_whole(shape, core, following):
    truth = label_field(shape, 60 if len(shape) == 2 else 40, seed=3)
    answer = answered(truth, noise=0.2)
    reach = 12
    given = {"mode": following, "reach_px": reach, "niter": 200}
    whole = find_masks(answer.flow, answer.logit, fill=False, **given)
    image, seen = Box.of(shape), 0
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(shape, core, strict=True))):
        start = tuple(i * c for i, c in zip(index, core, strict=True))
        own = Box(start, tuple(a + c for a, c in zip(start, core, strict=True))).clip(image)
        window = own.grow(reach + HALO_BEYOND_REACH).clip(image)
        edges = [(a > 0, b < n) for a, b, n in zip(window.start, window.stop, shape, strict=True)]
        cut = (slice(None), *window.slices)
        part = find_masks(
            answer.flow[cut], answer.logit[window.slices], fill=False, open_edges=edges, **given
        )
        for k, peak in enumerate(part.peak + window.start):
            if not own.holds(tuple(peak)):
                continue
            seen += 1
            number = np.flatnonzero((whole.peak == peak).all(axis=1))
            assert number.size == 1
            np.testing.assert_array_equal(
                part.labels == k + 1, whole.labels[window.slices] == number[0] + 1
            )
            assert part.flow_error[k] == whole.flow_error[number[0]]
    assert seen == len(whole.peak) > 20
