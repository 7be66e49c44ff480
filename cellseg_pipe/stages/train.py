"""Trains a network as a configuration file says, and keeps all of it in one folder."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from cellseg_pipe.io.files import written_whole
from cellseg_pipe.nets.catalog import load_model
from cellseg_pipe.nets.checkpoint import ModelInfo, save
from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.nets.engine import choose_device
from cellseg_pipe.training.augment import Augmentation, Sampler
from cellseg_pipe.training.evaluate import Score, evaluate_on, means_by_set
from cellseg_pipe.training.loop import Recipe, Report, train
from cellseg_pipe.training.manifest import Pair, read_folder, read_manifest, split_by_group
from cellseg_pipe.training.prepare import Prepared, Reading, cache_folder, prepare
from cellseg_pipe.training.state import State, load_state, new_state, save_state

__all__ = ["TrainingPlan", "read_plan", "run"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the images are.

    Parameters
    ----------
    root : str or sequence of str
        Folders that hold the files; relative to the configuration.
    manifest : str, optional
        CSV of pairs; without it the folder's own files are paired by their names.
    image_suffix, labels_suffix : str
        How they are paired.
    cache : str, optional
        Folder of prepared images.
    """

    root: Any
    manifest: str | None = None
    image_suffix: str = "_img"
    labels_suffix: str = "_masks"
    cache: str | None = None


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is trained.

    Parameters
    ----------
    name : str
        What the model will be called.
    start : str, optional
        Name or file of a model to begin with; a fresh network by default.
    widths : sequence of int
        Of a fresh network.
    diameter_px : float
        Diameter that cells are brought to.
    channels : sequence of str
        What the inputs mean.
    licence : str
        Of the weights.
    """

    name: str
    start: str | None = None
    widths: Sequence[int] = (16, 32, 64, 128)
    diameter_px: float = 18.0
    channels: Sequence[str] = ("main", "second (optional)")
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A configuration file.

    Parameters
    ----------
    output : path
        Folder of the run.
    data : Data
        Images.
    network : Network
        What is trained.
    reading : Reading
        How images are read.
    augmentation : Augmentation
        What is done to them.
    recipe : Recipe
        The loop.
    evaluate_images : int
        Images of each set that are looked at in evaluations, at most.
    """

    output: Path
    data: Data
    network: Network
    reading: Reading
    augmentation: Augmentation
    recipe: Recipe
    evaluate_images: int = 8


def read_plan(path: Path | str) -> TrainingPlan:
    """Read a configuration file.

    Parameters
    ----------
    path : path
        YAML.

    Returns
    -------
    TrainingPlan
        With paths relative to the file made absolute.
    """
    path = Path(path)
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = path.resolve().parent
    parts = {
        "data": Data,
        "network": Network,
        "reading": Reading,
        "augmentation": Augmentation,
        "recipe": Recipe,
    }
    unknown = sorted(set(said) - {*parts, "output", "evaluate_images"})
    if unknown:
        raise ValueError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(parts)}.")
    made = {
        name: _made(kind, said.get(name) or {}, f"{path}: {name}") for name, kind in parts.items()
    }
    made["reading"] = dataclasses.replace(made["reading"], n_inputs=len(made["network"].channels))
    output = base / os.path.expandvars(os.path.expanduser(str(said["output"])))
    more = {"evaluate_images": said["evaluate_images"]} if "evaluate_images" in said else {}
    data = made["data"]
    roots = [data.root] if isinstance(data.root, str) else data.root
    resolved = [str(base / os.path.expandvars(os.path.expanduser(root))) for root in roots]
    manifest = None if data.manifest is None else str(base / data.manifest)
    made["data"] = dataclasses.replace(data, root=resolved, manifest=manifest)
    return TrainingPlan(output=output, **made, **more)


def _made(kind: type, said: Mapping[str, Any], where: str) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(said) - set(names))
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(names)}.")
    values = {k: tuple(v) if isinstance(v, list) and k != "root" else v for k, v in said.items()}
    return kind(**values)


def run(plan: TrainingPlan, *, device: str = "auto", threads: int | None = None) -> Path:
    """Train, or go on where an earlier start was stopped.

    Parameters
    ----------
    plan : TrainingPlan
        What to do.
    device : {"auto", "cpu", "cuda"}
        Where.
    threads : int, optional
        Of torch on a CPU.

    Returns
    -------
    path
        The best model.
    """
    if threads:
        torch.set_num_threads(threads)
    device = choose_device(device)
    plan.output.mkdir(parents=True, exist_ok=True)
    pairs = pairs_of(plan.data)
    images = {split: _prepared(plan, pairs, split) for split in ("train", "tune")}
    log.info(
        "%d images to train on (%d objects), %d to tune on",
        len(images["train"]),
        sum(image.n_objects for image in images["train"]),
        len(images["tune"]),
    )
    state = _state(plan, device)
    sampler = Sampler(
        images["train"],
        diameter_px=plan.network.diameter_px,
        augmentation=plan.augmentation,
        seed=plan.recipe.seed,
    )
    info = _info(plan, state.net.architecture, pairs)
    tune = _few_of_each(images["tune"], plan.evaluate_images)
    folder = plan.output

    def on_checkpoint(state: State) -> None:
        save_state(folder / "last.pt", state, about=_about(plan))

    def on_evaluate(state: State) -> None:
        _judge(state, tune, info, folder=folder, device=device)
        on_checkpoint(state)

    _cut_logs(folder, state.step)
    train(
        state,
        sampler,
        plan.recipe,
        on_report=lambda report: _report(folder, report),
        on_checkpoint=on_checkpoint,
        on_evaluate=on_evaluate if tune else None,
    )
    save(folder / "last.safetensors", state.mean_net(), info)
    best = folder / "best.safetensors"
    return best if best.exists() else folder / "last.safetensors"


