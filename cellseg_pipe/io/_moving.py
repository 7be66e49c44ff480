"""Checks and renames the stores that this package made; stores of others are left alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from cellseg_pipe.io._attributes import marker_of, to_disk

__all__ = [
    "check_store",
    "is_of",
    "ours",
    "remove",
    "remove_leftovers",
    "rename",
    "replace",
    "together",
]

ZARR_FILES = (".zgroup", ".zarray", ".zattrs", ".zmetadata")


def check_store(store: Path, stage_hash: str | None) -> None:
    """Refuse what is not a store of this package, or of another stage than the one given."""
    if not store.is_dir():
        raise FileNotFoundError(f"{store} does not exist. Run the stage again that makes it.")
    marker = marker_of(store)
    if marker is None:
        raise ValueError(f"{store} needs to be a store that cellseg_pipe made, and is not.")
    if stage_hash is not None and not is_of(marker, stage_hash):
        raise ValueError(
            f"{store} needs to be of stage {stage_hash}, got {marker.get('stage_hash') or 'none'}."
            " Run the stage again."
        )


def is_of(marker: dict[str, Any] | None, stage_hash: str | None) -> bool:
    """Tell whether a marker names this stage."""
    return bool(stage_hash) and marker is not None and marker.get("stage_hash") == stage_hash


def ours(path: Path) -> dict[str, Any] | None:
    """Return the marker of what is at a path, None where nothing is; refuse what others made."""
    if not os.path.lexists(path):
        return None
    marker = None if path.is_symlink() else marker_of(path)
    if marker is None:
        raise FileExistsError(
            f"{path} exists and was not made by cellseg_pipe. Rename it, or set another output.dir."
        )
    return marker


def together(source: Path, target: Path) -> bool:
    """Tell whether two folders lie on one file system, where a rename is one step."""
    return source.stat().st_dev == target.stat().st_dev


def rename(source: Path, target: Path) -> None:
    """Rename a folder, for good."""
    os.rename(source, target)
    for folder in {source.parent, target.parent}:
        to_disk(folder)


def replace(source: Path, target: Path) -> None:
    """Rename a folder into place; what is there is renamed aside first, and then removed.

    If this is cut short, the same call with the folder made again completes it.
    """
    old = target.with_name(f".old-{target.name}")
    if target.exists():
        remove(old)  # of an earlier call, which had its new folder in place
        rename(target, old)
    rename(source, target)
    if old.is_file():
        old.unlink()
    remove(old)


def remove(folder: Path) -> None:
    """Remove a folder, if it is there."""
    if folder.is_dir():
        shutil.rmtree(folder)


def remove_leftovers(store: Path) -> None:
    """Remove files that jobs had begun to write when they were killed."""
    for folder, _, files in os.walk(store):
        for file in files:
            if file.startswith(".") and file not in ZARR_FILES:
                os.unlink(os.path.join(folder, file))
