"""Fits the confidence of cells to truth, and writes how well it does on images not fitted to.

`python tests/bench/confidence.py collect DATA CELLS.npz`, then `python tests/bench/confidence.py
fit CELLS.npz`, or `score CELLS.npz` for the weights that are there. With `collect --window-px 128`
cells lie where windows overlap, and `python tests/bench/confidence.py agreement CELLS.npz` says
what that tells.

DATA is a folder of the images that config/training/split.csv lists. Real images, and synthetic ones
that are made here, are segmented by the shipped model with a diameter that is off by up to 1.5
times, as a user's may be, and with a flow threshold of 1, so that wrong cells are there to be
learnt from. A cell is wrong if no true one shares half with it (IoU below .5). Images of train and
tune are fitted to, those of test are scored. `fit` writes cellseg_pipe/qc/_calibration.py and
docs/qc-calibration.md. Sets that are not annotated in full are left out.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
NOT_IN_FULL = ("Aitslab-bioimaging2 cells (2ch)", "Aitslab nuclei of cells", "Usiigaci")
LEFT_OUT = (*NOT_IN_FULL, "DSB2018/he320", "StarDist 3D demo")
PER_SET = {"fit": 8, "test": 8}
PER_SET_3D = {"fit": 3, "test": 2}
CROP = {2: (400, 400), 3: (24, 112, 112)}
OFF = 0.4  # logarithm of a diameter over the true one
FLOW_THRESHOLD, USUAL = 1.0, 0.4
FOLDS = 5  # of images, where what is fitted to some is scored on the others
RIDGE = 1.0
CASES = [(ndim, kind) for ndim in (2, 3) for kind in ("", ", no flow error")]
BINS = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class Image:
    """An image with its truth, and what it is used for."""

    name: str
    set: str
    use: str
    pixels: Any
    truth: Any
    settings: dict[str, Any]


def real_images(data: Path) -> Iterator[Image]:
    """Yield the real images, a bounded number of each set."""
    from cellseg_pipe.io.images import read_array

    rng = np.random.default_rng(0)
    rows = list(csv.DictReader(open(ROOT / "config/training/split.csv", encoding="utf-8")))
    rng.shuffle(rows)
    taken: dict[tuple[str, str], int] = {}
    for row in rows:
        path, use = data / row["image"], "test" if row["split"] == "test" else "fit"
        key = row["set"], use
        flat = not row["spacing_um"]
        most = (PER_SET if flat else PER_SET_3D)[use]
        if row["set"] in LEFT_OUT or not path.exists() or taken.get(key, 0) >= most:
            continue
        taken[key] = taken.get(key, 0) + 1
        pixels, truth = np.squeeze(read_array(path)), np.squeeze(read_array(data / row["labels"]))
        cut = tuple(
            slice((n - min(n, c)) // 2, (n + min(n, c)) // 2)
            for n, c in zip(truth.shape, CROP[truth.ndim], strict=True)
        )
        said: dict[str, Any] = {}
        if row["channels"]:
            said["channels"] = row["channels"]
        if not flat:
            z, _, x = map(float, row["spacing_um"].split("/"))
            said |= {"mode": "3d", "anisotropy": z / x}
        last = (slice(None),) if pixels.ndim > truth.ndim else ()
        said["axes"] = "zyx"[-truth.ndim :] + ("c" if last else "")
        said["rgb"] = bool(last)
        yield Image(row["image"], row["set"], use, pixels[(*cut, *last)], truth[cut], said)


def synthetic_images() -> Iterator[Image]:
    """Yield synthetic images and volumes."""
    from cellseg_pipe.geometry import Box
    from cellseg_pipe.synth import PRESETS, render

    cases = [("nuclei", (400, 400), 8), ("cells", (400, 400), 8), ("volume", (24, 112, 112), 6)]
    for preset, shape, n in cases:
        for seed in range(n):
            photons = [1.0, 0.3, 0.1][seed % 3]
            spec = replace(PRESETS[preset], shape=shape, seed=2000 + seed)
            spec = replace(spec, photons=spec.photons * photons)
            made = render(spec, Box.of(shape))
            channels = [1, 0] if preset == "cells" else 0  # a cell with its nucleus
            said: dict[str, Any] = {"axes": "c" + "zyx"[-len(shape) :], "channels": channels}
            if len(shape) == 3:
                said |= {"mode": "3d", "anisotropy": spec.anisotropy}
            use = "test" if seed >= n - n // 3 else "fit"
            name = f"synthetic {preset}"
            yield Image(f"{name} {seed}", name, use, made.image, made.labels, said)


def collect(data: Path, out: Path, window_px: int | None) -> None:
    """Segment all images and keep what is known of each cell."""
    from cellseg_pipe.nets.engine import engine_for

    engine = engine_for("generalist", device="cpu", precision="auto", threads=1)
    rng = np.random.default_rng(1)
    parts = []
    for number, image in enumerate([*synthetic_images(), *real_images(data)]):
        if window_px is not None:
            image.settings["window_px"] = window_px
        part = cells_of(image, engine, factor=float(np.exp(rng.uniform(-OFF, OFF))))
        if part is not None:
            parts.append(part | {"image": np.full(len(part["wrong"]), number)})
            wrong = part["wrong"]
            print(f"{image.set:24} {image.use:5} {len(wrong):5} cells, {wrong.mean():.2f} wrong")
            np.savez(out, **{k: np.concatenate([p[k] for p in parts]) for k in parts[0]})


def cells_of(image: Image, engine: Any, *, factor: float) -> dict[str, Any] | None:
    """Return the features of each cell, and whether it is wrong."""
    import cellseg_pipe as cs
    from cellseg_pipe.kernels import (
        boxes_and_areas,
        diameter_px,
        iou_of,
        object_sums,
        overlap_pairs,
    )
    from cellseg_pipe.qc.confidence import features_of
    from cellseg_pipe.segmentation.form import covariances

    truth = image.truth.astype(np.uint32)
    ndim, z = truth.ndim, image.settings.get("anisotropy", 1.0)
    step = (z, 1.0, 1.0)[-ndim:]
    areas = boxes_and_areas(truth).area
    if not len(areas):
        return None
    typical = float(np.median(diameter_px(areas * np.prod(step), ndim))) * factor
    found = cs.segment(
        image.pixels,
        model=engine,
        diameter_px=typical,
        flow_threshold=FLOW_THRESHOLD,
        threads=1,
        **image.settings,
    )
    if not found.n_cells:
        return None
    chance = np.clip(found.table["probability"], 1e-9, 1 - 1e-9)
    error = found.table["flow_error"]
    sums = object_sums(found.labels)
    features = features_of(
        sums.area,
        covariances(sums, step),
        logit=np.log(chance / (1 - chance)),
        flow_error=np.nan_to_num(error),
        typical_px=typical,
        step_px=step,
    )
    pairs = iou_of(overlap_pairs(found.labels, truth))
    best = np.zeros(found.n_cells + 1)
    np.maximum.at(best, pairs.left, np.where((pairs.left > 0) & (pairs.right > 0), pairs.iou, 0))
    n = found.n_cells
    return features | {
        "wrong": best[1:] < 0.5,
        "ndim": np.full(n, ndim),
        "test": np.full(n, image.use == "test"),
        "known": np.isfinite(error),
        "agreement": found.table["agreement"],
        "set": np.full(n, image.set),
    }


def fitted(columns: np.ndarray, right: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the weights of a logistic regression, with a slight pull to zero."""
    weights = np.zeros(columns.shape[1])
    pull = RIDGE * np.eye(len(weights))
    pull[0, 0] = 1e-9
    for _ in range(50):
        chance = 1 / (1 + np.exp(-columns @ weights))
        slope = columns.T @ (weight * (right - chance)) - pull @ weights
        curve = (columns.T * (weight * chance * (1 - chance))) @ columns + pull
        weights = weights + np.linalg.solve(curve, slope)
    return weights


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the chance that a positive scores above a negative; ties count half."""
    from scipy.stats import rankdata

    rank, n = rankdata(score), int(positive.sum())
    if not 0 < n < len(score):
        return float("nan")
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def balanced(cells: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return a weight per cell: each set counts as the root of its number of cells."""
    names, place, count = np.unique(cells["set"][rows], return_inverse=True, return_counts=True)
    weight = (1 / np.sqrt(count))[place]
    return weight / weight.mean()


