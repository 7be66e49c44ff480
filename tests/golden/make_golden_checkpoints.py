"""Makes small checkpoints and a size regression as cellpose 3.1.1.3 writes them.

`PEER_PYTHON tests/golden/make_golden_checkpoints.py` writes to `checkpoints` beside this script:
networks with random weights, and what they and the regression make of fixed inputs.
"""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import torch
from cellpose.models import SizeModel
from cellpose.resnet_torch import CPnet

HERE = Path(__file__).parent / "checkpoints"


def main() -> None:
    """Write the files."""
    HERE.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    results = {}
    for name, nbase, nout, diam_mean in (
        ("segmentation", [2, 4, 6], 3, 22.0),
        ("restoration", [1, 4, 6], 1, 30.0),
    ):
        torch.manual_seed(len(nbase) + nout)
        net = CPnet(nbase, nout, sz=3, diam_mean=diam_mean).eval()
        net.diam_labels.data[:] = 41.5
        net.save_model(HERE / name)
        x = torch.rand(2, nbase[0], 8, 12)
        with torch.no_grad():
            y, style = net(x)[:2]
        results |= {f"{name}_x": x.numpy(), f"{name}_y": y.numpy(), f"{name}_style": style.numpy()}
    results |= size_regression(results["segmentation_style"])
    np.savez_compressed(HERE / "results.npz", **results)


def size_regression(styles: np.ndarray) -> dict[str, np.ndarray]:
    """Save a regression as the peer does, and return what the peer reads from it."""
    rng = np.random.default_rng(0)
    n = styles.shape[1]
    params = {
        "A": rng.normal(size=n).astype(np.float32),
        "smean": rng.normal(size=n).astype(np.float32) / 4,
        "diam_mean": np.float64(22.0),
        "ymean": np.float32(0.25),
    }
    path = HERE / "segmentation_size.npy"
    np.save(path, params)
    net = types.SimpleNamespace(device=None, diam_mean=30.0, pretrained_model="a")
    model = SizeModel(net, pretrained_size=path)
    scaled = np.concatenate([styles, -9 * params["A"][None]])  # the last is below the least
    return {"size_styles": scaled, "size_px": np.array([model._size_estimation(s) for s in scaled])}


if __name__ == "__main__":
    main()
