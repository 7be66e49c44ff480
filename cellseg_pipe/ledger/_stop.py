"""When a batch stops before it is done: its time is nearly up, or it was told to.

What is finished is kept, and the next attempt goes on from there.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections import deque
from types import FrameType

__all__ = ["STATUS", "Pace", "Stopped", "stop_in_time"]

log = logging.getLogger(__name__)

STATUS = 75  # of a process that stopped: try again (EX_TEMPFAIL)
RESERVE_S = 10.0  # to bring the last tiles onto the disk, and for Python to end
RECENT = 200  # tiles whose times count
TILES_LEFT = 2  # of which there must be time for before another one is begun


class Stopped(SystemExit):
    """The process ends with a status of its own: no error, and not done either."""

    def __init__(self, why: str) -> None:
        super().__init__(STATUS)
        self.why = why

    def __str__(self) -> str:
        """Return why."""
        return self.why


class _Asked:
    """What this process was told: when its time is up, and whether to stop at the next tile."""

    def __init__(self) -> None:
        self.end = math.inf  # seconds since 1970
        self.soon = ""


_asked = _Asked()


def stop_in_time(end: float | None) -> None:
    """Have batches of this process stop before its time is up, or when they are told to.

    SIGTERM, as Slurm sends it some seconds before it kills a job, stops at once: a tile may take
    longer than these. SIGUSR1, which a user may send ahead, stops after the tile in work.

    Parameters
    ----------
    end : float or None
        When the time is up, in seconds since 1970; None if nothing limits it.
    """
    _asked.end = math.inf if end is None else end
    signal.signal(signal.SIGTERM, _at_once)
    signal.signal(signal.SIGUSR1, _soon)


def _at_once(number: int, _frame: FrameType | None) -> None:
    _soon(number, None)
    log.warning("stops: %s; what is finished is kept", _asked.soon)
    raise Stopped(_asked.soon)


def _soon(number: int, _frame: FrameType | None) -> None:
    _asked.soon = f"got {signal.Signals(number).name}"


class Pace:
    """How long the tiles of a batch take."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._took: deque[float] = deque(maxlen=RECENT)

    def tile(self) -> None:
        """Note that a tile is finished."""
        now = time.monotonic()
        self._took.append(now - self._last)
        self._last = now

    @property
    def slow_s(self) -> float:
        """What all but one in twenty of the last tiles took at most."""
        times = sorted(self._took)
        return times[math.ceil(0.95 * len(times)) - 1] if times else 0.0

    def check(self) -> str:
        """Return why no further tile is to be begun; nothing if one may.

        Returns
        -------
        str
            For a log.
        """
        if _asked.soon:
            return _asked.soon
        left_s = _asked.end - time.time()
        if left_s >= TILES_LEFT * self.slow_s + RESERVE_S:
            return ""
        return f"{max(left_s, 0):.0f} s of its time are left, and a tile takes {self.slow_s:.1f} s"
