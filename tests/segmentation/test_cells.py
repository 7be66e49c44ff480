"""From answers to cells: classes, chains through planes, tiles that equal the whole."""

import numpy as np

from cellseg_pipe.nets.cpnet import Architecture
from cellseg_pipe.segmentation import (
    Answer,
    ImageSource,
    Measurer,
    Settings,
    cells_of,
    make_plan,
    table_of,
)
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
    spread = np.zeros_like(logit)
    return Answer(flow, logit, outputs.astype(np.float32), spread, np.ones(1, np.float32))


def described(cells, truth, plan):
    pixels, rows, measurer = truth[None].astype(np.uint16), cells.rows, Measurer(plan)
    measured = measurer.image(cells.labels, pixels, ids=rows.id, peaks=rows.peak)
    return table_of(measured, rows, measurer, names=("truth",))


def test_classes_and_their_probabilities():
    truth = label_field((90, 100), 16, seed=2)
    of_cell = np.random.default_rng(0).integers(0, 3, truth.max() + 1)
    outputs = np.stack([(of_cell[truth] == k) * 4.0 - 2 for k in range(3)])
    plan = plan_for(truth.shape, n_classes=3)
    cells = cells_of(answered(truth, classes=outputs), plan)
    table = described(cells, truth, plan)
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
        np.stack([a.spread for a in answers]),
        np.ones(1, np.float32),
    )
    plan = plan_for(truth.shape, n_classes=2, mode="planes")
    cells = cells_of(stacked, plan)
    table = described(cells, truth, plan)
    own = np.rint(table["mean_truth"]).astype(int)
    assert sorted(own) == sorted(np.unique(plane)[1:])
    np.testing.assert_array_equal(table["class"], (own != 2).astype(int))
    assert (cells.labels[2][plane == 4] == 0).all() and table["volume_px"].min() > 0
    assert np.isfinite(cells.rows.flow_error).all() and (cells.rows.probability > 0.5).all()


def test_the_size_of_a_chain_counts_not_that_of_its_planes():
    plane = np.zeros((40, 40), np.uint32)
    plane[10:20, 10:20] = 1
    answer = answered(np.stack([plane] * 3)[0], noise=0)
    stacked = Answer(
        np.stack([answer.flow] * 3, axis=1),
        np.stack([answer.logit] * 3),
        np.empty((0, 3, 40, 40), np.float32),
        np.stack([answer.spread] * 3),
        answer.style,
    )
    for least, n in ((250, 1), (301, 0)):
        plan = plan_for((3, 40, 40), mode="planes", min_size_px=least)
        assert cells_of(stacked, plan).labels.max() == n
