"""Puts a finished label image into the OME-Zarr image that it belongs to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from cellseg_pipe.io._attributes import (
    described,
    level_paths,
    load,
    marker_of,
    metadata_files,
    ngff_version,
    save,
    set_attribute,
    to_disk,
)
from cellseg_pipe.io._moving import check_store, is_of, remove, remove_leftovers, rename, together
from cellseg_pipe.io.ngff import Version

__all__ = ["add_labels_to_image", "check_takes_labels", "version_for"]

LOCK = ".cellseg_pipe.lock"


def add_labels_to_image(
    store: Path | str,
    image_path: Path | str,
    name: str,
    *,
    keep: Literal["move", "copy"] = "move",
    stage_hash: str | None = None,
) -> None:
    """Put a finished label image into an OME-Zarr image, as `labels/NAME`.

    Nothing else in the image changes but the list of its label images, in one instant. If this is
    cut short, the same call again completes it.

    Parameters
    ----------
    store : path
        A label image made by this package.
    image_path : path
        A local image of the same OME-Zarr version that can be written.
    name : str
        Of the label image; one of that name is never replaced.
    keep : {"move", "copy"}
        Whether the store goes into the image or also stays where it is.
    stage_hash : str, optional
        Of the stage that made the store, by which one that was moved before is known again.
    """
    store = Path(store)
    image = _checked_image(image_path, name)
    target = image / "labels" / name
    if store.exists() or not target.exists():
        _check_fits(store, image, stage_hash)
    with _alone(image):
        if not os.path.lexists(target):
            _put(store, target, version=str(ngff_version(image)), keep=keep)
        elif not is_of(marker_of(target), stage_hash or _hash_of(store)):
            raise FileExistsError(f"{image} has labels named {name!r}. Choose another name.")
        _list(image, name)
        for group in (image / "labels", image):  # the outer copy holds the inner one
            _consolidate(group, image / "labels", name)


def _hash_of(store: Path) -> str | None:
    return (marker_of(store) or {}).get("stage_hash")


def _checked_image(image_path: Path | str, name: str) -> Path:
    """Return an image that can be changed, or say why it cannot."""
    if "://" in str(image_path):
        raise ValueError(
            f"labels are added to local images, got {image_path}. Leave into_image off: the labels"
            " are then a store of their own."
        )
    if not name or name.startswith((".", "__")) or "/" in name:
        raise ValueError(f"labels need a plain name, got {name!r}.")
    image = Path(image_path)
    if ngff_version(image) is None or "image-label" in described(image):
        raise ValueError(
            f"{image} needs to be an OME-Zarr image. Name the group that has multiscales, as in"
            " PATH/0."
        )
    there = [folder for folder in (image, image / "labels") if folder.exists()]
    closed = [folder for folder in there if not os.access(folder, os.W_OK | os.X_OK)]
    if closed:
        raise PermissionError(
            f"{closed[0]} cannot be written. Leave into_image off: the labels are then a store of"
            " their own."
        )
    return image


def version_for(image_path: Path | str) -> Version | None:
    """Return the OME-Zarr version that labels of an image have to be; None where none is written.

    Parameters
    ----------
    image_path : path
        The image.

    Returns
    -------
    str or None
        That of the image, if it is one that we write.
    """
    found = ngff_version(Path(image_path))
    return next((version for version in get_args(Version) if version == found), None)


def check_takes_labels(
    image_path: Path | str, name: str, *, version: str | None, n_levels: int
) -> None:
    """Refuse an image that labels could not be added to, before they are made.

    Parameters
    ----------
    image_path : path
        The image.
    name : str
        Of the label image.
    version : str or None
        Of its OME-Zarr format.
    n_levels : int
        How many it has.
    """
    _check_matches(_checked_image(image_path, name), version, n_levels)


def _check_fits(store: Path, image: Path, stage_hash: str | None) -> None:
    check_store(store, stage_hash)
    _check_matches(image, ngff_version(store), len(level_paths(store)))


def _check_matches(image: Path, version: str | None, n_levels: int) -> None:
    if version != (wanted := ngff_version(image)):
        raise ValueError(
            f"the labels are OME-Zarr {version} and {image} is {wanted}: labels need the version of"
            " their image. Set output.ngff to that, or leave into_image off."
        )
    if n_levels != (needed := len(level_paths(image))):
        raise ValueError(
            f"the labels have {n_levels} levels and {image} has {needed}: labels need as many as"
            " their image. Leave into_image off, or write the image with as many levels."
        )


@contextlib.contextmanager
def _alone(image: Path) -> Iterator[None]:
    """Hold a lock on an image, so that two units do not lose each other's names."""
    file = image / LOCK
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if file.exists() and os.fstat(handle).st_ino == file.stat().st_ino:
            break
        os.close(handle)  # its holder has removed it meanwhile
    try:
        yield
    finally:
        os.unlink(file)
        os.close(handle)


def _put(store: Path, target: Path, *, version: str, keep: Literal["move", "copy"]) -> None:
    """Give the image the group, which is not listed yet."""
    labels = target.parent
    if target.name in described(labels).get("labels", []):
        raise FileExistsError(f"{labels} lists labels named {target.name!r}. Choose another name.")
    if not metadata_files(labels):
        _create_list(labels, version)
    remove_leftovers(store)
    stays = keep == "copy" or not together(store, labels)
    made = _copied(store, labels / f".{target.name}.copy") if stays else store
    about = {**described(made).get("image-label", {}), "source": {"image": "../../"}}
    set_attribute(made, (*_home(version), "image-label"), about)
    rename(made, target)
    if stays and keep == "move":
        remove(store)


def _home(version: str) -> tuple[str, ...]:
    """Return where in the attributes the metadata of OME-Zarr stand."""
    return () if version == "0.4" else ("ome",)


def _create_list(labels: Path, version: str) -> None:
    """Make the group of label images, which lists none yet."""
    labels.mkdir(exist_ok=True)
    if version == "0.4":
        save(labels / ".zattrs", {"labels": []})
        save(labels / ".zgroup", {"zarr_format": 2})
    else:
        about = {"ome": {"version": version, "labels": []}}
        save(labels / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": about})
    to_disk(labels.parent)


def _copied(store: Path, made: Path) -> Path:
    """Copy a store to the file system of the image, under a name that no reader follows."""
    remove(made)  # of a call that was cut short
    shutil.copytree(store, made)
    for folder, _, files in os.walk(made):
        for file in files:
            to_disk(Path(folder) / file)
        to_disk(Path(folder))
    return made


def _list(image: Path, name: str) -> None:
    """Add a name to the list of label images."""
    labels = image / "labels"
    known = described(labels).get("labels", [])
    if name not in known:
        home = _home(str(ngff_version(image)))
        set_attribute(labels, (*home, "labels"), [*known, name])


def _consolidate(group: Path, labels: Path, name: str) -> None:
    """Bring the copy of all metadata up to date that some programs keep in a group.

    Readers that find one look nowhere else.
    """
    new = (group / "zarr.json").is_file()
    file = group / ("zarr.json" if new else ".zmetadata")
    whole = load(file) if file.is_file() else {}
    known = (whole.get("consolidated_metadata") or {}) if new else whole
    if "metadata" not in known:
        return
    arrays = (folder for folder in (labels / name).iterdir() if metadata_files(folder))
    for node in (labels, labels / name, *arrays):
        for about in metadata_files(node):
            key = (node if new else about).relative_to(group).as_posix()
            known["metadata"][key] = load(about)
    known["metadata"].pop(".", None)
    save(file, whole)
