"""Steps per second of training, ours and the peer's, on the same crops and the same net.

`PYTHON tests/bench/training.py ours|peer [--width full|half] [--batch 8] [--edge 224] [--steps 5]`

Ours runs under the python of this clone, the peer under one with cellpose 3.1 (.venv-peer, made by
`make bench`). Both learn the same crops: the peer as in its `train_seg`, float32, its own loss, the
flows made beforehand; ours with the flows made from the labels in each step, in bf16 unless told
otherwise. Drawing crops is timed on neither side. Prints one JSON line; the best step counts.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

import numpy as np

WIDTHS = {"full": (32, 64, 128, 256), "half": (16, 32, 64, 128)}
MARGIN_PX = 32


def main() -> None:
    """Run one side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("ours", "peer"))
    parser.add_argument("--width", choices=WIDTHS, default="full")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--edge", type=int, default=224)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    options = parser.parse_args()
    for library in ("OMP", "NUMBA", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(options.threads)
    step = ours(options) if options.side == "ours" else peer(options)
    step()  # kernels are compiled, memory is taken
    seconds = []
    for _ in range(options.steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    rate = 1 / min(seconds)
    print(json.dumps({**vars(options), "steps_per_s": rate, "crops_per_s": rate * options.batch}))


def crops(batch: int, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels [B, 2, edge, edge] and labels with a margin: discs on a grid, and noise."""
    rng = np.random.default_rng(0)
    wide, pitch = edge + 2 * MARGIN_PX, 24
    y, x = np.mgrid[:wide, :wide]
    labels = np.zeros((batch, wide, wide), np.int32)
    for n in range(batch):
        rows, columns = np.mgrid[12:wide:pitch, 12:wide:pitch].reshape(2, -1)
        shifts = rng.integers(-3, 4, (2, rows.size))
        for i, (v, u) in enumerate(
            zip(rows + shifts[0], columns + shifts[1], strict=True), start=1
        ):
            labels[n][(y - v) ** 2 + (x - u) ** 2 < 100] = i
    inner = labels[:, MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    pixels = np.stack([inner > 0, inner * 0], axis=1) + rng.normal(0, 0.1, (batch, 2, edge, edge))
    return pixels.astype(np.float32), labels


def ours(options: argparse.Namespace) -> Callable[[], None]:
    """Return a step of ours: targets, forward, backward, AdamW, mean of weights."""
    import torch

    from cellseg_pipe.nets.cpnet import Architecture, CPnet
    from cellseg_pipe.training.augment import Crop
    from cellseg_pipe.training.loop import step_of
    from cellseg_pipe.training.settings import Recipe
    from cellseg_pipe.training.state import new_state
    from cellseg_pipe.training.targets import batch_of
    from cellseg_pipe.training.tasks import Segmenting

    torch.set_num_threads(options.threads)
    pixels, labels = crops(options.batch, options.edge)
    known = np.zeros(1, np.int16)
    drawn = [
        Crop(p, m, np.resize(known, m.max() + 1), "x") for p, m in zip(pixels, labels, strict=True)
    ]
    net = CPnet(Architecture(widths=WIDTHS[options.width])).train()
    state = new_state(net, learning_rate=2e-3, weight_decay=1e-4)
    recipe = Recipe(steps=1000, batch=options.batch, precision=options.precision)

    def step() -> None:
        step_of(state, batch_of(drawn), recipe, task=Segmenting())
        state.step += 1

    return step


def peer(options: argparse.Namespace) -> Callable[[], None]:
    """Return a step as in the peer's `train_seg`: its targets, net, loss and optimiser."""
    import torch
    from cellpose import dynamics, resnet_torch, train

    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    pixels, labels = crops(options.batch, options.edge)
    inner = labels[:, MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    base = [2, *WIDTHS[options.width]]
    net = resnet_torch.CPnet(base, nout=3, sz=3, mkldnn=False).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=1e-5)
    flows = [dynamics.labels_to_flows([m], device=device)[0] for m in inner]
    targets = np.stack(flows)[:, 1:].astype(np.float32)

    def step() -> None:
        answer = net(torch.from_numpy(pixels))[0]
        loss = train._loss_fn_seg(targets, answer, device)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


if __name__ == "__main__":
    main()
