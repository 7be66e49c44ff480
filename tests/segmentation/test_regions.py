"""A region's cells are those of the whole image, to the bit, whatever else is left out."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.regions import region_of
from cellseg_pipe.kernels import relabel
from cellseg_pipe.nets.checkpoint import load
from cellseg_pipe.nets.engine import Engine
from cellseg_pipe.segmentation import (
    Settings,
    cells_of,
    find_cells,
    halo_px,
    ids_of,
    paint,
    segment,
)
from cellseg_pipe.segmentation.cells import to_level_0
from cellseg_pipe.segmentation.places import in_region, pixels_of
from cellseg_pipe.segmentation.plan import network_source
from cellseg_pipe.segmentation.predict import on_walked_grid, records_of
from cellseg_pipe.segmentation.scope import (
    core_needed,
    cores_needed,
    only_needed,
    windows_needed,
)
from cellseg_pipe.segmentation.tiled import BLOCK_PX, counts_of, no_cells
from cellseg_pipe.tiles import Grid, TilePlan, first_ids
from tests.segmentation.test_segment import TINY, parts_of_a_run
from tests.segmentation.test_segment import scene as synthetic
from tests.segmentation.test_tiled import SMALL_BLOCKS, Network, cut, scene


@pytest.fixture(scope="module")
def tiny():
    return Engine(load(TINY), device="cpu", precision="fp32")


@pytest.fixture(autouse=True)
def one_thread():
    """Windows are small here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_blocks(monkeypatch):
    for mode, edge in SMALL_BLOCKS.items():
        monkeypatch.setitem(BLOCK_PX, mode, edge)


def restricted(whole, plan, region):
    """Labels of a run without a region, of cells whose peak lies in one, renumbered."""
    with_region = replace(plan, region=region)
    kept = whole.rows.id[in_region(whole.rows.peak, with_region)]
    new = np.arange(1, len(kept) + 1, dtype=np.uint32)
    return relabel(whole.labels, kept, new), kept


