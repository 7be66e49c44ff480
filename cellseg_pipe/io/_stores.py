"""Where the files of a Zarr hierarchy lie: a folder, a zip file, or far away."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from cellseg_pipe.io._raw import said
from cellseg_pipe.io._remote import RemoteStore

__all__ = ["FolderStore", "Store", "ZipFileStore", "store_of"]


class Store(Protocol):
    """Files by key, below the group or array that was named."""

    @property
    def name(self) -> str:
        """As the user knows it."""

    def get(self, key: str) -> bytes | None:
        """Return the content of a file, None where there is none."""

    def children(self, key: str) -> list[str]:
        """Return the names in a folder; none where that cannot be told."""

    def kvstore(self, key: str) -> dict[str, Any] | None:
        """Return how tensorstore opens a folder, None where it shall not."""

    def opened(self) -> Any:
        """Return it as zarr-python opens it."""

    def stamp(self, key: str) -> dict[str, Any]:
        """Return what changes when a file is written again."""


@dataclass(frozen=True)
class FolderStore:
    """A folder of this machine.

    Parameters
    ----------
    name : str
        Its path.
    """

    name: str

    def get(self, key: str) -> bytes | None:
        """Return the content of a file."""
        try:
            return Path(self.name, key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except ValueError as error:  # no path at all
            raise ValueError(f"{self.name} names {key!r} in it: {said(error)}.") from error

    def children(self, key: str) -> list[str]:
        """Return the names in a folder."""
        try:
            return sorted(os.listdir(Path(self.name, key)))
        except (OSError, ValueError):
            return []

    def kvstore(self, key: str) -> dict[str, Any] | None:
        """Return how tensorstore opens a folder."""
        return {"driver": "file", "path": os.path.join(os.path.abspath(self.name), key) + "/"}

    def opened(self) -> Any:
        """Return it as zarr-python opens it."""
        from zarr.storage import LocalStore

        return LocalStore(self.name, read_only=True)

    def stamp(self, key: str) -> dict[str, Any]:
        """Return when a file was written."""
        return {"mtime_ns": os.stat(os.path.join(self.name, key)).st_mtime_ns}


@dataclass(frozen=True)
class ZipFileStore:
    """A hierarchy in a zip file.

    Parameters
    ----------
    path : str
        Of the zip file.
    inner : str
        What was named in it; empty for the root.
    """

    path: str
    inner: str = ""

    @property
    def name(self) -> str:
        """Path of the zip file, and in it."""
        return f"{self.path}/{self.inner}" if self.inner else self.path

    @cached_property
    def _names(self) -> frozenset[str]:
        try:
            with zipfile.ZipFile(self.path) as packed:
                return frozenset(packed.namelist())
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"{self.path} cannot be read as a zip file: {said(error)}. Copy it again."
            ) from error

    @cached_property
    def root(self) -> str:
        """The prefix of all keys: some programs pack the folder, not what is in it."""
        marks = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
        tops = {name.split("/")[0] for name in self._names}
        packed = len(tops) == 1 and not tops & {*marks, self.inner.split("/")[0]}
        return "/".join(part for part in (*(tops if packed else ()), self.inner) if part)

    def _key(self, key: str) -> str:
        return "/".join(part for part in (self.root, key) if part)

    def get(self, key: str) -> bytes | None:
        """Return the content of a file."""
        if self._key(key) not in self._names:
            return None
        try:
            with zipfile.ZipFile(self.path) as packed:
                return packed.read(self._key(key))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise ValueError(
                f"{self.path} cannot be read as a zip file: {key}: {said(error)}. Copy it again."
            ) from error

    def children(self, key: str) -> list[str]:
        """Return the names in a folder."""
        start = self._key(key) + "/" if self._key(key) else ""
        below = (name[len(start) :] for name in self._names if name.startswith(start))
        return sorted({name.split("/")[0] for name in below} - {""})

    def kvstore(self, key: str) -> dict[str, Any] | None:
        """Return how tensorstore opens a folder in it."""
        base = {"driver": "file", "path": os.path.abspath(self.path)}
        return {"driver": "zip", "base": base, "path": self._key(key) + "/"}

    def opened(self) -> Any:
        """Return it as zarr-python opens it."""
        from zarr.core.sync import sync
        from zarr.storage import StorePath, ZipStore

        # Behind a path, zarr takes a store for opened; it is opened as a coroutine only.
        return StorePath(sync(ZipStore.open(self.path, mode="r")), self.root)

    def stamp(self, key: str) -> dict[str, Any]:
        """Return size and time of the zip file."""
        about = os.stat(self.path)
        return {"bytes": about.st_size, "mtime_ns": about.st_mtime_ns}


def store_of(path: str) -> Store:
    """Return the store of what a user names.

    Parameters
    ----------
    path : str
        A folder, a zip file or a place in one, or a URL.

    Returns
    -------
    Store
        Whose keys start there.
    """
    if "://" in path:
        return RemoteStore(path.rstrip("/"))
    if os.path.isdir(path):
        return FolderStore(path)
    for packed in (Path(path), *Path(path).parents):
        if packed.suffix.lower() == ".zip" and packed.is_file():
            return ZipFileStore(str(packed), Path(path).relative_to(packed).as_posix().strip("."))
    raise FileNotFoundError(f"{path} does not exist.")
