"""How far a stage is, told from its files while it runs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg_pipe.ledger._claims import Holder, read_holder
from cellseg_pipe.ledger._done import read_done
from cellseg_pipe.ledger._errors import StageFiles
from cellseg_pipe.ledger._lines import parse

__all__ = ["Active", "Progress", "progress", "tiles_found"]

WINDOW_S = 300.0  # over which the rate is taken


@dataclass(frozen=True)
class Active:
    """A batch that somebody has claimed and not let go of.

    Parameters
    ----------
    batch, token : int
        Number of the batch and of the attempt.
    holder : Holder
        Host, pid, job, since when.
    alive : bool or None
        Whether the process still runs; None on another machine.
    """

    batch: int
    token: int
    holder: Holder
    alive: bool | None


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Parameters
    ----------
    n_batches, n_tiles : int
        All there are.
    batches_done, tiles_done : int
        How many are finished; tiles of batches in work too.
    active : tuple of Active
        Batches in work.
    last_activity : float or None
        When a claim or tile was last written, in seconds since 1970.
    tiles_per_s : float
        Over the last minutes.
    """

    n_batches: int
    n_tiles: int
    batches_done: int
    tiles_done: int
    active: tuple[Active, ...]
    last_activity: float | None
    tiles_per_s: float


def progress(stage_paths: StageFiles, n_batches: int, n_keys: int) -> Progress:
    """Look how far a stage is. Nothing is locked, and blobs are not read.

    Parameters
    ----------
    stage_paths : StageFiles
        Of the stage.
    n_batches : int
        How many batches it has.
    n_keys : int
        How many tiles it has.

    Returns
    -------
    Progress
        At this moment.
    """
    batches_done = tiles_done = 0
    active: list[Active] = []
    written: list[float] = []
    times: list[NDArray[np.float64]] = []
    now = time.time()
    attempts = stage_paths.attempts()
    for batch in range(n_batches):
        tokens = attempts.get(batch, ())
        done = stage_paths.done(batch).exists()
        ledgers = [stage_paths.ledger(batch, token) for token in tokens]
        changed = [_changed(path) for path in ledgers]
        written += [*changed, *(_changed(stage_paths.claim(batch, token)) for token in tokens)]
        parsed = [
            parse(path.read_bytes())
            for path, when in zip(ledgers, changed, strict=True)
            if when and (not done or when > now - WINDOW_S)
        ]
        times += [lines["time"] for lines in parsed]
        if done:
            batches_done += 1
            tiles_done += read_done(stage_paths, batch).n_tiles
        elif tokens:
            tiles_done += len({key for lines in parsed for key in lines["key"].tolist()})
            active += _active(stage_paths, batch, tokens[-1])
    return Progress(
        n_batches=n_batches,
        n_tiles=n_keys,
        batches_done=batches_done,
        tiles_done=tiles_done,
        active=tuple(active),
        last_activity=max(written, default=0.0) or None,
        tiles_per_s=_rate(times, now),
    )


def tiles_found(stage_paths: StageFiles, batch: int) -> tuple[int, frozenset[int]]:
    """Look how far a batch is that is not done.

    Parameters
    ----------
    stage_paths : StageFiles
        Of the stage.
    batch : int
        Number of the batch.

    Returns
    -------
    int
        The highest token: it grows with each attempt. 0 if nobody has begun.
    frozenset of int
        Its tiles that attempts have finished.
    """
    tokens = stage_paths.attempts().get(batch, ())
    ledgers = (stage_paths.ledger(batch, token) for token in tokens)
    parsed = [parse(path.read_bytes()) for path in ledgers if path.exists()]
    return max(tokens, default=0), frozenset(k for lines in parsed for k in lines["key"].tolist())


def _changed(path: os.PathLike[str]) -> float:
    """Return when a file was last written to; 0 if there is none."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _active(paths: StageFiles, batch: int, token: int) -> list[Active]:
    holder = read_holder(paths.claim(batch, token))
    if holder is None or holder.released:
        return []
    return [Active(batch, token, holder, holder.alive)]


def _rate(times: list[NDArray[np.float64]], now: float) -> float:
    """Return tiles per second from the first tile of the window to now."""
    all_times = np.concatenate([np.empty(0), *times])
    recent = all_times[all_times > now - WINDOW_S]
    if len(recent) < 2:
        return 0.0
    return float((len(recent) - 1) / max(now - recent.min(), 1e-3))
