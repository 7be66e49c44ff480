"""Blocks that are blurred, blank, of other brightness or saturated are told from the others."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import rankdata

from cellseg_pipe.geometry import Box
from cellseg_pipe.qc import (
    FIGURES,
    KINDS,
    block_figures,
    robust_z,
    scores_of,
    suspects_of,
    unevenness,
)
from cellseg_pipe.synth import PRESETS, render
from cellseg_pipe.tiles import Grid

EDGE, N = 128, 8  # blocks of the tests, and of the runs: 256


@cache
def image(seed=0, edge=EDGE):
    spec = replace(PRESETS["nuclei"], shape=(N * edge, N * edge), seed=seed, diameter_px=24)
    return render(spec, Box.of(spec.shape)).image[0].astype(np.float32)


def figures_of(pixels, edge=EDGE):
    grid = Grid(pixels.shape, (edge, edge))
    boxes = [grid.box(number) for number in range(len(grid))]
    return np.stack([block_figures(pixels[box.slices][None]) for box in boxes])


def n_px(edge=EDGE):
    return np.full(N * N, edge * edge)


def column(figures, name):
    return figures[:, :, FIGURES.index(name)]


def noisy(pixels, rng):
    """Photon noise of an image whose own was smoothed away."""
    return rng.normal(pixels, np.sqrt(np.maximum(pixels, 1)))


FAULTS = {
    "blurred": ("focus", lambda block, rng: noisy(ndimage.gaussian_filter(block, 4.0), rng)),
    "smoothed": ("focus", lambda block, rng: ndimage.gaussian_filter(block, 3.0)),
    "blank": ("blank", lambda block, rng: np.full_like(block, 100)),
    "empty": ("blank", lambda block, rng: rng.normal(np.full_like(block, 100.0), 3.0)),
    "brighter": ("brightness", lambda block, rng: block * 1.8),
    "raised": ("brightness", lambda block, rng: block + 0.5 * np.ptp(block)),
    "darker": ("brightness", lambda block, rng: block * 0.4),
    "saturated": ("saturated", lambda block, rng: np.where(block > np.median(block), 65535, block)),
}


def faulty(name, seed, edge=EDGE, share=8):
    """An image of which some blocks are wrong, and which."""
    rng = np.random.default_rng(seed)
    pixels = image(seed, edge).copy()
    grid = Grid(pixels.shape, (edge, edge))
    wrong = rng.permutation(len(grid))[: len(grid) // share]
    for number in wrong:
        box = grid.box(int(number)).slices
        pixels[box] = FAULTS[name][1](pixels[box], rng)
    return pixels, np.isin(np.arange(len(grid)), wrong)


def auroc(score, positive):
    rank = rankdata(score)[positive]
    n, m = positive.sum(), (~positive).sum()
    return (rank.sum() - n * (n + 1) / 2) / (n * m)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize(("seed", "edge"), [(0, EDGE), (1, EDGE), (2, 256)])
def test_faulty_blocks_are_told_from_others(name, seed, edge):
    pixels, wrong = faulty(name, seed, edge)
    figures = figures_of(pixels, edge)
    kind = FAULTS[name][0]
    score = np.nan_to_num(scores_of(figures)[kind][:, 0], nan=-1.0, posinf=1e9)
    assert auroc(score, wrong) >= 0.95
    if name != "empty":  # which may well be: a place without cells
        found = suspects_of(figures, n_px(edge))[kind][:, 0]
        assert found[wrong].mean() >= 0.75 and found[~wrong].mean() <= 0.02


def test_what_is_usual_is_that_of_the_blocks_with_light():
    """Glass that was masked is of one value: most of the image, and no measure of the rest."""
    pixels, wrong = faulty("raised", 0)
    figures = figures_of(pixels)
    glass = np.tile(figures_of(np.zeros((EDGE, EDGE)))[0], (200, 1, 1))
    sizes = np.full(len(figures) + 200, EDGE * EDGE)
    few = suspects_of(figures, n_px())["brightness"]
    many = suspects_of(np.concatenate([figures, glass]), sizes)["brightness"]
    np.testing.assert_array_equal(many[: len(few)], few)
    assert few[wrong].all() and not many[len(few) :].any()
    slight = figures_of(image(0))
    slight[wrong, :, FIGURES.index("low")] += 20  # grey levels of thousands: far, but no matter
    alone = suspects_of(np.concatenate([slight, glass]), sizes)["brightness"]
    assert not alone.any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_is_suspicious_in_a_good_image(seed):
    found = suspects_of(figures_of(image(seed)), n_px())
    assert set(found) == set(KINDS)
    assert sum(rows.sum() for rows in found.values()) == 0


def test_noise_is_that_of_the_image():
    rng = np.random.default_rng(0)
    found = block_figures(rng.normal(50, 7, (2, 256, 256)))
    part = dict(zip(FIGURES, found.T, strict=True))
    np.testing.assert_allclose(part["noise"], 7, rtol=0.02)
    np.testing.assert_allclose(part["spread"], 7, rtol=0.02)
    assert np.isnan(part["focus"]).all()  # nothing is there that could be sharp


def test_figures_against_plain_ones():
    block = image()[:100, :130]
    (found,) = block_figures(block[None])
    part = dict(zip(FIGURES, found, strict=True))
    assert part["top"] == block.max() and part["at_top"] == (block == block.max()).sum()
    np.testing.assert_allclose(
        [part[name] for name in ("low", "median", "high")],
        np.percentile(block.astype(float), [5, 50, 99]),
    )
    np.testing.assert_allclose(part["spread"], block.astype(float).std())
    planes = np.stack([block, block])
    np.testing.assert_allclose(block_figures(planes[None])[0, :7], found[:7])


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (31, 31), (1, 5, 40)])
def test_small_blocks_have_no_focus(shape):
    (found,) = block_figures(np.arange(np.prod(shape), dtype=float).reshape(1, *shape))
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()


def test_blur_lowers_focus_step_by_step():
    found = [
        column(
            block_figures(ndimage.gaussian_filter(image(), sigma)[None, :256, :256])[None], "focus"
        )
        for sigma in (0, 1, 2, 4)
    ]
    assert (np.diff(np.ravel(found)) < 0).all()


def test_robust_z_ignores_outliers():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 2, 2000), np.full(300, 1e6), [np.nan]])[:, None]
    scored = robust_z(values)[:, 0]
    assert abs(scored[:2000].std() - 1) < 0.3 and scored[2100] > 1e4 and np.isnan(scored[-1])
    assert np.isnan(robust_z(np.full((4, 2), np.nan))).all()


def test_uneven_light_is_measured():
    y, x = np.indices((N * EDGE, N * EDGE)) / (N * EDGE) - 0.5
    flat = image()
    reach = np.ptp(np.percentile(flat, [5, 99]))
    middles = np.array([np.mean([b.start, b.stop], axis=0) for b in map(
        Grid((N * EDGE, N * EDGE), (EDGE, EDGE)).box, range(N * N))])  # fmt: skip
    even = unevenness(figures_of(flat), middles)[0]
    tilted = unevenness(figures_of(flat + reach * x), middles)[0]
    assert even < 0.1 and 0.6 < tilted < 1.2
    assert np.isnan(unevenness(figures_of(flat)[:8], middles[:8])[0])
