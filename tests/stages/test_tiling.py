"""How large tiles are, where the user does not say it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cellseg_pipe.cost import masks_bytes, measure_bytes
from cellseg_pipe.nets.checkpoint import load
from cellseg_pipe.segmentation.plan import ImageSource, make_plan
from cellseg_pipe.segmentation.settings import Settings
from cellseg_pipe.segmentation.tiled import BLOCK_PX
from cellseg_pipe.stages.tiling import tile_plan

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"
SHAPE = {"2d": (20_000, 20_000), "planes": (40, 9000, 9000), "3d": (900, 3000, 3000)}


def plan_of(mode, diameter_px, **settings):
    info = load(TINY).info
    return make_plan(
        ImageSource(SHAPE[mode], 1, lambda box: np.zeros((1, *box.shape), np.uint16)),
        Settings(mode=mode, value_range=(0.0, 1.0), **settings),
        network=info.architecture,
        diameter_px=diameter_px,
        network_diameter_px=info.diameter_px,
    )


def unit_of(memory_gb, *, seams="exact", core_px="auto", part=None, n_channels=1):
    said = SimpleNamespace(
        tiles=SimpleNamespace(core_px=core_px, halo_px="auto"),
        stitch=SimpleNamespace(seams=seams),
        resources=SimpleNamespace(memory_gb=memory_gb),
    )
    image = SimpleNamespace(voxel_bytes=2 * n_channels)
    return SimpleNamespace(experiment=said, name="a", parts=(), part=part, image=image)


@pytest.mark.parametrize("n_channels", [1, 6])
@pytest.mark.parametrize("mode", SHAPE)
def test_tiles_fit_into_the_memory_of_a_job(mode, n_channels):
    """The default of 3 GB, in volumes with cells of 30 px."""
    plan = plan_of(mode, 30.0)
    tiles = tile_plan(plan, unit_of(3.0, n_channels=n_channels))
    assert masks_bytes(plan, tiles) <= 3e9
    assert measure_bytes(plan, tiles, voxel_bytes=2 * n_channels) <= 3e9
    blocks = np.array(tiles.core) / BLOCK_PX[mode]
    assert (blocks == blocks.astype(int)).all() and (blocks >= 1).all()


def test_more_memory_makes_larger_tiles_that_look_less_often(monkeypatch):
    monkeypatch.setattr("cellseg_pipe.stages.tiling.available_bytes", lambda: 10**10)
    plan, looks, cores = plan_of("3d", 30.0), [], []
    for memory_gb in (1.0, 2.5, 3.5, 6.0, "auto"):
        tiles = tile_plan(plan, unit_of(memory_gb))
        cores.append(np.prod(tiles.core))
        looks.append(np.prod([1 + 2 * h / c for h, c in zip(tiles.halo, tiles.core, strict=True)]))
    assert cores == sorted(cores) and looks == sorted(looks, reverse=True) and looks[0] > looks[-1]
    # The smallest is taken where none fits: who plans refuses it.
    assert cores[0] == np.prod(BLOCK_PX["3d"]) and cores[-1] == 8 * cores[0]


def test_without_a_limit_the_machine_is_one(monkeypatch):
    monkeypatch.setattr("cellseg_pipe.stages.tiling.available_bytes", lambda: 3 * 10**9)
    plan = plan_of("3d", 30.0)
    assert masks_bytes(plan, tile_plan(plan, unit_of("auto"))) <= 3e9


def test_classes_of_diameters_have_the_same_cores_and_fit():
    plans = [plan_of("3d", px) for px in (20.0, 30.0)]
    tilings = [tile_plan(plan, unit_of(3.0, part=0)) for plan in plans]
    assert len({tiles.core for tiles in tilings}) == 1
    assert max(map(masks_bytes, plans, tilings)) <= 3e9


def test_cores_that_labels_depend_on_do_not_follow_the_memory():
    plan = plan_of("3d", 18.0)
    assert len({tile_plan(plan, unit_of(gb, seams="iou")).core for gb in (1.0, 3.0, 9.0)}) == 1


def test_what_is_asked_for_is_taken():
    assert tile_plan(plan_of("3d", 30.0), unit_of(1.0, core_px=(64, 256, 384))).core[2] == 384
