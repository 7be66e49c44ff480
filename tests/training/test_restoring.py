"""Crops made worse and their losses: grey values, the frozen segmenter, and the peer's formulas."""

import numpy as np
import pytest
import torch

from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.training.degrade import LAWS, Law
from cellseg_pipe.training.loop import train
from cellseg_pipe.training.losses import flow_loss
from cellseg_pipe.training.restoring import (
    Judge,
    Weights,
    correlations,
    in_clean_greys,
    perceptual_loss,
    restoring_loss,
    statistics_loss,
)
from cellseg_pipe.training.settings import Augmentation, Recipe
from cellseg_pipe.training.state import new_state
from cellseg_pipe.training.tasks import Restoring
from cellseg_pipe.training.worse import WorseSampler, worse_batch_of

SMALL = Augmentation(crop_px=48, margin_px=8, offset=(0.0, 0.0), gain=(1.0, 1.0))
RATES = {"learning_rate": 2e-3, "weight_decay": 1e-4}


@pytest.fixture
def sampler(make_scene, make_prepared):
    image, labels = make_scene(1, edge=96)
    first = np.clip(image[0] / np.percentile(image[0], 99), 0, 2)
    second = np.where(labels > 0, 0.5, 0.1)
    images = [
        make_prepared(labels, np.stack([first, second])),
        make_prepared(labels, np.stack([first, 0 * first]), name="b.tif"),
    ]
    return lambda kind="one-click", seed=0: WorseSampler(
        images, diameter_px=18.0, augmentation=SMALL, seed=seed, kind=kind
    )


def judge_of(n_inputs=2):
    torch.manual_seed(5)
    return Judge(CPnet(Architecture(n_inputs=n_inputs, widths=(4, 8))))


@pytest.mark.parametrize("kind", LAWS)
def test_a_crop_is_a_function_of_seed_step_and_place(sampler, kind):
    one, two = (sampler(kind).crop(5, 1) for _ in range(2))
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(two, name), err_msg=name)
    others = sampler(kind).crop(5, 2), sampler(kind).crop(6, 1), sampler(kind, 1).crop(5, 1)
    assert all((one.pixels != other.pixels).any() for other in others)
    assert one.pixels.shape == (1, 48, 48) and one.clean.shape == (2, 48, 48)
    assert one.labels.shape == (64, 64) and one.pixels.dtype == np.float32


def test_a_crop_that_was_left_alone_is_its_target(sampler):
    """Whatever the percentiles: brought to clean greys, an unharmed image is the clean one."""
    drawn = sampler()
    drawn.laws = (Law(0.0, 0.0, 0.0, 1.0),)
    errors, channels = [], set()
    for step in range(12):
        crop = drawn.crop(step, 0)
        batch = worse_batch_of([crop])
        grey = in_clean_greys(batch.pixels, batch).numpy()[0, 0]
        clean = crop.clean[crop.channel]
        channels.add(crop.channel)
        inner = crop.shown > 0
        errors.append(np.abs(grey - clean)[inner].mean() / max(clean[inner].std(), 1e-3))
    # The image was brought to another scale and back, which blurs it a little.
    assert np.median(errors) < 0.35 and channels == {0, 1}


def test_noise_is_round_the_target(sampler):
    drawn = sampler()
    drawn.laws = (Law(1.0, 0.0, 0.0, 0.7),)
    batch = worse_batch_of([drawn.crop(step, 0) for step in range(40)])
    clean = (batch.clean * batch.place).sum(1, keepdim=True)
    grey = in_clean_greys(batch.pixels, batch)
    shown = batch.shown > 0
    bias = float((grey - clean)[shown].mean())
    assert abs(bias) < 0.02 and float((grey - clean)[shown].std()) > 0.15


