"""What the result of each group of stages of a unit depends on, as hashes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellseg_pipe.nets._info import sha256_of
from cellseg_pipe.nets.catalog import SAM_PREFIX, resolve
from cellseg_pipe.segmentation.settings import CELL_SETTINGS
from cellseg_pipe.segmentation.tiled import BLOCK_PX
from cellseg_pipe.stages._hashes import hash_of

if TYPE_CHECKING:
    from cellseg_pipe.stages.unit import UnitRun

__all__ = ["GROUP", "OF_CLASSES", "OF_NETWORKS", "own_digests"]

RESULTS_VERSION = 1  # a higher one gives other labels for the same settings
DIAMETER_VERSION = 2  # a higher one measures other diameters, where they are measured
CELLS_VERSION = 2  # a higher one stores other things of cells: windows that are there still serve
MEASURED_VERSION = 2  # a higher one stores other things of what was measured
LOOKED_VERSION = 2  # a higher one counts other things for quality control
# Those of CELL_SETTINGS that decide which windows the cells of a region need.
WINDOW_SETTINGS = ("reach_px", "resample", "flow_smooth_px")
# Stages that a unit has not itself if its labels are made from those of others.
OF_NETWORKS = ("prepare", "plan", "predict", "masks", "seams", "number", "link", "chain")
# Those that a unit has for each class of diameters, with its number, where it has several.
OF_CLASSES = ("plan", "predict", "tiles", "masks", "number")
# Which hash a stage goes by.
GROUP = {
    "plan": "predict",
    "tiles": "masks",
    "seams": "masks",
    "rivals": "joined",
    "number": "joined",
    "link": "joined",
    "chain": "joined",
    "paint": "labels",
    "qc": "looked",
    "restore": "restored",
    "shrink": "restored",
    "judge": "judged",
    "sift": "judged",
}


def own_digests(unit: UnitRun) -> dict[str, str]:
    """Return the hashes that other targets do not change, unless labels are made from theirs.

    Parameters
    ----------
    unit : UnitRun
        The unit.

    Returns
    -------
    dict of str to str
        By group of stages.
    """
    if unit.part is not None:
        return _class_digests(unit, unit.part)
    found = _made_digests(unit) if unit.sources else _network_digests(unit)
    said = unit.experiment
    levels = [] if unit.n_levels == unit.usual_levels else [unit.n_levels]
    how = [unit.version, unit.unit.target, unit.batches["paint"], *levels]
    labels = hash_of(found["joined"], *how)
    measure = hash_of(labels, said.measure.model_dump(), MEASURED_VERSION)
    restored = hash_of(found["predict"], unit.restored_version, unit.batches["paint"])
    looked = hash_of(labels, LOOKED_VERSION)
    return found | {"labels": labels, "measure": measure, "looked": looked, "restored": restored}


def _class_digests(unit: UnitRun, part: int) -> dict[str, str]:
    of_all = unit.whole.own_digests
    found = {group: hash_of(of_all[group], part) for group in ("masks", "joined")}
    near = [unit.chosen.settings[name] for name in WINDOW_SETTINGS]
    return found | {"predict": hash_of(of_all["predict"], part, near)}


def _made_digests(unit: UnitRun) -> dict[str, str]:
    origin = unit.origin.own_digests
    made = hash_of([source.labels_digest for source in unit.sources], unit.growth)
    return origin | {"masks": hash_of(origin["masks"], made), "joined": made}


def _network_digests(unit: UnitRun) -> dict[str, str]:
    settings = unit.chosen.settings
    cells = {name: settings[name] for name in CELL_SETTINGS if name in settings}
    network = {name: value for name, value in settings.items() if name not in cells}
    resources, tiles = unit.experiment.resources, unit.experiment.tiles
    models = [_model_hash(m) for m in (unit.chosen.model, unit.chosen.side_model)]
    # What the user says of the axes may be more than the file says.
    source = (unit.image.identity, unit.unit.image.axes)
    where = unit.region_identity
    restored: list[Any] = []
    if (first := unit.chosen.restore) is not None:
        restored = [first.settings, first.diameter_um, _model_hash(first.model)]
    given = settings.get("diameter_px") or unit.chosen.diameter_um
    measured = [] if given else [DIAMETER_VERSION]
    near = [settings[name] for name in WINDOW_SETTINGS]
    predict = hash_of(
        *([where, near] if unit.is_confined else []),
        *restored,
        *measured,
        RESULTS_VERSION,
        source,
        unit.spacing_um,
        network,
        unit.chosen.diameter_um,
        models,
        (resources.device, resources.precision),
        unit.batches["predict"],
    )
    cut: tuple[Any, ...] = (tiles.core_px, tiles.halo_px, unit.batches["masks"])
    if unit.mode == "3d":  # the blocks of other modes are what they always were
        cut = (*cut, BLOCK_PX["3d"])
    stitch = unit.experiment.stitch
    masks = hash_of(predict, CELLS_VERSION, cells, stitch.seams, cut, *([where] if where else []))
    joined = hash_of(masks, stitch.seam_iou) if stitch.seams == "iou" else masks
    return {"prepare": hash_of(source), "predict": predict, "masks": masks, "joined": joined}


def _model_hash(model: str | None) -> list[str] | None:
    """Return what is to be known of a model; what a peer's file means its name decides too."""
    if model is None:
        return None
    if model.startswith(SAM_PREFIX):
        return [sha256_of(Path(model.removeprefix(SAM_PREFIX)))]
    path = resolve(model)
    if path.suffix == ".safetensors":
        return [sha256_of(path)]
    sizes = (path.with_name(f"{path.name}_size.npy"), path.with_name(f"size_{path.name}.npy"))
    return [path.name, *(sha256_of(file) for file in (path, *sizes) if file.is_file())]
