"""Everything small, and processes that are ready to work."""

from dataclasses import replace

import pytest

from cellseg_pipe.geometry import Box
from cellseg_pipe.synth import PRESETS, render
from tests.pipeline import worker


@pytest.fixture(autouse=True)
def small():
    with worker.small_tiles():
        yield


@pytest.fixture(scope="session")
def pool():
    """Two processes that run single jobs."""
    with worker.context().Pool(2, initializer=worker.begin) as processes:
        yield processes


def scene(shape, *, preset=None, seed=3, **changes):
    """A synthetic image [c, *shape]."""
    preset = preset or ("nuclei" if len(shape) == 2 else "volume")
    spec = replace(PRESETS[preset], **{"shape": shape, "seed": seed, "diameter_px": 24} | changes)
    if len(shape) == 3 and "anisotropy" not in changes:
        spec = replace(spec, anisotropy=1.0)
    return render(spec, Box.of(shape)).image
