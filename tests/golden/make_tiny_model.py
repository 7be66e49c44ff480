"""Trains the small network that tests of segmentation use, on synthetic cells; about ten minutes.

`python tests/golden/make_tiny_model.py tests/golden/models/tiny.safetensors`

Nothing but synthetic images: no licence, no download. It segments such images well and nothing
else; the weights that users get are trained elsewhere.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from cellseg_pipe.geometry import Box
from cellseg_pipe.kernels import flows_from_labels
from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.synth import PRESETS, render

WIDTHS = (8, 16, 32, 64)
DIAMETER_PX = 30.0
CROP_PX, BATCH, STEPS = 160, 8, 1000
LEARNING_RATE = 4e-3


def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    """Render images [2, y, x] from 0 to 1 with labels, cells about 30 px wide."""
    found = []
    for seed in range(10):
        for name in ("nuclei", "cells"):
            changes = {"shape": (448, 448), "seed": seed, "diameter_px": DIAMETER_PX}
            spec = replace(PRESETS[name], **changes)
            piece = render(spec, Box.of(spec.shape))
            image = np.zeros((2, 448, 448), np.float32)
            for channel, pixels in enumerate(piece.image[::-1]):  # cells before nuclei
                low, high = np.percentile(pixels, (1, 99))
                image[channel] = (pixels - low) / max(high - low, 1)
            found.append((image, piece.labels))
    return found


def batch_of(data, rng):
    """Draw crops, mirrored, turned by quarters, sometimes without the second channel.

    The flow is that of the labels as they are cut: cells on the border of an image have their
    centre inside it, or the flow check would drop them.
    """
    images, targets = [], []
    for number in rng.integers(0, len(data), BATCH):
        image, labels = data[number]
        y, x = rng.integers(0, 448 - CROP_PX, 2)
        cut = np.s_[..., y : y + CROP_PX, x : x + CROP_PX]
        picture = image[cut] * rng.uniform(0.8, 1.2) + rng.normal(0, 0.03, image[cut].shape)
        if rng.random() < 0.3:
            picture[1] = 0
        turns, mirror = rng.integers(0, 4), slice(None, None, rng.choice([1, -1]))
        picture = np.rot90(picture, turns, axes=(1, 2))[..., mirror]
        seen = np.ascontiguousarray(np.rot90(labels[cut], turns)[:, mirror])
        images.append(np.ascontiguousarray(picture, np.float32))
        flow = flows_from_labels(seen, threads=1)
        targets.append(np.concatenate([5 * flow, (seen > 0)[None]]).astype(np.float32))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))


def main() -> None:
    """Train and save."""
    target = Path(sys.argv[1])
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = CPnet(Architecture(widths=WIDTHS)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=STEPS)
    data, began = scenes(), time.time()
    for step in range(STEPS):
        images, targets = batch_of(data, rng)
        output, _ = net(images.to(memory_format=torch.channels_last))
        loss = 0.5 * functional.mse_loss(output[:, :2], targets[:, :2])
        loss = loss + functional.binary_cross_entropy_with_logits(output[:, 2], targets[:, 2])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.time() - began:.0f} s", flush=True)
            torch.save(net.state_dict(), target.with_suffix(".pt"))
    torch.save(net.state_dict(), target.with_suffix(".pt"))
    from cellseg_pipe.nets.checkpoint import ModelInfo, save

    save(
        target,
        net.eval(),
        ModelInfo(
            "tiny",
            net.architecture,
            DIAMETER_PX,
            licence="BSD-3-Clause",
            training="1,000 steps on synthetic cells by tests/golden/make_tiny_model.py",
        ),
    )


if __name__ == "__main__":
    main()
