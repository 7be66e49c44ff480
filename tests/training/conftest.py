"""Small synthetic images with truth, as arrays and as files."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth import PRESETS, render
from cellseg_pipe.training.manifest import Pair
from cellseg_pipe.training.prepare import Prepared


def scene(seed, *, preset="nuclei", edge=96, **changes):
    spec = replace(PRESETS[preset], **{"shape": (edge, edge), "seed": seed, **changes})
    piece = render(spec, Box.of(spec.shape))
    return piece.image, piece.labels


def prepared(labels, pixels=None, *, name="a.tif", set="images", diameter_px=18.0, classes=None):
    labels = np.asarray(labels, np.int32)
    pixels = (labels > 0)[None] if pixels is None else pixels
    n = int(labels.max(initial=0))
    table = np.zeros(n + 1, np.int16) if classes is None else np.array([0, *classes], np.int16)
    return Prepared(
        Pair(name, "b.tif", set),
        np.asarray(pixels, np.float16),
        labels,
        table,
        diameter_px if n else math.nan,
        n,
        name,
    )


@pytest.fixture
def make_scene():
    return scene


@pytest.fixture
def make_prepared():
    return prepared


@pytest.fixture
def folder(tmp_path):
    """Return a folder of four pairs."""
    target = tmp_path / "data"
    target.mkdir()
    for seed in range(4):
        image, labels = scene(seed, diameter_px=14.0)
        tifffile.imwrite(target / f"n{seed}_img.tif", image[0])
        tifffile.imwrite(target / f"n{seed}_masks.tif", labels.astype(np.uint16))
    return target
