"""Places where a test kills the process: CELLSEG_CRASH=name, or name:n for the n-th passing."""

from __future__ import annotations

import itertools
import os
import signal

__all__ = ["CRASH_SITES", "crash_point", "tears"]

# In the order in which an attempt passes them.
CRASH_SITES: tuple[str, ...] = (
    "claim-made",
    "claim-torn",
    "claim-written",
    "claim-synced",
    "data-made",
    "ledger-made",
    "files-synced",
    "data-torn",
    "data-written",
    "line-torn",
    "line-written",
    "fence-checked",
    "data-synced",
    "ledger-synced",
    "done-made",
    "done-torn",
    "done-written",
    "done-linked",
    "done-synced",
    "done-tidied",
    "released",
    "whole-torn",
    "whole-written",
    "whole-renamed",
)

_NAME, _, _NTH = os.environ.get("CELLSEG_CRASH", "").partition(":")
if _NTH and not _NTH.isdecimal():
    raise ValueError(f"CELLSEG_CRASH needs a name or name:n, got {os.environ['CELLSEG_CRASH']!r}.")
_passings = itertools.count(1)


def crash_point(name: str) -> None:
    """Kill this process if it was asked to die here.

    Parameters
    ----------
    name : str
        The place.
    """
    if name == _NAME and next(_passings) == int(_NTH or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def tears(name: str) -> bool:
    """Return whether a write is to be done in two halves, so that a crash can lie between them.

    Parameters
    ----------
    name : str
        The place between the halves.

    Returns
    -------
    bool
        True only in tests.
    """
    return name == _NAME
