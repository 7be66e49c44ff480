"""The jobs of a run as a workflow manager needs them: names, files, what needs what. No pixels."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cellseg_pipe.config import Experiment, dump, experiment_of, with_images
from cellseg_pipe.io.headers import Headers
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.paths import RunPaths
from cellseg_pipe.stages._run_layout import SMALL, RunLayout, StageLayout, UnitLayout, kind_of
from cellseg_pipe.stages.relation import made_needs, readers_of, records_of, related_needs

__all__ = [
    "RunLayout",
    "StageLayout",
    "UnitLayout",
    "forget_failures",
    "keep",
    "lay_out",
    "layout_of",
    "layouts_in",
    "open_stages",
    "read_layout",
]


def layout_of(
    experiment: Experiment | Mapping[str, Any], *, source: str | None = None
) -> RunLayout:
    """Open all images of an experiment, and write down what jobs there are.

    Parameters
    ----------
    experiment : Experiment or mapping
        What is to be done.
    source : str, optional
        The YAML file that a mapping was read from.

    Returns
    -------
    RunLayout
        Kept in the run's folder, so that its jobs need not open the images again.
    """
    layout, text = lay_out(experiment, source=source)
    keep(layout, text)
    return layout


def lay_out(
    experiment: Experiment | Mapping[str, Any], *, source: str | None = None
) -> tuple[RunLayout, str]:
    """Open all images of an experiment and say what jobs there are. Nothing is written.

    An image that cannot be opened is listed, unless none can: the others are segmented.

    Parameters
    ----------
    experiment : Experiment or mapping
        What is to be done.
    source : str, optional
        The YAML file that a mapping was read from.

    Returns
    -------
    RunLayout
        The jobs.
    str
        The experiment in effect, as YAML.
    """
    from cellseg_pipe.stages.opened import open_units

    if not isinstance(experiment, Experiment):
        experiment = experiment_of(experiment, source=source)
    # Scores are a branch of their own, and who is told is no part of a result.
    aside = {"evaluate": None, "on_finish": None}
    experiment = with_images(experiment).model_copy(update=aside)
    paths, text = RunPaths(Path(experiment.output.dir)), dump(experiment)
    name = _digest(text)
    headers = Headers(paths.headers)
    opened, errors = open_units(experiment, headers)
    if not opened:
        raise next(iter(errors.values()))
    units = list(_unit_layouts(experiment, opened))
    audits = {unit.name: unit.digests["audit"] for unit in opened}
    failed = {name: str(error) for name, error in errors.items()}
    said, dask = experiment.resources, experiment.dask
    layout = RunLayout(
        paths.root,
        paths.runs / f"config-{name}.yaml",
        _digest(text, [asdict(unit) for unit in units], *([failed] if failed else [])),
        tuple(units),
        threads=None if said.threads == "auto" else said.threads,
        device=said.device,
        disk=said.disk,
        audits=audits,
        failed=failed,
        cluster=dask.cluster if experiment.engine == "dask" else "",
        workers=None if dask.workers == "auto" else dask.workers,
        headers=headers,
    )
    return layout, text


def keep(layout: RunLayout, text: str, *, begun: bool = True) -> None:
    """Write down what a run is made of, as that of its folder from now on.

    Parameters
    ----------
    layout : RunLayout
        The jobs.
    text : str
        The experiment in effect, as YAML.
    begun : bool
        Whether the run begins; else the folder stays that of the run that it holds, if any.
    """
    of_run = [] if begun else _by_age(layout.paths)[:1]
    _keep(layout.config, text.encode())
    _keep(layout.file, json.dumps(_plain(layout), indent=1).encode())
    if layout.headers is not None:
        _keep(layout.paths.headers, layout.headers.text.encode())
    # The newest one is the run's: an earlier experiment may be taken up.
    for file in (layout.file, *of_run):
        others = (other.stat().st_mtime_ns for other in _by_age(layout.paths))
        newest = max(time.time_ns(), *(age + 1 for age in others))
        os.utime(file, ns=(newest, newest))


def _unit_layouts(experiment: Experiment, units: list[Any]) -> Iterator[UnitLayout]:
    """Yield the units with jobs of their own, then those of which a job segments many, as one."""
    from cellseg_pipe.stages.bundles import bundled, layout_of_bundles

    small = bundled(experiment, units)
    names = {unit.name for unit in small}
    for unit in units:
        if unit.name not in names:
            yield UnitLayout(unit.name, tuple(_stages(unit)))
    if small:
        yield layout_of_bundles(experiment, small)


def _stages(unit: Any) -> Iterator[StageLayout]:
    """Yield the stages of a unit with what each needs."""
    needs = made_needs(unit) if unit.sources else _network_needs(unit)
    # What reads records of tiles and windows says so: `cellseg clean` may have taken them.
    needs |= {"measure": ("paint", *records_of(unit, "masks")), "level1": ("paint",)}
    top = f"level{unit.n_levels - 1}" if unit.n_levels > 1 else "paint"
    for level in range(2, unit.n_levels):
        needs[f"level{level}"] = (f"level{level - 1}",)
    if unit.n_levels == 1:
        del needs["level1"]
    needs |= related_needs(unit)
    needs |= _qc_needs(unit, top)
    if unit.saves_restored:
        needs |= {"restore": ("plan",), "shrink": ("restore",)}
    looked = (stage for stage in ("qc", "sift", "shrink") if stage in needs)
    records = (*records_of(unit, "predict"), *records_of(unit, "masks"))
    needs["audit"] = ("measure", top, *looked, *records, *readers_of(unit))
    as_many = dict.fromkeys(("seams", "link", "rivals", "measure", "compartments"), "masks")
    as_many |= dict.fromkeys(("overlap", "qc", "restore", "sift"), "paint")
    for stage, before in needs.items():
        n_batches = unit.batches.get(as_many.get(stage, kind_of(stage)), 1)
        yield StageLayout(stage, unit.stage(stage).digest, n_batches, before)


def _qc_needs(unit: Any, top: str) -> dict[str, tuple[str, ...]]:
    """Return what the stages need that look at the result and leave dropped cells out."""
    qc, relation = unit.experiment.qc, unit.relation
    needs: dict[str, tuple[str, ...]] = {"qc": ("paint",)} if qc.maps else {}
    if qc.labels:
        # The table that rules are applied to says of nuclei and cells what each knows of the other.
        related = () if relation is None else (f"{relation.cells.name}/{relation.last}",)
        needs |= {"judge": ("measure", *related), "sift": ("judge", top)}
    return needs


def _network_needs(unit: Any) -> dict[str, tuple[str, ...]]:
    """Return what the stages need that lead from pixels to labels."""
    planes, iou = unit.is_chained, unit.experiment.stitch.seams == "iou"
    planned: dict[str, tuple[str, ...]] = {
        **({"prepare": ()} if unit.needs_copy else {}),
        "plan": ("prepare",) if unit.needs_copy else (),
    }
    if unit.parts:
        return planned | _class_needs(len(unit.parts))
    return {
        **planned,
        "predict": ("plan",),
        "tiles": ("plan",),
        "masks": ("tiles", "predict"),
        **({"seams": ("masks",)} if iou else {}),
        "number": ("seams",) if iou else ("masks",),
        **({"link": ("number", "masks"), "chain": ("link", "masks")} if planes else {}),
        "paint": ("chain", "masks") if planes else ("number", "masks"),
    }


def _class_needs(n_classes: int) -> dict[str, tuple[str, ...]]:
    """Return what the stages of classes of diameters need, and those that join their cells."""
    needs: dict[str, tuple[str, ...]] = {}
    for k in range(1, n_classes + 1):
        needs |= {
            f"plan{k}": ("plan",),
            f"predict{k}": (f"plan{k}",),
            f"tiles{k}": (f"plan{k}",),
            f"masks{k}": (f"tiles{k}", f"predict{k}"),
            f"number{k}": (f"masks{k}",),
        }
    every = {
        stage: tuple(f"{stage}{k}" for k in range(1, n_classes + 1))
        for stage in ("tiles", "masks", "number")
    }
    return needs | {
        "tiles": every["tiles"],
        "rivals": ("tiles", *every["number"], *every["masks"]),
        "number": ("rivals", *every["masks"]),
        "paint": ("number", *every["masks"]),
    }


def read_layout(path: Path | str) -> RunLayout:
    """Read the layout of a run that was begun.

    Parameters
    ----------
    path : path
        Folder of the results, whose newest layout is meant, or the file of a layout.

    Returns
    -------
    RunLayout
        As it was written.
    """
    path = Path(path)
    if path.is_dir():
        path = layouts_in(path)[0]
    stored = json.loads(path.read_text())
    units = tuple(
        UnitLayout(
            unit["name"],
            tuple(
                StageLayout(**{name: _tuple(value) for name, value in stage.items()})
                for stage in unit["stages"]
            ),
        )
        for unit in stored["units"]
    )
    where = (Path(stored["root"]), Path(stored["config"]), stored["digest"])
    names = ("threads", "device", "disk", "audits", "failed", "cluster", "workers")
    said = {name: stored[name] for name in names if name in stored}
    return RunLayout(*where, units, **said)


def layouts_in(root: Path) -> list[Path]:
    """Return the layouts of all experiments that a folder was used for.

    Parameters
    ----------
    root : path
        Folder of the results.

    Returns
    -------
    list of path
        One at least, that of the run first.
    """
    known = _by_age(RunPaths(root))
    if not known:
        raise FileNotFoundError(f"{root} holds no run: there is no {root}/runs/layout-*.json.")
    return known


def _by_age(paths: RunPaths) -> list[Path]:
    """Return the layouts of a folder, the newest first."""
    known = paths.runs.glob("layout-*.json")
    return sorted(known, key=lambda file: file.stat().st_mtime_ns, reverse=True)


def open_stages(layout: RunLayout) -> Iterator[tuple[str, StageLayout, list[int]]]:
    """Yield the stages that are still to do: of finished units none, though their scratch went.

    Parameters
    ----------
    layout : RunLayout
        The run.

    Yields
    ------
    unit : str
        Name of the unit, or `SMALL`.
    stage : StageLayout
        The stage.
    batches : list of int
        Its jobs that are not done, one at least.
    """
    for unit, stage in layout.jobs():
        if unit != SMALL and layout.audit(unit).plan.exists():
            continue
        names = layout.outputs(unit, stage.name)
        batches = [b for b, name in enumerate(names) if not (layout.root / name).exists()]
        if batches:
            yield unit, stage, batches


def _plain(layout: RunLayout) -> dict[str, Any]:
    return {
        "root": str(layout.root),
        "config": str(layout.config),
        "digest": layout.digest,
        "units": [asdict(unit) for unit in layout.units],
        "threads": layout.threads,
        "device": layout.device,
        "disk": layout.disk,
        "audits": layout.audits,
        "failed": layout.failed,
        "cluster": layout.cluster,
        "workers": layout.workers,
    }


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _keep(path: Path, content: bytes) -> None:
    """Write a file unless it is there with this content: its age must not change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content)


def forget_failures(layout: RunLayout) -> None:
    """Forget what failed before, as a new start tries it again. Small images keep count of it.

    Parameters
    ----------
    layout : RunLayout
        The run.
    """
    layout.paths.failed.unlink(missing_ok=True)
    for name in layout.names:
        layout.audit(name).failed.unlink(missing_ok=True)