def pairs_of(data: Data) -> tuple[Pair, ...]:
    """Return all pairs, with files found in one of the folders.

    Parameters
    ----------
    data : Data
        Where they are.

    Returns
    -------
    tuple of Pair
        Files relative to the root of the file system.
    """
    roots = [Path(root) for root in data.root]
    if data.manifest is not None:
        pairs = read_manifest(data.manifest)
    else:
        found = read_folder(
            roots[0], image_suffix=data.image_suffix, labels_suffix=data.labels_suffix
        )
        pairs = split_by_group(found, shares=(0.9, 0.1, 0.0))
    return tuple(
        dataclasses.replace(
            pair, image=_located(pair.image, roots), labels=_located(pair.labels, roots)
        )
        for pair in pairs
    )


def _located(name: str, roots: Sequence[Path]) -> str:
    for root in roots:
        if (root / name).exists():
            return str(root / name)
    raise FileNotFoundError(f"{name} is in none of {', '.join(map(str, roots))}.")


def _prepared(plan: TrainingPlan, pairs: Sequence[Pair], split: str) -> list[Prepared]:
    chosen = [pair for pair in pairs if pair.split == split]
    if not chosen and split != "train":
        return []
    cache = Path(plan.data.cache) if plan.data.cache else cache_folder()
    return prepare(chosen, root="/", cache=cache, reading=plan.reading)


def _few_of_each(images: Sequence[Prepared], most: int) -> list[Prepared]:
    """Return at most so many images of each set, evenly over its list."""
    chosen = []
    for name in dict.fromkeys(image.pair.set for image in images):
        own = [image for image in images if image.pair.set == name and image.n_objects]
        step = max(1, len(own) / most)
        chosen += [own[int(i * step)] for i in range(min(most, len(own)))]
    return chosen


def _about(plan: TrainingPlan) -> dict[str, Any]:
    """Return what a run cannot change midway."""
    recipe = dataclasses.asdict(plan.recipe)
    free = ("checkpoint_every", "evaluate_every", "workers", "steps", "decay_steps")
    return json.loads(
        json.dumps(
            {
                **{f"recipe.{k}": v for k, v in recipe.items() if k not in free},
                **{f"augmentation.{k}": v for k, v in vars(plan.augmentation).items()},
                **{f"network.{k}": v for k, v in vars(plan.network).items()},
            }
        )
    )


def _state(plan: TrainingPlan, device: str) -> State:
    rates = {
        "learning_rate": plan.recipe.learning_rate,
        "weight_decay": plan.recipe.weight_decay,
        "device": device,
    }
    kept = plan.output / "last.pt"
    if kept.exists():
        state = load_state(kept, about=_about(plan), **rates)
        log.info("going on at step %d of %d", state.step, plan.recipe.steps)
        return state
    torch.manual_seed(plan.recipe.seed)
    if plan.network.start is None:
        form = Architecture(n_inputs=plan.reading.n_inputs, widths=tuple(plan.network.widths))
        return new_state(CPnet(form), **rates)
    return new_state(load_model(plan.network.start).net, **rates)


def _info(plan: TrainingPlan, architecture: Architecture, pairs: Sequence[Pair]) -> ModelInfo:
    listed = "\n".join(f"{Path(p.image).name} {Path(p.labels).name} {p.split}" for p in pairs)
    return ModelInfo(
        plan.network.name,
        architecture,
        diameter_px=plan.network.diameter_px,
        channels=tuple(plan.network.channels),
        percentiles=plan.reading.percentiles,
        licence=plan.network.licence,
        data_sha256=hashlib.sha256(listed.encode()).hexdigest(),
        training=f"seed {plan.recipe.seed}, batches of {plan.recipe.batch} crops",
    )


def _judge(
    state: State, tune: Sequence[Prepared], info: ModelInfo, *, folder: Path, device: str
) -> None:
    """Evaluate the mean weights, log it, and keep them if they are the best."""
    net = state.mean_net()
    scores = evaluate_on(net, info, tune, device=device)
    means = means_by_set(scores)
    _append(folder / "evaluation.csv", [{"step": state.step, **vars(score)} for score in scores])
    overall = sum(sum(pair) for pair in means.values()) / (2 * len(means))
    for name, (ap50, ap75) in means.items():
        log.info("step %d: %s AP.5 %.3f AP.75 %.3f", state.step, name, ap50, ap75)
    log.info("step %d: mean of sets %.4f", state.step, overall)
    described = dataclasses.replace(info, training=f"{info.training}, {state.step} steps")
    if overall > state.best.get("score", -1.0):
        state.best = {"score": overall, "step": float(state.step)}
        save(folder / "best.safetensors", net, described)
    save(folder / "last.safetensors", net, described)


def _report(folder: Path, report: Report) -> None:
    log.info(
        "step %d: loss %.4f (flow %.4f, inside %.4f), rate %.2e, gradient %.2f, %.1f crops/s",
        *dataclasses.astuple(report),
    )
    _append(folder / "log.csv", [dataclasses.asdict(report)])


def _append(path: Path, rows: Sequence[Mapping[str, Any] | Score]) -> None:
    fresh = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def _cut_logs(folder: Path, step: int) -> None:
    """Drop what was logged after the checkpoint that a run goes on from."""
    for path in (folder / "log.csv", folder / "evaluation.csv"):
        if not path.exists():
            continue
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if int(row["step"]) <= step]
        if len(kept) < len(rows):
            with written_whole(path) as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(kept)
