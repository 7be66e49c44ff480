"""A batch of tiles being worked on."""

from __future__ import annotations

import contextlib
import logging
import operator
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from cellseg_pipe.ledger._adopt import adopt
from cellseg_pipe.ledger._attempt import Attempt, Blob, views_of
from cellseg_pipe.ledger._claims import read_holder, release_claim, take_token
from cellseg_pipe.ledger._crash import crash_point
from cellseg_pipe.ledger._done import (
    Done,
    Segment,
    checksum_of,
    keys_checksum_of,
    read_done,
    write_done,
)
from cellseg_pipe.ledger._errors import Fenced, LedgerError, StageFiles
from cellseg_pipe.ledger._files import make_folder
from cellseg_pipe.ledger._lines import info_text
from cellseg_pipe.ledger._stop import Pace, Stopped

__all__ = ["Batch", "Sync", "open_batch", "passing_over"]

log = logging.getLogger(__name__)

PASSED_OVER: ContextVar[int] = ContextVar("PASSED_OVER", default=0)


@contextlib.contextmanager
def passing_over(n: int) -> Iterator[None]:
    """Have batches that are opened meanwhile begin with a later tile, and end with the first ones.

    A tile that has ended an attempt would end the next one before it comes to the others.

    Parameters
    ----------
    n : int
        How many of the missing tiles come last.

    Yields
    ------
    None
        Nothing.
    """
    before = PASSED_OVER.set(n)
    try:
        yield
    finally:
        PASSED_OVER.reset(before)


@dataclass(frozen=True)
class Sync:
    """How often finished tiles are brought onto the disk; a power cut costs those since.

    Parameters
    ----------
    every_tiles : int
        After so many tiles.
    every_s : float
        With the first tile after so many seconds.
    """

    every_tiles: int = 16
    every_s: float = 5.0


def open_batch(
    stage_paths: StageFiles,
    number: int,
    keys: Iterable[int],
    *,
    job: str = "",
    sync: Sync | None = None,
    takeover: bool = False,
) -> Batch:
    """Claim a batch and take over what earlier attempts have finished.

    Parameters
    ----------
    stage_paths : StageFiles
        Of the stage.
    number : int
        Of the batch, from 0.
    keys : iterable of int
        Its tiles, in the order of the work.
    job : str
        What the caller says of itself, such as the number of a Slurm job.
    sync : Sync, optional
        How often to sync.
    takeover : bool
        Take the batch from a process on this machine that still works on it. By default that is
        refused (`Held`).

    Returns
    -------
    Batch
        To be used in a `with` statement. If the batch is done, nothing is claimed.
    """
    batch = Batch(stage_paths, number, keys, sync=sync or Sync())
    batch._claim(job, takeover=takeover)
    return batch