def some_region(data, shape):
    """Masks of another resolution, and boxes."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    own = tuple(int(rng.integers(1, 9)) for _ in range(data.draw(st.integers(2, len(shape)))))
    mask = rng.integers(0, 3, own).astype(np.uint8)
    mask.flat[0] = 1
    start = [int(rng.integers(0, n - 1)) for n in shape[-2:]]
    stop = [int(rng.integers(a + 1, n + 1)) for a, n in zip(start, shape[-2:], strict=True)]
    box = {"box_px": [start, stop]}
    return data.draw(
        st.sampled_from([{"include": [mask]}, box, {"include": [box, mask]}, {"exclude": [box]}])
    )


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("mode", ["2d", "planes", "3d"])
@settings(max_examples=6)
@given(data=st.data())
def test_the_cells_of_a_region_are_those_of_the_whole(mode, data):
    shapes = {"2d": (90, 101), "planes": (3, 40, 51), "3d": (15, 40, 51)}
    resample, factor = data.draw(st.sampled_from([(True, 1.0), (False, 0.6), (False, 1.5)]))
    shape = shapes[mode]
    plan, answer = scene(
        shape,
        mode,
        seed=data.draw(st.integers(0, 3)),
        factor=factor,
        resample=resample,
        keep_border=data.draw(st.booleans()),
        reach_px=data.draw(st.integers(3, 6)),
    )
    said = some_region(data, shape)
    if said.keys() == {"exclude"} and said["exclude"][0]["box_px"] == [[0, 0], list(shape[-2:])]:
        return
    region = region_of(said, shape=shape)
    whole = cells_of(answer, plan)
    expected, kept = restricted(whole, plan, region)
    confined = replace(plan, region=region)
    found = cells_of(answer, confined)
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_array_equal(found.rows.logit, whole.rows.logit[kept - 1])
    if mode != "planes":
        blocks = [data.draw(st.integers(1, 3)) for _ in shape]
        np.testing.assert_array_equal(in_tiles(answer, confined, blocks), expected)


def in_tiles(answer, plan, blocks):
    """Labels by way of tiles of which only what is needed is looked at."""
    core = tuple(b * edge for b, edge in zip(blocks, BLOCK_PX[plan.mode], strict=True))
    tiles = TilePlan(plan.walk_shape, BLOCK_PX[plan.mode], core, halo_px(plan))
    found = []
    likely = cores_needed(plan, tiles.cores)
    for number in range(len(tiles)):
        whole_core = tiles.tile(number).core
        needed = core_needed(plan, whole_core)
        if needed is None:
            found.append(no_cells(plan, whole_core))
            continue
        assert likely[number] and whole_core.contains(needed)
        window = needed.grow(tiles.halo).clip(Box.of(plan.walk_shape))
        found.append(find_cells(cut(answer, window), plan, window=window, core=needed))
    counts = np.zeros(len(Grid(plan.walk_shape, BLOCK_PX[plan.mode])), np.int64)
    for part in found:
        block, count = counts_of(part, plan)
        counts[block] += count
    first = first_ids(counts)
    named = [(part, ids_of(part, first, plan)) for part in found]
    walked = np.zeros(plan.walk_shape, np.uint32)
    for number in range(len(tiles)):
        box = tiles.tile(number).core
        walked[box.slices] = paint(box, named)
    return to_level_0(walked, plan, box=Box.of(plan.shape), start=(0,) * len(plan.shape))


class Uphill:
    """Stands for a network: cells are bright blobs, and all flows lead uphill."""

    device, n_outputs, diameter_px = "cpu", 3, 20.0
    architecture = Network

    def __call__(self, x):
        blurred = torch.nn.functional.avg_pool2d(x[:, 0], 5, stride=1, padding=2)
        flow = torch.stack(torch.gradient(blurred, dim=(1, 2)), dim=1)
        flow = 5 * flow / (flow.norm(dim=1, keepdim=True) + 1e-3)
        return torch.cat([flow, 9 * (blurred[:, None] - 0.5)], dim=1), torch.ones(len(x), 4)


CASES = {
    "2d": ((260, 300), 20, {}),
    "2d, on a coarser grid": ((420, 500), 34, {"resample": False}),
    "2d, on a finer grid": ((230, 260), 14, {"resample": False}),
    "2d, brought back": ((420, 400), 34, {}),
    "3d": ((6, 30, 200), 16, {"mode": "3d", "reach_px": 6, "flow_smooth_px": 0.5}),
}


@pytest.mark.parametrize("case", CASES)
def test_windows_that_are_left_out_do_not_matter(case):
    shape, diameter, said = CASES[case]
    noise = np.random.default_rng(0).random(shape)
    image = ndimage.gaussian_filter(noise, diameter / 4).astype(np.float32)[None]
    net = Uphill()
    given = Settings(window_px=64, overlap_px=16, **{"reach_px": 10, "flow_threshold": None} | said)
    plan, _ = parts_of_a_run(net, image, given, float(diameter))
    source = parts_source(image)
    make = network_source(source, plan)
    box = Box.of(plan.walk_shape)
    whole = cells_of(on_walked_grid(records_of((net,), make, plan), plan, box), plan)
    found_some = 0
    for start in ([0, 0], [shape[-2] // 2, shape[-1] // 3])[len(shape) - 2 :]:
        said_box = {"box_px": [start, [start[0] + 70, start[1] + 70]]}
        confined = replace(plan, region=region_of(said_box, shape=shape))
        asked = []

        def counted(box, make=make, asked=asked):
            asked.append(box)
            return make(box)

        records = records_of((net,), only_needed(counted, confined), confined)
        found = cells_of(on_walked_grid(records, confined, box), confined)
        expected, kept = restricted(whole, plan, confined.region)
        np.testing.assert_array_equal(found.labels, expected)
        found_some += len(kept)
        needed = [windows_needed(confined, view) for view in plan.views]
        assert len(asked) == sum(int(part.sum()) for part in needed)
        assert len(asked) < sum(part.size for part in needed)
    assert found_some >= 2


def parts_source(image):
    from cellseg_pipe.segmentation import ImageSource

    return ImageSource(image.shape[1:], len(image), lambda box: image[(slice(None), *box.slices)])


def test_a_sixteenth_of_a_slide_needs_about_that_share_of_windows(tiny):
    shape = (32_768, 32_768)
    image = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint16), (1, *shape), (0, 0, 0))
    given = Settings(window_px=512, overlap_px=48, value_range=(0.0, 1.0))
    plan, _ = parts_of_a_run(tiny, image, given, 20.0)
    region = region_of({"box_px": [[8192, 8192], [16_384, 16_384]]}, shape=shape)
    confined = replace(plan, region=region)
    needed = windows_needed(confined, plan.views[0])
    assert 1 / 16 < needed.mean() < 1.25 / 16
    cores = Grid(plan.walk_shape, BLOCK_PX["2d"])
    assert (
        cores_needed(confined, cores).sum() == 36
    )  # 16, and those around with the cells next to it
    assert np.count_nonzero([core_needed(confined, cores.box(n)) for n in range(len(cores))]) == 36


@given(data=st.data())
def test_a_peak_lies_in_the_pixel_that_holds_its_middle(data):
    class Grids:
        walks_level_0 = False

    plan = Grids()
    n = data.draw(st.integers(1, 400))
    part = Fraction(data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40)))
    plan.shape = (n,)
    plan.scale = type("S", (), {"num": (part.numerator,), "den": (part.denominator,)})
    peak = data.draw(st.integers(0, max(1, n * part.numerator // part.denominator) - 1))
    middle = (Fraction(peak) + Fraction(1, 2)) / part
    assert pixels_of(np.array([[peak]]), plan)[0, 0] == min(middle.__floor__(), n - 1)


def test_segment_takes_a_mask_a_file_or_a_box(tiny, tmp_path):
    image, _ = synthetic(diameter_px=24)
    whole = segment(image[0], model=tiny, diameter_px=24)
    mask = np.zeros((30, 34), np.uint8)
    mask[5:12, 5:20] = 7
    file = tmp_path / "mask.npy"
    np.save(file, mask)
    ring = [[50, 50], [200, 50], [200, 120], [50, 120], [50, 50]]  # x, y
    text = f'{{"type": "Polygon", "coordinates": [{ring}]}}'
    (tmp_path / "outline.geojson").write_text(text)
    by_mask = segment(image[0], model=tiny, diameter_px=24, region=mask)
    others = [
        segment(image[0], model=tiny, diameter_px=24, region=said)
        for said in ({"box_px": [[50, 50], [120, 200]]}, str(file), tmp_path / "outline.geojson")
    ]
    assert 3 < by_mask.n_cells < whole.n_cells / 3
    for found in others:
        np.testing.assert_array_equal(found.labels, by_mask.labels)
    assert set(by_mask.table["region"]) == {"7"} and set(others[0].table["region"]) == {"1"}
    assert "region" not in whole.table
    ids = np.unique(whole.labels[by_mask.labels > 0])
    for name, column in whole.table.items():
        if name != "label":
            np.testing.assert_array_equal(by_mask.table[name], column[ids - 1], err_msg=name)


def test_a_region_of_another_image_is_refused(tiny):
    with pytest.raises(ValueError, match=r"needs to lie in the image of shape \(40, 50\)"):
        segment(
            np.ones((40, 50)), model=tiny, diameter_px=9, region={"box_px": [[40, 0], [60, 20]]}
        )
