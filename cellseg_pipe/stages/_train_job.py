"""A training plan with all that it names: the start model, pairs, prepared images."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cellseg_pipe.nets.catalog import load_model
from cellseg_pipe.nets.checkpoint import Model, ModelInfo
from cellseg_pipe.nets.cpnet import Architecture, CPnet
from cellseg_pipe.stages._train_config import completed, completed_restoring
from cellseg_pipe.training.augment import Sampler
from cellseg_pipe.training.manifest import Pair, read_folder, read_manifest, split_by_group
from cellseg_pipe.training.prepare import Collection, cache_folder, prepare
from cellseg_pipe.training.restoring import Judge, Weights
from cellseg_pipe.training.settings import Data, TrainingPlan
from cellseg_pipe.training.targets import Target
from cellseg_pipe.training.tasks import Restoring, Segmenting, Task
from cellseg_pipe.training.worse import WorseSampler

__all__ = ["Job", "check", "job_of", "pairs_of"]

SPLITS = ("train", "tune", "test")


@dataclass(frozen=True)
class Job:
    """A plan with all that it names.

    Parameters
    ----------
    plan : TrainingPlan
        Complete.
    start : Model or None
        What training begins with.
    pairs : tuple of Pair
        With the paths of files.
    images : dict of str to Collection
        By split.
    segmenter : Model, optional
        What restored images are for, where a network learns to restore them.
    """

    plan: TrainingPlan
    start: Model | None
    pairs: tuple[Pair, ...]
    images: dict[str, Collection]
    segmenter: Model | None = None

    @property
    def folder(self) -> Path:
        """Where results go."""
        return Path(self.plan.output)

    @property
    def target(self) -> Target:
        """What is learned."""
        network = self.plan.network
        return Target(
            network.target, len(network.classes), network.class_weights, network.boundary_px
        )

    @property
    def task(self) -> Task:
        """What is learned, with how far it is."""
        restore = self.plan.restore
        if restore is None or self.segmenter is None:
            return Segmenting(self.target)
        return Restoring(Judge(copy.deepcopy(self.segmenter.net)), Weights(**restore.weights))

    def sampler(self) -> Sampler:
        """Return what draws the crops."""
        plan = self.plan
        settings: dict[str, Any] = {
            "diameter_px": float(plan.network.diameter_px or 0),
            "augmentation": plan.augmentation,
            "seed": plan.recipe.seed,
            "draw": plan.data.draw,
        }
        images = self.images["train"].images
        if plan.restore is None:
            return Sampler(images, **settings)
        return WorseSampler(images, kind=plan.restore.kind, **settings)

    @property
    def info(self) -> ModelInfo:
        """What is written into the files of weights."""
        network, recipe, restore = self.plan.network, self.plan.recipe, self.plan.restore
        rows = [f"{Path(p.image).name} {Path(p.labels).name} {p.split}" for p in self.pairs]
        told = [f"seed {recipe.seed}, batches of {recipe.batch} crops"]
        told += [f"from {network.start}"] if network.start else []
        told += [f"classes {', '.join(network.classes)}"] if network.classes else []
        if network.target == "three-classes":
            told.append("outputs interior, boundary, background")
        if restore:
            told.append(f"restores ({restore.kind}) for {restore.segmenter}")
        return ModelInfo(
            network.name,
            self.architecture,
            diameter_px=float(network.diameter_px or 0),
            channels=tuple(network.channels or ()),
            percentiles=self.plan.reading.percentiles,
            licence=network.licence or (self.start.info.licence if self.start else ""),
            data_sha256=hashlib.sha256("\n".join(rows).encode()).hexdigest(),
            training=", ".join(told),
            target="image" if restore else network.target,
            restores=restore.kind if restore else "",
            segmenter_sha256=self.segmenter.sha256 if self.segmenter else "",
        )

    @property
    def architecture(self) -> Architecture:
        """Form of the network."""
        n_inputs, n_outputs = self.plan.reading.n_inputs, self.target.n_outputs
        if self.plan.restore:
            n_inputs = n_outputs = 1
        if self.start:
            return replace(self.start.info.architecture, n_outputs=n_outputs)
        widths = tuple(self.plan.network.widths or ())
        return Architecture(n_inputs=n_inputs, n_outputs=n_outputs, widths=widths)


def check(plan: TrainingPlan) -> str:
    """Return what a run would use and what is left out, without training.

    Parameters
    ----------
    plan : TrainingPlan
        What to do. Images are prepared as for training, and kept.

    Returns
    -------
    str
        Lines.
    """
    job = job_of(plan)
    network, recipe = job.plan.network, job.plan.recipe
    n_weights = sum(p.numel() for p in CPnet(job.architecture).parameters())
    begins = f"from {network.start}" if network.start else "fresh"
    lines = [
        f"network {network.name}: {begins}, widths {','.join(map(str, job.architecture.widths))},"
        f" {n_weights:,} weights, cells at {network.diameter_px:g} px",
        f"inputs: {', '.join(job.info.channels)}",
        f"target: {job.info.target}"
        + (f", classes {', '.join(network.classes)}" * bool(network.classes)),
        *_restoring(job),
        f"recipe: {recipe.steps} steps of {recipe.batch} crops, rate {recipe.highest_rate:g}",
        f"output: {job.plan.output}",
    ]
    for split in SPLITS:
        lines += _listed(split, job.images[split])
    return "\n".join(lines)


def _restoring(job: Job) -> list[str]:
    """Return a line on what is restored, if anything is."""
    restore, segmenter = job.plan.restore, job.segmenter
    if restore is None or segmenter is None:
        return []
    weights = ", ".join(f"{name} {weight:g}" for name, weight in restore.weights.items())
    return [f"restores: {restore.kind}, for {segmenter.info.name}; loss {weights}"]


def _listed(split: str, found: Collection) -> list[str]:
    """Return lines on the images of a split."""
    lines = []
    for name in dict.fromkeys(image.pair.set for image in found.images):
        own = [image for image in found.images if image.pair.set == name]
        sizes = [image.diameter_px for image in own if image.n_objects]
        between = f", {min(sizes):.1f} to {max(sizes):.1f} px" if sizes else ""
        n_objects = sum(image.n_objects for image in own)
        lines.append(f"{split}: {name}: {len(own)} images, {n_objects} objects{between}")
    return [*(lines or [f"{split}: no images"]), *(f"left out: {line}" for line in found.dropped)]


def job_of(plan: TrainingPlan) -> Job:
    """Read all that a plan names.

    Parameters
    ----------
    plan : TrainingPlan
        As it was read.

    Returns
    -------
    Job
        Images are prepared, or found as they were prepared before.
    """
    start = load_model(plan.network.start) if plan.network.start else None
    segmenter = load_model(plan.restore.segmenter) if plan.restore else None
    plan = completed_restoring(plan, start, segmenter) if segmenter else completed(plan, start)
    pairs = pairs_of(plan.data)
    cache = Path(plan.data.cache) if plan.data.cache else cache_folder()
    images = {}
    for split in SPLITS:
        chosen = [pair for pair in pairs if pair.split == split]
        images[split] = prepare(
            chosen, cache=cache, reading=plan.reading, classes=plan.network.classes
        )
    if not images["train"].images:
        _refuse_none(plan.reading.min_objects, pairs, images["train"].dropped)
    job = Job(plan, start, pairs, images, segmenter)
    _check_crops(job)
    return job


def _check_crops(job: Job) -> None:
    """Refuse crops that the network cannot halve as often as it does."""
    divisors = [job.architecture.divisor]
    divisors += [job.segmenter.info.architecture.divisor] if job.segmenter else []
    edge, divisor = job.plan.augmentation.crop_px, math.lcm(*divisors)
    if edge % divisor:
        raise ValueError(
            f"augmentation.crop_px needs a multiple of {divisor}, got {edge}. Take"
            f" {math.ceil(edge / divisor) * divisor}."
        )


def _refuse_none(min_objects: int, pairs: Sequence[Pair], dropped: Sequence[str]) -> None:
    if not dropped:
        raise ValueError(
            f"training needs pairs of the split train, and none of {len(pairs)} is. Set split."
        )
    raise ValueError(
        f"training needs images with {min_objects} objects or more, and none of {len(dropped)} has"
        f" them ({dropped[0]}). Check the labels, or lower min_objects."
    )


def pairs_of(data: Data) -> tuple[Pair, ...]:
    """Return all pairs, with files found in one of the folders.

    Parameters
    ----------
    data : Data
        Where they are.

    Returns
    -------
    tuple of Pair
        With paths that can be opened.
    """
    roots = [Path(root) for root in ([data.root] if isinstance(data.root, str) else data.root)]
    if data.manifest is not None:
        pairs = read_manifest(data.manifest)
    else:
        if len(roots) > 1:
            raise ValueError(
                f"data.root names {len(roots)} folders, which need a list of the images in them:"
                " give data.manifest."
            )
        found = read_folder(
            roots[0], image_suffix=data.image_suffix, labels_suffix=data.labels_suffix
        )
        pairs = split_by_group(found, shares=(0.9, 0.1, 0.0))
    sets = dict.fromkeys(pair.set for pair in pairs if pair.split == "train")
    if unknown := sorted(set(data.draw) - set(sets)):
        raise ValueError(
            f"data.draw needs sets to train on ({', '.join(sets)}), got {unknown[0]!r}."
        )
    return tuple(
        replace(
            pair,
            image=_located(pair.image, roots),
            labels=_located(pair.labels, roots),
            classes=_located(pair.classes, roots) if pair.classes else "",
        )
        for pair in pairs
    )


def _located(name: str, roots: Sequence[Path]) -> str:
    for root in roots:
        if (root / name).exists():
            return str(root / name)
    raise FileNotFoundError(f"{name} is in none of {', '.join(map(str, roots))}.")
