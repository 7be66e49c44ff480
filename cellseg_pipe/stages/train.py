"""Trains a network as a configuration file says, and keeps all of it in one folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cellseg_pipe.ledger import write_whole
from cellseg_pipe.nets._info import sha256_of
from cellseg_pipe.nets.checkpoint import Model, ModelInfo, save
from cellseg_pipe.nets.cpnet import CPnet
from cellseg_pipe.nets.engine import Engine, choose_device
from cellseg_pipe.stages import _train_results as results
from cellseg_pipe.stages._run_layout import RunLayout
from cellseg_pipe.stages._train_config import read_plan
from cellseg_pipe.stages._train_job import Job, check, job_of
from cellseg_pipe.stages._train_layout import trained_marker
from cellseg_pipe.stages.layout import read_layout
from cellseg_pipe.training import joint
from cellseg_pipe.training.evaluate import mean_of_sets, means_by_set
from cellseg_pipe.training.logs import append_rows, cut_rows
from cellseg_pipe.training.loop import Calls, train
from cellseg_pipe.training.prepare import Prepared
from cellseg_pipe.training.schedule import Report
from cellseg_pipe.training.settings import TrainingPlan
from cellseg_pipe.training.state import State, load_state, new_state, save_state, with_outputs

__all__ = ["TrainingPlan", "check", "read_plan", "run", "run_job"]

log = logging.getLogger(__name__)

# What may change when a run goes on.
FREE = ("checkpoint_every", "evaluate_every", "workers", "steps", "decay_steps")


def run(plan: TrainingPlan, *, device: str = "auto", threads: int | None = None) -> Path:
    """Train, or go on where an earlier start was stopped.

    Parameters
    ----------
    plan : TrainingPlan
        What to do.
    device : {"auto", "cpu", "cuda"}
        Where. Under torchrun, processes on GPUs take one each.
    threads : int, optional
        Of torch on a CPU.

    Returns
    -------
    path
        The best model, or the last one if there are no images to tune on.
    """
    if threads:
        torch.set_num_threads(threads)
    device = choose_device(device)
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    with joint.joined(device):
        Path(plan.output).mkdir(parents=True, exist_ok=True)
        if joint.rank() > 0:
            joint.wait()  # for the first to prepare the images
        job = job_of(plan)
        if joint.rank() == 0:
            joint.wait()
        best = _train(job, device)
        first = joint.rank() == 0
    if first:  # alone: to wait for it the others have a time limit
        results.finish(job, best, device=device)
    return best


def run_job(config: Path | str, *, threads: int | None = None) -> None:
    """Train as the one job of a workflow, or go on with it; then write what says that it is done.

    Parameters
    ----------
    config : path
        The plan in effect, in the folder of the run.
    threads : int, optional
        Of torch on a CPU.
    """
    config = Path(config)
    layout = read_layout(RunLayout(config.parents[1], config, "", ()).file)
    best = run(read_plan(config), device=layout.device, threads=threads)
    about = {"model": best.name, "sha256": sha256_of(best)}
    write_whole(trained_marker(layout), json.dumps(about, indent=1).encode())


def _train(job: Job, device: str) -> Path:
    """Train to the end; return the model to use."""
    plan, folder = job.plan, job.folder
    images = job.images["train"].images
    log.info(
        "%d images to train on (%d objects), %d to tune on",
        len(images),
        sum(image.n_objects for image in images),
        len(job.images["tune"].images),
    )
    state = _state(job, device)
    tune = _few_of_each(job.images["tune"].images, plan.evaluate_images)
    if joint.rank() == 0:
        for name in ("log.csv", "evaluation.csv"):
            cut_rows(folder / name, step=state.step)
    joint.wait()
    calls = Calls(
        report=lambda report: _report(folder, report),
        checkpoint=lambda state: save_state(folder / "last.pt", state, about=_about(job)),
        evaluate=(lambda state: _judge(job, state, tune, device=device)) if tune else None,
    )
    train(state, job.sampler(), plan.recipe, task=job.task, calls=calls)
    if joint.rank() == 0:
        save(folder / "last.safetensors", state.mean_net(), _described(job, state.step))
    best = folder / "best.safetensors"
    return best if tune and best.exists() else folder / "last.safetensors"


def _few_of_each(images: Sequence[Prepared], most: int) -> list[Prepared]:
    """Return at most so many images of each set, evenly over its list."""
    chosen = []
    for name in dict.fromkeys(image.pair.set for image in images):
        own = [image for image in images if image.pair.set == name and image.n_objects]
        step = max(1, len(own) / most)
        chosen += [own[int(i * step)] for i in range(min(most, len(own)))]
    return chosen


def _about(job: Job) -> dict[str, Any]:
    """Return what a run cannot change midway."""
    # Crops are drawn by place in the list and by set; the best is the best on the same images.
    lists = {
        split: [(image.key, image.pair.set) for image in job.images[split].images]
        for split in ("train", "tune")
    }
    said = {
        f"{part}.{key}": value
        for part in ("recipe", "augmentation", "network", "restore")
        if getattr(job.plan, part) is not None
        for key, value in dataclasses.asdict(getattr(job.plan, part)).items()
        if part != "recipe" or key not in FREE
    }
    if job.segmenter:
        said["restore.segmenter"] = job.segmenter.sha256
    said["data.draw"] = job.plan.data.draw
    for split, rows in lists.items():
        said[f"data.{split}"] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    plain: dict[str, Any] = json.loads(json.dumps(said))
    return plain


def _state(job: Job, device: str) -> State:
    recipe = job.plan.recipe
    rates: dict[str, Any] = {
        "learning_rate": recipe.highest_rate,
        "weight_decay": recipe.weight_decay,
        "device": device,
    }
    kept = job.folder / "last.pt"
    if kept.exists():
        state = load_state(kept, about=_about(job), **rates)
        log.info("going on at step %d of %d", state.step, recipe.steps)
        return state
    torch.manual_seed(recipe.seed)
    if job.start is None:
        return new_state(CPnet(job.architecture), **rates)
    return new_state(with_outputs(job.start.net, job.architecture.n_outputs), **rates)


def _described(job: Job, step: int) -> ModelInfo:
    return replace(job.info, training=f"{job.info.training}, {step} steps")


def _judge(job: Job, state: State, tune: Sequence[Prepared], *, device: str) -> None:
    """Evaluate the mean weights, log it, and keep them if they are the best."""
    net, info = state.mean_net(), _described(job, state.step)
    engine = Engine(Model(info, net, "", Path("training")), device=device, precision="fp32")
    judged = results.judged_by(job, engine, tune)
    scores = [one.score for one in judged]
    append_rows(
        job.folder / "evaluation.csv", [{"step": state.step, **vars(score)} for score in scores]
    )
    means = means_by_set(scores)
    for name, mean in means.items():
        log.info("step %d: %s AP.5 %.3f AP.75 %.3f", state.step, name, mean.ap50[0], mean.ap75[0])
    overall = mean_of_sets(means)
    log.info("step %d: mean of sets %.4f", state.step, overall)
    if overall > state.best.get("score", -1.0):
        state.best = {"score": overall, "step": float(state.step)}
        save(job.folder / "best.safetensors", net, info)
    save(job.folder / "last.safetensors", net, info)
    results.draw(job.folder, judged)


def _report(folder: Path, report: Report) -> None:
    log.info(
        "step %d: loss %.4f (flow %.4f, inside %.4f, classes %.4f), rate %.2e, gradient %.2f,"
        " %.1f crops/s, %d images seen%s",
        report.step, report.loss, report.flow, report.inside, report.classes, report.rate,
        report.grad_norm, report.crops_per_s, report.images,
        f", perceptual {report.perceptual:.4f}, reconstruction {report.reconstruction:.4f},"
        f" statistics {report.statistics:.4f}"
        if report.reconstruction else "",
    )  # fmt: skip
    append_rows(folder / "log.csv", [dataclasses.asdict(report)])
