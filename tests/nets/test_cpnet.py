"""The network: equal to the peer's in each of its forms, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cellseg_pipe.nets.cpnet import Architecture, CPnet, architecture_of, cpnet_of

GOLDEN = Path(__file__).parents[1] / "golden" / "nets"
FORMS = {
    "usual": Architecture(widths=(4, 8, 16)),
    "no_style": Architecture(widths=(4, 8), style=False),
    "image": Architecture(n_inputs=1, n_outputs=1, widths=(4, 8, 12)),
    "classes": Architecture(n_outputs=5, widths=(4, 8, 16)),
    "deep": Architecture(widths=(4, 6, 8, 8, 10)),
    "odd_widths": Architecture(n_inputs=3, widths=(5, 7)),
    "one_level": Architecture(widths=(6,)),
    "volume": Architecture(ndim=3, n_outputs=4, widths=(4, 6)),
    "volume_no_style": Architecture(ndim=3, n_inputs=1, n_outputs=4, widths=(3, 4, 5), style=False),
    "concatenate": Architecture(widths=(4, 8), concatenate=True),
    "plain": Architecture(widths=(4, 8), residual=False),
    "plain_concatenate_no_style": Architecture(
        widths=(4, 6), residual=False, style=False, concatenate=True
    ),
}


def golden(name):
    """Return the peer's parameters, and its input, result and style."""
    file = np.load(GOLDEN / f"{name}.npz")
    flat = torch.from_numpy(file["parameters"])
    shapes = json.loads(str(file["shapes"]))
    parts = flat.split([int(np.prod(shape)) for shape in shapes.values()])
    state = {
        key: part.reshape(shape) for (key, shape), part in zip(shapes.items(), parts, strict=True)
    }
    return state, *(torch.from_numpy(file[key]) for key in ("x", "y", "style"))


@pytest.fixture
def state():
    return golden("usual")[0]


@pytest.mark.parametrize("name", FORMS)
def test_golden_forms_are_equal(name):
    state, x, y, style = golden(name)
    net = CPnet(FORMS[name])
    net.load_state_dict(state, strict=True)
    with torch.no_grad():
        our_y, our_style = net.eval()(x)
    # Largest value about 8: a few units in the last place after up to 50 layers.
    torch.testing.assert_close(our_y, y, rtol=0, atol=1e-5)
    torch.testing.assert_close(our_style, style, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_names_come_in_the_order_of_the_peer(name):
    assert list(CPnet(FORMS[name]).state_dict()) == list(golden(name)[0])


@pytest.mark.parametrize("name", FORMS)
def test_architecture_is_read_off_a_checkpoint(name):
    found = architecture_of(golden(name)[0])
    form = FORMS[name]
    assert found == Architecture(
        form.ndim,
        form.n_inputs,
        form.n_outputs,
        form.widths,
        residual=form.residual,
        concatenate=form.concatenate,
    )


def test_every_form_has_a_golden_file():
    assert {path.stem for path in GOLDEN.glob("*.npz")} == set(FORMS)


def test_published_size():
    assert sum(p.numel() for p in CPnet(Architecture()).parameters()) == 6_600_845
    assert len(CPnet(Architecture()).state_dict()) == 313


def test_divisor_and_classes():
    assert Architecture().divisor == 8
    assert Architecture(widths=(4,)).divisor == 1
    assert Architecture(n_outputs=5).n_classes == 2
    assert Architecture(ndim=3, n_outputs=4).n_classes == 0
    assert Architecture(n_outputs=1).n_classes == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ndim": 4}, "2 or 3 spatial axes, got ndim=4"),
        ({"widths": ()}, "each level needs a width"),
        ({"widths": (4, 0)}, r"got widths=\(4, 0\)"),
        ({"n_inputs": 0}, "n_inputs=0"),
        ({"n_outputs": 0}, "n_outputs=0"),
    ],
)
def test_impossible_architectures_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**settings)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, 20, 16), "multiple of 8 px"),
        ((1, 2, 0, 16), "multiple of 8 px"),
        ((1, 3, 16, 16), r"\[B, 2, size, size\]"),
        ((2, 16, 16), r"got shape \(2, 16, 16\)"),
        ((1, 2, 8, 16, 16), r"\[B, 2, size, size\]"),
    ],
)
def test_unfit_images_are_refused(shape, message):
    net = CPnet(Architecture(widths=(2, 2, 2, 2)))
    with pytest.raises(ValueError, match=message):
        net(torch.zeros(shape))


def test_style_of_a_map_of_zeros_is_zero(state):
    # The peer divides by zero here and returns NaN everywhere.
    state = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    y, style = cpnet_of(state)(torch.ones(1, 2, 8, 8))
    assert torch.equal(style, torch.zeros(1, 16))
    assert torch.equal(y, torch.zeros(1, 3, 8, 8))


def test_optional_parameters_and_prefix(state):
    _, x, y, _ = golden("usual")
    dropped = ("num_batches_tracked", "diam_mean", "diam_labels")
    state = {f"module.{k}": v for k, v in state.items() if not k.endswith(dropped)}
    net = cpnet_of(state)
    assert float(net.diam_mean) == 30
    assert not net.diam_mean.requires_grad
    torch.testing.assert_close(net(x)[0].detach(), y, rtol=0, atol=1e-5)


def test_style_is_told_by_the_caller():
    state, x, y, _ = golden("no_style")
    torch.testing.assert_close(cpnet_of(state, style=False)(x)[0].detach(), y, rtol=0, atol=1e-5)


def test_every_wrong_key_is_named(state):
    state["extra.weight"] = state.pop("upsample.up.res_up_0.conv.conv_1.full.weight")
    state["output.2.weight"] = state["output.2.weight"][:, :2]
    del state["downsample.down.res_down_1.proj.0.running_var"]
    with pytest.raises(ValueError) as error:
        architecture_of(state)
    message = str(error.value)
    assert "missing upsample.up.res_up_0.conv.conv_1.full.weight" in message
    assert "missing downsample.down.res_down_1.proj.0.running_var" in message
    assert "unexpected extra.weight" in message
    assert "output.2.weight of shape (3, 2, 1, 1) instead of (3, 4, 1, 1)" in message
    assert message.count("missing") == 2


def test_keys_that_carry_the_architecture_may_be_missing(state):
    del state["downsample.down.res_down_1.conv.conv_0.2.bias"]
    with pytest.raises(ValueError, match=r"missing \S+res_down_1.conv.conv_0.2.bias\.$"):
        architecture_of(state)


@pytest.mark.parametrize("content", [{}, {"a": torch.zeros(())}])
def test_other_files_are_refused(content):
    with pytest.raises(ValueError, match=r"missing output\.2\.weight"):
        architecture_of(content)


@pytest.mark.parametrize("key", ["W2", "module.W2", "encoder.cls_token"])
def test_cellpose_4_is_sent_to_its_backend(key):
    with pytest.raises(ValueError, match="cellpose-sam:FILE"):
        architecture_of({key: torch.zeros(1)})


@pytest.mark.parametrize("ndim", [2, 3])
def test_gradients_reach_every_parameter(ndim):
    net = CPnet(Architecture(ndim=ndim, n_outputs=ndim + 1, widths=(2, 4)))
    y, _ = net(torch.rand(2, 2, *(8,) * ndim))
    y.square().sum().backward()
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert without == {"diam_mean", "diam_labels"}
