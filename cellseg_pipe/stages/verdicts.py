"""Puts quality control together: a table of blocks, and verdicts in plain words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.io.tables import write_table
from cellseg_pipe.qc import (
    FIGURES,
    KINDS,
    SeamScore,
    field_grid,
    score_counts,
    suspects_of,
    unevenness,
)
from cellseg_pipe.stages._blocks import block_grid
from cellseg_pipe.stages._cell_sums import DOUBTFUL, CellSums, cell_sums
from cellseg_pipe.stages.qc import Looked, looked_channels, typical_px
from cellseg_pipe.stages.tiling import Tiling
from cellseg_pipe.stages.unit import UnitRun
from cellseg_pipe.tiles import Grid

__all__ = ["judge_run"]

LEAST_CELLS = 5  # of a block whose mean confidence says something
# From which share on a verdict is a warning: of blocks, pixels, cells, grey values.
WARN = {"focus": 0.01, "brightness": 0.01, "saturated": 0.001, "doubtful": 0.1, "uneven": 0.25}
# Networks know cells of 0.75 to 1.25 times the diameter that they are told, and a bit beyond.
WARN_RATIO = 1.5


@dataclass(frozen=True)
class Verdict:
    """One sentence on the quality of a result.

    Parameters
    ----------
    about : str
        What was looked at.
    level : {"ok", "warn"}
        Whether it is worth a look.
    text : str
        The sentence.
    """

    about: str
    level: Literal["ok", "warn"]
    text: str


def judge_run(
    unit: UnitRun, tiling: Tiling, *, counts: dict[str, int], looked: Callable[[], Looked]
) -> dict[str, Any]:
    """Write the table of blocks of a unit, and say how good image and result are.

    Parameters
    ----------
    unit : UnitRun
        The unit; its table is published.
    tiling : Tiling
        Its tiles.
    counts : dict of str to int
        Cells, and those that are flagged and dropped.
    looked : callable
        Gives what was found of all blocks.

    Returns
    -------
    dict
        The `qc` of `summary.json`: `level`, `verdicts`, and figures.
    """
    published, maps = unit.run.unit(unit.name), unit.experiment.qc.maps
    blocks = block_grid(unit.image.shape, unit.look_mode)
    axes, typical = unit.image.spatial, typical_px(tiling)
    fields = field_grid(unit.image.shape, typical)
    cells = cell_sums(published.cells, blocks, axes=axes, fields=fields)
    medians = cells.diameters.medians()
    verdicts = [_of_cells(cells, counts)]
    if not unit.sources:  # of cells that are made from others no network was told how large
        verdicts.append(_of_diameters(medians, fields, tiling))
    figures: dict[str, Any] = {"diameter_map": _map(medians, fields)}
    published.blocks.unlink(missing_ok=True)
    if maps:
        found = looked()
        suspects = _suspects(found, blocks)
        seams = score_counts([found.seams], typical_px=typical)
        verdicts += [*_of_image(found, suspects, blocks), _of_seams(seams)]
        figures |= {"seam_score": seams.score, "seams": _figures(seams)}
        names = _channel_names(unit, tiling)
        rows = _rows(blocks, found, suspects, cells=cells, names=names, axes=axes)
        write_table(published.blocks, rows)
    warn = any(verdict.level == "warn" for verdict in verdicts)
    return {
        "level": "warn" if warn else "ok",
        "verdicts": [vars(verdict) for verdict in verdicts],
        **figures,
    }


def _suspects(looked: Looked, blocks: Grid) -> dict[str, NDArray[np.bool_]]:
    """Return which blocks are suspicious, of those that were looked at."""
    inside, found = looked.inside, {}
    for kind, rows in suspects_of(looked.figures[inside], _sizes(blocks)[inside]).items():
        found[kind] = np.zeros((len(blocks), rows.shape[1]), bool)
        found[kind][inside] = rows
    return found


def _of_cells(cells: CellSums, counts: dict[str, int]) -> Verdict:
    n = counts["n_cells"]
    if not n:
        return Verdict("cells", "warn", "no cells were found")
    share = cells.n_doubtful / n
    said = f"{_percent(share)} of the cells are doubtful (confidence below {DOUBTFUL})"
    for what in ("flagged", "dropped"):
        if k := counts[f"n_{what}"]:
            said += f"; {_percent(k / n)} are {what}"
    return Verdict("cells", "warn" if share > WARN["doubtful"] else "ok", said)


def _of_diameters(medians: NDArray[np.float64], fields: Grid, tiling: Tiling) -> Verdict:
    """Compare what is typical in each part of the image with what the network was told."""
    if not np.isfinite(medians).any():
        return Verdict("diameter", "ok", "too few cells to compare the parts of the image")
    told, found = _told(fields, tiling), medians.ravel()
    small, large = np.nanmin(found), np.nanmax(found)
    said = f"typical cells measure {small:.3g} to {large:.3g} px over the parts of the image"
    ratio = np.maximum(found / told, told / found)
    far = int(np.nanargmax(ratio))
    if ratio[far] <= WARN_RATIO:
        return Verdict("diameter", "ok", said)
    said += (
        f"; the network was told {told[far]:.3g} px, and {found[far]:.3g} is typical in"
        f" {fields.box(far)}: {_mend(tiling)}"
    )
    return Verdict("diameter", "warn", said)


def _told(fields: Grid, tiling: Tiling) -> NDArray[np.float64]:
    """Return at which diameter the middle of each field was seen, as voxels count."""
    boxes = [fields.box(number) for number in range(len(fields))]
    middles = [[(a + b) // 2 for a, b in zip(x.start, x.stop, strict=True)] for x in boxes]
    seen = tiling.plan.typical_px(np.array(middles, np.int64)) / tiling.plan.diameter_px
    return np.asarray(np.broadcast_to(seen * typical_px(tiling), len(fields)))


def _mend(tiling: Tiling) -> str:
    """Say what helps where parts of an image differ."""
    plan = tiling.plan
    seen = plan.settings.resample and tiling.seams == "exact" and plan.mode != "planes"
    if plan.fields is not None or not seen:
        return (
            "parts that differ are better segmented as images of their own, each with its region"
            " and diameter"
        )
    return (
        "diameter_classes: 2 of the target whose network found them, with a diameter that is"
        " measured, lets each part be seen at its own"
    )


def _map(medians: NDArray[np.float64], fields: Grid) -> dict[str, Any]:
    """Return the medians as JSON has them: nested lists by axis, null where cells are few."""
    said = medians.astype(object)
    said[~np.isfinite(medians)] = None
    return {"field_px": list(fields.pitch), "median_px": said.tolist()}


def _of_image(
    looked: Looked, suspects: dict[str, NDArray[np.bool_]], blocks: Grid
) -> list[Verdict]:
    n_px = np.where(looked.inside, _sizes(blocks), 0)
    any_channel = {kind: np.asarray(rows.any(axis=1)) for kind, rows in suspects.items()}
    rated = np.isfinite(looked.figures[:, :, FIGURES.index("focus")]).any(axis=1)
    focus = float(n_px[any_channel["focus"]].sum() / max(n_px[rated].sum(), 1))
    other = float(n_px[any_channel["brightness"]].sum() / n_px.sum())
    top, at_top = (looked.figures[:, :, FIGURES.index(name)] for name in ("top", "at_top"))
    clipped = np.where((top == top[looked.inside].max(axis=0)) & ~suspects["blank"], at_top, 0).sum(
        axis=0
    )
    share = float((clipped / n_px.sum()).max(initial=0.0))
    uneven = unevenness(looked.figures[looked.inside], _middles(blocks)[looked.inside])
    return [
        _verdict("focus", focus, "of the image is out of focus"),
        _verdict("brightness", other, "of the image is brighter, darker or noisier than the rest"),
        _verdict("saturated", share, "of the pixels are at the highest value: saturated"
                 if share > WARN["saturated"] else "of the pixels are at the highest value"),
        _blank(any_channel["blank"], blocks, looked.inside),
        _illumination(uneven),
    ]  # fmt: skip


def _verdict(about: str, share: float, text: str) -> Verdict:
    level: Literal["ok", "warn"] = "warn" if share > WARN[about] else "ok"
    return Verdict(about, level, f"{_percent(share)} {text}")


def _illumination(uneven: NDArray[np.float64]) -> Verdict:
    if not np.isfinite(uneven).any():
        return Verdict("illumination", "ok", "the image is too small to judge its illumination")
    worst = float(np.nanmax(uneven))
    text = f"the ground differs over the image by {_percent(worst)} of the grey values in use"
    return Verdict("illumination", "warn" if worst > WARN["uneven"] else "ok", text)


def _blank(constant: NDArray[np.bool_], blocks: Grid, inside: NDArray[np.bool_]) -> Verdict:
    """Judge blocks of one value: what borders on the image's border may be meant to be empty.

    So may what borders on blocks that nobody looked at.
    """
    from scipy import ndimage

    regions, _ = ndimage.label((constant | ~inside).reshape(blocks.counts))
    # Of a stack of few planes each lies at an end, which says nothing of its blocks.
    outer = [np.take(regions, end, axis=axis).ravel() for axis in range(regions.ndim)
             for end in (0, -1) if axis >= regions.ndim - 2 or regions.shape[axis] > 2]  # fmt: skip
    outer.append(regions.ravel()[~inside])
    known = np.unique(np.concatenate([np.zeros(1, regions.dtype), *outer]))
    lost = int(np.count_nonzero((regions > 0) & ~np.isin(regions, known)))
    said = f"{_percent(constant[inside].mean())} of the blocks hold one value only"
    if lost:
        said += f"; {lost} of them lie inside the image: were they lost?"
    return Verdict("blank", "warn" if lost else "ok", said)


def _of_seams(seams: SeamScore) -> Verdict:
    return Verdict("seams", "warn" if seams.score else "ok", seams.verdict)


def _figures(seams: SeamScore) -> dict[str, dict[str, float | None]]:
    """Return figures as JSON has them, which knows no nan."""
    return {
        figure.name: {
            name: float(value) if np.isfinite(value := getattr(figure, name)) else None
            for name in ("seams", "elsewhere", "excess", "low", "high")
        }
        for figure in seams.figures
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _sizes(blocks: Grid) -> NDArray[np.int64]:
    return np.array([blocks.box(number).size for number in range(len(blocks))], np.int64)


def _middles(blocks: Grid) -> NDArray[np.float64]:
    boxes = [blocks.box(number) for number in range(len(blocks))]
    return np.array([[(a + b) / 2 for a, b in zip(x.start, x.stop, strict=True)] for x in boxes])


def _channel_names(unit: UnitRun, tiling: Tiling) -> list[str]:
    names = unit.image.channel_names or tuple(map(str, range(unit.image.n_channels)))
    chosen = [names[i] for i in looked_channels(tiling, unit.image.n_channels)]
    return [f"{name}_{i}" if chosen.count(name) > 1 else name for i, name in enumerate(chosen)]


def _rows(
    blocks: Grid,
    looked: Looked,
    suspects: dict[str, NDArray[np.bool_]],
    *,
    cells: CellSums,
    names: list[str],
    axes: str,
) -> dict[str, NDArray[Any]]:
    """Return the table of blocks: place, image, result, what is suspicious."""
    boxes = [blocks.box(number) for number in range(len(blocks))]
    n_px = _sizes(blocks)
    columns: dict[str, NDArray[Any]] = {}
    for axis, name in enumerate(axes):
        columns[f"{name}_start_px"] = np.array([box.start[axis] for box in boxes], np.int64)
        columns[f"{name}_stop_px"] = np.array([box.stop[axis] for box in boxes], np.int64)
    for channel, name in enumerate(names):
        part = dict(zip(FIGURES, looked.figures[:, channel].T, strict=True))
        columns |= {f"{what}_{name}": part[what] for what in FIGURES if what != "at_top"}
        columns[f"at_top_{name}"] = part["at_top"] / n_px
    columns["n_cells"] = cells.n_cells
    columns["foreground"] = np.where(looked.inside, looked.covered / n_px, np.nan)
    columns["cells_per_mpx"] = cells.n_cells / n_px * 1e6
    some = np.maximum(cells.n_cells, 1)
    columns["confidence"] = np.where(cells.n_cells, cells.confidence / some, np.nan)
    columns["clipped"] = np.where(cells.n_cells, cells.n_border / some, np.nan)
    doubtful = (cells.n_cells >= LEAST_CELLS) & (columns["confidence"] < DOUBTFUL)
    marks = {kind: np.asarray(suspects[kind].any(axis=1)) for kind in KINDS} | {
        "doubtful": doubtful
    }
    texts = [", ".join(k for k, rows in marks.items() if rows[i]) for i in range(len(boxes))]
    return columns | {"suspect": np.array(texts, object)}
