"""Windows: weights that add up to one, and the same bits for any box, order of asking and batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.blending import blend_answers, ramps
from cellseg_pipe.nets.windows import WINDOWS_AT_ONCE, predict, view_of, window_input


class Arithmetic:
    """A stand-in for a network: local sums with a known answer, one style number."""

    device = "cpu"
    n_outputs = 3

    def __call__(self, x):
        ndim = x.ndim - 2
        y = torch.stack(
            [x[:, 0] * (k + 1) + x.flatten(1).mean() * 0 for k in range(self.n_outputs)], 1
        )
        y[:, :ndim] *= 5
        return y, x.flatten(1)[:, :2]


def view(shape, axes=None, window=32, overlap=8):
    axes = tuple(range(len(shape))) if axes is None else axes
    return view_of(shape, axes, window_px=window, overlap_px=overlap, divisor=8)


def answer(source, seen, box, net=None, **settings):
    net = net or Arithmetic()
    records = predict(net, source, seen, indices=seen.over(box), **settings)
    return blend_answers(records, seen, box, n_outputs=net.n_outputs)


@pytest.mark.parametrize("shape", [(1, 1), (7, 90), (32, 33), (100, 57), (20, 40, 70)])
def test_weights_add_up_to_one(shape):
    lattice = view(shape).lattice
    total = np.zeros([n + 64 for n in shape])
    for index in Box.of(lattice.counts).points():
        weight = np.ones(())
        for ramp in ramps(lattice, index):
            weight = np.multiply.outer(weight, ramp)
        total[lattice.box(index).slices] += weight
    np.testing.assert_allclose(total[tuple(slice(n) for n in shape)], 1, atol=1e-6)


def test_two_neighbours_add_up_to_one_exactly():
    lattice = view((100,), axes=(0,), window=64, overlap=32).lattice
    left, right = ramps(lattice, (0,))[0], ramps(lattice, (1,))[0]
    assert (left[32:] + right[:32] == 1).all()
    assert left[-1] < 0.001 and right[0] < 0.001


def test_a_pointwise_network_gives_its_values_back():
    rng = np.random.default_rng(0)
    image = rng.random((1, 75, 131)).astype(np.float16).astype(np.float32)
    seen = view(image.shape[1:])
    outputs, style = answer(lambda box: image[(slice(None), *box.slices)], seen, Box.of((75, 131)))
    for k in range(3):
        np.testing.assert_allclose(outputs[k], image[0] * (k + 1), atol=2e-3)
    assert np.sqrt((style.astype(float) ** 2).sum()) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_box_has_the_bits_of_the_whole(data):
    shape = data.draw(st.sampled_from([(70, 95), (33, 8), (18, 40, 45)]))
    axes = data.draw(st.sampled_from([None, (0, 1), (0, len(shape) - 1)]))
    image = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    seen = view(shape, axes)

    def source(box):
        return image[(slice(None), *box.slices)]

    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]
    box = Box(tuple(start), tuple(stop))
    net = Arithmetic()
    net.n_outputs = len(seen.axes) + 1
    whole, _ = answer(source, seen, Box.of(shape), net=net)
    part, _ = answer(source, seen, box, net=net)
    np.testing.assert_array_equal(part, whole[(slice(None), *box.slices)])
    chance, square = whole[-2:]
    assert (chance >= 0).all() and (square - chance**2 > -1e-6).all()


def test_beyond_the_border_the_input_is_zero():
    image = np.arange(1, 31, dtype=np.float32).reshape(1, 5, 6)
    seen = view((5, 6))
    made = window_input(lambda box: image[(slice(None), *box.slices)], seen, (0, 0))
    assert made.shape == (1, 24, 24)  # 5 or 6 px and 8 on both sides, up to a multiple of 8
    np.testing.assert_array_equal(made[0, 8:13, 8:14], image[0])
    assert made.sum() == image.sum()


def test_a_window_left_out_is_background():
    seen = view((16, 16))
    outputs, style = answer(lambda box: None, seen, Box.of((16, 16)))
    assert (outputs[:2] == 0).all() and (outputs[2] == -30).all() and not style.any()


class Batching(Arithmetic):
    """A stand-in for a network on a GPU, whose last bits depend on the size of the batch."""

    device = "cpu:0"  # any but cpu

    def __init__(self):
        self.sizes = set()

    def __call__(self, x):
        self.sizes.add(len(x))
        y, style = super().__call__(x)
        return y + 2.0 ** -len(x), style


def test_batches_on_a_gpu_are_of_one_size_whatever_is_left_out():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 90, 100)).astype(np.float32)
    seen, net = view(image.shape[1:]), Batching()

    def source(box):
        return None if box.start[0] > 30 and box.start[1] < 30 else image[:, *box.slices]

    whole = Box.of(image.shape[1:])
    together = {r.index: r for r in predict(net, source, seen, indices=seen.over(whole))}
    for index, record in together.items():
        (alone,) = predict(net, source, seen, indices=[index])
        np.testing.assert_array_equal(alone.values, record.values)
        np.testing.assert_array_equal(alone.style, record.style)
    assert net.sizes == {WINDOWS_AT_ONCE} and len(together) > WINDOWS_AT_ONCE


class Pointing(Arithmetic):
    """Answers with a fixed direction wherever it looks: a mirror image must point the other way."""

    def __call__(self, x):
        y = torch.zeros(len(x), 3, *x.shape[2:])
        y[:, 0], y[:, 1], y[:, 2] = 5.0, 2.5, 1.0
        return y, torch.ones(len(x), 2)


def test_augmenting_turns_flows_back():
    image = np.ones((1, 16, 16), np.float32)
    outputs, _ = answer(
        lambda box: image[(slice(None), *box.slices)],
        view((16, 16)),
        Box.of((16, 16)),
        net=Pointing(),
        augment=True,
    )
    # The same answer on each mirror image cancels in the flow and stays in the logit.
    assert (outputs[:2] == 0).all() and (outputs[2] == 1).all()


def test_logits_are_cut_and_rounded_at_the_door():
    image = np.full((1, 16, 16), 1000.123, np.float32)
    seen = view((16, 16))
    records = list(
        predict(
            Arithmetic(),
            lambda box: image[(slice(None), *box.slices)],
            seen,
            indices=seen.over(Box.of((16, 16))),
        )
    )
    assert records[0].values.dtype == np.float16
    assert set(np.unique(records[0].values[2])) == {0, 30}
    assert (blend_answers(records, seen, Box.of((16, 16)), n_outputs=3)[0][2] == 30).all()
