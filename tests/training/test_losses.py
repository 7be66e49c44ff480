"""Losses against a plain reference in numpy."""

import numpy as np
import pytest
import torch

from cellseg_pipe.training.losses import class_loss, flow_loss, loss_of
from cellseg_pipe.training.targets import Batch, Target


def made(seed=0, *, n_outputs=3, n_classes=0):
    rng = np.random.default_rng(seed)
    shape = (2, 6, 5)
    flow = rng.normal(size=(2, 2, 6, 5))
    flow /= np.linalg.norm(flow, axis=1, keepdims=True)
    arrays = {
        "pixels": rng.normal(size=(2, 1, 6, 5)),
        "flow": flow,
        "inside": rng.integers(0, 2, shape),
        "weight": rng.integers(0, 2, shape),
    }
    tensors = {k: torch.from_numpy(v.astype(np.float32)) for k, v in arrays.items()}
    classes = torch.from_numpy(rng.integers(-1, max(n_classes, 1), shape))
    answer = torch.from_numpy(rng.normal(0, 3, (2, n_outputs, 6, 5)).astype(np.float32))
    return answer, Batch(**tensors, classes=classes, sources=("a", "b"))


def plain_flow(answer, batch):
    answer, weight = answer.double().numpy(), batch.weight.double().numpy()
    share = weight / max(weight.sum(), 1)
    error = ((answer[:, :2] - 5 * batch.flow.double().numpy()) ** 2).mean(axis=1)
    logit, inside = answer[:, 2], batch.inside.double().numpy()
    chance = 1 / (1 + np.exp(-logit))
    entropy = -(inside * np.log(chance) + (1 - inside) * np.log(1 - chance))
    return (0.5 * error * share).sum(), (entropy * share).sum()


def plain_classes(answer, classes, weights):
    answer, classes = answer.double().numpy(), classes.numpy()
    log = answer - np.log(np.exp(answer).sum(axis=1, keepdims=True))
    above = below = 0.0
    for b, y, x in np.argwhere(classes >= 0):
        k = classes[b, y, x]
        above -= weights[k] * log[b, k, y, x]
        below += weights[k]
    return above / max(below, 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_flow_and_logit(seed):
    answer, batch = made(seed)
    flow, inside = plain_flow(answer, batch)
    loss = flow_loss(answer, batch)
    assert float(loss.flow) == pytest.approx(flow, rel=1e-5)
    assert float(loss.inside) == pytest.approx(inside, rel=1e-5)
    assert float(loss.total) == pytest.approx(flow + inside, rel=1e-5)


def test_what_is_ignored_does_not_count():
    answer, batch = made()
    changed = torch.where(batch.weight[:, None] > 0, answer, answer + 100)
    assert float(flow_loss(changed, batch).total) == float(flow_loss(answer, batch).total)
    nothing = Batch(**{**vars(batch), "weight": torch.zeros_like(batch.weight)})
    assert float(flow_loss(answer, nothing).total) == 0


@pytest.mark.parametrize("weights", [None, (1.0, 4.0, 0.5)])
def test_classes(weights):
    answer, batch = made(n_outputs=3, n_classes=3)
    expected = plain_classes(answer, batch.classes, weights or (1.0, 1.0, 1.0))
    assert float(class_loss(answer, batch.classes, weights=weights)) == pytest.approx(
        expected, rel=1e-5
    )
    unknown = torch.full_like(batch.classes, -1)
    assert float(class_loss(answer, unknown, weights=weights)) == 0


def test_targets_choose_their_losses():
    answer, batch = made(n_outputs=5, n_classes=2)
    flow, inside = plain_flow(answer, batch)
    classes = plain_classes(answer[:, 3:], batch.classes, (1.0, 2.0))
    loss = loss_of(answer, batch, Target(n_classes=2, class_weights=(1.0, 2.0)))
    assert float(loss.total) == pytest.approx(flow + inside + classes, rel=1e-5)
    assert float(loss.classes) == pytest.approx(classes, rel=1e-5)
    three = loss_of(answer[:, :3], batch, Target("three-classes"))
    expected = plain_classes(answer[:, :3], batch.classes, (1.0, 1.0, 1.0))
    assert float(three.total) == pytest.approx(expected, rel=1e-5)
    assert float(three.flow) == float(three.inside) == 0


def test_losses_of_bf16_are_taken_in_float32():
    answer, batch = made()
    low = answer.bfloat16()
    assert flow_loss(low, batch).total.dtype == torch.float32
    assert float(flow_loss(low, batch).total) == float(flow_loss(low.float(), batch).total)
