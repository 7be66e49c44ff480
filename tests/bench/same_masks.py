"""Compares cells that cellpose 3.1.1.3 and we find with the same weights: the shipped model's.

`.venv/bin/python tests/bench/same_masks.py [--peer-python PYTHON]` prints rows for
docs/benchmarks.md. Rendered images of 2048 px, and with CELLSEG_DATA the single-channel test images
of config/training/split.csv; each at its true diameter. The peer keeps its defaults, ours are the
same but for the windows (512 px). With `--one-window` both see rendered images of one window each,
so that no window cuts them otherwise; then our bfloat16 is compared with our float32. AP is that of
our cells with the peer's as the truth, counted over all images of a row, and the mean AP of both on
the truth.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE), str(HERE.parent / "nightly")]

import networks  # noqa: E402

MODEL = ROOT / "cellseg_pipe" / "models" / "generalist.safetensors"
EDGE = 2048
WINDOW, PEER_WINDOW = 512, 224
# Of images of one window: edge on the network's grid, whole for all diameters; and how many.
ONE_WINDOW, NETWORK_PX, N_SMALL = 495, 18, 4
# name: preset, diameter, our channels; the peer counts them from 1, with 0 for none
RENDERED = {
    "rendered nuclei of 18 px": ("nuclei", 18, (0,)),
    "rendered nuclei of 24 px": ("nuclei", 24, (0,)),
    "rendered nuclei of 40 px": ("nuclei", 40, (0,)),
    "rendered cells of 36 px, one channel": ("cells", 36, (1,)),
    "rendered cells of 36 px, two channels": ("cells", 36, (1, 0)),
}
MATCHED = {"precision": "fp32", "following": "exact", "antialias": False}


@dataclass(frozen=True)
class Picture:
    """One image with what both are told of it."""

    row: str
    image: np.ndarray  # [channel, y, x]
    truth: np.ndarray
    diameter_px: float
    channels: tuple[int, ...]


def rendered(one_window):
    from cellseg_pipe.geometry import Box
    from cellseg_pipe.synth import PRESETS, render

    for name, (preset, diameter, channels) in RENDERED.items():
        edge = ONE_WINDOW * diameter // NETWORK_PX if one_window else EDGE
        for seed in range(5, 5 + (N_SMALL if one_window else 1)):
            spec = replace(PRESETS[preset], shape=(edge, edge), seed=seed, diameter_px=diameter)
            piece = render(spec, Box.of(spec.shape))
            yield Picture(name, piece.image, piece.labels, diameter, channels)


def real(data):
    from model import images

    for one in images(data, lambda pair: True):
        if one.axes == "yx" and one.truth.any():
            yield Picture(one.pair.set, one.pixels[None], one.truth, one.diameter_px, (0,))


def ours(picture, **settings):
    import cellseg_pipe as cs

    return cs.segment(
        picture.image,
        axes="cyx",
        model=str(MODEL),
        channels=list(picture.channels),
        diameter_px=picture.diameter_px,
        **MATCHED | settings,
    ).labels


def peer(source, target):
    """Segment pickled pictures, in the peer's environment."""
    state, diameter, bsize, pictures = pickle.loads(source.read_bytes())
    model = networks.peer_model(state)
    model.diam_mean = diameter
    found = []
    for image, px, channels in pictures:
        first, second = [n + 1 for n in channels] + [0] * (2 - len(channels))
        one = len(image) == 1
        masks, *_ = model.eval(
            image[0] if one else image,
            channels=[0, 0] if one else [first, second],
            channel_axis=None if one else 0,
            diameter=px,
            bsize=bsize,
        )
        found.append(masks.astype(np.uint32))
    target.write_bytes(pickle.dumps(found))


def peers(pictures, python, bsize):
    from cellseg_pipe.nets.checkpoint import load

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in", Path(folder) / "out"
        plain = [(p.image.astype(np.float32), p.diameter_px, p.channels) for p in pictures]
        weights = networks.wide_net(MODEL), float(load(MODEL).info.diameter_px)
        source.write_bytes(pickle.dumps((*weights, bsize, plain)))
        subprocess.run([python, __file__, "--as-peer", source, target], check=True)
        return pickle.loads(target.read_bytes())


def agreement(found, others):
    """Return the AP of one kind of masks with the other as the truth, over all images."""
    from cellseg_pipe import evaluate

    matched = dict.fromkeys((0.5, 0.75, 0.9), 0.0)
    n_both = sum(count(masks) for masks in (*found, *others))
    for mine, other in zip(found, others, strict=True):
        n = count(mine) + count(other)
        for threshold, ap in evaluate(mine, other).ap.items():
            if threshold in matched and n:
                matched[threshold] += ap * n / (1 + ap)  # of ap = both / (all - both)
    return {t: both / (n_both - both) for t, both in matched.items()}


def count(masks):
    return len(np.unique(masks)) - 1


def row_of(name, found, theirs, pictures):
    from cellseg_pipe import evaluate

    same = agreement(found, theirs)
    n_theirs, n_ours = (sum(map(count, masks)) for masks in (theirs, found))
    truths = [
        np.nanmean([evaluate(m, p.truth).ap[0.5] for m, p in zip(masks, pictures, strict=True)])
        for masks in (found, theirs)
    ]
    return (
        f"| {name} | {len(found)} | {n_theirs} | {n_ours} | {same[0.5]:.4f} | {same[0.75]:.4f} |"
        f" {truths[0]:.3f} | {truths[1]:.3f} |"
    )


def halved(name, found, pictures):
    """Return a row of how far bfloat16 gives the cells of float32."""
    half = [ours(p, window_px=WINDOW, precision="bf16") for p in pictures]
    same = agreement(half, found)
    counts = [sum(map(count, masks)) for masks in (found, half)]
    return f"| {name} | {counts[0]} | {counts[1]} | {same[0.75]:.4f} | {same[0.9]:.4f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, default=ROOT / ".venv-peer" / "bin" / "python")
    parser.add_argument("--as-peer", type=Path, nargs=2)
    parser.add_argument("--window", type=int, default=WINDOW)
    parser.add_argument("--one-window", action="store_true")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    if asked.as_peer:
        return peer(*asked.as_peer)
    data = os.environ.get("CELLSEG_DATA")
    one = asked.one_window
    pictures = [*rendered(one), *(real(Path(data)) if data and not one else ())]
    pictures = [p for p in pictures if asked.only in p.row]
    theirs = peers(pictures, asked.peer_python, WINDOW if one else PEER_WINDOW)
    found = [ours(p, window_px=asked.window) for p in pictures]
    rows = [
        (name, *([those[i] for i, p in enumerate(pictures) if p.row == name] for those in both))
        for both in [(found, theirs, pictures)]
        for name in dict.fromkeys(p.row for p in pictures)
    ]
    for row in rows:
        print(row_of(*row))
    if one:  # bfloat16 beside float32: cells of both, AP .75 and .9
        for name, mine, _, some in rows:
            print(halved(name, mine, some))
    return None


if __name__ == "__main__":
    main()