class Batch:
    """A batch of tiles, opened by `open_batch`.

    What is added is kept, however the `with` statement is left; only `finish` makes the batch done.
    Threads may add side by side.

    Parameters
    ----------
    stage_paths : StageFiles
        Of the stage.
    number : int
        Of the batch.
    keys : iterable of int
        Its tiles.
    sync : Sync
        How often to sync.

    Attributes
    ----------
    done : bool
        Whether the batch is done.
    token : int or None
        The fencing token; None if the batch was done before.
    adopted : int
        Tiles taken over from earlier attempts.
    """

    def __init__(
        self, stage_paths: StageFiles, number: int, keys: Iterable[int], *, sync: Sync
    ) -> None:
        self.number = number
        self.keys = tuple(operator.index(key) for key in keys)
        self.done = False
        self.token: int | None = None
        self.adopted = 0
        self._paths = stage_paths
        self._title = f"batch {number} of {stage_paths.title}"
        self._wanted = frozenset(self.keys)
        self._keys_checksum = keys_checksum_of(self.keys)
        if number < 0 or len(self._wanted) < len(self.keys):
            raise ValueError(
                f"{self._title} needs a number from 0 and distinct tiles, got {len(self.keys)}"
                f" tiles of which {len(self._wanted)} are distinct."
            )
        self._crcs: dict[int, int] = {}
        self._segments: list[Segment] = []
        self._attempt: Attempt | None = None
        self._closed = False
        self._passed_over = PASSED_OVER.get()
        self._sync = sync
        self._last_sync = time.monotonic()
        self._pace = Pace()
        self._lock = threading.RLock()

    def _claim(self, job: str, *, takeover: bool) -> None:
        if self._look_if_done():
            return
        paths, number = self._paths, self.number
        files = paths.data(number, 0), paths.ledger(number, 0), paths.claim(number, 0)
        for path in (*files, paths.done(number)):
            make_folder(path.parent)
        self.token = take_token(paths, number, job=job, takeover=takeover)
        try:
            self._segments, self._crcs = adopt(paths, number, below=self.token, keys=self._wanted)
            self.adopted = len(self._crcs)
            if self.missing:
                data, ledger = paths.data(number, self.token), paths.ledger(number, self.token)
                self._attempt = Attempt(data, ledger)
        except BaseException:
            self._close()
            raise
        counts = len(self.keys), self.adopted
        log.info("%s, attempt %d: %d tiles, %d taken over", self._title, self.token, *counts)

    def _look_if_done(self) -> bool:
        path = self._paths.done(self.number)
        if not path.exists():
            return False
        if read_done(self._paths, self.number).keys_checksum != self._keys_checksum:
            raise LedgerError(
                f"{self._title} needs the tiles that it was done with, got others: {path} is of a"
                " plan with another order or number of batches. Choose those again, or remove"
                f" {self._paths.root} to make this stage anew."
            )
        self.done = True
        return True

    @property
    def missing(self) -> tuple[int, ...]:
        """The tiles that are still to do, in the order of the work."""
        if self.done:
            return ()
        missing = tuple(key for key in self.keys if key not in self._crcs)
        n = self._passed_over % max(1, len(missing))
        return missing[n:] + missing[:n]

    def add(
        self,
        key: int,
        blob: Blob | Sequence[Blob] = b"",
        *,
        blank: bool = False,
        info: dict[str, Any] | None = None,
    ) -> None:
        """Keep a finished tile, and raise `Stopped` if there is no time for another one.

        Parameters
        ----------
        key : int
            The tile, one of `missing`.
        blob : bytes, memoryview or array, or a list or tuple of such
            Its content, written one after the other.
        blank : bool
            Whether there is nothing in it.
        info : dict of str, optional
            Plain values that readers get without the blob.
        """
        key = operator.index(key)
        views, text = views_of(blob), info_text(key, info)
        with self._lock:
            if self._attempt is None or key not in self._wanted or key in self._crcs:
                raise LedgerError(
                    f"{self._title} needs one of its tiles that are missing, while it is open, got"
                    f" tile {key}. Go through `missing`, inside the `with` statement."
                )
            self._crcs[key] = self._attempt.append(key, views, blank=blank, info=text)
            waited_s = time.monotonic() - self._last_sync
            if self._attempt.unsynced >= self._sync.every_tiles or waited_s >= self._sync.every_s:
                self.sync()
            self._pace.tile()
            if len(self._crcs) < len(self.keys) and (why := self._pace.check()):
                self._stop(why)

    def _stop(self, why: str) -> None:
        self.sync()
        counts = len(self.missing), len(self.keys)
        log.warning("%s stops with %d of %d tiles to do: %s", self._title, *counts, why)
        raise Stopped(why)

    def sync(self) -> None:
        """Bring what was added onto the disk; raise `Fenced` if the batch was taken over."""
        with self._lock:
            self._check_fence()
            crash_point("fence-checked")
            if self._attempt is not None and self._attempt.unsynced:
                self._attempt.sync()
            self._last_sync = time.monotonic()

    def finish(self) -> Done:
        """Make the batch done. Every tile must be there, and no other process have taken it over.

        Returns
        -------
        Done
            What counts. Where another attempt was faster, that is its own.
        """
        with self._lock:
            if self.done:
                return read_done(self._paths, self.number)
            if self.missing or self._closed:
                raise LedgerError(
                    f"{self._title} needs all its tiles, and to be open, before it is done; got"
                    f" {len(self.missing)} missing tiles: {self.missing[:5]} ..."
                )
            self.sync()
            if self._attempt is not None:
                self._segments.append(self._attempt.segment(self._paths.root))
            checksum = checksum_of(self._crcs)
            mine = Done(len(self.keys), tuple(self._segments), checksum, self._keys_checksum)
            path = self._paths.done(self.number)
            first = write_done(path, mine, name=f"{self.token}", check=self._check_fence)
            self.done = True
            self._close()
            done = mine if first else read_done(self._paths, self.number)
            if done.checksum != mine.checksum:
                log.warning(
                    "%s was done by another attempt meanwhile, with other content (%s, here %s):"
                    " its numbers depend on the machine. What is stored is of one piece.",
                    *(self._title, done.checksum, mine.checksum),
                )
            return done

    def _check_fence(self) -> None:
        if self.token is None:
            return
        later = self.token
        while self._paths.claim(self.number, later + 1).exists():
            later += 1
        if later > self.token:
            holder = read_holder(self._paths.claim(self.number, later))
            raise Fenced(
                f"{self._title} was taken over by {holder or 'another process'} (attempt {later},"
                f" this is {self.token}). This attempt stops; its finished tiles are kept."
            )

    def _close(self) -> None:
        """Let go; whatever fails now costs no more than what was not synced."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            try:
                with contextlib.closing(attempt):
                    if attempt.unsynced:
                        attempt.sync()
            except (OSError, LedgerError) as error:
                log.warning("%s: the last tiles may be made again: %s", self._title, error)
        if self.token is not None and not self._closed:
            release_claim(self._paths.claim(self.number, self.token))
            crash_point("released")
        self._closed = True

    def __enter__(self) -> Batch:
        """Return the batch, which is open already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the batch; what was added is kept."""
        with self._lock:
            self._close()
