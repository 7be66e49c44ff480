"""Makes the golden files of networks with cellpose 3.1.1.3, or 2.2.3 for the forms it dropped.

`PEER_PYTHON tests/golden/make_golden_nets.py` writes npz files to `nets` beside this script. Each
holds a network of the peer (weights and statistics of normalisation random), an input and what
the network made of it.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import torch
from cellpose.resnet_torch import CPnet

HERE = Path(__file__).parent / "nets"
MAX_FILE_BYTES = 150_000
Form = tuple[list[int], int, dict[str, bool], tuple[int, ...]]
# Per version: name -> (channels of the input and of each level, outputs, options, shape of input)
FORMS: dict[str, dict[str, Form]] = {
    "3.1.1.3": {
        "usual": ([2, 4, 8, 16], 3, {}, (2, 2, 16, 24)),
        "no_style": ([2, 4, 8], 3, {"style_on": False}, (2, 2, 16, 12)),
        "image": ([1, 4, 8, 12], 1, {}, (1, 1, 24, 16)),
        "classes": ([2, 4, 8, 16], 5, {}, (1, 2, 16, 16)),
        "deep": ([2, 4, 6, 8, 8, 10], 3, {}, (2, 2, 32, 48)),
        "odd_widths": ([3, 5, 7], 3, {}, (3, 3, 10, 14)),
        "one_level": ([2, 6], 3, {}, (1, 2, 9, 7)),
        "volume": ([2, 4, 6], 4, {"conv_3D": True}, (2, 2, 6, 8, 10)),
        "volume_no_style": (
            [1, 3, 4, 5],
            4,
            {"conv_3D": True, "style_on": False},
            (1, 1, 8, 12, 8),
        ),
    },
    "2.2.3": {
        "concatenate": ([2, 4, 8], 3, {"concatenation": True}, (2, 2, 16, 12)),
        "plain": ([2, 4, 8], 3, {"residual_on": False}, (2, 2, 16, 12)),
        "plain_concatenate_no_style": (
            [2, 4, 6],
            3,
            {"residual_on": False, "concatenation": True, "style_on": False},
            (1, 2, 12, 16),
        ),
    },
}


def main() -> None:
    """Write the golden files that this version of the peer can make."""
    version = importlib.metadata.version("cellpose")
    if version not in FORMS:
        raise SystemExit(f"golden files are made with cellpose {set(FORMS)}, found {version}.")
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for seed, (name, form) in enumerate(FORMS[version].items()):
        save(name, compute(form, seed=seed))


def compute(form: Form, *, seed: int) -> dict[str, np.ndarray]:
    """Return the parameters, the input and the result of one network of the peer."""
    nbase, nout, options, input_shape = form
    torch.manual_seed(seed)
    net = build(nbase, nout, dict(options))
    with torch.no_grad():
        for parameter in (*net.parameters(), *net.buffers()):
            scramble(parameter)
    image = torch.randn(input_shape)
    with torch.no_grad():
        y, style = net.eval()(image)[:2]
    state = net.state_dict()
    return {
        # One array: 313 members of an archive would weigh more than what is in them.
        "parameters": np.concatenate([tensor.float().numpy().ravel() for tensor in state.values()]),
        "shapes": np.array(json.dumps({key: list(tensor.shape) for key, tensor in state.items()})),
        "style_on": np.array(net.style_on),
        "x": image.numpy(),
        "y": y.numpy(),
        "style": style.numpy(),
    }


def build(nbase: list[int], nout: int, options: dict[str, bool]) -> CPnet:
    """Build a network; version 3 lacks the argument for the style, not the attribute."""
    style_on = options.pop("style_on", True)
    net = CPnet(list(nbase), nout, sz=3, **options)
    net.style_on = style_on
    return net


def scramble(parameter: torch.Tensor) -> None:
    """Make statistics of normalisation matter: none is left at zero or one."""
    if parameter.dtype == torch.int64:
        parameter.fill_(7)
    elif parameter.ndim == 1:  # biases, and all of a normalisation; a variance must be positive
        parameter.copy_(0.5 + torch.rand_like(parameter))
    else:
        parameter.mul_(0.8)


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Write one compressed file and print its size."""
    path = HERE / f"{name}.npz"
    np.savez_compressed(path, **arrays)
    size_bytes = path.stat().st_size
    print(f"{path.name}: {size_bytes} bytes, |y| up to {np.abs(arrays['y']).max():.3g}")
    if size_bytes > MAX_FILE_BYTES:
        raise SystemExit(f"{path.name} is larger than {MAX_FILE_BYTES} bytes.")


if __name__ == "__main__":
    main()
