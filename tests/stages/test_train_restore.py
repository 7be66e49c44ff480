"""Training a network that restores, as a user runs it: going on, and what is left behind."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml

import cellseg_pipe as cs
from cellseg_pipe.config import ConfigError
from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.checkpoint import load
from cellseg_pipe.stages.train import check, read_plan, run
from cellseg_pipe.synth import PRESETS, render
from cellseg_pipe.training.worse import WorseSampler

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for seed in range(4):
        spec = replace(PRESETS["nuclei"], shape=(96, 96), seed=seed, diameter_px=14.0)
        piece = render(spec, Box.of(spec.shape))
        tifffile.imwrite(folder / f"n{seed}_img.tif", piece.image[0])
        tifffile.imwrite(folder / f"n{seed}_masks.tif", piece.labels.astype(np.uint16))
    return tmp_path


def config(path, **changes):
    said = {
        "output": "run",
        "data": {"root": "data", "cache": "cache"},
        "network": {"name": "clear", "widths": [4, 8], "licence": "CC0-1.0"},
        "augmentation": {"crop_px": 48, "margin_px": 8},
        "recipe": {"steps": 4, "batch": 2, "checkpoint_every": 2, "evaluate_every": 2},
        "restore": {"kind": "one-click", "segmenter": str(TINY), "photons": [4.0]},
        "test": False,
    }
    for key, value in changes.items():
        said[key] = {**said.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(said, sort_keys=False))
    return path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def weights(path):
    return {key: value.numpy() for key, value in load(path).net.state_dict().items()}


def test_a_run_that_was_stopped_ends_with_the_same_weights(work, monkeypatch):
    plan = read_plan(config(work / "train.yaml"))
    once = run(replace(plan, output=str(work / "once")), device="cpu", threads=1)
    drawn = WorseSampler.crop

    def stopping(self, step, place):
        if step == 3:
            raise KeyboardInterrupt
        return drawn(self, step, place)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(WorseSampler, "crop", stopping)
        run(plan, device="cpu", threads=1)
    again = run(plan, device="cpu", threads=1)
    found, wanted = (weights(path.parent / "last.safetensors") for path in (again, once))
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    a, b = (torch.load(path.parent / "last.pt", weights_only=True)["net"] for path in (again, once))
    assert all(torch.equal(a[key], b[key]) for key in a)
    other = replace(plan, restore=replace(plan.restore, kind="denoise"))
    with pytest.raises(ValueError, match=r"restore\.kind"):
        run(other, device="cpu", threads=1)


def test_what_a_run_leaves_behind(work):
    best = run(read_plan(config(work / "train.yaml")), device="cpu", threads=1)
    model, segmenter = load(best), load(TINY)
    info = model.info
    assert (info.task, info.target, info.restores) == ("restoration", "image", "one-click")
    assert info.segmenter_sha256 == segmenter.sha256 and info.licence == "CC0-1.0"
    assert info.diameter_px == segmenter.info.diameter_px and info.channels == ("main",)
    log = rows(best.parent / "log.csv")
    assert [int(row["step"]) for row in log] == [2, 4]
    assert all(float(row["perceptual"]) > 0 for row in log)
    assert all(float(row["reconstruction"]) > 0 for row in log)
    found = rows(best.parent / "evaluation.csv")
    assert {row["set"] for row in found} == {"images, 4 photons", "images, worse by one-click"}
    assert all(np.isfinite(float(row["psnr_db"])) for row in found)
    card = (best.parent / "clear.md").read_text()
    for said in ("CC0-1.0", "one-click", "restores", "4 photons", "segmenter"):
        assert said in card, said
    image = tifffile.imread(work / "data" / "n0_img.tif")
    restored = cs.restore(image, model=best, device="cpu", precision="fp32")
    assert restored.pixels.shape == image.shape and np.isfinite(restored.pixels).all()


def test_check_tells_what_would_be_restored(work):
    said = check(read_plan(config(work / "train.yaml")))
    assert "restores: one-click, for " in said and "1.5" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"restore": {"kind": "sharpen"}}, r"restore\.kind needs one of"),
        ({"restore": {"perceptual": -1.0}}, r"restore\.perceptual"),
        ({"restore": {"colour": 1}}, r"restore\.colour"),
        ({"size": True}, "no size, target, classes or channels"),
        ({"restore": {"photons": []}}, "needs photons"),
    ],
)
def test_wrong_files_are_refused(work, changes, said):
    with pytest.raises(ConfigError, match=said):
        read_plan(config(work / "train.yaml", **changes))


def test_models_that_do_not_fit_are_refused(work):
    peer = Path(TINY).parents[1] / "checkpoints" / "restoration"
    for changes, said in (
        ({"restore": {"segmenter": str(peer)}}, r"restore\.segmenter needs a 2D model of flows"),
        ({"network": {"start": str(TINY), "widths": None}}, r"network\.start needs a network that"),
        ({"network": {"diameter_px": 44.0}}, "needs that of the segmenter"),
        ({"augmentation": {"p_invert": 0.4}}, r"augmentation\.p_invert: without effect"),
        ({"reading": {"percentiles": [2.0, 98.0]}}, r"reading\.percentiles: without effect"),
    ):
        plan = read_plan(config(work / "train.yaml", **changes))
        with pytest.raises(ValueError, match=said):
            check(plan)
