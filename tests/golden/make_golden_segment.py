"""Masks that cellpose 3.1.1.3 finds with the tests' small network; run with the peer's python.

`PYTHONPATH=. PEER_PYTHON tests/golden/make_golden_segment.py` writes tests/golden/segment.npz.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from cellpose.models import CellposeModel
from cellpose.resnet_torch import CPnet

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth import PRESETS, render

HERE = Path(__file__).parent
# name: preset, diameter, the peer's channels, what else is passed to both
CASES = {
    "nuclei_30": ("nuclei", 30, [0, 0], {}),
    "nuclei_21": ("nuclei", 21, [0, 0], {}),
    "cells_44": ("cells", 44, [2, 1], {}),
    "nuclei_34_net_scale": ("nuclei", 34, [0, 0], {"resample": False}),
    # One window on both sides holds the image, so that no window cuts it otherwise.
    "one_window_24": ("nuclei", 24, [0, 0], {"bsize": 512}),
    "one_window_36": ("nuclei", 36, [0, 0], {"bsize": 512}),
    "one_window_cells": ("cells", 40, [2, 1], {"bsize": 512}),
    "one_window_cells_alone": ("cells", 33, [2, 0], {"bsize": 512}),
}
SHAPE = (768, 800)
ONE_WINDOW, NETWORK_PX = 495, 30  # edge on the network's grid, and its diameter
TYPES = {"F16": np.float16, "F32": np.float32, "I64": np.int64}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file: a length, a header in JSON, the arrays."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    found = {}
    for key, about in header.items():
        start, stop = (8 + size + n for n in about["data_offsets"])
        array = np.frombuffer(data[start:stop], TYPES[about["dtype"]]).reshape(about["shape"])
        found[key] = torch.from_numpy(array.copy()).float()
    return found


def wide(small: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Lay the small network into one of full width, which is all that the peer's class builds."""
    state = CPnet([2, 32, 64, 128, 256], 3, sz=3).state_dict()
    for key, full in state.items():
        unit = key.endswith("running_var") or (full.ndim == 1 and key.endswith("0.weight"))
        full.fill_(1 if unit else 0)  # of channels that stay zero
        part = small[key]
        full[tuple(slice(n) for n in part.shape)] = part
    return state


def main() -> None:
    """Segment each case."""
    small = tensors(HERE / "models" / "tiny.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny"
        torch.save(wide(small), path)
        model = CellposeModel(gpu=False, pretrained_model=str(path))
    found = {}
    for name, (preset, diameter, channels, settings) in CASES.items():
        edge = ONE_WINDOW * diameter // NETWORK_PX
        shape = (edge, edge) if "bsize" in settings else SHAPE
        changes = {"shape": shape, "seed": 11, "diameter_px": diameter}
        spec = replace(PRESETS[preset], **changes)
        image = render(spec, Box.of(spec.shape)).image
        masks = model.eval(
            image if len(image) == 2 else image[0],
            channels=channels,
            channel_axis=0 if len(image) == 2 else None,
            diameter=diameter,
            **settings,
        )[0]
        found[name] = masks.astype(np.uint16)
        print(name, masks.max())
    np.savez_compressed(HERE / "segment.npz", **found)


if __name__ == "__main__":
    main()