def fit(path: Path) -> None:
    """Fit, write the weights, and say how well they do."""
    from cellseg_pipe.qc.confidence import FEATURES

    cells = dict(np.load(path))
    right = ~cells["wrong"]
    weights = {}
    for ndim, kind in CASES:
        names = [f for f in FEATURES if not (kind and f.startswith("flow_error"))]
        columns = np.stack([cells[name] for name in names], 1)
        rows = cells_with(cells, ndim, kind) & ~cells["test"]
        found = fitted(columns[rows], right[rows], balanced(cells, rows))
        by_name = dict(zip(names, found, strict=True))
        weights[f"{ndim}d{kind}"] = tuple(round(float(by_name.get(f, 0)), 4) for f in FEATURES)
    write_weights(weights)
    told = f"Fitted to {int((~cells['test']).sum()):,} cells; below"
    score(cells, weights, told)


def cells_with(cells: dict[str, np.ndarray], ndim: int, kind: str) -> np.ndarray:
    """Return which cells have so many axes, and a flow error if that is looked at."""
    return (cells["ndim"] == ndim) & (cells["known"] | bool(kind))


def score(cells: dict[str, np.ndarray], weights: dict[str, Any], told: str) -> None:
    """Write the page of how well weights do on images that were kept apart."""
    from cellseg_pipe.qc.confidence import FEATURES

    columns, report = np.stack([cells[name] for name in FEATURES], 1), []
    for ndim, kind in CASES:
        test = cells_with(cells, ndim, kind) & cells["test"]
        chance = 1 / (1 + np.exp(-columns @ np.array(weights[f"{ndim}d{kind}"])))
        usual = test & (cells["flow_error"] <= USUAL)
        report.append((f"{ndim}D{kind}", cells, chance, test, usual))
    write_report(report, told)


