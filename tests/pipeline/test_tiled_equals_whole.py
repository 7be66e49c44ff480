"""Whatever the tiles, batches, order, processes and threads: the labels and table of the whole."""

import importlib.util
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg_pipe.segmentation.tiled import BLOCK_PX, halo_px
from tests.pipeline.conftest import scene
from tests.pipeline.worker import (
    TINY,
    compare,
    config_of,
    experiment,
    published,
    run,
    run_in,
    save_tiff,
    segment,
    shards_of,
)

GOLDEN = Path(__file__).parents[1] / "golden"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "large"
WINDOWS = {"window_px": 96, "overlap_px": 16}
SHAPES = {"2d": (111, 157), "planes": (3, 61, 107), "3d": (13, 45, 59)}
CASES = {
    "2d": ("2d", 24, {"keep_border": False}),
    "2d, on a coarser grid": ("2d", 40, {"resample": False}),
    "2d, on a finer grid": ("2d", 17, {"resample": False, "following": "exact", "fill": False}),
    "planes": ("planes", 17, {}),
    "planes, on a coarser grid": ("planes", 38, {"resample": False, "max_size_px": 900}),
    "planes, on a finer grid": ("planes", 23, {"resample": False}),
    "3d": ("3d", 24, {"flow_smooth_px": 1.0}),
    "3d, on a coarser grid": ("3d", 36, {"resample": False, "anisotropy": 1.5}),
}
SCENE_PX = {"2d": 1.0, "planes": 0.8, "3d": 0.6}  # cells over the diameter: small images have some
# Blocks per core, what the halo is larger by, batches of predict, masks and paint, processes.
TILINGS = [
    ((1, 1, 1), 0, (1, 1, 1), False),
    ((1, 2, 1), 1, (3, 3, 2), True),
    ((2, 1, 2), 0, (3, 5, 4), True),
    ((9, 9, 9), 0, (1, 2, 1), False),
    ((1, 3, 2), 7, (3, 7, 5), True),
    ((2, 1, 1), 13, (1, 9, 5), True),
]


def tiles_of(mode, blocks, beyond, reach=16):
    """Edges of cores and halos: the halo that is needed, or more."""
    core = [b * edge for b, edge in zip(blocks, BLOCK_PX[mode][-2:], strict=False)]
    if mode == "planes":
        return {"core_px": [1, *core], "halo_px": [0, reach + 17 + beyond, reach + 17 + beyond]}
    core = [b * edge for b, edge in zip(blocks, BLOCK_PX[mode], strict=False)]
    return {"core_px": core, "halo_px": reach + 17 + beyond}


@cache
def case(name):
    """Image and settings of a case, and the image as one tile."""
    mode, diameter, settings = CASES[name]
    image = scene(SHAPES[mode], diameter_px=diameter * SCENE_PX[mode])[0]
    said = {"mode": mode, "reach_px": 16, **settings}
    axes = "zyx"[-image.ndim :]
    return image, said, segment(image, axes=axes, diameter_px=diameter, **WINDOWS, **said)


@pytest.mark.parametrize("name", CASES)
def test_every_tiling_gives_the_whole(tmp_path, pool, name):
    image, said, whole = case(name)
    mode, diameter, _ = CASES[name]
    assert whole.n_cells > 2 and halo_px(whole.plan)[-1] == 16 + 17
    tilings = TILINGS if name == mode else TILINGS[1::3]
    path = save_tiff(tmp_path / "a.tif", image)
    stored = []
    for number, (blocks, beyond, (predict, masks, paint), together) in enumerate(tilings):
        batches = {"predict": predict, "masks": masks, "paint": paint}
        chosen = experiment(
            tmp_path,
            [{"path": str(path), "axes": "zyx"[-image.ndim :]}],
            targets={"nuclei": {"model": str(TINY), "diameter_px": diameter}},
            segment=said,
            tiles={**WINDOWS, **tiles_of(mode, blocks, beyond), "batches": batches},
        )
        if together:
            order = random.Random(number)
            config = config_of(chosen, tmp_path / f"{number}.yaml")
            run_in(pool, chosen, config, order=order, threads=(1, 2))
        else:
            run(chosen)
        compare(published(chosen, "a"), whole)
        stored.append(shards_of(tmp_path / "out" / "a"))
    assert all(files == stored[0] for files in stored) and len(stored[0]) > 4


@pytest.mark.skipif(not SHARED.exists(), reason="shared images are not there")
@pytest.mark.parametrize("name", ["g010_2x2", "g137_2x2"])
def test_real_fields(tmp_path, pool, name):
    image = tifffile.imread(SHARED / f"dsbmosaic_{name}_img.tif")[:300, :400]
    rgb = image.ndim == 3
    said = {"reach_px": 24}
    whole = segment(image, axes="yxc" if rgb else "yx", channels="grey", **WINDOWS, **said)
    assert whole.n_cells > 5
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb" if rgb else "minisblack")
    chosen = experiment(
        tmp_path,
        [{"path": str(tmp_path / "a.tif"), "channels": "grey"}],
        segment=said,
        tiles={**WINDOWS, **tiles_of("2d", (3, 2), 0, 24), "batches": {"masks": 3}},
    )
    config = config_of(chosen, tmp_path / "a.yaml")
    run_in(pool, chosen, config, order=random.Random(0), threads=(1,))
    compare(published(chosen, "a"), whole)


