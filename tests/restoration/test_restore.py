"""Restoring an image in memory: what the peer restores, axes, types, what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cellseg_pipe as cs
from cellseg_pipe.nets.checkpoint import load
from cellseg_pipe.nets.engine import Engine
from cellseg_pipe.nets.restore import restorer_for
from cellseg_pipe.restoration import whole
from cellseg_pipe.synth import PRESETS, clear_light

GOLDEN = Path(__file__).parents[1] / "golden"
NET = GOLDEN / "checkpoints" / "restoration"
FAST = {"device": "cpu", "precision": "fp32"}
# name: diameter, that of the network, largest and mean difference allowed; answers span about 0.2.
# A window is equal but for float16. Where several meet, tapers and windows differ, and with them
# the style of each; and the peer takes percentiles after it has enlarged an image.
PEER = {
    "same_scale": (30.0, 30.0, 1e-3, 1e-4),
    "larger": (21.0, 30.0, 1e-3, 1e-4),
    "smaller": (60.0, 30.0, 1e-3, 1e-4),
    "nuclei": (34.0, 17.0, 1e-3, 1e-4),
    "several_tiles": (30.0, 30.0, 0.05, 0.005),
    "upsampled": (12.0, 30.0, 0.05, 0.005),
}


def model_of(diameter_px=30.0, kind="denoise"):
    model = load(NET)
    return replace(model, info=replace(model.info, diameter_px=diameter_px, restores=kind))


def noisy(shape, seed=0):
    return np.random.default_rng(seed).poisson(20.0, shape).astype(np.uint16)


@pytest.mark.parametrize("name", PEER)
def test_the_peer_restores_the_same(name):
    diameter, known, most, mean = PEER[name]
    golden = np.load(GOLDEN / "restore.npz")
    image, wanted = golden[f"{name}_image"], golden[f"{name}_restored"].astype(np.float32)
    kind = "upsample" if name == "upsampled" else "denoise"
    found = cs.restore(image, model=model_of(known, kind), diameter_px=diameter, **FAST)
    assert found.pixels.shape == wanted.shape and found.pixels.dtype == np.float32
    (span,) = found.plan.ranges
    ours = (found.pixels - span.low) / (span.high - span.low)
    error = np.abs(ours - wanted)
    assert error.max() < most and error.mean() < mean, (error.max(), error.mean())
    assert np.ptp(wanted) > 0.08 and np.corrcoef(ours.ravel(), wanted.ravel())[0, 1] > 0.95


def test_kinds_and_diameters_of_the_peer_are_in_the_names(tmp_path):
    for name, kind, diameter in (
        ("denoise_nuclei", "denoise", 17.0),
        ("oneclick_cyto3", "one-click", 30.0),
        ("upsample_per_nuclei", "upsample", 17.0),
        ("aniso_cyto2", "aniso", 30.0),
        ("mine", "", 30.0),
    ):
        (tmp_path / name).write_bytes(NET.read_bytes())
        info = load(tmp_path / name).info
        assert (info.restores, info.diameter_px, info.target) == (kind, diameter, "image")
    assert load(GOLDEN / "checkpoints" / "segmentation").info.restores == ""


@pytest.mark.parametrize(
    ("shape", "axes", "given"),
    [
        ((40, 50), None, {}),
        ((2, 40, 50), "cyx", {}),
        ((40, 50, 3), None, {}),
        ((3, 40, 50), "zyx", {"spacing_um": (2.0, 0.5, 0.5)}),
        ((2, 3, 40, 50), "tcyx", {"spacing_um": (0.5, 0.5)}),
    ],
)
def test_a_result_has_the_axes_and_the_type_of_its_image(shape, axes, given):
    image = noisy(shape)
    found = cs.restore(image, axes=axes, method="median", dtype="input", **given)
    order = (1, 0, 2, 3) if axes == "tcyx" else range(len(shape))
    assert found.pixels.shape == tuple(shape[axis] for axis in order)
    assert found.pixels.dtype == np.uint16 and found.spacing_um == given.get("spacing_um")
    assert (found.model, found.numerics) == ("", "")
    if axes == "tcyx":
        alone = cs.restore(image[1, 2], method="median").pixels
        np.testing.assert_array_equal(found.pixels[2, 1], alone)


def test_channels_that_stay_keep_all_their_bits():
    """Also whole numbers that float32 does not hold."""
    image = np.random.default_rng(0).integers(2**30, 2**32, (3, 20, 20), dtype=np.uint32)
    found = cs.restore(image, axes="cyx", method="median", channels=[1], dtype="input").pixels
    np.testing.assert_array_equal(found[[0, 2]], image[[0, 2]])
    assert (found[1] != image[1]).any()


def test_the_shipped_model_takes_noise_and_keeps_light():
    """By default; nearer to the light than a filter is, and it is the model of the page."""
    spec = replace(PRESETS["nuclei"], shape=(256, 256), seed=5)
    light = clear_light(spec)[0]
    few = np.random.default_rng(0).poisson(light.clip(0) * 4).astype(np.float32) / 4
    found = cs.restore(few, diameter_px=spec.diameter_px, device="cpu")
    smooth = cs.restore(few, method="gaussian").pixels

    def error(pixels):
        return np.sqrt(np.mean((pixels - light) ** 2))

    assert error(found.pixels) < 0.9 * error(smooth) < error(few)
    assert abs(found.pixels.mean() / light.mean() - 1) < 0.05
    (dark, bright), (low, high) = (np.percentile(x, (1, 99)) for x in (light, found.pixels))
    assert abs(high / bright - 1) < 0.05 and abs(low - dark) < 0.05 * (bright - dark)
    page = Path(__file__).parents[2] / "docs" / "restoration.md"
    assert f"`one-click` ({found.model_sha256[:12]})" in page.read_text()


def test_the_shipped_model_leaves_clear_light_alone(caplog):
    light = clear_light(replace(PRESETS["nuclei"], shape=(128, 128), seed=5))[0]
    image = (4000 * light).astype(np.uint16)
    ticks = []
    found = cs.restore(
        image, diameter_px=18, dtype="input", device="cpu", progress=lambda *at: ticks.append(at)
    )
    assert found.plan.clear == (0,) and found.plan.channels == () and ticks == []
    np.testing.assert_array_equal(found.pixels, image)
    assert "clear_below 0 restores them" in caplog.text
    anyway = cs.restore(image, diameter_px=18, dtype="input", device="cpu", clear_below=0)
    assert anyway.plan.channels == (0,) and (anyway.pixels != image).any()


def test_grey_values_are_finer_than_bf16():
    """An image has more than eight bits, whatever the maps of the network have."""
    image = np.random.default_rng(1).gamma(3.0, 0.3, (64, 64)).astype(np.float32)
    net = restorer_for("one-click", device="cpu", precision="bf16")
    with torch.inference_mode():
        y, _ = net(torch.from_numpy(image)[None, None])
        exact, _ = restorer_for("one-click", device="cpu", precision="fp32")(
            torch.from_numpy(image)[None, None]
        )
    assert "bf16" in net.numerics and (y.bfloat16().float() != y).float().mean() > 0.9
    assert float((y - exact).abs().max()) < 0.05


def test_an_anisotropy_that_nothing_looks_at_is_refused():
    with pytest.raises(ValueError, match="anisotropy is for models that fill in planes"):
        cs.restore(noisy((4, 30, 40)), axes="zyx", anisotropy=4.0, device="cpu")


def test_a_channel_without_contrast_stays_below_its_offset_too():
    dark = np.full((64, 64), 90, np.uint16)
    dark[::2], dark[5, 5:9] = 95, 1000
    bright = np.random.default_rng(0).integers(100, 900, (64, 64)).astype(np.uint16)
    found = cs.restore(
        np.stack([dark, bright]), axes="cyx", offset=np.uint16(100), dtype="input", diameter_px=18
    )
    np.testing.assert_array_equal(found.pixels[0], dark)
    assert (found.pixels[1] != bright).any()


def test_upsampling_tells_the_new_size_of_a_pixel():
    image = noisy((2, 30, 40))
    model = model_of(kind="upsample")
    told = []
    found = cs.restore(
        image,
        model=model,
        axes="zyx",
        diameter_px=10,
        spacing_um=(3.0, 0.6, 0.6),
        progress=lambda done, total: told.append((done, total)),
        **FAST,
    )
    assert found.pixels.shape == (2, 90, 120)
    assert found.spacing_um == pytest.approx((3.0, 0.2, 0.2))
    assert found.pixel_factor == pytest.approx((1, 1 / 3, 1 / 3))
    assert told == [(1, 2), (2, 2)]
    assert (found.model, found.model_sha256) == ("restoration", model.sha256)
    plane = cs.restore(image[1], model=model, diameter_px=10, **FAST)
    low, high = (plan.ranges[0] for plan in (found.plan, plane.plan))
    assert low != high  # those of the volume are of the volume
    assert found.numerics.startswith("cpu fp32")


def test_aniso_models_fill_in_planes():
    image = noisy((5, 40, 44))
    model = model_of(kind="aniso")
    found = cs.restore(image, model=model, axes="zyx", spacing_um=(2.0, 0.5, 0.5), **FAST)
    assert found.pixels.shape == (20, 40, 44) and found.spacing_um == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="how coarse"):
        cs.restore(image, model=model, axes="zyx", **FAST)
    with pytest.raises(ValueError, match="Times are no such axis"):
        cs.restore(image, model=model, axes="tyx", anisotropy=2.0, **FAST)


def test_a_loaded_network_is_used_as_it_is():
    engine = Engine(model_of(), device="cpu", precision="fp32")
    assert restorer_for(engine) is engine
    image = noisy((50, 60))
    one, other = (cs.restore(image, model=m, **FAST).pixels for m in (engine, NET))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"model": GOLDEN / "checkpoints" / "segmentation"}, ValueError, "from one channel to one"),
        ({"model": "no-such-model"}, FileNotFoundError, "no-such-model"),
        ({"model": NET, "dtype": "uint8"}, ValueError, "float32 or input"),
        ({"model": NET, "spacing_um": (1.0,)}, ValueError, "for each of 2 axes"),
        ({"model": NET, "channels": ["DAPI"]}, ValueError, "no channel 'DAPI'"),
    ],
)
def test_what_cannot_be_restored_is_refused(given, error, said):
    with pytest.raises(error, match=said):
        cs.restore(noisy((20, 20)), **given)


def test_pixels_that_are_no_numbers_are_refused():
    image = noisy((20, 20)).astype(np.float32)
    image[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"channel 0 at \(3, 4\)"):
        cs.restore(image, method="gaussian")


def test_an_image_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(whole, "available_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match="a part of the image"):
        cs.restore(noisy((20, 20)), method="gaussian")


def test_stains_of_a_restored_array_need_to_know_white():
    from tests.pipeline.worker import TINY

    image = np.random.default_rng(0).integers(90, 250, (40, 50, 3)).astype(np.uint8)
    restored = cs.restore(image, method="median").pixels
    said = {"model": TINY, "channels": "hematoxylin", "diameter_px": 24, "device": "cpu"}
    with pytest.raises(ValueError, match="Divide them by the value of white: 255"):
        cs.segment(restored, **said)
    found = cs.segment(restored / 255, **said)
    whole = cs.segment(cs.restore(image, method="median", dtype="input").pixels, **said)
    # A median of whole numbers is one.
    np.testing.assert_array_equal(found.labels, whole.labels)
    assert found.plan.ranges[0].high == pytest.approx(whole.plan.ranges[0].high, abs=1e-5)
