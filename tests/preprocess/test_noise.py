"""How noisy light is: known noise comes back, light without noise has none."""

import numpy as np
import pytest
from scipy import ndimage

from cellseg_pipe.geometry import Box
from cellseg_pipe.preprocess import noise_of, sample_boxes
from cellseg_pipe.synth import PRESETS, clear_light

GREY = np.add.outer(3.0 * np.arange(200), -2.0 * np.arange(240)).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.5, 7.0])
def test_noise_of_a_known_width_comes_back(sigma):
    """On slopes, and however the image is cut; the noisiest blocks have more than the mean."""
    noise = np.random.default_rng(0).normal(0, sigma, (2, *GREY.shape)) * [[[1.0]], [[3.0]]]
    image = (GREY + noise).astype(np.float32)
    whole = noise_of([image])
    np.testing.assert_allclose(whole, [sigma, 3 * sigma], rtol=0.25)
    assert (whole > [sigma, 3 * sigma]).all()
    parts = noise_of([image[(slice(None), *box.slices)] for box in sample_boxes(GREY.shape)])
    np.testing.assert_allclose(parts, whole, rtol=0.1)


def test_the_noisiest_places_count():
    """Photons of a few bright cells, not the dark that is most of an image."""
    light = np.full((256, 256), 0.01)
    light[100:164, 100:164] = 100.0
    image = np.random.default_rng(0).poisson(light).astype(np.float32)
    edges = noise_of([light.astype(np.float32)[None]])
    assert noise_of([image[None]])[0] == pytest.approx(10.0, rel=0.25) and edges[0] < 2


@pytest.mark.parametrize("preset", ["nuclei", "cells"])
def test_light_itself_has_none(preset):
    light = clear_light(PRESETS[preset])[0][None].astype(np.float32)
    spread = np.subtract(*np.percentile(light, (99, 1)))
    assert noise_of([light])[0] < 0.05 * spread
    few = np.random.default_rng(0).poisson(light.clip(0) * 16).astype(np.float32) / 16
    assert noise_of([few])[0] > 0.1 * spread


def test_noise_that_neighbours_share_is_seen():
    """Of an image that was enlarged; and where most of a canvas was never acquired."""
    light = clear_light(PRESETS["nuclei"])[0][:256, :256].clip(0)
    few = np.random.default_rng(0).poisson(light * 2).astype(np.float32) / 2
    large = ndimage.zoom(few, 2, order=1)
    assert noise_of([large[None]])[0] > 0.4 * noise_of([few[None]])[0]
    canvas = np.zeros((1, 2048, 2048), np.float32)
    canvas[0, :256, :256] = few
    assert noise_of([canvas])[0] == pytest.approx(noise_of([few[None]])[0], rel=0.1)
    assert noise_of([canvas * 0]) == [0.0]


def test_what_is_too_small_tells_nothing():
    assert np.isnan(noise_of([np.zeros((1, 4, 50), np.float32)])).all()
    assert noise_of([np.zeros((1, 4, 50), np.float32), np.ones((1, 5, 5), np.float32)]) == [0.0]
    assert noise_of([GREY[None][(slice(None), *Box((0, 0), (5, 200)).slices)]]) < 1e-4
