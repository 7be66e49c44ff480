"""The benchmarks that run a network, on both sides: a net of full width that knows synthetic cells.

The small net of the tests is laid into the first channels of one of full width, the other channels
zero: as many sums as any net of that width, and flows that describe cells.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"
PREFIX = "net."
WIDTHS = (32, 64, 128, 256)
PRECISIONS = {"exact": "fp32", "fast": "auto"}
DIAMETER_PX = 30.0
TINY_EDGE = 96  # of the image for the warm-up


def wide_net(model: Path = TINY) -> Arrays:
    """Return a smaller net as one of full width, each parameter under its name with a prefix."""
    from cellseg_pipe.nets.checkpoint import load
    from cellseg_pipe.nets.cpnet import Architecture, CPnet

    small = load(model).net.state_dict()
    found = {}
    for key, tensor in CPnet(Architecture(widths=WIDTHS)).state_dict().items():
        full = np.zeros(tensor.shape, np.float32)
        if key.endswith("running_var") or (full.ndim == 1 and key.endswith("0.weight")):
            full[...] = 1  # of channels that stay zero
        part = small[key].float().numpy()
        full[tuple(slice(n) for n in part.shape)] = part
        found[PREFIX + key] = full
    return found


def pictured(scale: float) -> Arrays:
    """Return an image of 2048² with its truth, and the net."""
    from dataclasses import replace

    from cellseg_pipe.geometry import Box
    from cellseg_pipe.synth import PRESETS, render

    edge = int(2048 * scale)
    spec = replace(PRESETS["nuclei"], shape=(edge, edge), seed=1, diameter_px=DIAMETER_PX)
    piece = render(spec, Box.of(spec.shape))
    return {"labels": piece.labels, "image": piece.image[0], **wide_net()}


def state_of(arrays: Arrays) -> dict[str, Any]:
    """Return the parameters as tensors."""
    import torch

    kept = {key.removeprefix(PREFIX): a for key, a in arrays.items() if key.startswith(PREFIX)}
    return {key: torch.from_numpy(np.asarray(a)) for key, a in kept.items()}


def normalised(arrays: Arrays) -> np.ndarray:
    """Return the net's input [2, y, x]."""
    image = arrays["image"].astype(np.float32)
    low, high = np.percentile(image, (1, 99))
    return np.stack([(image - low) / (high - low), np.zeros_like(image)])


def small(arrays: Arrays) -> Arrays:
    """Return a corner of the image, for the warm-up."""
    corner = np.s_[:TINY_EDGE, :TINY_EDGE]
    return {**arrays, "image": arrays["image"][corner], "labels": arrays["labels"][corner]}


def peer_network(arrays: Arrays) -> dict[str, Any]:
    """Prepare the peer's `run_net` with its own defaults."""
    from cellpose import core

    image = np.ascontiguousarray(normalised(arrays).transpose(1, 2, 0)[None])
    net = peer_model(arrays).net
    return {"call": lambda: core.run_net(net, image)[0][0].transpose(2, 0, 1)}


def peer_segment(arrays: Arrays) -> dict[str, Any]:
    """Prepare the peer's `eval` at a given diameter."""
    model = peer_model(arrays)
    image = arrays["image"].astype(np.float32)
    settings = {"channels": [0, 0], "diameter": DIAMETER_PX}
    return {"call": lambda: model.eval(image, **settings)[0].astype(np.uint32)}


def peer_model(arrays: Arrays) -> Any:
    """Return the peer's model with these parameters, on the CPU as it sets itself up."""
    import torch
    from cellpose.models import CellposeModel

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wide"
        torch.save(state_of(arrays), path)
        return CellposeModel(gpu=False, pretrained_model=str(path))


def our_network(*, threads: int, mode: str) -> Callable[[Arrays], dict[str, Any]]:
    """Return what prepares all windows of the image, without reading and following."""
    from cellseg_pipe.geometry import Box
    from cellseg_pipe.nets.blending import blend_answers
    from cellseg_pipe.nets.windows import predict, view_of

    def prepare(arrays: Arrays) -> dict[str, Any]:
        engine, x = our_engine(arrays, threads=threads, mode=mode), normalised(arrays)
        view = view_of(x.shape[1:], (0, 1), window_px=512, overlap_px=48, divisor=8)
        box = Box.of(x.shape[1:])

        def source(part: Box) -> np.ndarray:
            return x[(slice(None), *part.slices)]

        def call() -> np.ndarray:
            records = predict(engine, source, view, indices=view.over(box))
            outputs, _ = blend_answers(records, view, box, n_outputs=3)
            outputs[:2] *= 5
            return outputs[:3]  # the rest tells how far windows agree

        return {"call": call}

    return prepare


def our_segment(*, threads: int, mode: str) -> Callable[[Arrays], dict[str, Any]]:
    """Return what prepares `segment` at a given diameter."""
    from cellseg_pipe.segmentation import segment

    settings = {"diameter_px": DIAMETER_PX, "following": mode, "threads": threads}

    def prepare(arrays: Arrays) -> dict[str, Any]:
        engine = our_engine(arrays, threads=threads, mode=mode)
        return {"call": lambda: segment(arrays["image"], model=engine, **settings).labels}

    return prepare


def our_engine(arrays: Arrays, *, threads: int, mode: str) -> Any:
    """Return the network in its form for inference: float32 if exact, else the fastest."""
    from cellseg_pipe.nets.checkpoint import Model, ModelInfo
    from cellseg_pipe.nets.cpnet import cpnet_of
    from cellseg_pipe.nets.engine import Engine

    net = cpnet_of(state_of(arrays))
    info = ModelInfo("wide", net.architecture, DIAMETER_PX)
    return Engine(
        Model(info, net, "", Path("wide")),
        device="cpu",
        threads=threads,
        precision=PRECISIONS[mode],
    )


def run(call: Any) -> np.ndarray:
    """Do what was prepared."""
    return call()