def test_a_network_of_the_peer(tmp_path):
    image = scene((100, 130))[0]
    model = GOLDEN / "checkpoints" / "segmentation"
    said = {"reach_px": 30, "flow_threshold": None, "cellprob_threshold": 0.1, "min_size_px": 3}
    whole = segment(image, model=model, diameter_px=22, **WINDOWS, **said)
    assert whole.n_cells > 3
    chosen = experiment(
        tmp_path,
        [save_tiff(tmp_path / "a.tif", image)],
        targets={"all": {"model": str(model), "diameter_px": 22}},
        segment=said,
        tiles={**WINDOWS, **tiles_of("2d", (1, 1), 2, 30), "batches": {"masks": 4}},
    )
    run(chosen)
    compare(published(chosen, "a"), whole)


@pytest.mark.skipif(
    importlib.util.find_spec("cellpose") is None, reason="cellpose 4 is not installed"
)
def test_a_network_of_cellpose_4(tmp_path):
    found = sorted(Path.home().glob(".cellpose/models/cpsam*"))
    if not found:
        pytest.skip("no file of a Cellpose 4 network in ~/.cellpose/models")
    image, model = scene((150, 280))[0], f"cellpose-sam:{found[0]}"
    whole = segment(image, model=model, diameter_px=30, overlap_px=48, reach_px=16)
    chosen = experiment(
        tmp_path,
        [save_tiff(tmp_path / "a.tif", image)],
        targets={"all": {"model": model, "diameter_px": 30}},
        segment={"reach_px": 16},
        tiles={"overlap_px": 48, **tiles_of("2d", (1, 1), 2), "batches": {"predict": 2}},
    )
    run(chosen)
    compare(published(chosen, "a"), whole)


def test_several_images_targets_and_kinds_of_pixels(tmp_path):
    """Names with spaces, floats, 16 bits, colours, two channels with names, sizes in um."""
    float_image = scene((70, 100))[0].astype(np.float32) / 7
    grey = np.clip(scene((70, 120))[0] // 8, 0, 255).astype(np.uint8)
    colours = np.stack([grey, grey // 2, grey // 3], axis=-1)
    two = scene((80, 90), preset="cells", diameter_px=40)
    save_tiff(tmp_path / "a float (1).tif", float_image)
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    about = {"axes": "CYX", "Channel": {"Name": ["DAPI", "body"]}}
    about |= {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "two.ome.tif", two, photometric="minisblack", metadata=about)
    chosen = experiment(
        tmp_path,
        [
            {"path": str(tmp_path / "a float (1).tif")},
            {"path": str(tmp_path / "rgb.tif")},
            {"path": str(tmp_path / "two.ome.tif"), "segment": {"min_size_px": 40}},
        ],
        targets={
            "nuclei": {"model": str(TINY), "diameter_px": 24, "channels": 0},
            "bodies": {"model": str(TINY), "diameter_px": 40, "channels": "grey"},
        },
        segment={"reach_px": 20},
        tiles={**WINDOWS, "core_px": [32, 48]},
        measure={"channels": "all"},
    )
    run(chosen)
    for target, diameter, channel in (("nuclei", 24, 0), ("bodies", 40, "grey")):
        said = {"diameter_px": diameter, "reach_px": 20, "channels": channel, **WINDOWS}
        compare(published(chosen, f"a_float_1_-{target}"), segment(float_image, **said))
        compare(published(chosen, f"rgb-{target}"), segment(colours, axes="yxc", **said))
        names = {"axes": "cyx", "channel_names": ("DAPI", "body"), "spacing_um": (0.5, 0.5)}
        whole = segment(two, min_size_px=40, **names, **said)
        labels, table = published(chosen, f"two-{target}")
        compare((labels, table), whole)
        assert "mean_body" in table and len(table["label"]) > 0
        np.testing.assert_array_equal(table["area_um2"], table["area_px"] * 0.25)
        np.testing.assert_array_equal(table["y_um"], table["y_px"] * 0.5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (20, 20), (2, 3, 4), (2, 1, 40)])
@pytest.mark.parametrize("content", ["blank", "noise"])
def test_small_and_blank_images(tmp_path, shape, content):
    image = np.full(shape, 7, np.uint16)
    if content == "noise":
        image += np.random.default_rng(0).integers(0, 900, shape).astype(np.uint16)
    said = {"mode": "2d" if len(shape) == 2 else "planes"}
    whole = segment(image, axes="zyx"[-len(shape) :], **said)
    np.save(tmp_path / "a.npy", image)
    chosen = experiment(
        tmp_path,
        [{"path": str(tmp_path / "a.npy"), "axes": "zyx"[-len(shape) :]}],
        segment=said,
        tiles={"batches": {"predict": 2, "masks": 2, "paint": 2}},
    )
    run(chosen)
    compare(published(chosen, "a"), whole)
    if content == "blank":
        assert whole.n_cells == 0
