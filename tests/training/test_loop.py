"""The loop: schedule, mean of weights, exact resume after kill -9, several processes as one."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.training.augment import Sampler
from cellseg_pipe.training.joint import JointNorm
from cellseg_pipe.training.loop import Calls, Diverged, train
from cellseg_pipe.training.losses import loss_of
from cellseg_pipe.training.schedule import rate_at
from cellseg_pipe.training.settings import Augmentation, Recipe
from cellseg_pipe.training.state import load_state, new_state, save_state, with_outputs
from cellseg_pipe.training.targets import Target, batch_of
from cellseg_pipe.training.tasks import Segmenting

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]
RATES = {"learning_rate": 2e-3, "weight_decay": 1e-4}
SMALL = Augmentation(crop_px=32, margin_px=8)


def tiny_state(*, n_outputs=3, seed=0):
    torch.manual_seed(seed)
    return new_state(CPnet(Architecture(n_inputs=1, n_outputs=n_outputs, widths=(4, 8))), **RATES)


def tiny_sampler(make_scene, make_prepared, **more):
    image, labels = make_scene(1, edge=80)
    one = make_prepared(labels, image / image.max(), **more)
    return Sampler([one], diameter_px=18.0, augmentation=SMALL, seed=0)


def start(out, steps, kill_at=-1, **variables):
    command = [sys.executable, str(WORKER), str(out), str(steps), str(kill_at)]
    path = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=os.environ | path | variables, stderr=subprocess.PIPE, text=True
    )


def finished(process):
    errors = process.communicate(timeout=1200)[1]
    assert process.returncode == 0, errors


def arrays_of(path):
    with np.load(path) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the weights of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "weights.npz"
    finished(start(out, 10))
    return arrays_of(out)


def test_the_rate_rises_stays_and_falls():
    recipe = Recipe(steps=100, warmup_steps=10, decay_steps=20, learning_rate=0.5)
    rates = [rate_at(step, recipe) for step in range(100)]
    np.testing.assert_allclose(rates[:10], 0.05 * np.arange(1, 11))
    np.testing.assert_allclose(rates[10:81], 0.5)
    assert rates[90] == pytest.approx(0.25) and rates[99] < 0.004
    assert (np.diff(rates[80:]) < 0).all()
    whole_cosine = Recipe(steps=100, warmup_steps=0, learning_rate=1.0)
    assert rate_at(50, whole_cosine) == pytest.approx(0.5)
    assert Recipe(steps=1).highest_rate == 2e-3


def test_the_mean_follows_the_weights():
    state = tiny_state()
    key = "output.2.bias"
    mean = state.mean[key].clone()
    for step in range(5):
        state.step = step
        with torch.no_grad():
            state.net.get_parameter(key).add_(1.0)
        state.average(0.3)
        kept = min(0.3, (1 + step) / (10 + step))
        mean = kept * mean + (1 - kept) * state.net.get_parameter(key).detach()
        torch.testing.assert_close(state.mean[key], mean)
    statistics = "output.0.running_mean"
    state.net.get_buffer(statistics).fill_(4.0)
    before = state.mean[statistics].clone()
    state.average(0.5)
    torch.testing.assert_close(state.mean[statistics], (before + 4.0) / 2, rtol=0.2, atol=0.8)
    assert not state.mean_net().training
    torch.testing.assert_close(state.mean_net().state_dict()[key], state.mean[key])


@pytest.mark.parametrize("kill_at", [5, 8])
def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path, whole, kill_at):
    out = tmp_path / "weights.npz"
    killed = start(out, 10, kill_at)
    killed.communicate(timeout=1200)
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    kept = torch.load(f"{out}.state", weights_only=True)
    # Crops are drawn two steps ahead.
    assert 0 < kept["step"] <= kill_at
    assert set(kept) == {"architecture", "net", "optimiser", "mean", "step", "best", "about"}
    finished(start(out, 10))
    found = arrays_of(out)
    assert found.keys() == whole.keys() and found["step"] == 10
    for key, value in whole.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_two_processes_give_the_weights_of_one(tmp_path, whole):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "weights.npz"
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [start(out, 10, RANK=str(rank), **shared) for rank in range(2)]
    for process in processes:
        finished(process)
    found = arrays_of(out)
    assert found.keys() == whole.keys()
    moved = tiny_state().net.state_dict()
    for key, value in whole.items():
        np.testing.assert_allclose(found[key], value, atol=1e-5, rtol=1e-5, err_msg=key)
    key = "output.2.weight"
    assert np.abs(whole[key] - moved[key].numpy()).max() > 1e-3  # it was no idle run


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (2, 3, 4, 4, 4)])
def test_the_joint_normalisation_is_that_of_torch(shape):
    torch.manual_seed(0)
    kind = {4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}[len(shape)]
    theirs, ours = (kind(shape[1], momentum=0.05).double() for _ in range(2))
    ours.__class__ = JointNorm
    for norm in (theirs, ours):
        norm.load_state_dict(
            {
                **norm.state_dict(),
                "weight": torch.arange(1.0, 1 + shape[1]),
                "bias": -torch.ones(shape[1]),
            }
        )
    x = torch.randn(shape, dtype=torch.float64) * 3 + 1
    found = []
    for norm in (theirs, ours):
        seen = x.clone().requires_grad_()
        answer = norm(seen)
        answer.pow(3).sum().backward()
        found.append((answer, seen.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()))
        found[-1] += (norm.eval()(x),)
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right)
    low = ours.float().train()(x.bfloat16())
    assert low.dtype == torch.bfloat16


def test_a_loss_that_is_no_number_names_its_images(make_scene, make_prepared):
    sampler = tiny_sampler(make_scene, make_prepared, name="spoiled.tif")
    sampler.images[0].pixels[:] = np.nan
    with pytest.raises(Diverged, match=r"step 0 is nan.*spoiled\.tif.*lower the learning rate"):
        train(tiny_state(), sampler, Recipe(steps=2, batch=2))


def test_what_is_called_and_when(make_scene, make_prepared):
    said = []
    calls = Calls(
        report=lambda report: said.append(("report", report.step)),
        evaluate=lambda state: said.append(("evaluate", state.step)),
        checkpoint=lambda state: said.append(("checkpoint", state.step)),
    )
    recipe = Recipe(steps=5, batch=1, checkpoint_every=2, evaluate_every=4)
    train(tiny_state(), tiny_sampler(make_scene, make_prepared), recipe, calls=calls)
    assert said == [
        ("report", 2), ("checkpoint", 2), ("report", 4), ("evaluate", 4), ("checkpoint", 4),
        ("report", 5), ("evaluate", 5), ("checkpoint", 5),
    ]  # fmt: skip


def test_evaluations_do_not_wait_for_checkpoints(make_scene, make_prepared):
    steps = []
    calls = Calls(evaluate=lambda state: steps.append(state.step))
    recipe = Recipe(steps=5, batch=1, checkpoint_every=4, evaluate_every=2)
    train(tiny_state(), tiny_sampler(make_scene, make_prepared), recipe, calls=calls)
    assert steps == [2, 4, 5]


def loss_on(net, sampler, target=None):
    """Return the loss on crops that no step draws, by the statistics of their own batch."""
    target = target or Target()
    batch = batch_of([sampler.crop(10**6, place) for place in range(8)], target)
    with torch.no_grad():
        return loss_of(net.train()(batch.pixels)[0], batch, target)


def test_the_loss_falls_in_either_precision(make_scene, make_prepared):
    sampler = tiny_sampler(make_scene, make_prepared)
    ends = {}
    for precision in ("fp32", "bf16"):
        state, reports = tiny_state(), []
        before = loss_on(state.net, sampler)
        recipe = Recipe(
            steps=20, batch=4, checkpoint_every=10, warmup_steps=4, precision=precision,
            learning_rate=1e-2,
        )  # fmt: skip
        train(state, sampler, recipe, calls=Calls(report=reports.append))
        after = loss_on(state.net, sampler)
        assert after.total < before.total and after.inside < 0.8 * before.inside
        assert all(p.dtype == torch.float32 for p in state.net.parameters())
        assert [report.images for report in reports][-1] in (1, 2)  # the scene, and noise
        ends[precision] = float(after.inside)
    assert ends["bf16"] == pytest.approx(ends["fp32"], rel=0.2)


def test_classes_are_learned(make_prepared):
    """Bright and dim squares: the class is seen in the grey value alone."""
    labels = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((20, 20), int)).astype(np.int32)
    labels[::20] = labels[:, ::20] = 0
    classes = np.arange(16) % 2 + 1
    grey = np.where(labels > 0, np.concatenate([[0], classes])[labels] / 2, 0)[None]
    image = make_prepared(labels, grey, classes=classes)
    how = Augmentation(crop_px=32, margin_px=8, p_invert=0.0, p_noise=0.0, p_poisson=0.0,
                       gain=(1.0, 1.0), gamma=(1.0, 1.0), p_empty=0.0, offset=(0.0, 0.0),
                       p_blur=0.0)  # fmt: skip
    sampler = Sampler([image], diameter_px=18.0, augmentation=how, seed=0)
    target = Target(n_classes=2, class_weights=(1.0, 2.0))
    state = tiny_state(n_outputs=5)
    before = loss_on(state.net, sampler, target)
    recipe = Recipe(steps=40, batch=4, warmup_steps=4, learning_rate=1e-2)
    train(state, sampler, recipe, task=Segmenting(target))
    assert loss_on(state.net, sampler, target).classes < 0.7 * before.classes


def test_more_processes_than_crops_are_refused(make_scene, make_prepared, monkeypatch):
    from cellseg_pipe.training import joint

    monkeypatch.setattr(joint, "world", lambda: 3)
    with pytest.raises(ValueError, match="3 processes need a batch of as many crops"):
        train(tiny_state(), tiny_sampler(make_scene, make_prepared), Recipe(steps=1, batch=2))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    state = tiny_state()
    state.step, state.best = 7, {"score": 0.5, "step": 6.0}
    save_state(tmp_path / "last.pt", state, about={"recipe.batch": 8, "old": 1})
    with pytest.raises(ValueError, match=r"recipe\.batch = 8, and now it is 4"):
        load_state(tmp_path / "last.pt", about={"recipe.batch": 4}, **RATES)
    # What only one version of the program knows of is not compared.
    found = load_state(tmp_path / "last.pt", about={"recipe.batch": 8, "new": 2}, **RATES)
    assert found.step == 7 and found.best == state.best
    for key, value in state.net.state_dict().items():
        torch.testing.assert_close(found.net.state_dict()[key], value, rtol=0, atol=0)


def test_outputs_are_added_and_the_others_kept():
    net = tiny_state().net.eval()
    more = with_outputs(net, 5).eval()
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(more(x)[0][:, :3], net(x)[0])
        assert more(x)[0].shape[1] == 5 and torch.isfinite(more(x)[0]).all()
