"""Small finished runs of each kind, and a browser that looks at their pages."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cellseg_pipe.engines import process
from cellseg_pipe.geometry import Box
from cellseg_pipe.stages.summary import SomeFailed
from cellseg_pipe.synth import PRESETS, render
from tests.pipeline import worker
from tests.report.browser import browser
from tests.workflow import runs

NET = Path(__file__).parents[1] / "golden" / "checkpoints" / "restoration"


@pytest.fixture(scope="session")
def page():
    with browser() as found:
        yield found


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a function from the name of a kind to the folder of a run, which is made once."""
    known = {}

    def folder(kind):
        if kind not in known:
            root = tmp_path_factory.mktemp(kind)
            images, sections = KINDS[kind](root)
            with worker.small_tiles():
                chosen = worker.experiment(root, images, **sections)
                try:
                    process.run(chosen)
                except SomeFailed:
                    assert kind == "many"
            known[kind] = root / "out"
        return known[kind]

    return folder


def cells(root):
    """Several tiles, a rule, a file name that HTML would take for its own."""
    path = runs.picture(root / "a&amp;<b>.tif", shape=(150, 190))
    image = {"path": str(path), "name": "a", "spacing_um": [0.5, 0.5]}
    return [image], {"qc": {"flag": {"border": "flag"}}}


def empty(root):
    return [worker.save_tiff(root / "empty.tif", np.full((64, 64), 7, np.uint16))], {}


def small(root):
    return [runs.picture(root / "small.tif", shape=(64, 64))], {"qc": {"maps": False}}


def volume(root):
    spec = dataclasses.replace(PRESETS["volume"], shape=(20, 64, 72), anisotropy=1.0, seed=3)
    image = render(spec, Box.of(spec.shape)).image[0]
    named = {"path": str(worker.save_tiff(root / "v.tif", image)), "axes": "zyx"}
    target = {"nuclei": {"model": str(worker.TINY), "diameter_px": 20}}
    return [named], {"segment": {"mode": "3d"}, "targets": target}


def many(root):
    """Images that jobs segment together, and one that nobody can read."""
    paths = [runs.picture(root / f"i{k:02}.tif", shape=(64, 64), seed=k) for k in range(17)]
    (root / "bad.tif").write_bytes(b"no picture")
    return [*paths, root / "bad.tif"], {}


def restored(root, **tiles):
    """An image with noise, of which a network takes some."""
    clear = render(
        dataclasses.replace(PRESETS["nuclei"], shape=(150, 190), seed=3), Box.of((150, 190))
    )
    noise = np.random.default_rng(0).poisson(300.0, (150, 190))
    image = worker.save_tiff(root / "r.tif", (clear.image[0] + noise).astype(np.uint16))
    model = root / "denoise_nuclei"
    model.write_bytes(NET.read_bytes())
    return [image], {"restore": {"model": str(model), "offset": 20.0}, "tiles": tiles}


def bundled(root):
    return restored(root, bundle_px=1 << 20)


def filtered(root):
    images, _ = small(root)
    return images, {"restore": {"method": "median", "size_px": 5}, "qc": {"maps": False}}


KINDS = {
    "cells": cells,
    "empty": empty,
    "small": small,
    "volume": volume,
    "many": many,
    "restored": restored,
    "bundled": bundled,
    "filtered": filtered,
}
