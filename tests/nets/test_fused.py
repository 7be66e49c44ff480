"""The form for inference: equal to the network, and to itself whatever batch and threads."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from cellseg_pipe.nets import _ops
from cellseg_pipe.nets._enlarge import EnlargeConv
from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.nets.fused import choose_precision, fuse
from cellseg_pipe.nets.windows import WINDOWS_AT_ONCE

ARCHITECTURES = {
    "usual": Architecture(widths=(8, 16, 24)),
    "odd_widths": Architecture(n_inputs=3, widths=(5, 7)),
    "one_level": Architecture(widths=(6,)),
    "deep": Architecture(widths=(4, 6, 8, 8, 10)),
    "no_style": Architecture(widths=(8, 16), style=False),
    "concatenate": Architecture(widths=(8, 16), concatenate=True),
    "plain": Architecture(widths=(8, 16), residual=False),
    "plain_concatenate": Architecture(widths=(8, 16), residual=False, concatenate=True),
    "image": Architecture(n_inputs=1, n_outputs=1, widths=(4, 8, 12)),
    "classes": Architecture(n_outputs=6, widths=(8, 16)),
    "volume": Architecture(ndim=3, n_outputs=4, widths=(8, 16, 16)),
    "volume_concatenate": Architecture(ndim=3, n_outputs=4, widths=(4, 8), concatenate=True),
}
SHAPES = {2: (32, 48), 3: (8, 12, 16)}
# In parts of the largest value: bf16 keeps 8 bits, and up to 50 layers follow each other.
TOLERANCE = {"fp32": 1e-5, "bf16": 0.15}


def random_net(architecture, seed=0):
    """Return a network whose statistics of normalisation are neither zero nor one."""
    torch.manual_seed(seed)
    net = CPnet(architecture)
    for parameter in (*net.parameters(), *net.buffers()):
        if parameter.ndim == 1:
            parameter.data.copy_(0.5 + torch.rand_like(parameter))
    return net.eval()


def random_images(architecture, n, shape=None):
    shape = shape or SHAPES[architecture.ndim]
    return torch.randn(n, architecture.n_inputs, *shape)


@contextmanager
def threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(params=["plain", "post-ops"])
def ops(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr("cellseg_pipe.nets.fused.choose_ops", lambda ndim, dtype: "plain")
    elif _ops.choose_ops(2, torch.float32) == "plain":
        pytest.skip("torch has no joined steps on this machine")
    return request.param


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equal_to_the_network(name, precision, ops):
    net = random_net(ARCHITECTURES[name])
    x = random_images(ARCHITECTURES[name], 2)
    with torch.no_grad():
        y, style = net(x)
    fused = fuse(net, precision=precision, device="cpu")
    our_y, our_style = fused(x)
    assert our_y.dtype == our_style.dtype == torch.float32
    assert our_y.is_contiguous()
    scale = max(1, float(y.abs().max()))
    torch.testing.assert_close(our_y / scale, y / scale, rtol=0, atol=TOLERANCE[precision])
    torch.testing.assert_close(our_style, style, rtol=0, atol=TOLERANCE[precision] / 10)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        (Architecture(widths=(8, 16, 32)), (224, 224)),
        (Architecture(widths=(16, 32)), (256, 320)),
        (Architecture(widths=(6, 10)), (62, 74)),
        (Architecture(widths=(32, 64, 128, 256)), (48, 40)),
        (Architecture(ndim=3, n_outputs=4, widths=(16, 32)), (12, 20, 24)),
    ],
    ids=["224", "256x320", "odd widths", "full width", "3D"],
)
def test_result_depends_on_the_sample_alone(architecture, shape, precision, ops):
    fused = fuse(random_net(architecture), precision=precision, device="cpu")
    samples = random_images(architecture, 3, shape)
    with threads(1):
        alone = [fused(sample) for sample in samples.split(1)]
    batches = {1: [0], 3: [2, 0, 1], 8: [1, 1, 0, 2, 0, 0, 1, 2]}
    batches = [order for n, order in batches.items() if n < 8 or samples[0].numel() < 20_000]
    for n_threads in (1, 2, 3, 5):
        for order in batches if n_threads < 3 else batches[:1]:
            with threads(n_threads):
                y, style = fused(samples[order])
            for i, sample in enumerate(order):
                assert torch.equal(y[i : i + 1], alone[sample][0])
                assert torch.equal(style[i : i + 1], alone[sample][1])


def test_another_process_gives_the_same_bits():
    code = (
        "import sys; sys.path[:0] = ['.', 'tests/nets']; import hashlib; from test_fused import *;"
        "net = random_net(Architecture(widths=(8, 16, 24)));"
        "y, _ = fuse(net, precision='fp32', device='cpu')(random_images(net.architecture, 1));"
        "print(hashlib.sha256(y.numpy().tobytes()).hexdigest())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
        ).stdout
        for _ in range(2)
    ]
    assert len(runs[0].strip()) == 64
    assert runs[0] == runs[1]


def test_memory_layout_of_the_image_does_not_matter():
    net = random_net(ARCHITECTURES["usual"])
    fused = fuse(net, precision="fp32", device="cpu")
    x = random_images(net.architecture, 2)
    for other in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        x.double(),
    ):
        assert torch.equal(fused(other)[0], fused(x)[0])


def test_network_and_image_are_left_as_they_were():
    net = random_net(ARCHITECTURES["usual"])
    x = random_images(net.architecture, 1)
    before, image = {k: v.clone() for k, v in net.state_dict().items()}, x.clone()
    fused = fuse(net, precision="fp32", device="cpu")
    first, _ = fused(x)
    second, _ = fused(x)
    assert torch.equal(first, second)
    assert torch.equal(x, image)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_no_samples():
    y, style = fuse(random_net(ARCHITECTURES["usual"]), precision="fp32", device="cpu")(
        torch.zeros(0, 2, 8, 8)
    )
    assert y.shape == (0, 3, 8, 8)
    assert style.shape == (0, 24)


def test_style_of_a_map_of_zeros_is_zero():
    net = random_net(ARCHITECTURES["usual"])
    for parameter in net.parameters():
        parameter.data.zero_()
    y, style = fuse(net, precision="fp32", device="cpu")(torch.ones(1, 2, 8, 8))
    assert torch.equal(style, torch.zeros(1, 24))
    assert torch.equal(y, torch.zeros(1, 3, 8, 8))


def test_unfit_images_and_precisions_are_refused():
    net = random_net(ARCHITECTURES["usual"])
    with pytest.raises(ValueError, match="multiple of 4 px"):
        fuse(net, precision="fp32", device="cpu")(torch.zeros(1, 2, 6, 8))
    with pytest.raises(ValueError, match="precision is one of fp32, bf16, got 'fp16'"):
        fuse(net, precision="fp16", device="cpu")


def test_form_names_what_matters(ops):
    net = random_net(ARCHITECTURES["usual"])
    form = fuse(net, precision="fp32", device="cpu").form
    assert (form.device, form.precision, form.ops) == ("cpu", "fp32", ops)
    assert form.torch == torch.__version__
    assert form.instructions.split("+")[0] == torch.backends.cpu.get_cpu_capability()
    assert str(form).split()[-1] == ops


def test_steps_that_fail_or_are_wrong_are_not_used(monkeypatch):
    choose = _ops.choose_ops.__wrapped__
    ones = staticmethod(lambda x, kernel: torch.ones_like(x))
    monkeypatch.setattr(_ops.PostOps, "conv", ones)
    assert choose(2, torch.float32) == "plain"

    def fail(x, kernel):
        raise RuntimeError("no such function")

    monkeypatch.setattr(_ops.PostOps, "conv", staticmethod(fail))
    assert choose(3, torch.float32) == "plain"


@pytest.mark.parametrize("ndim", [2, 3])
def test_phases_equal_enlarging_then_convolving(ndim, ops):
    # Whole numbers: both sums are exact, so the results are equal to the bit.
    weight = torch.randint(-3, 4, (5, 4, *(3,) * ndim)).float()
    x, bias = torch.randint(-3, 4, (1, 4, *(4, 5, 3)[:ndim])).float(), torch.arange(5.0)
    x = x.contiguous(memory_format=_ops.LAYOUT[ndim])
    enlarged = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    expected = _ops.CONV[ndim](enlarged, weight, bias, padding=1)
    with torch.inference_mode():
        found = EnlargeConv(weight, _ops.OPS[ops], torch.float32)(x, bias)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "expected"),
    [(True, True, "bf16"), (False, True, "bf16"), (True, False, "bf16"), (False, False, "fp32")],
)
def test_precision_follows_the_instructions(monkeypatch, amx, avx512_bf16, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert choose_precision("cpu") == expected


def test_precision_without_the_private_tests_of_torch(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert choose_precision("cpu") == "fp32"
    assert choose_precision("meta") == "fp32"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["usual", "volume", "concatenate"])
def test_on_a_gpu(name, precision):
    net = random_net(ARCHITECTURES[name])
    x = random_images(ARCHITECTURES[name], 2)
    with torch.no_grad():
        y, style = net(x)
    fused = fuse(net, precision=precision, device="cuda")
    our_y, our_style = (tensor.cpu() for tensor in fused(x))
    scale = max(1, float(y.abs().max()))
    torch.testing.assert_close(our_y / scale, y / scale, rtol=0, atol=10 * TOLERANCE[precision])
    torch.testing.assert_close(our_style, style, rtol=0, atol=TOLERANCE[precision])
    assert fused.form.device == "cuda"
    assert torch.equal(fused(x)[0].cpu(), our_y)
    # In a batch of one size an answer depends on no neighbour, and not on its place.
    full = random_images(ARCHITECTURES[name], WINDOWS_AT_ONCE)
    for place in (0, 3, WINDOWS_AT_ONCE - 1):
        alone = torch.zeros_like(full)
        alone[place] = full[place]
        for ours, theirs in zip(fused(alone), fused(full), strict=True):
            assert torch.equal(ours[place], theirs[place])
        moved = full.roll(1, dims=0)
        assert torch.equal(fused(moved)[0][(place + 1) % len(full)], fused(full)[0][place])