def compare(path: Path) -> None:
    """Say how well agreement tells wrong cells, alone and beside the features."""
    from cellseg_pipe.qc.confidence import FEATURES

    cells = dict(np.load(path))
    fold = np.random.default_rng(0).integers(0, FOLDS, cells["image"].max() + 1)[cells["image"]]
    features = np.stack([cells[name] for name in FEATURES], 1)
    unlike = np.sqrt(1 - cells["agreement"])
    more = np.column_stack([features, unlike / np.nanstd(unlike)])
    for ndim in (2, 3):
        seen = (cells["ndim"] == ndim) & np.isfinite(cells["agreement"])
        for most in (np.inf, USUAL):
            rows = seen & (cells["flow_error"] <= most)
            wrong = cells["wrong"][rows]
            scores = {"agreement": -cells["agreement"], "flow error": cells["flow_error"]}
            scores |= {"features": -apart(features, cells, seen=seen, fold=fold)}
            scores |= {"and agreement": -apart(more, cells, seen=seen, fold=fold)}
            said = ", ".join(f"{name} {auroc(s[rows], wrong):.4f}" for name, s in scores.items())
            print(f"{ndim}D, flow error up to {most}: {wrong.sum()} of {wrong.size} wrong: {said}")


def apart(
    columns: np.ndarray, cells: dict[str, np.ndarray], *, seen: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Return the score of each cell by weights that are fitted to other images."""
    score = np.zeros(len(columns))
    for k in np.unique(fold[seen]):
        others = seen & (fold != k)
        weights = fitted(columns[others], ~cells["wrong"][others], balanced(cells, others))
        score[seen & (fold == k)] = columns[seen & (fold == k)] @ weights
    return score


def write_weights(weights: dict[str, tuple[float, ...]]) -> None:
    """Write the module that holds the weights."""
    lines = [
        '"""What `tests/bench/confidence.py` has fitted: weights of the features of cells."""',
        "",
        "# In the order of `confidence.FEATURES`.",
        "WEIGHTS: dict[str, tuple[float, ...]] = {",
        *(f'    "{name}": {values},' for name, values in weights.items()),
        "}",
    ]
    (ROOT / "cellseg_pipe/qc/_calibration.py").write_text("\n".join(lines) + "\n")


def write_report(report: list[Any], told: str) -> None:
    """Write the page of figures."""
    lines = [
        "# Calibration of the confidence",
        "",
        "Written by `tests/bench/confidence.py`; how it is made, and what it is for: `qc.md`.",
        f"{told} are cells of images that were kept apart (test groups).",
        "",
        "| cells | n | wrong | AUROC of wrong | AUROC of probability alone | of flow error alone"
        " | calibration error |",
        "|---|---|---|---|---|---|---|",
    ]
    curves = []
    for name, cells, chance, test, usual in report:
        for what, rows in ((name, test), (f"{name}, flow error up to {USUAL}", usual)):
            wrong = cells["wrong"][rows]
            table = reliability(chance[rows], ~wrong)
            gap = sum(n * abs(said - was) for _, n, said, was in table) / max(len(wrong), 1)
            alone = auroc(-cells["logit"][rows], wrong), auroc(cells["flow_error"][rows], wrong)
            ours = auroc(-chance[rows], wrong)
            lines.append(
                f"| {what} | {len(wrong)} | {wrong.mean():.3f} | **{ours:.3f}**"
                f" | {alone[0]:.3f} | {alone[1]:.3f} | {gap:.3f} |"
            )
            curves.append((what, table))
    lines += ["", *by_set(report[0]), ""]
    for what, table in (curves[0], curves[4]):
        lines += [f"Reliability, {what}:", "", "| confidence | cells | mean | share right |"]
        lines += ["|---|---|---|---|"]
        lines += [f"| {name} | {n} | {said:.3f} | {was:.3f} |" for name, n, said, was in table]
        lines.append("")
    (ROOT / "docs/qc-calibration.md").write_text("\n".join(lines).rstrip() + "\n")


def by_set(entry: Any) -> list[str]:
    """Return a table over the sets of flat images."""
    _, cells, chance, test, _ = entry
    lines = ["By set (2D):", "", "| set | cells | wrong | mean confidence | AUROC |"]
    lines.append("|---|---|---|---|---|")
    for name in np.unique(cells["set"][test]):
        rows = test & (cells["set"] == name)
        wrong = cells["wrong"][rows]
        score = auroc(-chance[rows], wrong)
        said = chance[rows].mean()
        lines.append(f"| {name} | {len(wrong)} | {wrong.mean():.3f} | {said:.3f} | {score:.3f} |")
    return lines


def reliability(chance: np.ndarray, right: np.ndarray) -> list[tuple[str, int, float, float]]:
    """Return for each tenth: its name, cells, mean confidence, share that is right."""
    found = []
    for low, high in zip(BINS[:-1], BINS[1:], strict=True):
        rows = (chance >= low) & ((chance < high) | (high == 1))
        if rows.any():
            said, was = float(chance[rows].mean()), float(right[rows].mean())
            found.append((f"{low:.1f} to {high:.1f}", int(rows.sum()), said, was))
    return found


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("collect")
    step.add_argument("data", type=Path)
    step.add_argument("cells", type=Path)
    step.add_argument("--window-px", type=int)
    for name in ("fit", "score", "agreement"):
        steps.add_parser(name).add_argument("cells", type=Path)
    options = parser.parse_args()
    if options.step == "collect":
        collect(options.data, options.cells, options.window_px)
    elif options.step == "agreement":
        compare(options.cells)
    elif options.step == "score":
        from cellseg_pipe.qc._calibration import WEIGHTS

        told = "The weights as they are shipped, with cells of the model as it is shipped; below"
        score(dict(np.load(options.cells)), WEIGHTS, told)
    else:
        fit(options.cells)


if __name__ == "__main__":
    main()
