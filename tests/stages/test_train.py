"""Training as a user runs it: configurations, data of all kinds, going on, what is left behind."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml

from cellseg_pipe.cli._train import add_train
from cellseg_pipe.config import ConfigError
from cellseg_pipe.geometry import Box
from cellseg_pipe.nets.checkpoint import load
from cellseg_pipe.stages.train import check, read_plan, run
from cellseg_pipe.synth import PRESETS, render

TINY = Path(__file__).parents[1] / "golden" / "models" / "tiny.safetensors"
PEER = Path(__file__).parents[1] / "golden" / "checkpoints" / "segmentation"
SMALL = {"crop_px": 48, "margin_px": 8}


def scene(seed, *, preset="nuclei", edge=96, **changes):
    spec = replace(PRESETS[preset], **{"shape": (edge, edge), "seed": seed, **changes})
    piece = render(spec, Box.of(spec.shape))
    return piece.image, piece.labels


def write_pairs(folder, n, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(n):
        image, labels = scene(seed, diameter_px=14.0, **changes)
        tifffile.imwrite(folder / f"n{seed}_img.tif", image[0])
        tifffile.imwrite(folder / f"n{seed}_masks.tif", labels.astype(np.uint16))
    return folder


def config(path, **changes):
    said = {
        "output": "run",
        "data": {"root": "data", "cache": "cache"},
        "network": {"name": "small", "widths": [4, 8], "channels": ["main"]},
        "augmentation": SMALL,
        "recipe": {"steps": 4, "batch": 2, "checkpoint_every": 2, "evaluate_every": 2},
    }
    for key, value in changes.items():
        said[key] = {**said.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(said, sort_keys=False))
    return path


@pytest.fixture
def work(tmp_path):
    write_pairs(tmp_path / "data", 4)
    return tmp_path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def weights(path):
    return {key: value.numpy() for key, value in load(path).net.state_dict().items()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": {"step": 3}}, r"train\.yaml:\d+: recipe\.step is no known key.*steps"),
        ({"recipe": {"batch": "8"}}, r"recipe\.batch needs a whole number.*got '8'"),
        ({"recipe": {"precision": "fp16"}}, r"recipe\.precision needs one of fp32, bf16"),
        ({"augmentation": {"rotate": 1}}, r"augmentation\.rotate needs true or false, got 1"),
        ({"augmentation": {"p_blur": 2.0}}, r"augmentation\.p_blur needs a number.*at most 1"),
        ({"networks": {}}, r"networks is no known key. Did you mean network\?"),
        ({"network": {"start": "tiny"}}, r"network needs either start or widths, got both"),
        (
            {"network": {"classes": ["a", "b"], "class_weights": [1.0]}},
            r"class_weights entry for each of 2 classes, got 1",
        ),
        (
            {"network": {"classes": ["a"], "target": "three-classes"}},
            "either target: three-classes or classes",
        ),
        ({"output": "${NO_SUCH_VARIABLE}/x"}, "NO_SUCH_VARIABLE"),
    ],
)
def test_a_wrong_configuration_is_told_with_its_line(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        read_plan(config(tmp_path / "train.yaml", **changes))


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("output: x\nrecipe: {steps: 0}\n")
    with pytest.raises(ConfigError) as caught:
        read_plan(path)
    text = str(caught.value)
    for part in ("data is missing", "network is missing", "recipe.steps needs", ":2: "):
        assert part in text
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="needs keys with values"):
        read_plan(path)


@pytest.mark.parametrize("path", sorted(Path("config").glob("examples/train-*.yaml")))
def test_examples_can_be_read(path):
    plan = read_plan(path)
    assert plan.recipe.steps > 100 and Path(plan.output).is_absolute()


def test_a_check_lists_what_is_used_and_what_is_left_out(work, capsys):
    blank = np.zeros((96, 96), np.uint16)
    tifffile.imwrite(work / "data" / "empty_img.tif", blank)
    tifffile.imwrite(work / "data" / "empty_masks.tif", blank)
    path = config(work / "train.yaml", reading={"min_objects": 1})
    text = check(read_plan(path))
    assert "network small: fresh, widths 4,8" in text
    assert "empty_img.tif: 0 objects, min_objects is 1" in text
    assert "test: no images" in text and "4 steps of 2 crops, rate 0.002" in text
    assert not (work / "run").exists()
    import argparse

    parser = argparse.ArgumentParser()
    add_train(parser.add_subparsers(), argparse.ArgumentParser(add_help=False))
    options = parser.parse_args(["train", str(path), "--check"])
    assert options.command(options) == 0
    assert capsys.readouterr().out == text + "\n"


def test_none_left_is_an_error(work):
    path = config(work / "train.yaml", reading={"min_objects": 10_000})
    with pytest.raises(ValueError, match=r"10000 objects or more, and none of \d has them"):
        check(read_plan(path))


def test_a_set_to_draw_that_is_not_there_is_an_error(work):
    path = config(work / "train.yaml", data={"draw": {"nucleii": 2}})
    with pytest.raises(ValueError, match=r"sets to train on \(.*\), got 'nucleii'"):
        check(read_plan(path))


def test_a_run_leaves_all_that_is_promised(work):
    listed = [f"n{n}_img.tif,n{n}_masks.tif,nuclei," for n in range(4)]
    splits = ("train", "train", "tune", "test")
    lines = [line + split for line, split in zip(listed, splits, strict=True)]
    (work / "list.csv").write_text("\n".join(["image,labels,set,split", *lines]) + "\n")
    path = config(
        work / "train.yaml",
        data={"manifest": "list.csv", "licences": {"nuclei": "CC0"}},
        size=True,
    )
    best = run(read_plan(path), device="cpu", threads=1)
    folder = work / "run"
    assert best == folder / "best.safetensors"
    model = load(best)
    assert model.info.name == "small" and model.info.diameter_px == 18.0
    assert model.size is not None and len(model.size.weights) == 8
    assert [row["step"] for row in rows(folder / "log.csv")] == ["2", "4"]
    scores = rows(folder / "evaluation.csv")
    assert [row["step"] for row in scores] == ["2", "4"]
    assert {row["set"] for row in scores} == {"nuclei"}
    for seen in ("true", "measured"):
        assert len(rows(folder / f"test_{seen}_diameter.csv")) == 1
    for picture in ("curves.png", "pictures/nuclei_worst.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    text = (folder / "small.md").read_text()
    for part in (
        "# small",
        "| nuclei | 2 |",
        "| CC0 |",
        "test images, true diameter",
        "* steps: 4",
    ):
        assert part in text


def test_going_on_gives_the_same_weights_and_whole_logs(work):
    whole = config(work / "whole.yaml", output="whole")
    run(read_plan(whole), device="cpu", threads=1)
    half = config(work / "half.yaml", recipe={"steps": 2, "decay_steps": 2}, output="parts")
    other = config(work / "other.yaml", recipe={"decay_steps": 2}, output="parts")
    steady = config(work / "steady.yaml", recipe={"decay_steps": 2}, output="steady")
    run(read_plan(steady), device="cpu", threads=1)
    # The rate of a step depends on the number of steps: stop one run as a kill would.
    run(read_plan(half), device="cpu", threads=1)
    kept = torch.load(work / "parts" / "last.pt", weights_only=True)
    assert kept["step"] == 2
    shutil.rmtree(work / "parts")
    _run_until(steady, work / "parts", step=2)
    with open(work / "parts" / "log.csv", "a") as file:
        file.write("4,9,9,9,9,9,9,9,9\n4,1")  # of steps that are done again; the last line is torn
    run(read_plan(other), device="cpu", threads=1)
    for name, value in weights(work / "steady" / "last.safetensors").items():
        np.testing.assert_array_equal(weights(work / "parts" / "last.safetensors")[name], value)
    for name in ("log.csv", "evaluation.csv"):
        left, right = rows(work / "parts" / name), rows(work / "steady" / name)
        assert [{**row, "crops_per_s": 0, "images": 0} for row in left] == [
            {**row, "crops_per_s": 0, "images": 0} for row in right
        ]


def _run_until(path, folder, *, step):
    """Leave what a run holds that was killed after a checkpoint."""
    from cellseg_pipe.stages import train as stage

    class Killed(Exception):
        pass

    before = stage.save_state

    def save(target, state, *, about):
        before(target, state, about=about)
        if state.step == step:
            raise Killed

    stage.save_state = save
    try:
        with pytest.raises(Killed):
            run(replace(read_plan(path), output=str(folder)), device="cpu", threads=1)
    finally:
        stage.save_state = before


def test_changed_settings_and_changed_data_are_refused(work):
    run(read_plan(config(work / "train.yaml")), device="cpu", threads=1)
    changed = config(work / "changed.yaml", augmentation={"p_blur": 0.5})
    with pytest.raises(ValueError, match=r"augmentation\.p_blur = 0\.3, and now it is 0\.5"):
        run(read_plan(changed), device="cpu", threads=1)
    image = tifffile.imread(work / "data" / "n0_img.tif")
    for n in range(4):
        tifffile.imwrite(work / "data" / f"n{n}_img.tif", image[::-1])
    with pytest.raises(ValueError, match=r"data\.train"):
        run(read_plan(work / "train.yaml"), device="cpu", threads=1)


def test_rows_in_another_order_are_other_crops_and_refused(work):
    lines = [f"n{n}_img.tif,n{n}_masks.tif,{'tune' if n == 3 else 'train'}" for n in range(4)]
    path = config(work / "train.yaml", data={"manifest": "list.csv"})
    for order in (lines, lines[::-1]):
        (work / "list.csv").write_text("\n".join(["image,labels,split", *order]) + "\n")
        if order is lines:
            run(read_plan(path), device="cpu", threads=1)
    with pytest.raises(ValueError, match=r"data\.train"):
        run(read_plan(path), device="cpu", threads=1)


def test_folders_without_a_list_are_one(work):
    path = config(work / "train.yaml", data={"root": ["data", "more"]})
    with pytest.raises(ValueError, match=r"give data\.manifest"):
        check(read_plan(path))


def test_crops_that_the_network_cannot_halve_are_refused_before_training(work):
    path = config(work / "train.yaml", augmentation={"crop_px": 45})
    with pytest.raises(ValueError, match=r"crop_px needs a multiple of \d+, got 45\. Take 4[68]"):
        check(read_plan(path))


def test_a_log_of_an_earlier_version_keeps_its_columns(work):
    folder = work / "run"
    folder.mkdir()
    (folder / "log.csv").write_text("step,loss\n")
    run(read_plan(config(work / "train.yaml")), device="cpu", threads=1)
    assert [set(row) for row in rows(folder / "log.csv")] == [{"step", "loss"}] * 2


def test_fine_tuning_begins_with_the_peers_checkpoint(work):
    shutil.copy(PEER, work / "theirs.pth")
    known = load(work / "theirs.pth")
    path = config(work / "train.yaml", network={"start": "theirs.pth"}, recipe={"steps": 1})
    said = yaml.safe_load(path.read_text())
    del said["network"]["widths"], said["network"]["channels"]
    path.write_text(yaml.safe_dump(said))
    plan = read_plan(path)
    assert "rate 0.0005" in check(plan)
    found = load(run(plan, device="cpu", threads=1))
    assert found.info.architecture == known.info.architecture
    assert found.info.diameter_px == known.info.diameter_px
    assert found.info.channels == known.info.channels
    before, after = known.net.state_dict(), found.net.state_dict()
    gaps = [
        float((before[k] - after[k]).abs().max()) for k in before if k.endswith("conv_0.2.weight")
    ]
    assert 0 < max(gaps) < 0.01  # one step of the first, small rate
    said["network"]["channels"] = ["only one"]
    path.write_text(yaml.safe_dump(said))
    with pytest.raises(ValueError, match=r"network\.channels needs 2 names"):
        check(read_plan(path))


def ap(folder, name):
    """Return the mean AP at .5 on the test images."""
    return np.mean([float(row["ap50"]) for row in rows(folder / name)])


@pytest.mark.slow
def test_five_images_of_an_unseen_kind_raise_the_score(tmp_path):
    """Dark cells on bright ground: the start model has seen no such image."""
    data = tmp_path / "data"
    data.mkdir()
    lines = ["image,labels,split"]
    for n in range(8):
        image, labels = scene(n, edge=192, diameter_px=30.0)
        tifffile.imwrite(data / f"{n}.tif", image[0].max() - image[0])
        tifffile.imwrite(data / f"{n}_masks.tif", labels.astype(np.uint16))
        lines.append(f"{n}.tif,{n}_masks.tif,{'train' if n < 5 else 'test'}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    made = {
        "data": {"manifest": "list.csv"},
        "augmentation": {
            "crop_px": 96,
            "margin_px": 16,
            "p_invert": 0.0,
            "scale_octaves": 0.3,
            "p_noise": 0.1,
            "p_poisson": 0.1,
            "p_blur": 0.1,
        },
    }
    ends = {}
    for steps in (1, 400):
        path = config(
            tmp_path / f"{steps}.yaml", **made, output=f"run{steps}",
            recipe={"steps": steps, "batch": 4, "warmup_steps": 20, "checkpoint_every": 100},
        )  # fmt: skip
        said = yaml.safe_load(path.read_text())
        said["network"] = {"name": "tuned", "start": str(TINY)}
        path.write_text(yaml.safe_dump(said))
        run(read_plan(path), device="cpu", threads=1)
        ends[steps] = ap(tmp_path / f"run{steps}", "test_true_diameter.csv")
    assert ends[1] < 0.3 and ends[400] > ends[1] + 0.3


@pytest.mark.parametrize("kind", ["json", "csv", "image"])
def test_classes_are_read_in_all_their_forms(work, kind):
    lines = ["image,labels,classes,split"]
    for n in range(4):
        labels = tifffile.imread(work / "data" / f"n{n}_masks.tif")
        ids = np.unique(labels)[1:]
        name = f"n{n}_classes.{'tif' if kind == 'image' else kind}"
        if kind == "json":
            told = {str(i): "odd" if i % 2 else "even" for i in ids}
            (work / "data" / name).write_text(json.dumps(told))
        elif kind == "csv":
            told = [f"{i}.0,{2 - i % 2}" for i in ids]  # as tables with gaps elsewhere have them
            (work / "data" / name).write_text("\n".join(["label,class", *told]) + "\n")
        else:
            classes = np.where(labels > 0, 2 - labels % 2, 0).astype(np.uint8)
            tifffile.imwrite(work / "data" / name, classes)
        lines.append(f"n{n}_img.tif,n{n}_masks.tif,{name},{'tune' if n == 3 else 'train'}")
    (work / "list.csv").write_text("\n".join(lines) + "\n")
    path = config(
        work / "train.yaml",
        data={"manifest": "list.csv"},
        network={"classes": ["odd", "even"], "class_weights": [1.0, 2.0]},
    )
    from cellseg_pipe.stages._train_job import job_of

    plan = read_plan(path)
    for image in job_of(plan).images["train"].images:
        labels = tifffile.imread(image.pair.labels)
        np.testing.assert_array_equal(image.classes[1:], 2 - np.unique(labels)[1:] % 2)
    model = load(run(plan, device="cpu", threads=1))
    assert model.info.architecture.n_outputs == 5 and model.info.architecture.n_classes == 2
    logged = rows(work / "run" / "log.csv")
    assert all(0 < float(row["classes"]) < 5 for row in logged)
    assert all(0 <= float(row["right_class"]) <= 1 for row in rows(work / "run" / "evaluation.csv"))


@pytest.mark.parametrize(
    ("text", "said"), [("label,class\n900,odd\n", "names none of them"),
                       ("label,class\n1.5,odd\n", "whole numbers as labels, got '1.5'")],
)  # fmt: skip
def test_a_table_of_classes_of_another_image_is_refused(work, text, said):
    (work / "data" / "c.csv").write_text(text)
    (work / "list.csv").write_text("image,labels,classes\nn0_img.tif,n0_masks.tif,c.csv\n")
    path = config(
        work / "train.yaml", data={"manifest": "list.csv"}, network={"classes": ["odd", "even"]}
    )
    with pytest.raises(ValueError, match=said):
        check(read_plan(path))


def test_three_classes_are_trained_and_scored(work):
    path = config(work / "train.yaml", network={"target": "three-classes"})
    model = load(run(read_plan(path), device="cpu", threads=1))
    assert model.info.architecture.n_outputs == 3
    assert "interior, boundary, background" in model.info.training
    logged = rows(work / "run" / "log.csv")
    assert [row["flow"] for row in logged] == ["0.0", "0.0"]
    assert all(row["loss"] == row["classes"] for row in logged)