def test_correlations_and_the_perceptual_loss_are_the_formulas():
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, c, n, n)) for c, n in ((3, 8), (5, 4))]
    clean = [m + 0.3 * rng.normal(size=m.shape) for m in maps]

    def plain(x):
        flat = x.reshape(len(x), x.shape[1], -1)
        flat = flat - flat.mean(2, keepdims=True)
        flat /= flat.std(2, ddof=1, keepdims=True)
        return np.einsum("bnx,bmx->bnm", flat, flat) / flat.shape[2]

    wanted = np.zeros(2)
    for ours, theirs in zip(maps, clean, strict=True):
        a, b = plain(ours), plain(theirs)
        found = correlations(torch.tensor(ours))
        np.testing.assert_allclose(found, a, atol=1e-5)
        wanted += ((a - b) ** 2).mean((1, 2)) / b.reshape(2, -1).std(1, ddof=1) ** 2
    found = perceptual_loss(*([torch.tensor(m) for m in part] for part in (maps, clean)))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    still = torch.zeros(1, 3, 4, 4)
    assert torch.isfinite(correlations(still)).all()  # a map of one value throughout


def test_the_statistics_loss_knows_how_bright_an_image_is_not_where():
    rng = np.random.default_rng(1)
    clean = torch.tensor(rng.gamma(2.0, 0.2, (2, 1, 40, 50)), dtype=torch.float32)
    moved = clean.flatten(2)[..., torch.randperm(2000)].reshape(clean.shape)
    torch.testing.assert_close(statistics_loss(moved, clean), torch.zeros(2), rtol=0, atol=1e-9)
    dark = torch.stack((clean[0], clean[1].clamp(max=0.8)))  # bright cells are not bright enough
    found = statistics_loss(dark, clean)
    said = [
        [x.mean(), *np.quantile(x, (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99))]
        for x in (dark[1].numpy(), clean[1].numpy())
    ]
    ours, wanted = np.array(said)
    error = (((ours - wanted) / (wanted[-1] - wanted[1])) ** 2).mean()
    assert error > 1e-3
    np.testing.assert_allclose(found, [0, error], rtol=1e-3, atol=1e-9)


def test_a_perfect_answer_leaves_the_segmenters_own_loss(sampler):
    batch = worse_batch_of([sampler().crop(step, 0) for step in range(4)])
    clean = (batch.clean * batch.place).sum(1, keepdim=True)
    answer = (clean - batch.low) / (batch.high - batch.low)
    judge = judge_of()
    loss = restoring_loss(answer, batch, judge=judge, weights=Weights())
    own = flow_loss(judge.look(batch.clean)[1], batch)
    assert float(loss.perceptual) < 1e-3 and float(loss.reconstruction) < 1e-6
    torch.testing.assert_close(loss.flow, own.flow, rtol=1e-3, atol=1e-5)
    assert float(loss.total) == pytest.approx(1.5 * float(own.total), rel=1e-2)
    worse = restoring_loss(answer + 0.1, batch, judge=judge, weights=Weights())
    grey = ((0.1 * (batch.high - batch.low) * batch.shown) ** 2).sum() / batch.shown.sum()
    assert float(worse.reconstruction) == pytest.approx(80 * float(grey), rel=1e-3)
    assert float(loss.statistics) < 1e-6 < 1e-2 < float(worse.statistics)
    assert loss.parts.shape == (7,) and not loss.parts.requires_grad


def test_only_the_network_learns(sampler):
    torch.manual_seed(0)
    net = CPnet(Architecture(n_inputs=1, n_outputs=1, widths=(4, 8)))
    judge = judge_of()
    before = {key: value.clone() for key, value in judge.net.state_dict().items()}
    state = new_state(net, **RATES)
    start = state.net.output[2].weight.detach().clone()
    reports = []
    task = Restoring(judge)
    recipe = Recipe(steps=12, batch=2, checkpoint_every=4, warmup_steps=2)
    from cellseg_pipe.training.loop import Calls

    train(state, sampler(), recipe, task=task, calls=Calls(report=reports.append))
    for key, value in judge.net.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert (state.net.output[2].weight != start).any()
    assert reports[0].perceptual > 0 and reports[0].statistics > reports[-1].statistics
