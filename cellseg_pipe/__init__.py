"""Segments cells in volumes and slides of any size; this page holds the public names only."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellseg_pipe.metrics import evaluate

__version__ = "0.1.0"
__all__ = ["evaluate"]

# Where each name lives: loaded when it is first used, so that importing the package costs nothing.
_HOMES = {"evaluate": "cellseg_pipe.metrics"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
