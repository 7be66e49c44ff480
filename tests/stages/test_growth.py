"""How far labels grow, in the units of the image."""

import math

import pytest

from cellseg_pipe.config import Target
from cellseg_pipe.stages.growth import growth_of

VOXEL = (2.0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("mode", "said", "anisotropy", "spacing"),
    [
        ("3d", {"expand_um": 3.0}, None, (4.0, 1.0, 1.0)),
        ("3d", {"expand_um": 3.0}, 2.0, (4.0, 1.0, 1.0)),  # what the network is told is no matter
        ("3d", {"expand_px": 6.0}, 2.0, (2.0, 1.0, 1.0)),
        ("planes", {"expand_um": 3.0}, None, (math.inf, 1.0, 1.0)),
    ],
)
def test_a_step_along_z_counts_what_it_is_long(mode, said, anisotropy, spacing):
    target = Target(expand="nuclei", **said)
    growth = growth_of(target, "a", mode=mode, spacing_um=VOXEL, anisotropy=anisotropy)
    assert growth.distance_px == 6.0 and growth.spacing == spacing


def test_micrometres_need_the_size_of_a_voxel():
    target = Target(expand="nuclei", expand_um=3.0)
    with pytest.raises(ValueError, match="expand_px instead"):
        growth_of(target, "a", mode="3d", spacing_um=None, anisotropy=None)
