"""Images made worse: their mean stays the light, nothing is shifted, laws are as told."""

import numpy as np
import pytest
from scipy import ndimage

from cellseg_pipe.training.degrade import (
    CLEAR,
    LAWS,
    Law,
    blurred,
    coarse,
    degraded,
    enlarged,
    with_photons,
)


def light_of(edge=64, seed=0, sigma=4.0):
    noise = np.random.default_rng(seed).random((edge, edge))
    smooth = ndimage.gaussian_filter(noise, sigma)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def test_photons_are_counted():
    light = light_of()
    rng = np.random.default_rng(1)
    draws = np.stack([with_photons(light, 5.0, rng) for _ in range(400)])
    np.testing.assert_allclose(draws * 5, np.rint(draws * 5), atol=1e-5)
    assert abs(draws.mean() - light.mean()) < 0.002
    np.testing.assert_allclose(draws.mean(0), light, atol=0.12)
    np.testing.assert_allclose(draws.var(0).mean(), light.mean() / 5, rtol=0.03)
    assert draws.dtype == np.float32 and (with_photons(-light, 5.0, rng) == 0).all()


@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (5, 1), (1, 1), (7, 7)])
@pytest.mark.parametrize("edge", [63, 70])
def test_large_pixels_have_the_mean_light_and_shift_nothing(factors, edge):
    light = light_of(edge)
    seen = coarse(light, factors)
    assert seen.shape == tuple(-(-edge // f) for f in factors)
    rows, columns = factors
    assert seen[0, 0] == pytest.approx(light[:rows, :columns].mean(), rel=1e-5)
    back = enlarged(seen, factors, light.shape)
    assert back.shape == light.shape and back.dtype == np.float32
    ramp = np.add.outer(np.arange(edge), 2 * np.arange(edge)).astype(np.float32)
    again = enlarged(coarse(ramp, factors), factors, ramp.shape)
    inner = slice(8, edge - 14)
    np.testing.assert_allclose(again[inner, inner], ramp[inner, inner], rtol=1e-5)


@pytest.mark.parametrize("kind", LAWS)
def test_a_kind_is_a_function_of_its_chances(kind):
    light = light_of()
    for law in LAWS[kind]:
        one, two, *others = (
            degraded(light, law, np.random.default_rng(seed), diameter_px=20.0)
            for seed in (3, 3, *range(4, 9))
        )
        np.testing.assert_array_equal(one, two)
        assert one.shape == light.shape and one.dtype == np.float32 and one.min() >= 0
        assert any((one != other).any() for other in others) == (law != CLEAR)


def test_how_often_follows_the_law():
    light = light_of(24)
    law = Law(0.8, 0.0, 0.0, 0.7)
    rng = np.random.default_rng(0)
    noisy = [(degraded(light, law, rng, diameter_px=20.0) != light).any() for _ in range(500)]
    assert 0.75 < np.mean(noisy) < 0.85
    np.testing.assert_array_equal(degraded(light, CLEAR, rng, diameter_px=20.0), light)
    kinds = LAWS["denoise"] + LAWS["deblur"] + LAWS["upsample"]
    assert set(LAWS["one-click"]) == {*kinds, CLEAR}
    assert [law.photons_rate for law in kinds] == [0.7, 0.1, 0.03]


def test_one_axis_is_made_coarse():
    light = light_of(sigma=1.0)
    law = Law(0.0, 0.0, 1.0, 1.0, 10.0, one_axis=True)
    worse = np.mean(
        [degraded(light, law, np.random.default_rng(s), diameter_px=30.0) for s in range(20)], 0
    )
    rough = [np.abs(np.diff(worse, axis=axis)).mean() for axis in (0, 1)]
    assert rough[0] < 0.8 * rough[1]


def test_blur_is_larger_for_larger_cells():
    light = light_of()
    sharp = [
        np.mean(
            [
                degraded(light, Law(0, 1, 0, 1, 10.0), np.random.default_rng(s), diameter_px=d)
                .std() for s in range(10)
            ]
        )
        for d in (5.0, 20.0, 60.0)
    ]  # fmt: skip
    assert sharp[0] > sharp[1] > sharp[2]
    np.testing.assert_allclose(blurred(light, (3, 3)).mean(), light.mean(), rtol=1e-3)
