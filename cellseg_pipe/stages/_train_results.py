"""What a training run leaves beside its weights: curves, pictures, test scores, the model card."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cellseg_pipe.io.files import binary_whole, written_whole
from cellseg_pipe.nets.checkpoint import load, save
from cellseg_pipe.nets.engine import Engine
from cellseg_pipe.plot import overlay
from cellseg_pipe.training.card import Figures, Used, card
from cellseg_pipe.training.curves import draw_curves, read_log, read_scores
from cellseg_pipe.training.evaluate import Judged, evaluate_on, mean_of_sets, means_by_set
from cellseg_pipe.training.evaluate_restored import evaluate_restorer
from cellseg_pipe.training.logs import append_rows
from cellseg_pipe.training.size import fit_size

if TYPE_CHECKING:
    from cellseg_pipe.stages._train_job import Job
    from cellseg_pipe.training.prepare import Prepared

__all__ = ["draw", "finish", "judged_by"]

log = logging.getLogger(__name__)

SEEN: tuple[Literal["true", "measured"], ...] = ("true", "measured")


def draw(folder: Path, judged: Sequence[Judged]) -> None:
    """Draw the curves, and the best and the worst image of each set with what was found.

    Parameters
    ----------
    folder : path
        Of the run.
    judged : sequence of Judged
        The latest evaluation.
    """
    _curves(folder)
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for name in dict.fromkeys(one.score.set for one in judged):
        own = [one for one in judged if one.score.set == name and np.isfinite(one.score.ap50)]
        own.sort(key=lambda one: (one.score.ap50 + one.score.ap75, one.score.image))
        plain = re.sub(r"\W+", "_", name)
        for one, what in zip((own[:1] + own[-1:]), ("worst", "best"), strict=False):
            _picture(pictures / f"{plain}_{what}.png", one)


def _curves(folder: Path) -> None:
    draw_curves(
        folder / "curves.png",
        log=read_log(folder / "log.csv"),
        scores=read_scores(folder / "evaluation.csv"),
    )


def _picture(path: Path, judged: Judged) -> None:
    """Write the truth and what was found, side by side."""
    from PIL import Image

    grey = np.asarray(judged.image.pixels[0], np.float32)
    truth = np.maximum(judged.image.labels, 0).astype(np.uint32)
    both = np.concatenate([overlay(grey, truth), overlay(grey, judged.labels)], axis=1)
    with binary_whole(path) as file:
        Image.fromarray(both).save(file, format="PNG")


def judged_by(job: Job, engine: Engine, images: Sequence[Prepared]) -> list[Judged]:
    """Evaluate a network on images of known diameter.

    Parameters
    ----------
    job : Job
        The run.
    engine : Engine
        Its network.
    images : sequence of Prepared
        What is looked at.

    Returns
    -------
    list of Judged
        Of a network that restores, as the segmenter sees its images at each number of photons.
    """
    if job.plan.restore is None or job.segmenter is None:
        return evaluate_on(engine, images, target=job.target)
    segmenter = Engine(job.segmenter, device=engine.device, precision="fp32")
    said = job.plan.restore
    return evaluate_restorer(engine, segmenter, images, kind=said.kind, photons=said.photons)


def finish(job: Job, best: Path, *, device: str) -> Path:
    """Fit the size regression, score the test images, and write the card.

    Parameters
    ----------
    job : Job
        The run.
    best : path
        The weights; written anew with a size regression, if one is wanted.
    device : str
        Where the network runs.

    Returns
    -------
    path
        The card, `NAME.md` beside the weights.
    """
    model = load(best)
    flows = job.target.kind == "flow" and job.plan.restore is None
    engine = Engine(model, device=device, precision="fp32")
    if job.plan.size and flows:
        size = fit_size(engine, job.images["train"].images)
        if size is None:
            log.warning("no size regression: it needs two images with cells or more")
        else:
            save(best, model.net, model.info, size=size)
    _curves(job.folder)
    scores = read_scores(job.folder / "evaluation.csv")
    # As the best weights were chosen, so that the figures are theirs.
    steps = max(scores, key=lambda n: mean_of_sets(means_by_set(scores[n]))) if scores else 0
    figures = [_tuned(scores, steps)] if scores else []
    if job.plan.test:
        figures = [*(_tested(job, engine, seen) for seen in SEEN[: 2 if flows else 1]), *figures]
    path = job.folder / f"{job.plan.network.name}.md"
    with written_whole(path) as file:
        file.write(card(model.info, _used(job), figures))
    return path


def _tuned(scores: dict[int, list[Any]], step: int) -> Figures:
    return Figures(f"images to tune on, true diameter, step {step}", means_by_set(scores[step]))


def _tested(job: Job, engine: Engine, seen: Literal["true", "measured"]) -> Figures:
    """Score the test images, and write the scores down."""
    images = [image for image in job.images["test"].images if image.n_objects]
    if seen == "true":
        judged = judged_by(job, engine, images)
    else:
        judged = evaluate_on(engine, images, target=job.target, diameter=seen)
    path = job.folder / f"test_{seen}_diameter.csv"
    path.unlink(missing_ok=True)
    append_rows(path, [vars(one.score) for one in judged])
    return Figures(f"test images, {seen} diameter", means_by_set([one.score for one in judged]))


def _used(job: Job) -> Used:
    plan = job.plan
    settings = {**dataclasses.asdict(plan.recipe), **dataclasses.asdict(plan.augmentation)}
    if plan.restore:
        settings |= {f"restore {k}": v for k, v in dataclasses.asdict(plan.restore).items()}
    return Used(
        counts=_counts(job),
        licences=plan.data.licences,
        dropped=[line for found in job.images.values() for line in found.dropped],
        recipe={
            "start": plan.network.start or "fresh weights",
            "target": job.info.target,
            **{key: _said(value) for key, value in settings.items()},
        },
    )


def _said(value: Any) -> str:
    return " to ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _counts(job: Job) -> dict[str, dict[str, int]]:
    """Return how many images of each set are used for what."""
    found: dict[str, Counter[str]] = {}
    for split, collection in job.images.items():
        for image in collection.images:
            own = found.setdefault(image.pair.set, Counter())
            own[split] += 1
            own["objects"] += image.n_objects if split == "train" else 0
    return {name: dict(counts) for name, counts in found.items()}
