"""What cellpose 3.1.1.3 restores with a small network of random weights; run with its python.

`PYTHONPATH=. PEER_PYTHON tests/golden/make_golden_restore.py` writes tests/golden/restore.npz. The
network is `checkpoints/restoration`, made by `make_golden_checkpoints.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from cellpose import transforms
from cellpose.denoise import DenoiseModel
from cellpose.resnet_torch import CPnet

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth import PRESETS, render

HERE = Path(__file__).parent
# name: shape, diameter as it is said, the peer's mean diameter. On the network's grid axes are
# multiples of 16 px, to which the peer pads them, but in one case.
CASES = {
    "same_scale": ((96, 112), 30, 30.0),
    "larger": ((112, 56), 21, 30.0),
    "smaller": ((192, 160), 60, 30.0),
    "nuclei": ((128, 160), 34, 17.0),
    "several_tiles": ((250, 240), 30, 30.0),
}
UPSAMPLED = ((64, 64), 12)


def noisy(shape: tuple[int, int]) -> np.ndarray:
    """Return a synthetic image with few photons."""
    spec = replace(PRESETS["nuclei"], shape=shape, seed=3, diameter_px=20.0)
    image = render(spec, Box.of(shape)).image[0].astype(np.float64)
    light = (image - image.min()) / np.ptp(image)
    return np.random.default_rng(1).poisson(6 * light + 1).astype(np.uint8)


def restored(image: np.ndarray, diameter: float, diam_mean: float) -> np.ndarray:
    """Return the peer's answer, as it normalises images."""
    model = DenoiseModel(gpu=False, diam_mean=diam_mean)
    model.net = CPnet([1, 4, 6], 1, sz=3, mkldnn=False).eval()
    model.net.load_model(HERE / "checkpoints" / "restoration", device=torch.device("cpu"))
    model.pretrained_model = "denoise"
    plain = model.net.forward

    def with_wide_style(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, style = plain(x)[:2]
        return y, torch.nn.functional.pad(style, (0, 256 - style.shape[1]))

    model.net.forward = with_wide_style  # its caller has room for that of full width only
    with torch.no_grad():
        return model.eval(image[..., None], channels=None, diameter=diameter)[..., 0]


def main() -> None:
    """Restore each case."""
    torch.set_num_threads(1)
    found = {}
    for name, (shape, diameter, diam_mean) in CASES.items():
        image = noisy(shape)
        found |= {f"{name}_image": image, f"{name}_restored": restored(image, diameter, diam_mean)}
    shape, diameter = UPSAMPLED
    image, ratio = noisy(shape), 30 / diameter
    # The peer's own upsampling enlarges the image, and then once more for its network: what is
    # meant is that the network sees cells at its own diameter.
    rows, columns = (int(n * ratio) for n in shape)
    large = transforms.resize_image(image.astype(np.float32), Ly=rows, Lx=columns)
    found |= {"upsampled_image": image, "upsampled_restored": restored(large, 30, 30.0)}
    for name, values in found.items():
        print(name, values.shape, values.dtype, float(values.min()), float(values.max()))
    np.savez_compressed(
        HERE / "restore.npz",
        **{name: v.astype(np.float16) if v.dtype.kind == "f" else v for name, v in found.items()},
    )


if __name__ == "__main__":
    main()
