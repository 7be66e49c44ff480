"""Segments cells in volumes and slides of any size; this page holds the public names only."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellseg_pipe.io.result import open_result
    from cellseg_pipe.kernels import (
        expand_labels,
        find_masks,
        flow_quality,
        flows_from_labels,
        masks_from_flows,
        stitch_planes,
    )
    from cellseg_pipe.metrics import evaluate
    from cellseg_pipe.nets.catalog import load_model
    from cellseg_pipe.qc import seam_score
    from cellseg_pipe.restoration import restore
    from cellseg_pipe.segmentation import segment, segment_many
    from cellseg_pipe.segmentation.relate import relate

__version__ = "0.1.0"
__all__ = [
    "evaluate",
    "expand_labels",
    "find_masks",
    "flow_quality",
    "flows_from_labels",
    "load_model",
    "masks_from_flows",
    "open_result",
    "relate",
    "restore",
    "seam_score",
    "segment",
    "segment_many",
    "stitch_planes",
]

_HOMES = {
    "evaluate": "metrics",
    "load_model": "nets.catalog",
    "open_result": "io.result",
    "relate": "segmentation.relate",
    "restore": "restoration",
    "seam_score": "qc",
    "segment": "segmentation",
    "segment_many": "segmentation",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing the package costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "kernels")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
