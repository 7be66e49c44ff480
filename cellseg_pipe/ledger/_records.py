"""Reads the tiles of a finished stage: an index in arrays, blobs and infos from the files."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.ledger._errors import Corrupt, StageFiles
from cellseg_pipe.ledger._index import Index, OpenFile, corrupt, load_index

__all__ = ["Records"]

OPEN_FILES = 32


class Records:
    """The finished tiles of a stage, by key; only what done files name is opened.

    The index of a batch is read when it is first needed, and takes 80 bytes a tile. Threads may
    read side by side; a copy sent to another process reads its index anew.

    Parameters
    ----------
    stage_paths : StageFiles
        Of the stage.
    n_batches : int
        How many batches it has.
    batch_of : callable, optional
        From the key of a tile to its batch. Without it the first question reads all indices.
    """

    def __init__(
        self,
        stage_paths: StageFiles,
        n_batches: int,
        *,
        batch_of: Callable[[int], int] | None = None,
    ) -> None:
        self._paths = stage_paths
        self._n_batches = n_batches
        self._batch_of = batch_of
        self._indices: dict[int, Index] = {}
        self._open = functools.lru_cache(maxsize=OPEN_FILES)(OpenFile)

    def __reduce__(self) -> tuple[Any, ...]:
        make = functools.partial(Records, batch_of=self._batch_of)
        return make, (self._paths, self._n_batches)

    def __len__(self) -> int:
        """Return how many tiles there are."""
        return len(self.keys())

    def __contains__(self, key: int) -> bool:
        """Return whether there is a tile."""
        return self._place(key) is not None

    def keys(self) -> NDArray[np.int64]:
        """Return the keys of all tiles.

        Returns
        -------
        int64 array [n]
            Ascending.
        """
        return self._all[0]

    def is_blank(self, key: int) -> bool:
        """Return whether there is nothing in a tile.

        Parameters
        ----------
        key : int
            The tile.

        Returns
        -------
        bool
            As it was added.
        """
        index, row = self._find(key)
        return bool(index.rows["blank"][row])

    def info(self, key: int) -> dict[str, Any]:
        """Return what was said of a tile.

        Parameters
        ----------
        key : int
            The tile.

        Returns
        -------
        dict of str
            As it was added; empty if nothing was said.
        """
        index, row = self._find(key)
        line = index.rows[row]
        path = self._paths.root / index.segments[line["segment"]].ledger
        text = self._read(path, int(line["info_start"]), int(line["info_bytes"]))
        return self._info(key, path, text)

    def infos(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each key with what was said of it, reading each ledger once.

        Yields
        ------
        key : int
            Ascending within a batch.
        info : dict of str
            As it was added.
        """
        for batch in range(self._n_batches):
            index = self._index(batch)
            paths = [self._paths.root / segment.ledger for segment in index.segments]
            texts = [
                self._read(path, 0, segment.ledger_bytes)
                for path, segment in zip(paths, index.segments, strict=True)
            ]
            for row in index.rows:
                number, start = int(row["segment"]), int(row["info_start"])
                text = texts[number][start : start + int(row["info_bytes"])]
                yield int(row["key"]), self._info(int(row["key"]), paths[number], text)

    def read(self, key: int) -> bytes:
        """Return the blob of a tile.

        Parameters
        ----------
        key : int
            The tile.

        Returns
        -------
        bytes
            As it was added; checked.
        """
        index, row = self._find(key)
        line = index.rows[row]
        path = self._paths.root / index.segments[line["segment"]].data
        blob = self._read(path, int(line["offset"]), int(line["bytes"])) if line["bytes"] else b""
        if len(blob) != line["bytes"] or zlib.crc32(blob) != line["crc"]:
            raise corrupt(self._paths, f"tile {key} in {path} is not as it was written")
        return blob

    def _read(self, path: Path, offset: int, n_bytes: int) -> bytes:
        try:
            return self._open(path).read(offset, n_bytes)
        except FileNotFoundError as error:
            raise corrupt(self._paths, f"{path} is gone") from error

    def _info(self, key: int, path: Path, text: bytes) -> dict[str, Any]:
        try:
            info: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise corrupt(self._paths, f"what {path} says of tile {key} cannot be read") from error
        return info

    def _find(self, key: int) -> tuple[Index, int]:
        place = self._place(key)
        if place is None:
            raise KeyError(f"{self._paths.title} has no tile {key}.")
        return place

    def _place(self, key: int) -> tuple[Index, int] | None:
        if self._batch_of is not None:
            batch = self._batch_of(key)
        else:
            keys, batches = self._all
            position = int(np.searchsorted(keys, key))
            if position == len(keys) or keys[position] != key:
                return None
            batch = int(batches[position])
        index = self._index(batch)
        row = index.find(key)
        return None if row is None else (index, row)

    @functools.cached_property
    def _all(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """All keys, ascending, and the batch of each."""
        found = [self._index(batch).keys for batch in range(self._n_batches)]
        keys = np.concatenate([np.empty(0, np.int64), *found])
        batches = np.repeat(np.arange(len(found), dtype=np.int32), [len(part) for part in found])
        order = np.argsort(keys, kind="stable")
        keys, batches = keys[order], batches[order]
        if len(twice := np.flatnonzero(keys[1:] == keys[:-1])):
            key, pair = keys[twice[0]], batches[twice[0] : twice[0] + 2].tolist()
            raise Corrupt(
                f"{self._paths.title}: tile {key} is in two batches, {pair}: they are of two plans."
                f" Remove {self._paths.root} to make this stage anew."
            )
        return keys, batches

    def _index(self, batch: int) -> Index:
        if batch not in self._indices:
            self._indices[batch] = load_index(self._paths, batch)
        return self._indices[batch]
